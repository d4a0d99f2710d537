"""One thing that no fit can do with, put into a call that would work, and the word for it.

`BREAKS` maps a name to a function of (call, draw): it returns the call and the words of which one
must be in the error. `scrambled` are formulas of which nothing is known.
"""

import datetime
import decimal
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
from hypothesis import strategies as st


class Call(NamedTuple):
    """Arguments of `jaxvp.fit`."""

    expression: Any
    formula: Any
    metadata: Any
    options: dict[str, Any]
    study: Any = None  # None: nothing is known but that it must not go wrong unseen
    wrong: tuple[str, ...] | None = None  # one of these words is in the error that must come
    unsure: bool = True  # it may be refused, in our words
    how: tuple[str, ...] = ()
    command: bool = False  # by `jaxvp fit`, on files


# ---- the metadata -------------------------------------------------------------------------------


def replaced(values, number, sure=True):
    """A variable of the formula gets other values; `number`: one that is used as a number.

    What becomes of it is known where the formula is one of the few, and if it is `sure`.
    """

    def change(call, draw):
        study = call.study
        roles = sorted(study.numbers if number else study.used)
        if not roles:
            return None
        name = study.names[draw(st.sampled_from(roles))]
        n = len(call.metadata)
        table = call.metadata.copy()
        table[name] = pd.Series(values(n), index=table.index)
        known = sure and study.shape != "other"
        return call._replace(metadata=table), ((name,) if known else None)

    return change


def one_value(value):
    """Of a number, in every sample."""

    def change(call, draw):
        study = call.study
        if not study.numbers:
            return None
        name = study.names[draw(st.sampled_from(sorted(study.numbers)))]
        table = call.metadata.copy()
        values = np.empty(len(table), dtype=object)
        values[:] = [value] * len(table)
        table[name] = pd.Series(values, index=table.index)
        return call._replace(metadata=table), (name,)

    return change


def lists(n):
    values = np.empty(n, dtype=object)
    values[:] = [[i % 3] for i in range(n)]
    return values


def arrow_lists(n):
    return pd.array([[i % 3] for i in range(n)], dtype=pd.ArrowDtype(pa.list_(pa.int64())))


def arrow_structs(n):
    kind = pa.struct([("a", pa.int64())])
    return pd.array([{"a": i % 3} for i in range(n)], dtype=pd.ArrowDtype(kind))


def same_text(n):
    return np.array([1 if i % 2 else "1" for i in range(n)], dtype=object)


def without(call, draw):
    if not call.study.used:
        return None
    name = call.study.names[draw(st.sampled_from(sorted(call.study.used)))]
    return call._replace(metadata=call.metadata.drop(columns=name)), (name,)


def twice(call, draw):
    if not call.study.used:
        return None
    name = call.study.names[draw(st.sampled_from(sorted(call.study.used)))]
    table = pd.concat([call.metadata, call.metadata[[name]]], axis=1)
    return call._replace(metadata=table), (name,)


def metadata(change, *words):
    return lambda call, draw: (call._replace(metadata=change(call.metadata)), words)


def expression(change, *words):
    return lambda call, draw: (call._replace(expression=change(call.expression)), words)


def option(word, value):
    return lambda call, draw: (call._replace(options=call.options | {word: value}), (word,))


def index(make):
    return lambda table: table.set_axis(make(len(table)), axis=0)


def generator():
    yield 1.0


BREAKS = {
    "constant": replaced(np.ones, True, sure=False),
    "constant text": replaced(lambda n: ["a"] * n, False),
    "missing": replaced(lambda n: [None] * n, False),
    "dates": replaced(lambda n: pd.date_range("2020", periods=n), True),
    "complex": replaced(lambda n: np.arange(n) * 1j, True),
    "text numbers": replaced(lambda n: [str(i) for i in range(n)], True),
    "lists": replaced(lists, False),
    "lists of arrow": replaced(arrow_lists, False),
    "structs of arrow": replaced(arrow_structs, False),
    "one text for two": replaced(same_text, False),
    "huge": replaced(lambda n: np.arange(n) * 1e200, True, sure=False),
    "tiny": replaced(lambda n: np.arange(n) * 1e-200, True, sure=False),
    "infinite": one_value(np.inf),
    "integers without end": one_value(10**400),
    "decimals without end": one_value(decimal.Decimal("1e999")),
    "a list among numbers": one_value([1]),
    "without": without,
    "twice": twice,
    "metadata dict": metadata(lambda m: m.to_dict(), "metadata"),
    "metadata list": metadata(lambda m: m.to_numpy().tolist(), "metadata"),
    "metadata array": metadata(lambda m: m.to_numpy(), "metadata"),
    "metadata arrow": metadata(lambda m: pa.table({"a": [1]}), "metadata"),
    "metadata number": metadata(lambda m: 5, "metadata"),
    "metadata nothing": metadata(lambda m: None, "metadata"),
    "metadata path": metadata(lambda m: "no such.csv", "no such.csv"),
    "metadata no file": metadata(lambda m: "\0", "\\x00", "\0", "metadata"),
    "metadata empty": metadata(lambda m: m.iloc[:0], "metadata"),
    "metadata one": metadata(lambda m: m.iloc[:1], "metadata"),
    "metadata same names": metadata(index(lambda n: ["s0"] * n), "sample"),
    "metadata no names": metadata(index(lambda n: [None] * n), "sample"),
    "metadata levels": metadata(
        index(lambda n: pd.MultiIndex.from_product([["a"], range(n)])), "metadata.index"
    ),
    "expression nothing": expression(lambda e: None, "expression"),
    "expression number": expression(lambda e: 5.0, "expression"),
    "expression text": expression(lambda e: "no such.csv", "no such.csv"),
    "expression suffix": expression(lambda e: "no such", "no such"),
    "expression bytes": expression(lambda e: b"abc", "expression"),
    "expression function": expression(lambda e: len, "expression"),
    "expression generator": expression(lambda e: generator(), "expression"),
    "expression ragged": expression(lambda e: [[1.0], [2.0, 3.0]], "expression"),
    "expression empty": expression(lambda e: np.empty((0, 0)), "array", "expression"),
    "expression no axis": expression(lambda e: np.array(1.0), "expression"),
    "expression one axis": expression(lambda e: np.ones(18), "expression"),
    "expression three axes": expression(lambda e: np.ones((18, 2, 2)), "expression"),
    "expression masked": expression(lambda e: np.ma.masked_array(np.ones((18, 2))), "masked"),
    "expression series": expression(lambda e: pd.Series(np.ones(18)), "Series"),
    "expression of other samples": expression(lambda e: np.ones((7, 4)), "samples"),
    "option reml": option("reml", "no"),
    "option reml of 2": option("reml", 2),
    "option rescale": option("rescale_weights", "no"),
    "option progress": option("progress", "yes"),
    "option dtype": option("dtype", "float16"),
    "option dtype list": option("dtype", np.array(["float64", "float32"])),
    "option block": option("block_size", 2.5),
    "option block text": option("block_size", "all"),
    "option block array": option("block_size", np.array([1, 2])),
    "option block true": option("block_size", True),
    "option solver": option("solver", "bobyqa"),
    "option solver list": option("solver", ["newton"]),
    "option on_error": option("on_error", ["status"]),
    "option on_error array": option("on_error", np.array(["status", "raise"])),
    "option devices": option("devices", 3),
    "option devices text": option("devices", "cpu"),
    "option executor": option("executor", "threads"),
    "weights number": option("weights", 2.0),
    "weights axis": option("weights", np.array(2.0)),
    "weights text": option("weights", ["a"] * 18),
    "weights numbers as text": option("weights", ["1.5"] * 18),
    "weights ragged": option("weights", [[1.0], [1.0, 2.0]]),
    "weights few": option("weights", np.ones(5)),
    "weights dates": option("weights", np.array(["2020"] * 18, dtype="M8[D]")),
    "weights function": option("weights", len),
    "weights path": option("weights", "weights of nobody"),
}


def with_text(call, draw):
    """A word among the numbers, wherever they are."""
    frame = call.expression
    if not isinstance(frame, pd.DataFrame):
        return None
    frame = frame.astype(object)
    frame.iloc[:, :] = "high"
    return call._replace(expression=frame), ("high",)


def with_long_numbers(call, draw):
    """An integer that no float holds."""
    frame = call.expression
    if not isinstance(frame, pd.DataFrame):
        return None
    frame = frame.astype(object)
    frame.iloc[:, :] = 10**400
    return call._replace(expression=frame), ("expression",)


def of_dates(call, draw):
    frame = call.expression
    if not isinstance(frame, pd.DataFrame):
        return None
    dates = pd.DataFrame(datetime.datetime(2020, 1, 1), frame.index, frame.columns)
    return call._replace(expression=dates), ("Timestamp", "datetime")


BREAKS |= {"text inside": with_text, "long numbers": with_long_numbers, "dates": of_dates}

# ---- what nothing is known of -------------------------------------------------------------------

PIECES = [*"~+-*/:^()|,=`.{}[]'\"% \n\\0129_é\0\u202e", "**", "||", "(1|", "I(", "log(", "poly("]
CODE = [
    "~ __import__('os')",
    "~ I(__import__(`os`))",
    "~ x.__class__.__mro__",
    "~ lambda: 0",
    "~ (lambda x: x)(x)",
    "~ [y for y in x]",
    "~ f'{x}'",
    "~ {x}",
    "~ x if x else x",
    "~ eval(x)",
    "~ I(x, x := 1)",
    "~ " + "(" * 3000 + "x" + ")" * 3000,
    "~ I(" + "-" * 3000 + "x)",
    "~ " + "x + " * 9000 + "x",
    "~ (" + "+".join(f"x{i}" for i in range(900)) + ")^9",
    "y ~ x",
    "x",
    "",
    "~",
    "~ 0",
    "~ .",
    "~ 1 + 1e400",
]
NO_TEXT = [None, 5, b"~ x", ["~ x"], {"~": 1}, float("nan"), len]


@st.composite
def scrambled(draw, formula):
    """A formula with a few characters changed, pieces of others, code, or no text at all."""
    kind = draw(st.sampled_from(["edit", "edit", "edit", "pieces", "unicode", "code", "no text"]))
    if kind == "code":
        return draw(st.sampled_from(CODE))
    if kind == "no text":
        return draw(st.sampled_from(NO_TEXT))
    if kind == "pieces":
        return "~" + "".join(draw(st.lists(st.sampled_from(PIECES), max_size=12)))
    if kind == "unicode":
        return "~" + draw(st.text(max_size=12))
    text = formula
    for _ in range(draw(st.integers(1, 3))):
        i = draw(st.integers(0, len(text)))
        j = draw(st.integers(i, min(len(text), i + 3)))
        text = text[:i] + draw(st.sampled_from(["", *PIECES])) + text[j:]
    return text
