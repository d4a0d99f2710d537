r"""The eliminated factor's part: the system M and log|V_1|, as sums over classes of levels.

The formulas are in `jaxvp.likelihood.slopes`. Where there are many classes they are summed chunk by
chunk, in a loop: the same code for 16 levels as for 3,000.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxvp.likelihood.lanes import inverse, lift, total
from jaxvp.likelihood.slope_system import product
from jaxvp.likelihood.slope_terms import between, entries, offsets, upper
from jaxvp.likelihood.system import Scalar
from jaxvp.statistics import CHUNK, Array, PerGene, RandomBlock, SlopeShared
from jaxvp.target import fence


class _Weights(NamedTuple):
    """Of the classes of a chunk, (..., classes, *genes)."""

    log_det: Array
    w: Array  # c c
    y: Array  # c c: W R E
    b: Array  # c c: E'R'W R E


def _weights(gamma: Array, corner: Array, roots: Float[Array, "classes c c *genes"]) -> _Weights:
    rows = jnp.moveaxis(jnp.asarray(roots), 0, 2)  # c c classes
    like = corner[0, 0]
    rotated = product(lift(rows, like, 3), corner[:, :, None])
    scaled = rotated * gamma[None, :, None]
    same = lift(jnp.eye(len(corner), dtype=corner.dtype)[:, :, None], like)
    w, log_det = inverse(same + product(scaled, rotated.swapaxes(0, 1)))
    y = fence(product, w, rotated)
    return _Weights(log_det, w, y, fence(product, rotated.swapaxes(0, 1), y))


def _directions(blocks: tuple[RandomBlock, ...]) -> list[tuple[int, int]]:
    """The entries of the eliminated blocks, as places in the eliminated factor's covariance."""
    start = offsets(blocks)
    return [
        (start[e.block] + e.i, start[e.block] + e.j)
        for e in entries(blocks)
        if blocks[e.block].eliminated
    ]


def _first(weights: _Weights, i: int, j: int) -> Array:
    """``dW`` in one direction, its upper triangle: (pairs, classes, *genes)."""
    y = weights.y
    if i == j:
        return jnp.stack([-y[a, i] * y[b, i] for a, b in upper(len(y))])
    return jnp.stack([-(y[a, i] * y[b, j] + y[a, j] * y[b, i]) for a, b in upper(len(y))])


def _second(weights: _Weights, s: tuple[int, int], t: tuple[int, int]) -> Array:
    """``d2W`` in two directions, its upper triangle."""
    y, b = weights.y, weights.b
    c = len(y)
    found = []
    for row, column in upper(c):
        entry = 0.0
        for i, j in between(s):
            for k, m in between(t):
                both = y[row, i] * y[column, m] + y[column, i] * y[row, m]
                entry = entry + both * b[j, k]
        found.append(entry)
    return jnp.stack(found)


class Sums(NamedTuple):
    """M and its first derivatives, bordered by y; log|V_1| and its derivatives."""

    matrices: Float[Array, "s1 K1 K1 *genes"]
    log_det: Array  # 1 + m1 entries
    log_det2: Float[Array, "m1 m1 *genes"]
    lost: Scalar  # y'V_1^-1 y: what rounding is relative to


def _chunks(shared: SlopeShared) -> int:
    """How many chunks the classes are summed in."""
    return max(1, len(shared.counts) // CHUNK)


def _chunk(number: Array | int, shared: SlopeShared, gene: PerGene) -> tuple[Array, ...]:
    """Roots, counts, and class sums (pairs, classes, ...) of one chunk."""
    chunks, classes = _chunks(shared), len(shared.counts)
    width = classes // chunks

    def of_pairs(array):
        array = jnp.asarray(array)
        shaped = array.reshape(len(array) // classes, chunks, width, *array.shape[1:])
        return jax.lax.dynamic_index_in_dim(shaped, number, 1, keepdims=False)

    def of_classes(array):
        array = jnp.asarray(array)
        shaped = array.reshape(chunks, width, *array.shape[1:])
        return jax.lax.dynamic_index_in_dim(shaped, number, 0, keepdims=False)

    return (
        of_classes(shared.roots),
        of_classes(shared.counts),
        of_pairs(shared.between),
        of_pairs(gene.between_uy),
        of_pairs(gene.between_yy),
    )


def _each_chunk(add, begin, shared: SlopeShared):
    if _chunks(shared) == 1:
        return add(0, begin)
    return jax.lax.fori_loop(0, _chunks(shared), add, begin)


def _weighted(weights: Array, sums: Array) -> Array:
    """Sum over pairs and classes, written out: XLA fuses it into its consumer."""
    out = 0.0
    for pair in range(weights.shape[0]):
        for one in range(weights.shape[1]):
            out = out + weights[pair, one] * sums[pair, one]
    return jnp.asarray(out)


def eliminate(gamma: Array, corner: Array, shared: SlopeShared, gene: PerGene) -> Sums:
    directions = _directions(shared.blocks)
    like = corner[0, 0]

    def bordered(weight, uu, uy, yy):
        matrix = _weighted(weight, lift(uu, like, 4))
        vector = _weighted(weight, uy)
        corner = _weighted(weight, yy)
        return jnp.concatenate(
            [
                jnp.concatenate([matrix, vector[:, None]], 1),
                jnp.concatenate([vector, corner[None]])[None],
            ]
        )

    def add(number, carry):
        roots, counts, uu, uy, yy = _chunk(number, shared, gene)
        found = fence(_weights, gamma, corner, roots)
        counts = lift(counts, like, 1)

        def value(found, uy, yy):
            w = jnp.stack([found.w[a, b] for a, b in upper(len(corner))])
            return bordered(w, uu, uy, yy)

        def slope(found, uy, yy, i, j):
            return bordered(_first(found, i, j), uu, uy, yy)

        def determinants(found):
            first = [total(counts * found.log_det)]
            for i, j in directions:
                first.append((1 if i == j else 2) * total(counts * found.b[i, j]))
            second = []
            for s in directions:
                for t in directions:
                    terms = 0.0
                    for i, j in between(s):
                        for k, m in between(t):
                            terms = terms - found.b[j, k] * found.b[m, i]
                    second.append(total(counts * terms))
            return jnp.stack(first), jnp.stack(second)

        matrices = [fence(value, found, uy, yy)]
        for i, j in directions:
            matrices.append(fence(lambda f, u, y, i=i, j=j: slope(f, u, y, i, j), found, uy, yy))
        new = (jnp.stack(matrices), *fence(determinants, found))
        return jax.tree.map(jnp.add, carry, new)

    m, K1 = len(directions), shared.n_columns + 1
    genes, dtype = like.shape, like.dtype
    uu = jnp.broadcast_to(lift(shared.within, like, 2), (K1 - 1, K1 - 1, *genes))
    uy = gene.within_uy
    start = jnp.concatenate(
        [
            jnp.concatenate([uu, uy[:, None]], 1),
            jnp.concatenate([uy, jnp.asarray(gene.within_yy)[None]])[None],
        ]
    ).astype(dtype)
    begin = (
        jnp.concatenate([start[None], jnp.zeros((m, K1, K1, *genes), dtype)]),
        jnp.zeros((m + 1, *genes), dtype),
        jnp.zeros((m * m, *genes), dtype),
    )
    matrices, log_det, log_det2 = _each_chunk(add, begin, shared)
    return Sums(matrices, log_det, log_det2.reshape(m, m, *genes), matrices[0, -1, -1])


def contract(
    gamma: Array, corner: Array, shared: SlopeShared, gene: PerGene, t: Array, contrast: Array
) -> tuple[Array, Array]:
    """``tr(T M_st)`` and ``e'M_st e`` for the eliminated factor: (m1, m1, *genes) each."""
    directions = _directions(shared.blocks)
    like, m = corner[0, 0], len(directions)
    K = shared.n_columns
    u = contrast[:K]
    outer = jnp.stack([t, u[:, None] * u[None]]).reshape(2, K * K, *like.shape)

    def add(number, carry):
        roots, _, uu, uy, yy = _chunk(number, shared, gene)
        found = fence(_weights, gamma, corner, roots)

        def of_classes(outer, u, uy, yy):
            """What a weight of a pair and class adds to the trace, and to the form."""
            flat = uu.reshape(uu.shape[0] * uu.shape[1], K * K, *uu.shape[4:])
            if flat.ndim > 2:  # of each gene's own
                trace, form = ((flat * one).sum(1) for one in outer)
            else:
                trace, form = (jnp.tensordot(flat, one, 1, precision="highest") for one in outer)
            form = form.reshape(yy.shape) + yy
            for k in range(K):
                form = form + 2 * u[k] * uy[:, :, k]
            return trace.reshape(yy.shape), form

        trace, form = fence(of_classes, outer, u, uy, yy)

        def weigh(found, trace, form, s, t):
            weights = _second(found, s, t)
            return jnp.stack([_weighted(weights, trace), _weighted(weights, form)])

        sums = [
            fence(lambda f, a, b, s=s, t=t: weigh(f, a, b, s, t), found, trace, form)
            for i, s in enumerate(directions)
            for t in directions[i:]
        ]
        return carry + jnp.stack(sums)

    count = m * (m + 1) // 2
    sums = _each_chunk(add, jnp.zeros((count, 2, *like.shape), like.dtype), shared)
    place = np.zeros((m, m), dtype=int)
    place[np.triu_indices(m)] = np.arange(count)
    place = np.maximum(place, place.T)

    def square(which: int) -> Array:
        rows = [[sums[place[i, j], which] for j in range(m)] for i in range(m)]
        return jnp.stack([jnp.stack(row) for row in rows])

    return square(0), square(1)
