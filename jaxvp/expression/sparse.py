"""Sparse matrices, in memory or in a file: a block of genes is made dense, never the whole.

A block of genes is a run of columns, which a matrix by columns (CSC) has together. Others are
turned once: that copies the values that are stored, and a CSR matrix in a file is read for it. What
is not stored is zero, a measurement like any other. Values at the same place twice are added up, as
SciPy does.
"""

from __future__ import annotations

import threading
from contextlib import nullcontext
from typing import Any

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int

from .blocks import Rows, to_float
from .names import DataError
from .reading import reading


class SparseSource:
    """A sparse matrix by columns: its values are three arrays, in memory or in a file.

    Parameters
    ----------
    data, indices
        The values and their rows, column by column: arrays, or what is sliced like one.
    indptr
        Where columns begin.
    n_samples
        Number of rows.
    what
        Names it in messages.
    lock
        Where `data` and `indices` are in a file that serves one thread at a time.
    """

    def __init__(
        self,
        data: Any,
        indices: Any,
        indptr: Int[np.ndarray, " pointers"],
        n_samples: int,
        what: str = "the expression",
        lock: Any = None,
    ) -> None:
        self.data, self.indices, self.indptr = data, indices, indptr
        self.n_samples, self.what, self.lock = n_samples, what, lock

    def read(self, rows: Rows, start: int, stop: int) -> Float[np.ndarray, "n genes"]:
        """See `Source`."""
        pointers = self.indptr[start : stop + 1]
        part = slice(int(pointers[0]), int(pointers[-1]))
        with self.lock or nullcontext(), reading(self.what):
            data, indices = to_float(np.asarray(self.data[part])), self.indices[part]
        check_indices(indices, self.n_samples, self.what)
        matrix = sp.csc_array(
            (data, indices, pointers - pointers[0]), shape=(self.n_samples, stop - start)
        )
        return matrix.toarray(order="F")[rows]


def sparse_source(matrix: Any) -> SparseSource:
    """The source of a SciPy matrix of any format, samples x genes."""
    columns = matrix.tocsc()
    return SparseSource(columns.data, columns.indices, columns.indptr, matrix.shape[0])


class Stored:
    """A sparse matrix of AnnData in a group of HDF5 or zarr: arrays data, indices and indptr.

    Attributes
    ----------
    shape, dtype
        As of an array.
    by_columns : bool
        CSC; else CSR.
    parts : dict
        The three arrays by what they are called in messages.
    """

    def __init__(self, group: Any, what: str) -> None:
        self.what = what
        with reading(what):
            encoding = str(group.attrs.get("encoding-type", "group"))
            if encoding not in ("csc_matrix", "csr_matrix"):
                raise DataError(f"{what} is no array and no sparse matrix, but {encoding!r}")
            self.parts = {f"{what}/{name}": group[name] for name in ("data", "indices", "indptr")}
            self.data, self.indices, indptr = self.parts.values()
            self.indptr = np.asarray(indptr[:])
            rows, columns = group.attrs["shape"]
        self.by_columns = encoding == "csc_matrix"
        self.shape = (int(rows), int(columns))
        self.dtype = np.dtype(self.data.dtype)
        lines = self.shape[1] if self.by_columns else self.shape[0]
        stored = {int(self.data.shape[0]), int(self.indices.shape[0])}
        if (
            len(self.indptr) != lines + 1
            or self.indptr[0] != 0
            or (np.diff(self.indptr) < 0).any()
            or stored != {int(self.indptr[-1])}
        ):
            raise DataError(
                f"{what} is damaged: the parts of the sparse matrix do not fit together"
            )

    def source(self) -> SparseSource:
        """Served from the file where it is stored by columns, else from memory."""
        if self.by_columns:
            return SparseSource(
                self.data, self.indices, self.indptr, self.shape[0], self.what, threading.Lock()
            )
        return sparse_source(self.lines(0, self.shape[0]))

    def lines(self, start: int, stop: int) -> Any:
        """Rows ``start:stop`` of a CSR matrix, columns of a CSC one, in SciPy's format of that."""
        pointers = self.indptr[start : stop + 1]
        part = slice(int(pointers[0]), int(pointers[-1]))
        across = self.shape[0 if self.by_columns else 1]
        with reading(self.what):
            data, indices = self.data[part], self.indices[part]
            check_indices(indices, across, self.what)
            found = (data, indices, pointers - pointers[0])
            if self.by_columns:
                return sp.csc_array(found, shape=(across, stop - start))
            return sp.csr_array(found, shape=(stop - start, across))


def check_indices(indices: Int[np.ndarray, " stored"], length: int, what: str) -> None:
    """SciPy writes where indices point, without a look at them."""
    if len(indices) and not 0 <= indices.min() <= indices.max() < length:
        raise DataError(f"{what} is damaged: the sparse matrix has values outside of its shape")
