"""pandas tables: one array, which is served as it lies, or columns of their own."""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Int, Shaped

from .blocks import ArraySource, ColumnsSource, Source
from .origin import Origin
from .values import Culprit, find_in_array, find_in_frame


class Frame:
    """See `Container`."""

    metadata: pd.DataFrame | None = None
    origin: Origin | None = None

    def __init__(self, frame: pd.DataFrame, genes_in: str | None = None) -> None:
        self.frame, self.genes_in = frame, genes_in
        self.shape = (len(frame), len(frame.columns))
        self.index, self.columns = frame.index, frame.columns
        self.values = _view(frame)

    def source(self, transposed: bool) -> Source:
        """See `Container`."""
        if self.values is None:
            return ColumnsSource(self.frame, transposed)
        return ArraySource(self.values.T if transposed else self.values)

    def find(self, transposed: bool, samples: Int[np.ndarray, " n"]) -> Culprit | None:
        """See `Container`."""
        if self.values is None:
            return find_in_frame(self.frame, transposed, samples)
        return find_in_array(self.values.T if transposed else self.values, samples)

    def text(self) -> pd.DataFrame:
        """See `Container`."""
        return self.frame.select_dtypes(exclude="number")

    def without(self, gene: object, transposed: bool) -> str:
        """See `Container`."""
        return f"expression.drop({'index' if transposed else 'columns'}=[{gene!r}])"


def _view(frame: pd.DataFrame) -> Shaped[np.ndarray, "rows columns"] | None:
    """The array in which a table keeps its values, if it is one array; None if it is several."""
    if not frame.size:
        return np.empty(frame.shape)
    first = frame.iloc[:, 0]
    if not isinstance(first.dtype, np.dtype):
        return None
    # to_numpy() would copy several arrays, of one type or of several, into one. On one row that
    # costs nothing, and shows it.
    row, column = frame.iloc[:1].to_numpy(), first.to_numpy()
    return frame.to_numpy() if np.may_share_memory(row, column) else None
