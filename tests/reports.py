"""Results to report on, without a fit, and a page taken apart by Python's own parser."""

from html.parser import HTMLParser

import numpy as np
import pandas as pd
from fractions_to_draw import table

import jaxvp
from jaxvp.design import build
from jaxvp.formula import Formula

FORMULA = "~ Age + (1|Batch) + (1|Subject) + (1|Tissue)"
NAMES = ["Age", "Batch", "Subject", "Tissue", "Residuals"]
FAILED = {3: "zero_variance", 8: "non_finite", 9: "non_finite"}
VOID = {"br", "img", "input", "link", "meta", "col"}


def metadata(n=60):
    random = np.random.default_rng(5)
    person = np.arange(n) % 12
    return pd.DataFrame(
        {
            "Age": random.integers(20, 80, 12)[person].astype(float),
            "Batch": random.choice(list("abcd"), n),
            "Subject": [f"p{k:02}" for k in person],
            "Tissue": random.choice(["blood", "brain", "skin"], n),
        },
        index=[f"s{i}" for i in range(n)],
    )


def study(genes=200, *, formula=FORMULA, names=NAMES, samples=None, index=None, **changes):
    """A result of a mixed model; some genes are not fitted."""
    fractions = table(genes, names)
    if index is not None:
        fractions.index = index
    status = np.full(genes, "converged", dtype=object)
    for gene, why in FAILED.items():
        if gene < genes:
            fractions.iloc[gene] = np.nan
            status[gene] = why
    design = build(Formula.parse(formula), metadata() if samples is None else samples)
    random = list(design.random_names)
    genes_index = fractions.index
    one = pd.Series(1.0, index=genes_index)
    coefficients = pd.DataFrame(1.0, index=genes_index, columns=list(design.columns))
    diagnostics = pd.DataFrame(
        {
            "status": status,
            "n_obs": design.n,
            "singular": (fractions[random] == 0).any(axis=1),
        },
        index=genes_index,
    )
    given = {
        "fractions": fractions,
        "variances": fractions,
        "coefficients": coefficients,
        "standard_errors": coefficients,
        "theta": fractions[random],
        "sigma": one,
        "log_likelihood": one,
        "diagnostics": diagnostics,
        "design": design,
        "formula": design.formula.text,
        "reml": False,
        "block_size": 2048,
        "options": {"reml": False, "dtype": "float64", "solver": "newton", "block_size": "auto"},
        "versions": {"python": "3.11.0", "jaxvp": "0.0.7", "jax": "0.9.9"},
    }
    return jaxvp.Results(**(given | changes))


class Element:
    """One element of a page with its attributes, its place, and the text inside."""

    def __init__(self, tag, attributes, inside):
        self.tag, self.attributes, self.inside = tag, attributes, inside
        self.pieces = []

    def __getitem__(self, name):
        return self.attributes[name]

    def get(self, name, default=None):
        return self.attributes.get(name, default)

    @property
    def text(self):
        return " ".join("".join(self.pieces).split())


class Page(HTMLParser):
    """All elements in order; refuses tags that are not closed where they were opened."""

    def __init__(self, text):
        super().__init__()
        self.elements, self._open = [], []
        self.feed(text)
        self.close()
        assert not self._open, f"never closed: {[one.tag for one in self._open]}"

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), f"an attribute twice in <{tag}>"
        element = Element(tag, dict(attrs), list(self._open))
        self.elements.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_endtag(self, tag):
        assert self._open and self._open[-1].tag == tag, f"</{tag}> closes nothing"
        self._open.pop()

    def handle_data(self, data):
        for element in self._open:
            element.pieces.append(data)

    def all(self, *tags, **attributes):
        wanted = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()}
        return [
            element
            for element in self.elements
            if (not tags or element.tag in tags)
            and all(element.get(name) == value for name, value in wanted.items())
        ]

    def one(self, *tags, **attributes):
        (found,) = self.all(*tags, **attributes)
        return found

    def inside(self, outer, *tags):
        return [one for one in self.elements if outer in one.inside and one.tag in tags]

    def rows(self, table):
        """The cells of a table's rows, as text."""
        return [
            [cell.text for cell in self.inside(row, "th", "td")] for row in self.inside(table, "tr")
        ]
