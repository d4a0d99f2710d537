r"""Products of genes that have weights, or observations, of their own.

The class sums of `weighted` are those of the interpolation nodes of `nodes`, ``C_c = sum_j L_c(log
n_j) F_j F_j' / n_j``, and cost most: the products of `structure` that may differ from zero, times
the nodes' shares L_c of their level, summed over the levels. The shares of a level that a gene has
add up to one: the sum over the nodes is ``sum_j F_j F_j' / n_j``, which `within` lacks.
``log|V_1|`` uses the true sizes. All that is *within* levels is formed from deviations from the
weighted level means.

One compiled program for a chunk of genes, a tile at a time: threads that form products wait for no
interpreter, and the solver takes them where they are.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxvp.target import accelerated, fence, traced_for

from .nodes import Nodes, interpolated, nodes_of
from .row_sums import added, summed, take, with_zeros
from .structure import Plan, Structure
from .tiles import in_tiles
from .types import Array, Packed, PerGene, padded, triangle
from .weighted import Sums

# Bytes of the sums of eight products, of a tile of genes: such that they stay in a cache.
_TILE_BYTES, _FEWEST, _MOST = 2 << 20, 8, 32


class Genes(NamedTuple):
    """Of a chunk of genes, with room for more: the last of them again."""

    w: Float[np.ndarray, "n genes"]
    y: Float[np.ndarray, "n genes"]
    size: Float[np.ndarray, "J genes"]
    n: Float[np.ndarray, " genes"]
    nodes: Nodes | None  # None: every level is a class


def chunk_of(s: Structure, found: Sums, nodes: int, capacity: int) -> Genes:
    """Genes whose class sums need no more than ``nodes`` nodes (J of them: a class a level)."""
    at = None if nodes == s.levels else nodes_of(found.level_size, nodes, len(s.Q))
    genes = Genes(found.w, found.y, found.level_size, found.n, at)
    return jax.tree.map(lambda a: padded(a, capacity), genes)


def chunk_products(
    nodes: int, platform: str, plan: Plan, genes: Genes, count: Int[Array, ""]
) -> PerGene:
    """Products of the first ``count`` genes of a chunk, to be compiled for a platform.

    Those of the others mean nothing.
    """
    with traced_for(platform):
        capacity = genes.w.shape[1]
        width = math.gcd(capacity, _lanes(nodes, plan))

        def tile(begin: Int[Array, ""] | int) -> PerGene:
            part = jax.tree.map(lambda a: jax.lax.dynamic_slice_in_dim(a, begin, width, -1), genes)
            return _products(plan, part)

        return in_tiles(tile, width, capacity, count)


def _lanes(nodes: int, plan: Plan) -> int:
    """Genes of a tile."""
    if accelerated():
        return 1 << 30  # all of them
    fits = max(1, _TILE_BYTES // (8 * nodes * plan.groups[0].shape[1]))
    return int(np.clip(1 << (fits.bit_length() - 1), _FEWEST, _MOST))


def _products(plan: Plan, genes: Genes) -> PerGene:
    """Of one tile of genes."""
    w, y, size, n, at = genes
    (q, _), (p, g), J = plan.pair.shape, (plan.Q.shape[1], w.shape[1]), len(size)
    K = q + p
    there = size > 0
    share = jnp.where(there, 1 / jnp.where(there, size, 1.0), 0.0)
    columns = jnp.concatenate(
        [jnp.broadcast_to(plan.Q[:, :, None], (*plan.Q.shape, g)), y[:, None]], axis=1
    )
    level_sums = summed(plan.levels, with_zeros(columns * w[:, None]))

    cells = summed(plan.cells, with_zeros(w))
    entries = jnp.concatenate([cells, level_sums.swapaxes(0, 1).reshape(-1, g)])
    entries = fence(_scaled, entries, fence(jnp.sqrt, share), plan.entry_level)
    if at is None:
        sizes = jnp.where(there, size, 1.0)
        one = take(entries, plan.first) * take(entries, plan.second)
        classes = jnp.zeros((J * (K * (K + 3) // 2 + 1), g)).at[plan.slot].set(one, mode="drop")
        classes = classes.reshape(-1, J, g)
    else:
        sizes = at.sizes
        shares = fence(interpolated, size, at)
        classes = summed(
            plan.places,
            fence(_first_stage, entries, shares, plan.groups),
        )
    T = K * (K + 1) // 2
    packed = classes[:T]

    means = level_sums * share[:, None]
    columns = columns - take(means, plan.level_of)
    weighted = columns * w[:, None]
    others = summed(plan.others, with_zeros(weighted))
    inner = jnp.einsum("nig,njg->ijg", weighted, columns)
    between = packed.sum(axis=1)[triangle(K)[:q, :q]] if q else jnp.zeros((0, 0, g))
    pairs = summed(plan.pairs, with_zeros(w))
    zz = take(with_zeros(pairs), plan.pair) - between
    above = jnp.concatenate([zz, others[:, :p]], axis=1)
    below = jnp.concatenate([others[:, :p].swapaxes(0, 1), inner[:p, :p]], axis=1)
    return PerGene(
        jnp.concatenate([others[:, p], inner[:p, p]]),
        inner[p, p],
        classes[T:-1].swapaxes(0, 1),
        classes[-1],
        Packed(jnp.concatenate([above, below]), packed, sizes, size, jnp.ones_like(size), n),
    )


def _scaled(entries: Array, root: Array, level: Array) -> Array:
    """By the root of the share of their level; a row of zeros after them."""
    return with_zeros(entries * take(root, level))


def _first_stage(
    entries: Float[Array, "entries_and_1 g"],
    shares: Float[Array, "J C g"],
    groups: tuple[Array, Array, Array],
) -> Float[Array, "groups C g"]:
    """Groups of products times the shares of their levels."""
    return added(
        (take(entries, one) * take(entries, two))[:, None] * take(shares, level)
        for one, two, level in zip(*groups, strict=True)
    )
