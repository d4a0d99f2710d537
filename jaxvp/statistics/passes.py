"""The passes over a tile of measurements: everything that reads them is here.

They are copied (turned, where every gene is a row in memory), shifted, multiplied by the few
columns of Q that are not the same within levels and with themselves, and added up by levels.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float

from .compression import Compression

# Samples whose mean genes are shifted by: near enough to the mean of all for no digits to be lost.
_SAMPLES_OF_SHIFT = 8
_STREAMS, _NARROW = 8, 32  # genes that are copied at a time, of a tile that is no wider
FEW_COLUMNS = 4  # of the fixed part: one by one
_SAMPLES_PER_SUM = 4  # at least, of a part: sums are added up part by part


class Rows(NamedTuple):
    """Samples that are side by side, and their part of what sums are formed with."""

    rows: slice
    q: Float[np.ndarray, "rows some"]  # columns that want a pass
    root: Float[np.ndarray, "rows 1"] | None  # of their weights
    sums: tuple[Any, ...]  # indicators, `scipy.sparse.csc_array`: of term 1, and of the others

    def copied(self, raw: Float[np.ndarray, "n g"], room: np.ndarray) -> np.ndarray:
        """Their measurements, in ``room``, which is large enough.

        Of one layout from here on: the same bits, however the measurements lie in memory.
        """
        raw = raw[self.rows]
        y = room[: raw.size].reshape(raw.shape)
        _copy(raw, y)
        return y

    def of(
        self, y: Float[np.ndarray, "rows g"], shift: Float[np.ndarray, " g"] | None
    ) -> tuple[np.ndarray, ...]:
        """Their part of ``q'y``, ``y'y`` and the sums; ``y``, their copy, is shifted."""
        if shift is not None:
            y -= shift
        if self.root is not None:
            y *= self.root
        squares = np.einsum("ng,ng->g", y, y)
        return _on_columns(self.q, y), squares, *(indicator @ y for indicator in self.sums)


def in_parts(c: Compression, n: int, most: int) -> list[Rows]:
    """The samples, so many at a time, or more where there are many levels."""
    g, root = c.grouping, None if c.weighting is None else c.weighting.root
    sums: tuple[Any, ...] = () if g is None else (g.sum_levels, g.sum_others)
    q = c.q if g is None or g.constant is None else g.constant.others
    most = max(most, _SAMPLES_PER_SUM * sum(indicator.shape[0] for indicator in sums))
    if n <= most:
        return [Rows(slice(n), q, root, sums)]
    some = [slice(i, min(i + most, n)) for i in range(0, n, most)]
    return [
        Rows(
            part,
            q[part],
            None if root is None else root[part],
            tuple(_columns(indicator, part) for indicator in sums),
        )
        for part in some
    ]


def passes(
    has_intercept: bool, parts: list[Rows], raw: Float[np.ndarray, "n g"], room: np.ndarray
) -> tuple[Float[np.ndarray, " g"] | None, list[np.ndarray]]:
    """What genes were shifted by, and ``q'y`` (`Rows.q`), ``y'y`` and the sums of a tile."""
    shift, found = None, []
    for rows in parts:
        y = rows.copied(raw, room)
        if has_intercept and shift is None:
            # Of the copy, if it has all samples: of each the first to be read is a cache line.
            shift = shift_of(y if len(parts) == 1 else raw)
        more = rows.of(y, shift)
        if found:
            for whole, part in zip(found, more, strict=True):
                whole += part
        else:
            found = list(more)
    return shift, found


def _columns(indicator: Any, part: slice) -> sp.csc_array:
    """Some columns of a `scipy.sparse.csc_array`, side by side, without a copy."""
    ends = indicator.indptr[part.start : part.stop + 1]
    entries = slice(ends[0], ends[-1])
    arrays = (indicator.data[entries], indicator.indices[entries], ends - ends[0])
    return sp.csc_array(arrays, shape=(indicator.shape[0], len(ends) - 1))


def rows_of_shift(n: int) -> slice:
    """The samples whose mean genes are shifted by."""
    return slice(None, None, -(-n // _SAMPLES_OF_SHIFT))


def shift_of(raw: Float[np.ndarray, "n g"]) -> Float[np.ndarray, " g"]:
    """What genes are shifted by; zero where that is not finite."""
    some = np.array(raw[rows_of_shift(len(raw))], dtype=np.float64, order="C")
    shift = some.mean(axis=0)
    shift[~np.isfinite(shift)] = 0.0
    return shift


def _copy(raw: np.ndarray, y: Float[np.ndarray, "n g"]) -> None:
    """The measurements of a tile, into ``y``.

    A processor follows few streams: where every gene is one, some are copied at a time (E, 16
    genes: 19 GB/s in place of 6). Many genes would be too many calls for it.
    """
    genes = raw.shape[1]
    apart = raw.strides[1] > raw.strides[0] and _STREAMS < genes <= _NARROW
    for first in range(0, genes, _STREAMS if apart else genes):
        some = slice(first, first + _STREAMS if apart else genes)
        y[:, some] = raw[:, some]


def _on_columns(
    q: Float[np.ndarray, "n p"], y: Float[np.ndarray, "n g"]
) -> Float[np.ndarray, "p g"]:
    """``q'y``; with few columns one by one, as a matrix product copies all of y first."""
    if 0 < q.shape[1] <= FEW_COLUMNS:
        return np.stack([column @ y for column in q.T])
    return (y.T @ q).T
