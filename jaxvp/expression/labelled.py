"""xarray: an array on two dimensions, whose coordinates are the names."""

from __future__ import annotations

from typing import Any

import numpy as np

from .arrays import Matrix
from .lazy import Lazy, chunk_sizes
from .names import DataError


def from_data_array(array: Any) -> Matrix:
    """A DataArray, whichever way round it lies; without coordinates it goes by position."""
    if not hasattr(array, "dtype"):
        raise DataError("expression must be one DataArray: of a Dataset, dataset[name]")
    if array.ndim != 2:
        return Matrix(array)  # says what is wrong
    names = [array.get_index(dim) if dim in array.indexes else None for dim in array.dims]
    if any(name is not None for name in names):
        names = [array.get_index(dim) for dim in array.dims]
    rows, columns = array.dims
    # Private, but only a shortcut: what is in memory need not be read in panels.
    if getattr(array.variable, "_in_memory", False):
        return Matrix(array.to_numpy(), *names)

    def get(i: slice, j: slice) -> np.ndarray:
        return array.isel({rows: i, columns: j}).to_numpy()

    return Matrix(Lazy(get, array.shape, array.dtype, chunk_sizes(array)), *names)
