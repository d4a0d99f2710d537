"""Arrays that are read when they are sliced: h5py datasets, zarr and dask arrays, lazy xarray.

Such an array is stored in chunks, and a chunk is read as a whole: panels (`panels`) are whole
chunks wide. Where a panel of all samples would be too large, because chunks are as wide as the
table, the array is turned once on the disk (`spool`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from .blocks import Source, to_float
from .panels import LARGEST_PANEL, PanelSource, even_edges
from .reading import reading
from .spool import spooled


class Lazy:
    """A two-axis array that is read part by part.

    Parameters
    ----------
    get
        ``get(rows, columns)`` reads what two slices name. One thread calls it at a time.
    shape, dtype
        Of the whole.
    chunks
        Rows and columns that are stored together; 1, 1 where any part is as good.
    what
        Names it in messages.
    stored
        The array behind it, where that is one of a store.
    """

    ndim = 2

    def __init__(
        self,
        get: Callable[[slice, slice], Shaped[np.ndarray, "rows columns"]],
        shape: tuple[int, int],
        dtype: np.dtype,
        chunks: tuple[int, int] = (1, 1),
        what: str = "the expression",
        stored: Any = None,
    ) -> None:
        self.get, self.shape, self.dtype, self.what = get, shape, dtype, what
        self.parts = {what: stored}
        self.chunks = (max(1, chunks[0]), max(1, chunks[1]))

    @property
    def T(self) -> Lazy:
        """Rows as columns."""
        return Lazy(
            lambda rows, columns: self.get(columns, rows).T,
            (self.shape[1], self.shape[0]),
            self.dtype,
            (self.chunks[1], self.chunks[0]),
            self.what,
        )

    def source(self) -> Source:
        """Of samples x genes."""
        n, genes = self.shape

        def read(rows: slice, columns: slice) -> Float[np.ndarray, "rows columns"]:
            with reading(self.what):
                return to_float(self.get(rows, columns))

        dtype = np.dtype(np.float32 if self.dtype == np.float32 else np.float64)
        together = min(self.chunks[1], genes)
        if n * together * dtype.itemsize > LARGEST_PANEL:
            return spooled(
                lambda start, stop: read(slice(start, stop), slice(0, genes)),
                n,
                genes,
                dtype,
                self.what,
                self.chunks[0],
            )
        edges = even_edges(genes, n * dtype.itemsize, together)
        return PanelSource(lambda _, start, stop: read(slice(0, n), slice(start, stop)), edges, n)


def chunk_sizes(array: Any) -> tuple[int, int]:
    """Rows and columns of the (largest) chunk of an array of h5py, zarr, dask or xarray."""
    chunks = getattr(array, "chunks", None)
    if chunks is None:
        return 1, 1
    rows, columns = (sizes if isinstance(sizes, int) else max(sizes, default=1) for sizes in chunks)
    return rows, columns
