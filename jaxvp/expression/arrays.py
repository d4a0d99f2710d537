"""Whatever has two axes and can be sliced: NumPy, memory-mapped, sparse, h5py, zarr, dask arrays.

Bare, they have no names: rows are the samples, in the order of the metadata. AnnData and xarray are
such arrays with names beside them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Int

from .blocks import ArraySource, Source
from .lazy import Lazy, chunk_sizes
from .mapped import is_mapped, mapped_source
from .names import DataError
from .origin import Origin
from .sparse import Stored, sparse_source
from .values import Culprit, find_in_array


class Matrix:
    """Numbers on two axes, with or without names; see `Container`.

    Parameters
    ----------
    values
        As of `readable`.
    index, columns
        Names; both or none.
    what
        Names it in messages.
    """

    origin: Origin | None = None

    def __init__(
        self,
        values: Any,
        index: pd.Index | None = None,
        columns: pd.Index | None = None,
        *,
        genes_in: str | None = None,
        metadata: pd.DataFrame | None = None,
        what: str = "the array",
    ) -> None:
        if len(values.shape) != 2:
            remedy = "; one gene is expression[:, None]" if len(values.shape) == 1 else ""
            raise DataError(
                "expression must have two axes, samples x genes, and has shape "
                f"{tuple(values.shape)}{remedy}"
            )
        self.values, self.what = values, what
        self.shape = (int(values.shape[0]), int(values.shape[1]))
        self.index, self.columns = index, columns
        self.genes_in, self.metadata = genes_in, metadata

    def source(self, transposed: bool) -> Source:
        """See `Container`."""
        values = self.values.T if transposed else self.values
        if isinstance(values, Lazy | Stored):
            return values.source()
        if isinstance(values, np.ndarray):
            if isinstance(values, np.memmap) and is_mapped(values):
                return mapped_source(values)
            return ArraySource(values)
        return sparse_source(values)

    def find(self, transposed: bool, samples: Int[np.ndarray, " n"]) -> Culprit | None:
        """See `Container`."""
        if isinstance(self.values, np.ndarray):
            return find_in_array(self.values.T if transposed else self.values, samples)
        if self.values.dtype.kind in "fiub" or not len(samples) or 0 in self.shape:
            return None
        return Culprit(0, int(samples[0]), f"values of dtype {self.values.dtype}")

    def text(self) -> pd.DataFrame:
        """See `Container`: there is none."""
        return pd.DataFrame(index=range(self.shape[0]))

    def without(self, gene: object, transposed: bool) -> str:
        """See `Container`."""
        return "leave it out"


def roots(thing: Any) -> set[str]:
    """The packages that the type of an object and its bases are from."""
    return {base.__module__.split(".")[0] for base in type(thing).__mro__}


def readable(values: Any, what: str = "the expression") -> Any:
    """An array, sparse matrix, `Lazy` or `Stored` of what is one; None of anything else.

    Parameters
    ----------
    values
        An array of NumPy, SciPy, h5py, zarr or dask, or a sparse matrix that AnnData keeps in a
        file.
    what
        Names it in messages.
    """
    packages = roots(values)
    if isinstance(values, np.ndarray):
        # No subclass with rules of its own: a matrix never has one axis, and what NumPy computes of
        # one of AnnData's views is one, too, so that to write to it is to write to the caller's.
        return values if isinstance(values, np.memmap) else np.asarray(values)
    if "scipy" in packages and hasattr(values, "tocsc"):
        return values
    if "anndata" in packages and hasattr(values, "group"):  # a sparse matrix, backed
        return Stored(values.group, what)
    if packages & {"h5py", "zarr"} and hasattr(values, "attrs") and not hasattr(values, "dtype"):
        return Stored(values, what)
    if packages & {"h5py", "zarr", "dask"} and len(getattr(values, "shape", ())) == 2:

        def get(rows: slice, columns: slice) -> np.ndarray:
            return np.asarray(values[rows, columns])

        return Lazy(get, values.shape, np.dtype(values.dtype), chunk_sizes(values), what, values)
    return None
