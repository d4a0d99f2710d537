"""States of many searches, or statistics of many genes, as one array, a row each.

Gathering rows is one operation, and copies what is side by side. With an operation for every leaf
of a state a program has many more kernels, and each of them takes 20 milliseconds to compile; where
instead the genes are side by side, every number of a gene is a line of the cache.
"""

from __future__ import annotations

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from jaxvp.memory import aligned
from jaxvp.target import as_numbered, kernel

from .types import Array


class Records(eqx.Module):
    """Numbers of searches (or of genes), a row each."""

    rows: Float[Array, "searches numbers"]
    structure: Any = eqx.field(static=True)
    leaves: tuple[tuple[tuple[int, ...], Any], ...] = eqx.field(static=True)

    @classmethod
    def of(cls, tree: Any) -> Records:
        """Of a tree of arrays, searches last: floats, truths, integers that a float can hold."""
        arrays, structure = jax.tree.flatten(tree)
        floats = (a for a in arrays if jnp.issubdtype(a.dtype, jnp.floating))
        dtype = jnp.result_type(jnp.float32, *floats)
        leaves = tuple((a.shape[:-1], a.dtype) for a in arrays)
        flat = [a.reshape(math.prod(a.shape[:-1]), a.shape[-1]).astype(dtype) for a in arrays]
        # Turned by itself: with what is put together here it would take five times as long.
        return cls(kernel(jnp.concatenate, flat).T, structure, leaves)

    @classmethod
    def empty(cls, one: Any, count: int) -> Records:
        """On the host, to be filled: as its `tree` is made of views of it.

        ``one`` has the shapes of a record's leaves, all of them of float64.
        """
        arrays, structure = jax.tree.flatten(one)
        leaves = tuple((a.shape, np.dtype(float)) for a in arrays)
        return cls(aligned(count, sum(a.size for a in arrays)), structure, leaves)

    @classmethod
    def repeated(cls, one: Any, count: int) -> Records:
        """``count`` times the same."""
        alone = cls.of(jax.tree.map(lambda leaf: leaf[..., None], one))
        return alone._with(jnp.broadcast_to(alone.rows, (count, alone.rows.shape[1])))

    def of_ones(self, count: int) -> Records:
        """``count`` such records, all of whose numbers are one."""
        return self._with(jnp.ones((count, self.rows.shape[1]), self.rows.dtype))

    def replaced(self, **leaves: Array) -> Records:
        """With other values of some leaves, finite ones: what is not would be in all of them."""
        places = [np.eye(self.rows.shape[1])[self._columns(name)] for name in leaves]
        place = np.concatenate(places)
        columns = jnp.concatenate(
            [leaf.reshape(-1, leaf.shape[-1]) for leaf in leaves.values()], dtype=self.rows.dtype
        )
        # A product puts them in their places: as a concatenation it would be a loop for each.
        put = jnp.tensordot(columns, place.astype(columns.dtype), (0, 0), precision="highest")
        return self._with(jnp.where(place.any(0), put, self.rows))

    def tree(self) -> Any:
        """What it was made of."""
        found, begin, columns = [], 0, self.rows.T
        for shape, dtype in self.leaves:
            end = begin + math.prod(shape)
            part = columns[begin:end]
            part = part != 0 if jnp.issubdtype(dtype, bool) else part.astype(dtype, copy=False)
            found.append(part.reshape(*shape, part.shape[-1]))
            begin = end
        return jax.tree.unflatten(self.structure, found)

    def take(self, index: Int[Array, " some"]) -> Records:
        """The rows of these numbers."""
        if isinstance(self.rows, np.ndarray):
            return self._with(self.rows[index])
        return self._with(self.rows.at[index].get(mode="promise_in_bounds"))

    def cut(self, begin: Int[Array, ""], width: int) -> Records:
        """``width`` rows from ``begin`` on."""
        return self._with(jax.lax.dynamic_slice_in_dim(self.rows, begin, width))

    def put(self, part: Records, mine: Bool[Array, " g"], index: Int[Array, " g"]) -> Records:
        """With a part, as far as it is ``mine``, in the rows of these numbers, which differ."""
        count = len(self.rows)
        nowhere = count + np.arange(len(mine), dtype=index.dtype)
        place = jnp.asarray(self.rows).at[jnp.where(mine, index, nowhere)]
        return self._with(place.set(as_numbered(part.rows), mode="drop", unique_indices=True))

    def placed(self, part: Records, begin: Int[Array, ""] | int) -> Records:
        """With all of a part, from ``begin`` on."""
        rows = as_numbered(part.rows)
        return self._with(jax.lax.dynamic_update_slice_in_dim(self.rows, rows, begin, 0))

    def chosen(self, other: Records, takes: Bool[Array, " searches"], always: str) -> Records:
        """The rows of another where it ``takes``, and the leaf ``always`` of it everywhere."""
        mine = takes[:, None] | self._columns(always)
        return self._with(jnp.where(mine, other.rows, self.rows))

    def _columns(self, name: str) -> Bool[np.ndarray, " numbers"]:
        """Which numbers are of the leaf of this name."""
        mine = getattr(jax.tree.unflatten(self.structure, range(len(self.leaves))), name)
        return np.concatenate(
            [np.full(math.prod(shape), i == mine) for i, (shape, _) in enumerate(self.leaves)]
        )

    def _with(self, rows: Array) -> Records:
        return Records(rows, self.structure, self.leaves)


def is_records(node: Any) -> bool:
    """For functions over trees whose leaves they shall be."""
    return isinstance(node, Records)
