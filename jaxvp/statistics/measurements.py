"""Measurements of a block as a program on this host reads them, tile by tile, where they are.

JAX takes an array as it is where that begins at a multiple of 64 bytes, and copies others, which
for small systems costs as much as their solution. NumPy's begin anywhere. So a program gets the
numbers from such a multiple on, and copies of the few beside them: of genes that are rows in memory
(`gene_rows`) and of samples that are (`sample_rows`).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Num

from jaxvp.memory import ALIGNMENT, aligned, by_genes, in_one_piece

from .gene_rows import GeneRows
from .gene_rows import tile_genes as tile_of_rows
from .sample_rows import SampleRows
from .sample_rows import tile_genes as tile_of_columns


class Room:
    """Where a block is copied to that a program cannot read where it is.

    Parameters
    ----------
    most
        Genes of a block, at most.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._rows: Float[np.ndarray, "rows columns"] | None = None

    def block(self, y: Num[np.ndarray, "n genes"], capacity: int) -> GeneRows | SampleRows:
        """The measurements of a block, where they are or here: until the next one comes."""
        return self._gene_rows(y.T, capacity) if by_genes(y) else self._sample_rows(y, capacity)

    def _gene_rows(self, rows: Num[np.ndarray, "genes n"], capacity: int) -> GeneRows:
        if in_one_piece(rows) and rows.flags.c_contiguous:
            found = GeneRows.of(rows, capacity)
            if found is not None:
                return found
        # Of fewer genes than a tile has the others are zeros.
        genes, some = len(rows), max(len(rows), tile_of_rows(capacity))
        copy = self._copy(capacity, rows.shape[1], rows.dtype)[:some]
        copy[:genes], copy[genes:] = rows, 0.0
        found = GeneRows.of(copy, capacity)
        assert found is not None
        return found

    def _sample_rows(self, y: Num[np.ndarray, "n genes"], capacity: int) -> SampleRows:
        n, genes = y.shape
        # A program is compiled for so many columns of a table: blocks that are tables of their own
        # go into one that is as wide as the largest of them.
        most = max(self._most, tile_of_columns(capacity))
        side_by_side = y.strides[1] == y.itemsize and y.strides[0] % y.itemsize == 0
        if side_by_side and y.strides[0] >= most * y.itemsize:
            found = SampleRows.of(y, capacity)
            if found is not None:
                return found
        line = ALIGNMENT // y.itemsize
        copy = self._copy(n, -(-most // line) * line, y.dtype)[:, :genes]
        copy[...] = y
        found = SampleRows.of(copy, capacity)
        assert found is not None
        return found

    def _copy(self, rows: int, columns: int, dtype: np.dtype) -> np.ndarray:
        """Room for a copy."""
        dtype = np.dtype(dtype.type)  # of this host's byte order
        if self._rows is None or (self._rows.shape, self._rows.dtype) != ((rows, columns), dtype):
            self._rows = aligned(rows, columns, dtype=dtype)
        return self._rows
