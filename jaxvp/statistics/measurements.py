"""Measurements of a block as a program on this host reads them, tile by tile.

JAX takes an array as it is where that begins at a multiple of 64 bytes, and copies others, which
for small systems costs as much as their solution. NumPy's begin anywhere. So a program gets the
numbers from such a multiple on, and copies of the first tile of genes and of the last. This is for
genes that are rows in memory. Blocks whose samples are rows are left to NumPy, which need not turn
them: a program takes as long.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, Num

from jaxvp.memory import ALIGNMENT, aligned
from jaxvp.target import as_numbered

from .types import Array

_SPARE = ALIGNMENT // 8 - 1  # numbers, at most, before a multiple
FEWEST_SAMPLES = _SPARE + 1  # so that what a window lacks is of a block's first gene, or its last
# Genes of a tile, at most: a line of the cache is eight, a vector, too.
_TILE = 16

Finish = Callable[[Float[Array, "samples w"]], Array]


class GeneRows(NamedTuple):
    """Genes x samples, and how many genes there are."""

    numbers: Float[Array, " most"]  # row by row, beginning anywhere
    start: Int[Array, ""]  # in these, of the block: before these where that is negative
    edges: Float[Array, "2 w n"]  # the first tile and the last
    count: Int[Array, ""]

    @classmethod
    def of(cls, y: Float[np.ndarray, "genes n"], capacity: int) -> GeneRows | None:
        """``y`` is by rows in memory, of `FEWEST_SAMPLES` at least.

        None where too little is beside it for ``capacity`` genes, which are an even number.
        """
        genes, n = y.shape
        memory = _memory(y)
        first = (y.ctypes.data - memory.ctypes.data) // 8
        size = capacity * n - _SPARE
        # At a multiple of 64 bytes near the first gene, or earlier, as near to it as there is room.
        begin = min(_up(memory, first), _up(memory, len(memory) - size - _SPARE))
        if begin < 0:
            return None
        width = tile_genes(capacity)
        edges = np.zeros((2, width, n))
        last = (genes - 1) // width * width
        edges[0, : min(width, genes)], edges[1, : genes - last] = y[:width], y[last:]
        return cls(
            memory[begin : begin + size], np.asarray(first - begin), edges, np.asarray(genes)
        )

    @property
    def capacity(self) -> int:
        """Genes that there is room for."""
        return (len(self.numbers) + _SPARE) // self.edges.shape[2]

    @property
    def width(self) -> int:
        """Genes of a tile."""
        return self.edges.shape[1]

    def samples(
        self, begin: Int[Array, ""] | int, first: Array | int, some: int, finish: Finish
    ) -> Array:
        """``finish(y)`` of samples x genes of a tile: so many samples, from ``first`` on.

        ``begin`` is the tile's first gene. Genes that are not there are zeros.
        """
        _, width, n = self.edges.shape

        def finished(tile: Array) -> Array:
            found = finish(jax.lax.dynamic_slice_in_dim(tile, first, some, axis=1).T)
            # XLA would not turn it here but twice where it is read.
            return as_numbered(found)

        def inside() -> Array:
            size = width * n
            numbers = jax.lax.dynamic_slice_in_dim(self.numbers, self.start + begin * n, size)
            return finished(numbers.reshape(width, n))

        at_first, at_last = begin == 0, begin + width >= self.count

        def edge() -> Array:
            which = jnp.where(at_first, 0, 1)
            return finished(jax.lax.dynamic_index_in_dim(self.edges, which, keepdims=False))

        return jax.lax.cond(at_first | at_last, edge, inside)


def _memory(y: Float[np.ndarray, "genes n"]) -> Float[np.ndarray, " all"]:
    """All that lies beside the numbers of an array by rows, in one piece."""
    whole = y
    while isinstance(whole.base, np.ndarray) and _whole(whole.base):
        whole = whole.base
    return np.asarray(whole).reshape(-1, order="A")  # of a matrix, too


def _whole(y: np.ndarray) -> bool:
    """Numbers as a program takes them, none of them apart from the others."""
    return y.dtype == np.float64 and y.dtype.isnative and y.flags.aligned and y.flags.forc


def _up(memory: Float[np.ndarray, " all"], place: int) -> int:
    """The first place from there on where JAX takes an array as it is."""
    return place + (-(memory.ctypes.data + 8 * place) % ALIGNMENT) // 8


def tile_genes(genes: int) -> int:
    """Genes of a tile, of an even number."""
    return math.gcd(genes // 2, _TILE)


def by_genes(y: Num[np.ndarray, "n genes"]) -> bool:
    """Whether genes are rows in memory: one gene always is."""
    return y.shape[1] == 1 or y.strides[0] < y.strides[1]


class Room:
    """Where a block is copied to that a program cannot read where it is."""

    def __init__(self) -> None:
        self._rows: Float[np.ndarray, "capacity n"] | None = None

    def rows(self, y: Num[np.ndarray, "n genes"], capacity: int) -> GeneRows:
        """The measurements of a block, where they are or here: until the next one comes."""
        rows = y.T
        if _whole(rows) and rows.flags.c_contiguous:
            found = GeneRows.of(rows, capacity)
            if found is not None:
                return found
        genes, n = rows.shape
        if self._rows is None or self._rows.shape != (capacity, n):
            self._rows = aligned(capacity, n)
        self._rows[:genes] = rows
        found = GeneRows.of(self._rows[:genes], capacity)
        assert found is not None
        return found
