"""Measurements of a block whose samples are rows in memory, as a program on this host reads them.

The block is some columns of a table with more of them. A program takes the table as it is, from a
multiple of 64 bytes on: rows that begin near the block's first gene. Near the first gene of all and
the last one the first row and the last would go beyond the table, so these are always apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxvp.memory import around, spare, to_aligned
from jaxvp.target import as_numbered

from .tiles import Add, Finish, read_in_parts
from .types import Array

# Genes of a tile, at most: lines of the cache that are side by side come sooner (16 genes: F takes
# 1.7 us a gene, 64: 1.1). And samples that are read at once, at most: they stay in the cache beside
# what they are added to.
_TILE, _SAMPLES = 64, 512


class SampleRows(NamedTuple):
    """Samples x genes, and how many genes there are."""

    numbers: Float[Array, "n-2 columns"]  # beginning near the block's first gene
    ends: Float[Array, "2 capacity"]  # the first sample and the last one: the block's genes
    start: Int[Array, ""]  # the block's first gene, a column
    count: Int[Array, ""]
    shape: Float[Array, "w 0"]  # of a tile

    @classmethod
    def of(cls, y: Float[np.ndarray, "n genes"], capacity: int) -> SampleRows | None:
        """``y`` is by rows in memory, of eight samples at least.

        None where the table that it is a part of has too few columns for a tile, or, beginning
        anywhere, none beside the block's.
        """
        (n, genes), columns = y.shape, y.strides[0] // y.itemsize
        found = around(y)
        if found is None or columns < tile_genes(capacity):
            return None
        memory, first = found
        second = first + columns
        begin = to_aligned(memory, second - spare(y.dtype))
        start, end = second - begin, begin + (n - 2) * columns
        if start + genes > columns:  # also where ``begin`` is before the memory's
            return None
        ends = np.zeros((2, capacity), y.dtype)
        ends[:, :genes] = y[[0, -1]]
        numbers = memory[begin:end].reshape(n - 2, columns)
        shape = np.empty((tile_genes(capacity), 0))
        return cls(numbers, ends, np.asarray(start), np.asarray(genes), shape)

    @property
    def capacity(self) -> int:
        """Genes that there is room for."""
        return self.ends.shape[1]

    @property
    def width(self) -> int:
        """Genes of a tile."""
        return self.shape.shape[0]

    @property
    def whole(self) -> int:
        """Samples that `samples` reads: all but the first and the last one."""
        return len(self.numbers)

    def samples(
        self,
        begin: Int[Array, ""] | int,
        first: Array | int,
        some: int,
        finish: Callable[[Float[Array, "samples w"]], Array],
    ) -> Array:
        """``finish(y)`` of samples x genes of a tile: so many samples, from ``first`` on.

        They are counted without the first one of all. ``begin`` is the tile's first gene.
        """
        width, place = self.width, self.start + begin
        inside = jnp.clip(place, 0, self.numbers.shape[1] - width)

        def cut() -> Array:
            return jax.lax.dynamic_slice(self.numbers, (first, inside), (some, width))

        def finished(y: Array) -> Array:
            return as_numbered(finish(y.astype(np.float64)))

        def at_end() -> Array:
            # At the table's right edge a tile begins further left: its genes go first again.
            return finished(jnp.roll(cut(), inside - place, axis=1))

        return jax.lax.cond(place == inside, lambda: finished(cut()), at_end)

    def summed(self, begin: Int[Array, ""] | int, finish: Finish, add: Add, found: Any) -> Any:
        """``found`` with what all samples of a tile add, some at a time."""

        def end(i: Array, found: Any) -> Any:
            first = i * (self.whole + 1)
            y = jax.lax.dynamic_slice(jnp.asarray(self.ends), (i, begin), (1, self.width))
            return add(finish(y.astype(np.float64), first, None), first, found)

        read = partial(self.samples, begin)
        found = read_in_parts(self.whole, _SAMPLES, read, finish, add, found, before=1)
        return jax.lax.fori_loop(0, len(self.ends), end, found)


def tile_genes(genes: int) -> int:
    """Genes of a tile, of a power of two."""
    return math.gcd(genes, _TILE)
