"""The one bounded loop over a block of genes, whatever is iterated.

Tiles of genes are stepped one after the other, each until all its genes are done or the burst is
over. Then what is not done is gathered to the front, and only that goes on: a slow gene costs its
own iterations and nobody else's. All bursts are one loop, so that the step is compiled once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Int

from jaxvp.statistics import Array

# Genes whose tables are filled at once.
TABLE_GENES = 64
_BURSTS = (5, 2, 3, 6, 12, 24)


def iterate(
    stepped: Callable[[Any, Any], Any],
    width: int,
    gene: Any,
    state: Any,
    limit: Int[Array, ""],
    genes: int | None = None,
    bursts: tuple[int, ...] = _BURSTS,
) -> Any:
    """Step every search until it is done, or ``limit`` iterations are over.

    Parameters
    ----------
    stepped
        ``(statistics, states) -> states`` for ``width`` searches on the last axis.
    width
        Searches stepped together; their number is a multiple of it.
    gene
        Statistics, genes last.
    state
        States, searches last, with a field ``done``.
    limit
        Iterations, at most.
    genes
        Number of genes, where it is not that of searches: search i is one of gene ``i % genes``.
    bursts
        Iterations before what is left is gathered again; the last one repeats.
    """
    count = state.done.shape[-1]

    def tile(begin, steps, ids, state):
        of = ids if genes is None else ids % genes
        here = jax.tree.map(lambda leaf: take(leaf, cut(of, begin, width)), gene)
        part = jax.tree.map(lambda leaf: cut(leaf, begin, width), state)

        def unfinished(carry):
            spent, part = carry
            return (spent < steps) & ~jnp.all(part.done)

        _, part = jax.lax.while_loop(
            unfinished, lambda c: (c[0] + 1, stepped(here, c[1])), (jnp.zeros_like(steps), part)
        )
        return jax.tree.map(
            lambda old, new: jax.lax.dynamic_update_slice_in_dim(old, new, begin, -1), state, part
        )

    def burst(carry):
        number, spent, ids, state = carry
        order = jnp.argsort(state.done, stable=True)
        ids, state = jax.tree.map(lambda leaf: take(leaf, order), (ids, state))
        steps = jnp.minimum(jnp.asarray(bursts, limit.dtype)[number], limit - spent)
        tiles = (count - state.done.sum() + width - 1) // width
        state = jax.lax.fori_loop(
            0, tiles, lambda i, state: tile(i * width, steps, ids, state), state
        )
        return jnp.minimum(number + 1, len(bursts) - 1), spent + steps, ids, state

    begin = (jnp.zeros_like(limit), jnp.zeros_like(limit), jnp.arange(count), state)
    *_, ids, state = jax.lax.while_loop(
        lambda c: (c[1] < limit) & ~jnp.all(c[3].done), burst, begin
    )
    back = jnp.zeros_like(ids).at[ids].set(jnp.arange(count))
    return jax.tree.map(lambda leaf: take(leaf, back), state)


def for_each(state: Any, count: int) -> Any:
    """A state for ``count`` searches, on the last axis."""
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf[..., None], (*leaf.shape, count)), state)


def by_tiles(compute: Callable[[Any], Any], gene: Any, out: Any) -> Any:
    """``compute`` for tiles of genes whose tables fit into the memory of a block, into ``out``."""
    count = jax.tree.leaves(out)[0].shape[-1]
    width = math.gcd(count, TABLE_GENES)

    def fill(i, out):
        found = compute(jax.tree.map(lambda leaf: cut(leaf, i * width, width), gene))
        return jax.tree.map(
            lambda old, new: jax.lax.dynamic_update_slice_in_dim(old, new, i * width, -1),
            out,
            found,
        )

    return jax.lax.fori_loop(0, count // width, fill, out)


def cut(leaf: Array, begin: Int[Array, ""], width: int) -> Array:
    """``width`` genes from ``begin`` on."""
    return jax.lax.dynamic_slice_in_dim(leaf, begin, width, axis=-1)


def take(leaf: Array, index: Int[Array, " some"]) -> Array:
    """The genes of these numbers."""
    return jnp.asarray(leaf).at[..., index].get(mode="promise_in_bounds")
