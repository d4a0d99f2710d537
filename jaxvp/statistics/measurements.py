"""Measurements of a block as a program on this host reads them, tile by tile.

JAX takes an array as it is where that begins at a multiple of 64 bytes, and copies others, which
for small systems costs as much as their solution. NumPy's begin anywhere. So a program gets the
numbers from such a multiple on, and copies of the few beside them. This is for genes that are rows
in memory. Blocks whose samples are rows are left to NumPy, which need not turn them: a program
takes as long.
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
FEWEST_SAMPLES = _SPARE + 1  # so that a window, which may lack so many, has a tile of genes
# Genes of a tile, at most: a line of the cache is eight, a vector, too.
_TILE = 16

Finish = Callable[[Float[Array, "samples w"]], Array]


class GeneRows(NamedTuple):
    """Genes x samples, and how many genes there are."""

    numbers: Float[Array, " most"]  # row by row, beginning anywhere
    ends: Float[Array, "2 spare"]  # in memory before these, and after them
    start: Int[Array, ""]  # of the block, in these: before these where that is negative
    count: Int[Array, ""]
    shape: Float[Array, "w n 0"]  # of a tile

    @classmethod
    def of(cls, y: Float[np.ndarray, "genes n"], capacity: int) -> GeneRows | None:
        """``y`` is by rows in memory, of `FEWEST_SAMPLES` at least.

        None where too little is beside it for ``capacity`` genes, which are an even number, or
        where a tile has more than it.
        """
        genes, n = y.shape
        memory = _memory(y)
        first = (y.ctypes.data - memory.ctypes.data) // 8
        size = capacity * n - _SPARE
        # At a multiple of 64 bytes near the first gene, or earlier, as near to it as there is room.
        begin = min(_up(memory, first), _up(memory, len(memory) - size - _SPARE))
        width = tile_genes(capacity)
        if begin < 0 or genes < width:
            return None
        ends, end = np.zeros((2, _SPARE)), begin + size
        before, after = memory[max(0, begin - _SPARE) : begin], memory[end : end + _SPARE]
        ends[0, _SPARE - len(before) :], ends[1, : len(after)] = before, after
        start, count = np.asarray(first - begin), np.asarray(genes)
        return cls(memory[begin:end], ends, start, count, np.empty((width, n, 0)))

    @property
    def capacity(self) -> int:
        """Genes that there is room for."""
        return (len(self.numbers) + _SPARE) // self.shape.shape[1]

    @property
    def width(self) -> int:
        """Genes of a tile."""
        return self.shape.shape[0]

    def samples(
        self, begin: Int[Array, ""] | int, first: Array | int, some: int, finish: Finish
    ) -> Array:
        """``finish(y)`` of samples x genes of a tile: so many samples, from ``first`` on.

        ``begin`` is the tile's first gene.
        """
        width, n, _ = self.shape.shape
        size = width * n
        place = self.start + begin * n
        inside = jnp.clip(place, 0, len(self.numbers) - size)

        def cut() -> Array:
            return jax.lax.dynamic_slice_in_dim(self.numbers, inside, size)

        def finished(numbers: Array) -> Array:
            tile = numbers.reshape(width, n)
            found = finish(jax.lax.dynamic_slice_in_dim(tile, first, some, axis=1).T)
            # XLA would not turn it here but twice where it is read.
            return as_numbered(found)

        def at_end() -> Array:
            more = jnp.concatenate([self.ends[0], cut(), self.ends[1]])
            return finished(jax.lax.dynamic_slice_in_dim(more, _SPARE + place - inside, size))

        return jax.lax.cond(place == inside, lambda: finished(cut()), at_end)


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
    """Whether genes are rows in memory: one gene is if its samples are side by side."""
    alone = y.shape[1] == 1 and y.strides[0] == y.itemsize
    return alone or y.strides[0] < y.strides[1]


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
        # Of fewer genes than a tile has the others are zeros.
        some = max(genes, tile_genes(capacity))
        self._rows[:genes], self._rows[genes:some] = rows, 0.0
        found = GeneRows.of(self._rows[:some], capacity)
        assert found is not None
        return found
