"""Tiles of genes in a compiled program: one after the other, each while it is in the cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Int

from .types import Array


def in_tiles(
    compute: Callable[[Int[Array, ""] | int], Any],
    width: int,
    capacity: int,
    count: Int[Array, ""],
) -> Any:
    """``compute(begin)`` of ``width`` genes at a time, put together along the last axis.

    Of the ``capacity`` genes the first ``count`` are computed, to the end of the last one's tile.
    The others are ones.
    """

    def fill(i: Int[Array, ""], room: Any) -> Any:
        return jax.tree.map(
            lambda old, new: jax.lax.dynamic_update_slice_in_dim(old, new, i * width, -1),
            room,
            compute(i * width),
        )

    shapes = jax.eval_shape(compute, 0)
    room = jax.tree.map(lambda a: jnp.ones((*a.shape[:-1], capacity), a.dtype), shapes)
    return jax.lax.fori_loop(0, (count + width - 1) // width, fill, room)
