"""Sample names of the measurements against those of the metadata.

Names decide which axis of a table holds the samples: the one that shares names with the index of
the metadata. Where none does there is nearly always one of three reasons, and the error looks for
each: the names sit in a column of the metadata, one side has them as numbers and the other as text,
or no side has any (a RangeIndex on both).

More than 300 lines, for the words of errors and warnings: each has its reason and its remedy.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int

from jaxvp.warning import warn


class DataError(ValueError):
    """Measurements, metadata or files that cannot be used: names, shape or values."""


REMEDIES = {
    "gene": "keep one of each, or join them, with genes in rows: .groupby(level=0).mean()",
    "sample": "keep one of each, or give them different names",
}


class Axes(NamedTuple):
    """What is known of a table without looking at its numbers."""

    index: pd.Index
    columns: pd.Index
    text: Callable[[], pd.DataFrame]
    """its columns of text"""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return len(self.index), len(self.columns)


def check_levels(names: pd.Index, code: str) -> None:
    """Check that names are plain, not made of levels; ``code`` is how the caller gets at them."""
    if names.nlevels > 1:
        raise DataError(
            f"{code} has {names.nlevels} levels (a MultiIndex), and a name must be one: "
            f"{code} = {code}.map('_'.join)"
        )


def check_names(names: pd.Index, kind: str, where: str) -> None:
    """Check that names are present and unique.

    Parameters
    ----------
    names
        The names.
    kind : {"gene", "sample"}
    where
        What has them, for the message.
    """
    if names.hasnans:
        raise DataError(
            f"{int(names.isna().sum())} of {len(names):,} {kind} names of {where} are missing "
            f"(the first at position {int(np.argmax(names.isna()))}): name or drop them"
        )
    if not names.is_unique:
        twice = names[names.duplicated()].unique()
        shown = ", ".join(f"{name!r} ({(names == name).sum()} times)" for name in twice[:5])
        more = f" and {len(twice) - 5:,} more" if len(twice) > 5 else ""
        raise DataError(
            f"{kind} names of {where} must be unique, and these are not: {shown}{more}; "
            f"{REMEDIES[kind]}"
        )


def samples_in_columns(
    expression: Axes, metadata: pd.DataFrame, genes_in: str | None = None
) -> bool:
    """Whether the columns of a table are the samples; False if its rows are.

    Parameters
    ----------
    expression, metadata
        The table and the other one, whose index holds the sample names.
    genes_in
        ``"rows"`` or ``"columns"`` where that is known. None: the names decide.

    Raises
    ------
    DataError
        If no axis or both share names with the metadata, or if the shared names are only the
        numbers of the rows on both sides.
    """
    samples = metadata.index
    check_levels(expression.index, "expression.index")
    check_levels(expression.columns, "expression.columns")
    in_rows = int(among(samples, expression.index).sum())
    in_columns = int(among(samples, expression.columns).sum())
    if not in_rows and not in_columns:
        raise DataError(_explain(expression, metadata))
    if genes_in is not None:
        shared, wanted = (in_columns, "columns") if genes_in == "rows" else (in_rows, "rows")
        if not shared:
            names = expression.columns if genes_in == "rows" else expression.index
            raise DataError(
                f"the samples of the expression are its {wanted} ({_some(names)}), and the "
                f"metadata ({_some(samples)}) has none of them; it has {in_rows + in_columns:,} of "
                "the names on the other axis: turn the expression round"
            )
        return genes_in == "rows"
    axis = expression.columns if in_columns else expression.index
    if in_rows and in_columns:
        unnamed = _is_default(samples) and (_is_default(axis) or _is_default(expression.index))
        reason = "; these are row numbers (a RangeIndex), not names" if unnamed else ""
        raise DataError(
            f"both axes of the expression match the sample names of the metadata ({in_rows:,} in "
            f"its rows, {in_columns:,} in its columns{reason}): give genes and samples different "
            "names, or pass an array, samples x genes, which goes by position: "
            "expression.to_numpy() (.T if genes are rows)"
        )
    if _is_default(samples) and _is_default(axis):
        other = expression.index if in_columns else expression.columns
        column, count = _column_with(metadata, set(_as_text(other)))
        if count:
            raise DataError(
                "the metadata's index is row numbers (a RangeIndex), and its column "
                f"{column!r} holds {count:,} of the expression's names: "
                f"metadata.set_index({column!r})"
            )
        by_position = "expression.T.to_numpy()" if in_columns else "expression.to_numpy()"
        array = f", or pass an array, which goes by position: {by_position}"
        raise DataError(
            "neither the metadata nor the expression names its samples (both have a RangeIndex, "
            "the row numbers of a table without names): set_index the sample names on both"
            f"{array if len(axis) == len(samples) else ''}"
        )
    return in_columns > 0


def among(names: pd.Index, others: pd.Index) -> Bool[np.ndarray, " names"]:
    """Which of the names are among the others, whatever type either of them has.

    `Index.isin` walks through strings one by one, in Python; an index of unique names keeps what
    finds them, from one call to the next.
    """
    if names.equals(others):
        return np.ones(len(names), dtype=bool)
    if others.is_unique:
        return places_of(others, names) >= 0
    try:
        return np.asarray(names.isin(others), dtype=bool)
    except Exception:  # Arrow's types refuse what they could not hold
        return _plain(names).isin(_plain(others))


def places_of(names: pd.Index, wanted: pd.Index) -> Int[np.ndarray, " wanted"]:
    """Where unique names that are wanted stand, whatever type either side has; -1: nowhere."""
    try:
        return names.get_indexer(wanted)
    except Exception:
        return _plain(names).get_indexer(_plain(wanted))


def _plain(names: pd.Index) -> pd.Index:
    return pd.Index(names.tolist(), dtype=object)


def _is_default(names: pd.Index) -> bool:
    return isinstance(names, pd.RangeIndex) and names.name is None


def check_common(
    expression: pd.Index, metadata: pd.Index, common: Bool[np.ndarray, " samples"]
) -> None:
    """Check that both sides share more than one sample; parameters as of `warn_dropped`."""
    if common.sum() == 1:
        raise DataError(
            f"one sample, {metadata[common].tolist()[0]!r}, is in both tables, and a model needs "
            f"two or more: the metadata has {_some(metadata)}, the expression {_some(expression)}"
        )


def warn_dropped(
    expression: pd.Index, metadata: pd.Index, common: Bool[np.ndarray, " samples"], hint: str
) -> None:
    """One warning that counts the samples which only one side has.

    Parameters
    ----------
    expression, metadata
        Sample names.
    common
        Which of the metadata's the expression has.
    hint
        Added to the message.
    """
    alone = metadata[~common]
    unknown = expression[~among(expression, metadata)]
    parts = []
    if len(alone):
        parts.append(f"{len(alone):,} of {len(metadata):,} of the metadata ({_some(alone)})")
    if len(unknown):
        parts.append(
            f"{len(unknown):,} of {len(expression):,} of the expression ({_some(unknown)})"
        )
    if parts:
        warn(
            f"samples that only one table has are dropped: {' and '.join(parts)}; "
            f"{int(common.sum()):,} are left{hint}"
        )


def _some(names: pd.Index, count: int = 3) -> str:
    shown = ", ".join(repr(name) for name in names[:count].tolist())
    return shown + (", ..." if len(names) > count else "")


def _explain(expression: Axes, metadata: pd.DataFrame) -> str:
    """Why no name of the metadata is in the expression: the reasons that apply, with remedies."""
    samples = _Side("metadata", "index", metadata.index)
    rows = _Side("expression", "index", expression.index)
    columns = _Side("expression", "columns", expression.columns)
    reasons = []
    if 0 in expression.shape:
        reasons.append(f"the expression is empty, of shape {expression.shape}")
    for axis in (rows, columns):
        as_long = len(axis.names) == len(metadata)
        enough = len(samples.names) / 4  # fewer are chance: genes may be named by numbers
        by_type = len(axis.text & samples.text)
        if _is_default(axis.names) and not (as_long and by_type > enough):
            if as_long:
                turned = ".T" if axis is columns else ""
                reasons.append(
                    f"{axis.code} has no names (a RangeIndex): set them; or, if both are in the "
                    "same order, pass an array, samples x genes: "
                    f"expression{turned}.to_numpy()"
                )
            continue
        same = axis.letters.keys() & samples.letters.keys()
        column, count = _column_with(metadata, axis.text)
        if count > by_type and (by_type <= enough or not _is_number(metadata[column])):
            reasons.append(
                f"the metadata's column {column!r} holds {count:,} of the names in {axis.code}: "
                f"metadata.set_index({column!r})"
            )
        elif by_type > enough:
            # They would have been found if they were of one type.
            numbers = axis if isinstance(samples.names[0], str) else samples
            whole = ".astype(int)" if pd.api.types.is_float_dtype(numbers.names) else ""
            reasons.append(
                f"names are numbers in {numbers.code} and text on the other side: "
                f"{numbers.code} = {numbers.code}{whole}.astype(str)"
            )
        elif len(same) > enough:
            name = min(same)
            reasons.append(
                "names differ in case, spaces, punctuation or leading zeros: "
                f"{samples.letters[name]!r} in {samples.code}, {axis.letters[name]!r} in "
                f"{axis.code}"
            )
    column, count = _column_with(expression.text(), samples.text)
    if count:
        reasons.append(
            f"the expression's column {column!r} holds {count:,} of the names: "
            f"expression.set_index({column!r})"
        )
    if not reasons:
        reasons.append(
            "the usual reasons are names that sit in a column of the metadata "
            "(metadata.set_index), names that are numbers on one side and text on the other "
            "(.astype(str)), or no names at all, a RangeIndex, on both sides"
        )
    return (
        f"no sample name of the metadata ({_some(samples.names)}) is in the rows "
        f"({_some(rows.names)}) or columns ({_some(columns.names)}) of the expression: "
        f"{'; '.join(reasons)}"
    )


class _Side:
    """Names of one side, as they are, as text, and as letters and digits only."""

    def __init__(self, table: str, axis: str, names: pd.Index) -> None:
        self.code, self.names = f"{table}.{axis}", names
        self.text = set(_as_text(names))
        self.letters = {} if _is_default(names) else {_letters(name): name for name in self.text}


def _is_number(column: object) -> bool:
    return isinstance(column, pd.Series) and pd.api.types.is_numeric_dtype(column)


def _letters(name: str) -> str:
    """What is left of a name without case, punctuation and the zeros in front of numbers."""
    return re.sub("[^0-9a-z]|(?<![0-9])0+(?=[0-9])", "", name.lower())


def _as_text(names: pd.Index | pd.Series) -> list[str]:
    """Names as text; a whole number is written without a point, whatever its type."""
    values = names.dropna().tolist()
    return [str(int(x)) if isinstance(x, float) and x.is_integer() else str(x) for x in values]


def _column_with(table: pd.DataFrame, names: set[str]) -> tuple[object, int]:
    """The column that holds most of these names, and how many; none where that are few."""
    best: tuple[object, int] = (None, 0)
    for position, label in enumerate(table.columns):
        values = set(_as_text(table.iloc[:, position]))
        found = len(names & values)
        # Numbers of something else may be among names that are numbers: most must be.
        if found > max(best[1], len(values) / 2, len(table) / 4):
            best = label, found
    return best
