"""The one bounded loop over a block of genes, whatever is iterated.

Tiles of genes are stepped one after the other, each until all its genes are done or the burst is
over. Then the numbers of what is not done are put in front, and only that goes on: a slow gene
costs its own iterations and nobody else's. States stay where they are; those of a tile are gathered
and put back. All bursts are one loop, so that the step is compiled once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from jaxvp.likelihood import accelerated, every
from jaxvp.statistics import Array, Records, is_records
from jaxvp.target import as_numbered

# Genes whose tables are filled at once: on a CPU if not said otherwise, and on an accelerator.
_TABLE_GENES, _TABLE_GENES_ACCELERATED = 128, 2048
# Rows that flags are counted in, and how many of them at most.
_ROW, _ROWS = 128, 1024
# Iterations before what is left is counted again. On a CPU, by measurement: three at first take
# 3 % less of B than four. An accelerator keeps what was there before: unmeasured there.
_BURSTS, _BURSTS_ACCELERATED = (3, 1, 1, 1, 1, 2, 3, 6, 12), (4, 2, 3, 6, 12, 24)
# Products of a gene's own are large: gathering them costs as much as an evaluation.
BURSTS_OF_OWN = (6, 1, 1, 2, 4, 8)


def iterate(
    stepped: Callable[[Any, Any], Any],
    width: int,
    gene: Any,
    records: Records,
    limit: Int[Array, ""],
    genes: int | None = None,
    bursts: tuple[int, ...] | None = None,
    group: Int[Array, " searches"] | None = None,
    groups: int = 1,
    order: Int[Array, " searches"] | None = None,
    common: Callable[[Array], Any] = lambda _: None,
    enter: Callable[[Any, Any, Any], tuple[Any, Any]] = lambda *known: known[:2],
) -> Records:
    """Step every search until it is done, or ``limit`` iterations are over.

    Parameters
    ----------
    stepped
        ``(statistics, states) -> states`` for ``width`` searches on the last axis.
    width
        Searches stepped together; their number is a multiple of it.
    gene
        Statistics, genes last, or a tree of `Records`.
    records
        Of the states, which have a field ``done``.
    limit
        Iterations, at most.
    genes
        Number of genes, where it is not that of searches: search i is one of gene ``i % genes``.
    bursts
        Iterations before what is left is counted again; the last one repeats. None: as for small
        systems whose genes share the design.
    group, groups
        Searches of different groups, numbered below ``groups``, are never in one tile.
    order
        In which searches stand beside each other, all of them, where it is not that of their
        numbers: a tile waits for its slowest.
    common
        Of a group's number what its searches share: once a burst, for all their tiles.
    enter
        ``(statistics, states, shared)`` of a tile to what ``stepped`` takes in place of the
        statistics, and the states with what they keep of it: once a burst. What it says of lanes
        that are of another tile is dropped.
    """
    bursts = bursts or (_BURSTS_ACCELERATED if accelerated() else _BURSTS)
    count = len(records.rows)
    of_group = jnp.zeros(count, jnp.int32) if group is None else group

    def tile(place, end, shared, steps, ids, left, records):
        """The searches from ``place`` on, up to where those of their group end."""
        # At the end of all searches a tile begins earlier, and leaves alone what is not its own.
        begin = jnp.minimum(place, count - width)
        lane = begin + jnp.arange(width)
        mine = (lane >= place) & (lane < end)
        index = cut(ids, begin, width)
        statistics = _gathered(gene, index if genes is None else index % genes)
        old = records.take(index).tree()
        known, old = enter(statistics, old, shared)

        def unfinished(carry):
            spent, some, _ = carry
            return (spent < steps) & some

        def step(carry):
            spent, _, part = carry
            part = stepped(known, part)
            return spent + 1, ~every(part.done), part

        # A tile is of searches that are not done: there are some.
        part = (jnp.zeros_like(steps), jnp.ones((), bool), old._replace(done=old.done | ~mine))
        _, some, part = jax.lax.while_loop(unfinished, step, part)
        return left | some, records.put(Records.of(part), mine, index)

    def burst(carry):
        # The fourth: is any of the searches that the last burst stepped not done?
        number, spent, ids, _, records = carry
        key = take(jnp.where(records.tree().done, groups, of_group), ids)
        ids = take(ids, _zeros_first(key) if groups == 1 else jnp.argsort(key, stable=True))
        steps = jnp.minimum(jnp.asarray(bursts, limit.dtype)[number], limit - spent)
        members = jnp.zeros(groups, jnp.int32).at[key].add(1, mode="drop")
        ends = jnp.cumsum(members)

        def one_group(begin, *carry):
            """All tiles of the group whose searches begin here."""
            here = jnp.searchsorted(ends, begin, side="right") if groups > 1 else begin
            end, shared = ends[here], common(here)
            tiles = (end - begin + width - 1) // width
            return end, *jax.lax.fori_loop(
                0, tiles, lambda i, c: tile(begin + i * width, end, shared, steps, ids, *c), carry
            )

        carry = (jnp.zeros((), jnp.int32), jnp.zeros((), bool), records)
        if groups == 1:
            _, left, records = one_group(*carry)
        else:
            _, left, records = jax.lax.while_loop(
                lambda c: c[0] < ends[-1], lambda c: one_group(*c), carry
            )
        return jnp.minimum(number + 1, len(bursts) - 1), spent + steps, ids, left, records

    nothing = jnp.zeros_like(limit)
    ids = jnp.arange(count, dtype=jnp.int32) if order is None else jnp.asarray(order, jnp.int32)
    begin = (nothing, nothing, ids, ~every(records.tree().done), records)
    return jax.lax.while_loop(lambda c: (c[1] < limit) & c[3], burst, begin)[-1]


def for_each(state: Any, count: int) -> Any:
    """A state for ``count`` searches, on the last axis."""
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf[..., None], (*leaf.shape, count)), state)


def by_tiles(compute: Callable[[Any], Any], gene: Any, out: Any, genes: int = _TABLE_GENES) -> Any:
    """``compute`` for tiles of genes whose tables fit into the memory of a block, into ``out``.

    ``gene`` has the genes last, or is `Records`; what it finds has the genes last. ``genes`` are
    those of a tile on a CPU, at most.
    """
    count = jax.tree.leaves(out)[0].shape[-1]
    width = math.gcd(count, _TABLE_GENES_ACCELERATED if accelerated() else genes)

    def tile(begin):
        if isinstance(gene, Records):
            return gene.cut(begin, width).tree()
        return jax.tree.map(lambda leaf: cut(leaf, begin, width), gene)

    def put(begin, old, new):
        return jax.lax.dynamic_update_slice_in_dim(old, new, begin, -1)

    def fill(i, out):
        return jax.tree.map(partial(put, i * width), out, compute(tile(i * width)))

    return jax.lax.fori_loop(0, count // width, fill, out)


def cut(leaf: Array, begin: Int[Array, ""], width: int) -> Array:
    """``width`` genes from ``begin`` on."""
    return jax.lax.dynamic_slice_in_dim(leaf, begin, width, axis=-1)


def _gathered(gene: Any, index: Int[Array, " width"]) -> Any:
    """The statistics of these genes.

    Of `Records` they are rows anyway. Of arrays that have the genes last they are neighbours in the
    first burst, without groups: then a CPU copies rows, not numbers.
    """
    if all(map(is_records, jax.tree.leaves(gene, is_leaf=is_records))):
        return jax.tree.map(lambda node: node.take(index).tree(), gene, is_leaf=is_records)

    def rows():
        return jax.tree.map(lambda leaf: cut(jnp.asarray(leaf), index[0], len(index)), gene)

    def numbers():
        # A gather has the genes first in memory; rows would be turned to be like it, and back.
        return jax.tree.map(lambda leaf: as_numbered(take(leaf, index)), gene)

    if accelerated():
        return numbers()
    return jax.lax.cond(jnp.all(index == index[0] + jnp.arange(len(index))), rows, numbers)


def _zeros_first(key: Int[Array, " searches"]) -> Int[Array, " searches"]:
    """Where zeros and ones are, the zeros first and each in their order: a sort for two keys.

    XLA's sort takes ten times as long. How many zeros there are up to each place are sums, of rows
    and then of what is above them: products with triangles of ones.
    """
    count = len(key)
    row = math.gcd(count, _ROW)
    if count // row > _ROWS:
        return jnp.argsort(key, stable=True)
    zero = (key == 0).astype(jnp.float32).reshape(-1, row)
    inside = jnp.dot(zero, np.tri(row, dtype=np.float32).T, precision="highest")
    above = jnp.dot(
        np.tri(count // row, k=-1, dtype=np.float32), inside[:, -1], precision="highest"
    )
    zeros = (inside + above[:, None]).reshape(-1).astype(jnp.int32)
    here = jnp.arange(count, dtype=jnp.int32)
    place = jnp.where(key == 0, zeros - 1, zeros[-1] + here - zeros)
    order = jnp.zeros(count, jnp.int32)
    return order.at[place].set(here, unique_indices=True, mode="promise_in_bounds")


def take(leaf: Array, index: Int[Array, " some"]) -> Array:
    """The genes of these numbers."""
    return jnp.asarray(leaf).at[..., index].get(mode="promise_in_bounds")
