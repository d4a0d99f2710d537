"""The same study in other clothes: types, names, containers, samples to drop, options.

Nothing here changes the model that `hostile_cases` drew, and so nothing the result.
"""

import datetime
import decimal
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import scipy.sparse
from hypothesis import strategies as st

DOUBLE = pd.ArrowDtype(pa.float64())
# Six levels each; where the order matters they stand in theirs.
LEVELS = {
    "text": ["", " ", "1", "NaN", "none", "é"],
    "long": [f"{i}" * 5000 for i in range(6)],
    "underscores": ["_", "__", "__a", "__class__", "__hide__", "a__"],
    "whole": [-3, 0, 1, 7, 10**6, 10**12],
    "real": [-np.inf, -0.5, 0.0, 5e-324, 1e300, np.inf],
    "times": [datetime.datetime(2020, 1, i, 3) for i in range(1, 7)],
    "days": [datetime.date(2020, 1, i) for i in range(1, 7)],
    "decimals": [decimal.Decimal(i) / 7 for i in range(6)],
    "bytes": [b"", b"a", b"b", b"c", b"\xff", b"\xff\x00"],
    "pairs": [(1, "a"), (1, "b"), (2, "a"), (2, "b"), (3, ""), (3, "z")],
    "periods": list(pd.period_range("2020-01", periods=6, freq="M")),
    "intervals": list(pd.interval_range(0, 6)),
    "durations": list(pd.to_timedelta(range(6), unit="h")),
    "mixed": [1, "b", 2.5, "d", "é", 40],
    "objects": [object() for _ in range(6)],
    "complex": [1j, 2j, 3j, 4j, 5j, 6j],
}
# Nobody can order them, or they are numbers of a kind that no model has.
UNSURE = ("mixed", "objects", "complex", "pairs", "intervals", "bytes")
FIXED_LEVELS = ("text", "long", "underscores")
TEXT_TYPES = ["str", "object", "string", pd.ArrowDtype(pa.string()), "category"]
NUMBER_TYPES = {
    "float64": lambda v: pd.Series(v, dtype=np.float64),
    "float32": lambda v: pd.Series(v, dtype=np.float32),
    "objects": lambda v: pd.Series(v, dtype=object),
    "decimals": lambda v: pd.Series(
        [None if x is None else decimal.Decimal(x) for x in v], dtype=object
    ),
    "whole and real": lambda v: pd.Series(
        [int(x) if x is not None and x == int(x) else x for x in v], dtype=object
    ),
    "nullable": lambda v: pd.Series(v, dtype="Float64"),
    "arrow": lambda v: pd.Series(v, dtype=DOUBLE),
    "arrow decimals": lambda v: pd.Series(
        [None if x is None else decimal.Decimal(x) for x in v],
        dtype=pd.ArrowDtype(pa.decimal128(8, 2)),
    ),
    "sparse": lambda v: pd.Series(pd.arrays.SparseArray(np.array(v, dtype=np.float64))),
}
ODD = ["", " ", "s\n", "{}", "é", "e\u0301"]
# Names of so many samples.
INDEX = {
    "text": lambda n: pd.Index([f"s{i}" for i in range(n)]),
    "odd text": lambda n: pd.Index([*ODD, *(f"`{i}`" for i in range(n))][:n]),
    "whole": lambda n: pd.Index(100 + 7 * np.arange(n)),
    "real": lambda n: pd.Index(np.arange(n) + 0.5),
    "times": lambda n: pd.date_range("2020-01-01", periods=n, tz="UTC"),
    "periods": lambda n: pd.period_range("2020-01", periods=n, freq="M"),
    "categories": lambda n: pd.CategoricalIndex([f"s{i}" for i in range(n)]),
    "bytes": lambda n: pd.Index([f"s{i}".encode() for i in range(n)]),
    "mixed": lambda n: pd.Index([i + 100 if i % 2 else f"s{i}" for i in range(n)], name=("a", "b")),
    "nullable": lambda n: pd.Index([f"s{i}" for i in range(n)], dtype="string"),
    "arrow": lambda n: pd.Index(1000 + np.arange(n), dtype=pd.ArrowDtype(pa.int64())),
}  # fmt: skip
GENE_NAMES = {
    "text": lambda n: pd.Index([f"g{i}" for i in range(n)], name="gene"),
    "odd": lambda n: pd.Index(["<b>", "a\nb", "\0", "`"])[:n],
    "whole": lambda n: pd.Index(-1 - np.arange(n)),
    "real": lambda n: pd.Index(-np.arange(n) - 0.25),
    "numbered": pd.RangeIndex,
    "times": lambda n: pd.date_range("1900-01-01", periods=n),
    "mixed": lambda n: pd.Index([*"ab", -1, 2.25])[:n],
}


def objects(frame):
    """None where there is nothing."""
    return frame.astype(object).where(frame.notna(), None)


def decimals(frame):
    return frame.astype(object).map(decimal.Decimal)


# Of a table, samples x genes.
FRAMES = {
    "table": lambda f: f,
    "turned": lambda f: f.T,
    "columns apart": lambda f: pd.concat([f[[name]] for name in f], axis=1),
    "nullable": lambda f: f.astype("Float64"),
    "turned, nullable": lambda f: f.T.astype("Float64"),
    "arrow types": lambda f: f.astype(DOUBLE),
    "objects": objects,
    "turned, decimals": lambda f: decimals(f).T,
    "sparse": lambda f: f.astype(pd.SparseDtype("float64", np.nan)),
    "arrow": lambda f: pa.Table.from_pandas(f.T),
}
# Of an array.
ARRAYS = {
    "array": lambda y: y,
    "fortran": np.asfortranarray,
    "reversed": lambda y: y[::-1, ::-1].copy()[::-1, ::-1],
    "strided": lambda y: np.repeat(np.repeat(y, 2, axis=0), 3, axis=1)[::2, ::3],
    "big-endian": lambda y: y.astype(y.dtype.newbyteorder(">")),
    "objects": lambda y: y.astype(object),
    "long": lambda y: y.astype(np.longdouble),
    "lists": lambda y: y.tolist(),
    "matrix": np.asmatrix,
    "csr": scipy.sparse.csr_matrix,
    "coo": scipy.sparse.coo_array,
}


class Dressed(NamedTuple):
    """What `jaxvp.fit` gets."""

    expression: Any
    metadata: pd.DataFrame
    options: dict[str, Any]
    study: Any
    unsure: bool  # it may be refused, in our words
    how: tuple[str, ...]


@st.composite
def column(draw, role, values, fixed):
    """A variable of the study: a Series, what it is, and whether it may be refused."""
    if role in "xzw":
        kind = draw(st.sampled_from(sorted(NUMBER_TYPES)))
        return NUMBER_TYPES[kind](values), kind, False
    if role == "t" and draw(st.booleans()):
        return pd.Series([None if v is None else bool(v) for v in values]), "bool", False
    kind = draw(st.sampled_from(FIXED_LEVELS if fixed else sorted(LEVELS)))
    levels = LEVELS[kind]
    labels = [None if v is None else levels[int(v)] for v in values]
    if kind in FIXED_LEVELS:
        dtype = draw(st.sampled_from(TEXT_TYPES))
        if dtype == "category":
            dtype = pd.CategoricalDtype([*levels, "not there"], ordered=draw(st.booleans()))
        return pd.Series(labels, dtype=dtype), f"{kind} as {dtype}"[:40], False
    dtype = draw(st.sampled_from([None, object]))
    return pd.Series(labels, dtype=dtype), kind, kind in UNSURE


@st.composite
def dressed(draw, study, rng):
    """A study in the clothes of a draw."""
    how, n, genes = [], len(study.X), study.Y.shape[1]
    # Samples that lack a value, and samples that one table lacks.
    lacking = draw(st.integers(0, 2)) if study.used else 0
    by_position = draw(st.booleans())
    lonely = 0 if by_position else draw(st.integers(0, 2))
    gaps = [draw(st.sampled_from(sorted(study.used))) for _ in range(lacking)]
    table, unsure = {}, False
    for role, name in study.names.items():
        values = [*study.columns[role].tolist(), *study.columns[role][: lacking + lonely].tolist()]
        for i, which in enumerate(gaps):
            if which == role:
                values[n + i] = None
        series, kind, doubtful = draw(column(role, values, role in study.fixed))
        table[name] = series
        if role in study.used:
            unsure |= doubtful
            how.append(f"{role}: {kind}")
    metadata = pd.DataFrame(table)

    kind = draw(st.sampled_from(sorted(INDEX)))
    count = n + lacking
    labels = INDEX[kind](count + 2 * lonely)
    metadata.index = labels[: count + lonely]
    order = rng.permutation(len(metadata))
    metadata = metadata.iloc[order]

    single = np.abs(study.Y[np.isfinite(study.Y) & (study.Y != 0)])
    if draw(st.booleans()) and (not single.size or 1e-20 < single.min() <= single.max() < 1e20):
        study = study._replace(Y=study.Y.astype(np.float32))
    Y = np.full((count, genes), 2.5, study.Y.dtype)
    Y[:n] = study.Y
    study = study._replace(Y=study.Y.astype(np.float64), labels=tuple(labels[:n].tolist()))
    W = np.ones((count, genes))
    if by_position:
        container, names = draw(st.sampled_from(sorted(ARRAYS))), "none"

        def wrap(values, container):
            return ARRAYS[container](values[order])
    else:
        # Those of the metadata alone have their places taken by those of the expression alone.
        mine = np.array([*range(count), *range(count + lonely, count + 2 * lonely)])
        turn = rng.permutation(len(mine))
        names = draw(st.sampled_from(sorted(GENE_NAMES)))
        possible = set(FRAMES) - ({"arrow"} if (kind, names) != ("text", "text") else set())
        container = draw(st.sampled_from(sorted(possible)))

        def wrap(values, container):
            more = np.concatenate([values, values[:lonely]])
            frame = pd.DataFrame(more[turn], labels[mine[turn]], GENE_NAMES[names](genes))
            return FRAMES[container](frame)

    options: dict[str, Any] = {}
    size = draw(st.sampled_from([None, 1, 3, "auto", np.int64(7), 10**9]))
    if size is not None:
        options["block_size"] = size
    if study.reml or draw(st.booleans()):
        options["reml"] = study.reml
    if study.shape == "one" or (study.weightable and draw(st.booleans())):
        W[:n] = rng.gamma(2.0, 1.0, (n, genes)) * (rng.random((n, genes)) > 0.05)
        if study.shape == "none" and draw(st.booleans()):  # of each sample
            W[:] = W[:, :1]
            if by_position:
                options["weights"] = W[order, 0]
            else:
                more = np.append(W[:, 0], np.ones(lonely))
                options["weights"] = pd.Series(more[turn], labels[mine[turn]])
        else:
            options["weights"] = wrap(W, "array" if by_position else "table")
        options["rescale_weights"] = draw(st.booleans())
        study = study.weighted(W[:n], options["rescale_weights"])
    how += [f"{kind} names", f"{lacking} lacking", f"{lonely} lonely", container, f"{names} genes"]
    expression = wrap(Y, container)
    return Dressed(expression, metadata, options, study, unsure, tuple([*how, str(Y.dtype)]))
