"""Sparse matrices of a design times a table with the genes of a tile last, in compiled code.

An accelerator gathers: its sums are of rows that are taken (`row_sums`), in an order that is the
same every time. A CPU scatters: every entry is added where it belongs, 5 ns for 16 genes (by XLA's
newer emitters), and the entries of a few samples can be added to what others gave.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int

from jaxvp.target import fence

from .row_sums import RowSums, added, row_sums, summed, take
from .tiles import summed_in_parts
from .types import Array

# Entries that are multiplied before they are added: they stay in the cache.
_ENTRIES = 4096


class Gathered(NamedTuple):
    """A matrix by rows."""

    numbers: Int[np.ndarray, "at_once groups"]  # rows of the table that are added first
    values: Float[np.ndarray, "at_once groups"]
    stages: RowSums  # sums of these

    @classmethod
    def of(cls, matrix: Any) -> Gathered:
        """Any of SciPy's."""
        matrix = sp.csr_array(matrix)
        entries = len(matrix.data)
        first, *stages = row_sums(matrix.indptr, np.arange(entries), entries)
        numbers = np.append(matrix.indices, matrix.shape[1]).astype(np.int32)[first]
        return cls(numbers, np.append(matrix.data, 0.0)[first], tuple(stages))

    def times(self, table: Float[Array, "rows_and_1 g"]) -> Float[Array, "sums g"]:
        """The product with a table that has a row of zeros after its last."""

        def first(table: Array, numbers: Array, values: Array) -> Array:
            return added(
                take(table, some) * factor[:, None]
                for some, factor in zip(numbers, values, strict=True)
            )

        return summed(self.stages, fence(first, table, self.numbers, self.values))


class Scattered(NamedTuple):
    """A matrix by columns: entry after entry."""

    rows: Int[np.ndarray, " entries"]
    columns: Int[np.ndarray, " entries"]
    values: Float[np.ndarray, " entries"]
    shape: Float[np.ndarray, "rows 0"]  # for the number of rows

    @classmethod
    def of(cls, matrix: Any) -> Scattered:
        """Any of SciPy's."""
        found: Any = sp.coo_array(sp.csc_array(matrix))
        rows, columns = (places.astype(np.int32) for places in found.coords)
        return cls(rows, columns, found.data, np.empty((found.shape[0], 0)))

    def times(self, table: Float[Array, "columns_and_1 g"]) -> Float[Array, "rows g"]:
        """The product, of a table as for `Gathered`."""

        def entries(table: Array, columns: Array, values: Array) -> Array:
            return take(table, columns) * values[:, None]

        def add(first: Array, some: int, new: Array | None, room: jax.Array) -> jax.Array:
            rows, columns, values = (
                jax.lax.dynamic_slice_in_dim(jnp.asarray(a), first, some)
                for a in (self.rows, self.columns, self.values)
            )
            if new is not None:
                values = jnp.where(new, values, 0.0)
            return _put(room, rows, fence(entries, table, columns, values))

        room = jnp.zeros((len(self.shape), table.shape[1]), table.dtype)
        return summed_in_parts(len(self.values), _ENTRIES, add, room)


class BySample(NamedTuple):
    """Indicators of levels, whose columns are samples: of some factors one entry each."""

    rows: Int[np.ndarray, "n some"]
    values: Float[np.ndarray, "n some"] | None  # None: all of them are one
    shape: Float[np.ndarray, "rows 0"]  # for the number of rows

    @classmethod
    def of(cls, matrix: Any) -> BySample:
        """A `scipy.sparse.csc_array`."""
        height, n = matrix.shape
        rows, values = (a.reshape(n, -1) for a in (matrix.indices, matrix.data))
        values = None if (values == 1).all() else values
        return cls(rows.astype(np.int32), values, np.empty((height, 0)))

    def nothing(self, genes: int) -> Float[jax.Array, "rows genes"]:
        """A product of no samples yet."""
        return jnp.zeros((len(self.shape), genes))

    def plus(
        self, product: Float[jax.Array, "rows g"], table: Float[Array, "some g"], first: Array | int
    ) -> Float[jax.Array, "rows g"]:
        """With what the samples from ``first`` on give."""

        def cut(a: Array) -> Array:
            return jax.lax.dynamic_slice_in_dim(jnp.asarray(a), first, len(table)).T

        rows = cut(self.rows)
        values = [None] * len(rows) if self.values is None else cut(self.values)
        for mine, factor in zip(rows, values, strict=True):
            entries = table if factor is None else fence(_scaled, table, factor)
            product = _put(product, mine, entries)
        return product


def _scaled(table: Array, values: Array) -> Array:
    return table * values[:, None]


def _put(room: jax.Array, rows: Int[Array, " some"], entries: Float[Array, "some g"]) -> jax.Array:
    return room.at[rows].add(entries, mode="promise_in_bounds")
