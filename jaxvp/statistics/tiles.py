"""Tiles of genes, and parts of sums, in a compiled program: each while it is in the cache."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
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

    `Records` that ``finish`` gives are put together by rows. ``some`` genes are finished at a time:
    a part of a tile, or several tiles (None: a tile). Of the ``capacity`` genes the first ``count``
    are computed. The others are numbers that mean nothing: ones, or what ones are finished to.
    """
    some = width if some is None else some
    together = max(some, width)

    def cut(found: Any, first: Array | int) -> Any:
        return jax.tree.map(lambda a: jax.lax.dynamic_slice_in_dim(a, first, some, -1), found)

    def empty(one: Any, genes: int) -> Any:
        if isinstance(one, Records):
            return one.of_ones(genes)
        return jnp.ones((*one.shape[:-1], genes), one.dtype)

    def placed(begin: Array | int, old: Any, new: Any) -> Any:
        if isinstance(old, Records):
            return old.placed(new, begin)
        return jax.lax.dynamic_update_slice_in_dim(old, new, begin, -1)

    def of_tiles(begin: Array | int) -> Any:
        """What is computed for all genes that are finished together, or are a tile."""
        if together == width:
            return compute(begin)

        def tile(i: Int[Array, ""], found: Any) -> Any:
            place = jnp.minimum(i * width, jnp.maximum(count - begin - width, 0))
            return jax.tree.map(partial(placed, place), found, compute(begin + place))

        found = jax.tree.map(lambda one: empty(one, together), jax.eval_shape(compute, 0))
        tiles = jnp.minimum(together // width, (count + width - 1) // width)
        return jax.lax.fori_loop(0, tiles, tile, found)

    def fill(i: Int[Array, ""], room: Any) -> Any:
        # The last of these begin earlier, and have some genes of those before again.
        begin = jnp.minimum(i * together, jnp.maximum(count - together, 0))
        found = of_tiles(begin)

        def part(j: Int[Array, ""] | int, room: Any) -> Any:
            put = partial(placed, begin + j * some)
            return jax.tree.map(put, room, finish(cut(found, j * some)), is_leaf=is_records)

        return jax.lax.fori_loop(0, together // some, part, room)

    one = jax.eval_shape(lambda: finish(cut(of_tiles(0), 0)))
    room = jax.tree.map(lambda one: empty(one, capacity), one, is_leaf=is_records)
    return jax.lax.fori_loop(0, (count + together - 1) // together, fill, room)


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
