"""Measurements of a block as a program on this host reads them, tile by tile.

JAX takes an array as it is where that begins at a multiple of 64 bytes, and copies others, which
for small systems costs as much as their solution. NumPy's begin anywhere. So where genes are rows
in memory a program gets the numbers from such a multiple on, and copies of the first tile of genes
and of the last. Others are copied to a room of the thread's, which they go through row by row.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, Num

from jaxvp.memory import ALIGNMENT, aligned

from .types import Array

_SPARE = ALIGNMENT // 8 - 1  # numbers, at most, before a multiple
# Bytes of a tile: it and what it is turned into share a cache of 2 MB. Loops over samples are slower
# of other numbers of genes, of fewer than 16 even where these do not fit.
_TILE_BYTES, _FEWEST, _MOST = 1 << 19, 16, 32
_ROOM_BYTES = 1 << 22  # new memory costs more than what is copied to it


class GeneRows(NamedTuple):
    """Genes x samples, and how many genes there are."""

    numbers: Float[Array, " most"]  # row by row, beginning anywhere
    start: Int[Array, ""]  # in these, of the block: before these where that is negative
    edges: Float[Array, "2 w n"]  # the first tile and the last
    count: Int[Array, ""]

    @classmethod
    def of(cls, y: Float[np.ndarray, "genes n"], capacity: int) -> GeneRows | None:
        """``y`` is by rows in memory, of which there is enough for ``capacity`` genes; or None.

        ``capacity`` is a multiple of a power of two, above one.
        """
        genes, n = y.shape
        memory = _memory(y)
        first = (y.ctypes.data - memory.ctypes.data) // 8
        size = capacity * n - _SPARE
        # At a multiple of 64 bytes near the first gene, or earlier, as near to it as there is room.
        begin = min(_up(memory, first), _up(memory, len(memory) - size - _SPARE))
        if begin < 0 or n <= _SPARE:
            return None
        width = tile_genes(capacity, n)
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

    def tile(self, begin: Int[Array, ""] | int) -> Float[Array, "w n"]:
        """The genes from ``begin`` on, the first of a tile; of those that are not there, zeros."""
        _, width, n = self.edges.shape

        def inside() -> Array:
            some = jax.lax.dynamic_slice_in_dim(
                jnp.asarray(self.numbers), self.start + begin * n, width * n
            )
            return some.reshape(width, n)

        first, last = begin == 0, begin + width >= jnp.asarray(self.count)
        edge = jax.lax.dynamic_index_in_dim(
            jnp.asarray(self.edges), jnp.where(first, 0, 1), keepdims=False
        )
        return jax.lax.cond(first | last, lambda: edge, inside)


def _memory(y: Float[np.ndarray, "genes n"]) -> Float[np.ndarray, " all"]:
    """All that lies beside the numbers of an array by rows, in one piece."""
    whole = y
    while isinstance(whole.base, np.ndarray) and _whole(whole.base):
        whole = whole.base
    return whole.reshape(-1, order="A")


def _whole(y: np.ndarray) -> bool:
    """Numbers as a program takes them, none of them apart from the others."""
    return y.dtype == np.float64 and y.dtype.isnative and y.flags.aligned and y.flags.forc


def _up(memory: Float[np.ndarray, " all"], place: int) -> int:
    """The first place from there on where JAX takes an array as it is."""
    return place + (-(memory.ctypes.data + 8 * place) % ALIGNMENT) // 8


class SampleRows(NamedTuple):
    """Samples x genes, and how many genes there are."""

    numbers: Float[Array, "n capacity"]
    count: Int[Array, ""]

    @property
    def capacity(self) -> int:
        """Genes that there is room for."""
        return self.numbers.shape[1]

    @property
    def width(self) -> int:
        """Genes of a tile."""
        return tile_genes(self.capacity, len(self.numbers))

    def tile(self, begin: Int[Array, ""] | int) -> Float[Array, "n w"]:
        """The genes from ``begin`` on."""
        return jax.lax.dynamic_slice_in_dim(jnp.asarray(self.numbers), begin, self.width, axis=1)


def tile_genes(genes: int, n: int) -> int:
    """Genes of a tile: of so many, which are a multiple of a power of two."""
    fits = int(np.clip(_TILE_BYTES // (8 * n), _FEWEST, _MOST))
    return math.gcd(genes // 2, _power_of_two(fits))


class Room:
    """Where genes are copied to that a program cannot read where they are: some at a time."""

    def __init__(self) -> None:
        self._numbers: Float[np.ndarray, "n some"] | None = None

    def parts(
        self, y: Num[np.ndarray, "n genes"], capacity: int
    ) -> Iterator[tuple[int, GeneRows | SampleRows]]:
        """The genes of a block, all where they are, or here so many at a time: the first of them.

        What is here is lost when the next part is asked for.
        """
        rows = y.T
        if _whole(rows) and rows.flags.c_contiguous:
            found = GeneRows.of(rows, capacity)
            if found is not None:
                yield 0, found
                return
        n, genes = y.shape
        some = math.gcd(capacity, _power_of_two(_ROOM_BYTES // (8 * n)))
        if self._numbers is None or self._numbers.shape != (n, some):
            self._numbers = aligned(n, some)
        for begin in range(0, genes, some):
            part = y[:, begin : begin + some]
            count = part.shape[1]
            self._numbers[:, :count] = part
            yield begin, SampleRows(self._numbers, np.asarray(count))


def _power_of_two(most: int) -> int:
    """The largest up to there."""
    return 1 << (most.bit_length() - 1)
