"""How a result was made, in words to copy: the call, the versions, a methods paragraph, references.

Nothing is said that the result does not know: `Results.options` holds what `jaxvp.fit` was told.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import NamedTuple

from jaxvp.results import Results


class Reference(NamedTuple):
    """What to cite for what."""

    what: str
    text: str
    doi: str | None


class Methods(NamedTuple):
    """All that stands at the end of a report."""

    call: str
    paragraph: str
    versions: dict[str, str]
    references: list[Reference]


JAXVP = Reference("The software", "jaxvp {version}: exact linear mixed models on JAX.", None)
VARIANCE_PARTITION = Reference(
    "The variance fractions, their violins and bars, canonical correlations",
    "Hoffman GE, Schadt EE (2016). variancePartition: interpreting drivers of variation in complex "
    "gene expression studies. BMC Bioinformatics 17:483.",
    "10.1186/s12859-016-1323-z",
)
LME4 = Reference(
    "The likelihood of the mixed model and its parameters",
    "Bates D, Mächler M, Bolker B, Walker S (2015). Fitting linear mixed-effects models using "
    "lme4. Journal of Statistical Software 67(1):1–48.",
    "10.18637/jss.v067.i01",
)


def describe(result: Results, call: str | None) -> Methods:
    """The call (as it was given, or rebuilt from the result), versions and references."""
    made_by = result.versions.get("jaxvp") or version("jaxvp")
    mixed = result.theta.shape[1] > 0
    own = JAXVP._replace(text=JAXVP.text.format(version=made_by))
    references = [own, VARIANCE_PARTITION, *([LME4] if mixed else [])]
    return Methods(
        call=python_call(result) if call is None else call,
        paragraph=paragraph(result, made_by),
        versions=result.versions,
        references=references,
    )


def python_call(result: Results) -> str:
    """The call of `jaxvp.fit` that made the result, with every option that it knows of."""
    options = dict(result.options) or {"reml": result.reml}
    if result.weighted:
        options = {"weights": None} | options
    lines = ["expression,", f"{result.formula!r},", "metadata,"]
    for name, value in options.items():
        lines.append(f"{name}=weights," if name == "weights" else f"{name}={value!r},")
    return "\n".join(["result = jaxvp.fit(", *(f"    {line}" for line in lines), ")"])


def paragraph(result: Results, made_by: str) -> str:
    """A sentence or two for the methods section of a paper."""
    genes = len(result.fractions)
    samples = "" if result.design is None else f" in {result.design.n:,} samples"
    mixed = result.theta.shape[1] > 0
    model = "a linear mixed model" if mixed else "a linear model"
    how = ("restricted maximum likelihood" if result.reml else "maximum likelihood") + (
        ", each gene to a certified optimum"
    )
    how = how if mixed else "least squares"
    weights = " with observation weights" if result.weighted else ""
    sources = (
        "Hoffman and Schadt, 2016; likelihood: Bates et al., 2015"
        if mixed
        else "Hoffman and Schadt, 2016"
    )
    return (
        f"The variance of {genes:,} genes{samples} was partitioned with jaxvp {made_by}: for every "
        f"gene {model} with the formula {result.formula.strip()} was fitted by {how}{weights}, and "
        f"the fraction of the gene's variance that each term explains was computed as in "
        f"variancePartition ({sources})."
    )
