"""Tiles of genes, and parts of sums, in a compiled program: each while it is in the cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Int

from .records import Records, is_records
from .types import Array

# Of some samples: ``finish(y, first, new)``, shifted, say, and ``add(y, first, found)``; ``new`` as
# `summed_in_parts` has it.
Finish = Callable[[Array, Array | int, Bool[Array, " some"] | None], Array]
Add = Callable[[Array, Array | int, Any], Any]


def in_tiles(
    compute: Callable[[Int[Array, ""] | int], Any],
    width: int,
    capacity: int,
    count: Int[Array, ""],
    finish: Callable[[Any], Any] = lambda found: found,
    some: int | None = None,
) -> Any:
    """``finish(compute(begin))`` of ``width`` genes at a time, put together by their last axis.

    `Records` in it are put together by rows. Of the ``capacity`` genes the first ``count`` are
    computed, and as many as a tile has. The others are ones. ``some`` genes of a tile are finished
    at a time (None: all).
    """
    some = width if some is None else some

    def cut(found: Any, first: Array | int) -> Any:
        return jax.tree.map(lambda a: jax.lax.dynamic_slice_in_dim(a, first, some, -1), found)

    def empty(one: Any) -> Any:
        if isinstance(one, Records):
            return one.of_ones(capacity)
        return jnp.ones((*one.shape[:-1], capacity), one.dtype)

    def fill(i: Int[Array, ""], room: Any) -> Any:
        # The last tile begins earlier, and has some genes of the one before again.
        begin = jnp.minimum(i * width, jnp.maximum(count - width, 0))
        found = compute(begin)

        def part(j: Int[Array, ""] | int, room: Any) -> Any:
            def put(old: Any, new: Any) -> Any:
                if isinstance(old, Records):
                    return old.placed(new, begin + j * some)
                return jax.lax.dynamic_update_slice_in_dim(old, new, begin + j * some, -1)

            return jax.tree.map(put, room, finish(cut(found, j * some)), is_leaf=is_records)

        return jax.lax.fori_loop(0, width // some, part, room)

    one = jax.eval_shape(lambda: finish(cut(compute(0), 0)))
    room = jax.tree.map(empty, one, is_leaf=is_records)
    return jax.lax.fori_loop(0, (count + width - 1) // width, fill, room)


def summed_in_parts(
    total: int,
    most: int,
    add: Callable[[Array, int, Bool[Array, " some"] | None, Any], Any],
    found: Any,
) -> Any:
    """``found`` with what all parts of a sum add: of ``total`` terms, ``most`` at a time at most.

    ``add(first, some, new, found)`` adds so many terms, the same number in every part, from
    ``first`` on. The last part begins earlier: ``new`` says which of its terms were not in the one
    before (None: all).
    """
    parts = -(-total // most)
    some = -(-total // max(1, parts))

    def one(part: Int[Array, ""] | int, found: Any) -> Any:
        first = jnp.minimum(part * some, total - some)
        new = None if parts == 1 else first + jnp.arange(some) >= part * some
        return add(first, some, new, found)

    return jax.lax.fori_loop(0, parts, one, found)


def read_in_parts(
    total: int,
    most: int,
    read: Callable[[Array, int, Callable[[Array], Array]], Array],
    finish: Finish,
    add: Add,
    found: Any,
    before: int = 0,
) -> Any:
    """``found`` with what so many samples add, ``most`` at a time at most (`summed_in_parts`).

    ``read(first, some, of)`` is ``of(y)`` of some of them; ``before`` these are others.
    """

    def part(first: Array, some: int, new: Array | None, found: Any) -> Any:
        y = read(first, some, lambda y: finish(y, before + first, new))
        return add(y, before + first, found)

    return summed_in_parts(total, most, part, found)
