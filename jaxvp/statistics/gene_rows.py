"""Measurements of a block whose genes are rows in memory, as a program on this host reads them."""

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

# Genes of a tile, at most: a line of the cache is eight, a vector, too.
_TILE = 16
# Samples of a tile that are turned at once, at most.
_SAMPLES = 4096


class GeneRows(NamedTuple):
    """Genes x samples, and how many genes there are."""

    numbers: Float[Array, " most"]  # row by row, beginning anywhere
    ends: Float[Array, "2 spare"]  # in memory before these, and after them
    start: Int[Array, ""]  # of the block, in these: before these where that is negative
    count: Int[Array, ""]
    shape: Float[Array, "w n 0"]  # of a tile

    @classmethod
    def of(cls, y: Float[np.ndarray, "genes n"], capacity: int) -> GeneRows | None:
        """``y`` is by rows in memory, of eight samples at least.

        None where too little is beside it for ``capacity`` genes, which are an even number, or
        where a tile has more than it.
        """
        genes, n = y.shape
        found = around(y)
        assert found is not None
        memory, first = found
        few = spare(y.dtype)  # that a window may lack
        size = capacity * n - few
        # At a multiple of 64 bytes near the first gene, or earlier, as near to it as there is room.
        begin = min(to_aligned(memory, first), to_aligned(memory, len(memory) - size - few))
        width = tile_genes(capacity)
        if begin < 0 or genes < width or size < width * n:
            return None
        ends, end = np.zeros((2, few), y.dtype), begin + size
        before, after = memory[max(0, begin - few) : begin], memory[end : end + few]
        ends[0, few - len(before) :], ends[1, : len(after)] = before, after
        start, count = np.asarray(first - begin), np.asarray(genes)
        return cls(memory[begin:end], ends, start, count, np.empty((width, n, 0)))

    @property
    def capacity(self) -> int:
        """Genes that there is room for."""
        return (len(self.numbers) + self.ends.shape[1]) // self.shape.shape[1]

    @property
    def width(self) -> int:
        """Genes of a tile."""
        return self.shape.shape[0]

    @property
    def whole(self) -> int:
        """Samples that `samples` reads: all of them."""
        return self.shape.shape[1]

    def samples(
        self,
        begin: Int[Array, ""] | int,
        first: Array | int,
        some: int,
        finish: Callable[[Float[Array, "samples w"]], Array],
    ) -> Array:
        """``finish(y)`` of samples x genes of a tile: so many samples, from ``first`` on.

        ``begin`` is the tile's first gene.
        """
        width, n, _ = self.shape.shape
        size, few = width * n, self.ends.shape[1]
        place = self.start + begin * n
        inside = jnp.clip(place, 0, len(self.numbers) - size)

        def cut() -> Array:
            return jax.lax.dynamic_slice_in_dim(self.numbers, inside, size)

        def finished(numbers: Array) -> Array:
            tile = numbers.reshape(width, n)
            y = jax.lax.dynamic_slice_in_dim(tile, first, some, axis=1).T
            found = finish(y.astype(np.float64))
            # XLA would not turn it here but twice where it is read.
            return as_numbered(found)

        def at_end() -> Array:
            more = jnp.concatenate([self.ends[0], cut(), self.ends[1]])
            return finished(jax.lax.dynamic_slice_in_dim(more, few + place - inside, size))

        return jax.lax.cond(place == inside, lambda: finished(cut()), at_end)

    def summed(self, begin: Int[Array, ""] | int, finish: Finish, add: Add, found: Any) -> Any:
        """``found`` with what all samples of a tile add, some at a time."""
        read = partial(self.samples, begin)
        return read_in_parts(self.whole, _SAMPLES, read, finish, add, found)


def tile_genes(genes: int) -> int:
    """Genes of a tile, of an even number: half of it at most, as a window may lack numbers."""
    return math.gcd(genes // 2, _TILE)
