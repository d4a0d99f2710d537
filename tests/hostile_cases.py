"""Studies whose model is known: variables as plain arrays, a formula, and what it means.

The columns of X and the indicators of the random terms that belong to a formula are made here, not
by jaxvp. Formulas come from few shapes (`SHAPES`), so that compiled programs are shared.
"""

import re
from typing import NamedTuple

import numpy as np
from dense import Model
from hypothesis import strategies as st

N, GENES = 18, 4
NAMES = [
    *("x", "Body Weight", "größe", "if", "1st", "a+b", "🧬", "__class__", "Age[T.B]", "日本"),
    *("None", "~", "(1|g)", "'; drop", '"quoted"', "{0}", "%s", "tab\there", "line\nbreak", " "),
    *("lambda: 0", "np", "__import__('os')", "True", "0", "1", "I(x)", "Intercept2", "x:y", "x.y"),
]  # fmt: skip


class Study(NamedTuple):
    """What the call means."""

    formula: str
    pattern: str  # the formula with roles in braces
    reml: bool
    columns: dict[str, np.ndarray]  # variables by their role
    names: dict[str, str]  # roles -> names of the columns
    X: np.ndarray
    terms: list[list[int]]  # columns of X of the fixed components
    random: dict[str, list[np.ndarray]]  # by group: indicators of a term's components
    components: list[str]  # names of the random components, in formula order
    Y: np.ndarray  # samples x genes
    expected: list[str]  # the status of every gene; "?" if it depends
    kinds: list[str]  # of the genes
    shape: str
    labels: tuple = ()  # names of the samples, once it is dressed
    weights: np.ndarray | None = None  # samples x genes
    rescale: bool = True

    @property
    def used(self):
        """Roles in the formula."""
        return {role for role in self.names if re.search(f"{{{role}}}", self.pattern)}

    @property
    def numbers(self):
        """Roles that are read as numbers."""
        return self.used & {"x", "z", "w"}

    @property
    def fixed(self):
        """Roles whose levels are columns of X, in this order."""
        return {"t"} & set(re.findall(r"\{(\w)\}", re.sub(r"\([^()]*\|[^()]*\)", "", self.pattern)))

    @property
    def slopes(self):
        """Whether a term has one."""
        return any(len(block) > 1 for block in self.random.values()) or "{x}|" in self.pattern

    @property
    def weightable(self):
        """Whether its genes may have weights, or holes, which take a program of their own."""
        return self.shape in OWN and not self.slopes

    def weighted(self, weights, rescale):
        """The same with weights, samples x genes."""
        infinite = (np.isinf(self.Y) & (weights > 0)).any(axis=0)
        expected = [
            "?" if status == "non_finite" and not counts else status
            for status, counts in zip(self.expected, infinite, strict=True)
        ]
        return self._replace(weights=weights, rescale=rescale, expected=expected)

    def model(self, gene):
        """Of one gene, on the observations that it has."""
        there = ~np.isnan(self.Y[:, gene])
        w = None
        if self.weights is not None:
            w = self.weights[:, gene]
            there &= w > 0
        found = Model(self.X, tuple(map(tuple, self.random.values())), self.reml, w).observed(there)
        if w is not None and self.rescale:
            found = found._replace(weights=found.weights / found.weights.mean())
        return found, self.Y[there, gene]


# ---- the model ----------------------------------------------------------------------------------


def quoted(name, plain):
    return (
        name
        if plain and name.isidentifier() and name not in ("if", "None", "True")
        else f"`{name}`"
    )


def variables(rng):
    """By role: numbers x, z and positive w, two levels t, and grouping factors a and b."""
    steps = np.arange(N) * 0.25
    return {
        "x": rng.permutation(steps) - 2,
        "z": rng.permutation(steps) - 1.5,
        "w": rng.permutation(steps) + 0.5,
        "t": rng.permutation(np.arange(N) % 2),
        "a": rng.permutation(np.arange(N) % 6),
        "b": rng.permutation(np.arange(N) % 2),
    }


# Fixed terms that give one column: text, and how it is computed.
ONE = {
    "{x}": lambda v: v["x"],
    "scale({x})": lambda v: (v["x"] - v["x"].mean()) / v["x"].std(ddof=1),
    "scale({z}, scale=False)": lambda v: v["z"] - v["z"].mean(),
    "center( {z} )": lambda v: v["z"] - v["z"].mean(),
    "I({x}^2)": lambda v: v["x"] ** 2,
    "I(-{x} + {z}/4 ** 2)": lambda v: -v["x"] + v["z"] / 16,
    "{x}:{z}": lambda v: v["x"] * v["z"],
    "log({w})": lambda v: np.log(v["w"]),
    "log2({w} * 3)": lambda v: np.log2(v["w"] * 3),
    "log1p({w})": lambda v: np.log1p(v["w"]),
    "sqrt({w})": lambda v: np.sqrt(v["w"]),
    "scale(log(I({w} + 1)))": lambda v: scaled(np.log(v["w"] + 1)),
    "poly({x}, 1, raw=TRUE)": lambda v: v["x"],
    "C({t})": lambda v: v["t"],
    "factor({t})": lambda v: v["t"],
    "{t}": lambda v: v["t"],
}
MORE = {
    "{x} + {z}": lambda v: [v["x"], v["z"]],
    "{x}*{z}": lambda v: [v["x"], v["z"], v["x"] * v["z"]],
    "({x} + {z} + {w})^2 - {x}:{w}": lambda v: [
        *(v["x"], v["z"], v["w"], v["x"] * v["z"], v["z"] * v["w"])
    ],
    "{x} + C({t})": lambda v: [v["x"], v["t"]],
}
# The shapes whose programs are compiled: random terms, and the likelihood.
SHAPES = {
    "none": ([[""]], False),
    "one": ([["(1|{a})"], ["( 1 | {a} )"], ["(1||{a})"]], False),
    "two": ([["(1|{a})", "(1|{b})"], ["(1|{b})", "(1|{a})"]], True),
    "slopes": ([["({x}|{a})"], ["(1 + {z}|{a})"]], False),
}
# Genes of these may have holes or weights. Of "one" all have weights: a second program is saved.
OWN = ("none", "one", "other")
OTHERS = [
    ["(1|{a}/{t})"],
    ["(1|{b}:{t})"],
    ["(0 + {x}|{a})"],
    ["({x}||{a})"],
    ["(1|{t})", "(1|{a})"],
]


def scaled(x):
    return (x - x.mean()) / x.std(ddof=1)


def indicator(*codes):
    """Samples x levels that occur, of one factor or of the interaction of several."""
    pairs = np.unique(np.stack(codes, axis=1), axis=0, return_inverse=True)[1].reshape(-1)
    return np.eye(pairs.max() + 1)[pairs]


def random_terms(texts, v, names):
    """Blocks by their texts, and the names of the components."""
    blocks, components = {}, []
    for text in texts:
        left, right = text.strip("( )").replace("||", "|").split("|")
        left, group = left.strip(), right.replace("{", "").replace("}", "").strip()
        slope = {"{x}": "x", "1 + {z}": "z", "0 + {x}": "x"}.get(left)
        outer, _, inner = group.partition("/")
        groups = [[outer], [inner, outer]] if inner else [group.split(":")]
        for one in groups:
            Z, name = indicator(*(v[g] for g in one)), ":".join(names[g] for g in one)
            own = [] if left.startswith("0") else [(name, Z)]
            own += [(f"{name}.{names[slope]}", v[slope][:, None] * Z)] if slope else []
            components += [each for each, _ in own]
            apart = "||" in text
            for i, part in enumerate([[Z] for _, Z in own] if apart else [[Z for _, Z in own]]):
                blocks[f"{text} {one} {i}"] = part
    return blocks, components


def genes(draw, rng, X, blocks, slopes, holes):
    """Measurements of some genes, each of a kind, and what must become of it."""
    kinds, columns, expected = [], [], []
    for _ in range(GENES):
        kind = draw(st.sampled_from(KINDS + HOLES * holes))
        scale = SCALES.get(kind, 1.0)
        y = 3 * rng.standard_normal() + X @ rng.standard_normal(X.shape[1])
        for block in blocks.values():
            for Z in block:
                y = y + Z @ rng.standard_normal(Z.shape[1]) * rng.choice([0, 0.3, 2])
        y = (y + rng.standard_normal(N)) * scale
        status = "converged"
        if kind == "offset":
            y = y + 1e6
        elif kind == "constant":
            y, status = np.full(N, y[0]), "zero_variance"
        elif kind == "zeros":
            y, status = np.zeros(N), "zero_variance"
        elif kind in ("infinite", "minus"):
            y[rng.integers(N)], status = np.inf if kind == "infinite" else -np.inf, "non_finite"
        elif kind == "missing":
            y[rng.choice(N, rng.integers(1, 4), replace=False)] = np.nan
            status = "?" if slopes else "converged"
        elif kind == "few":
            y[rng.choice(N, N - rng.integers(0, 5), replace=False)] = np.nan
            status = "?"
        elif kind == "explained":
            y, status = X @ np.arange(1.0, X.shape[1] + 1), "zero_residual"
            status = status if np.ptp(y) else "zero_variance"
        kinds.append(kind)
        columns.append(y)
        expected.append(status)
    return np.stack(columns, axis=1), expected, kinds


SCALES = {"huge": 1e200, "tiny": 1e-200, "largest": 1e300, "smallest": 1e-290}
HOLES = ["missing", "few"]
KINDS = [
    *["plain"] * 4,
    *("huge", "tiny", "largest", "smallest", "offset", "constant", "zeros", "infinite", "minus"),
    "explained",
]


@st.composite
def studies(draw):
    """A study of one of the shapes, mostly."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    v = variables(rng)
    roles = list(v)
    chosen = draw(st.lists(st.sampled_from(NAMES), min_size=6, max_size=6, unique=True))
    names = dict(zip(roles, chosen, strict=True))
    shape = draw(st.sampled_from([*SHAPES] * 3 + ["other"]))
    if shape == "other":
        reml = draw(st.booleans())
        texts = draw(st.sampled_from([*OTHERS, *SHAPES["two"][0]]))
        fixed = draw(st.sampled_from(sorted(ONE | MORE)))
    else:
        options, reml = SHAPES[shape]
        texts, fixed = draw(st.sampled_from(options)), draw(st.sampled_from(sorted(ONE)))
    texts = [text for text in texts if text]
    columns = (ONE | MORE)[fixed](v)
    columns = columns if isinstance(columns, list) else [columns]
    X = np.column_stack([np.ones(N), *columns])
    blocks, components = random_terms(texts, v, names)
    slopes = any(re.search(r"\{[xz]\}\|", text) for text in texts)
    Y, expected, kinds = genes(draw, rng, X, blocks, slopes, slopes or shape in OWN)
    plain = draw(st.booleans())
    shown = {role: quoted(name, plain) for role, name in names.items()}
    space = draw(st.sampled_from(["", " ", "  ", "\n"]))
    pattern = f"~{space}" + f"{space}+{space}".join([fixed, *texts])
    terms = [[i] for i in range(1, X.shape[1])]
    study = Study(
        pattern.format(**shown), pattern, reml, v, names, X, terms, blocks, components, Y,
        expected, kinds, shape,
    )  # fmt: skip
    return study, rng
