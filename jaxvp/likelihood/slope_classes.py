r"""The eliminated factor's part, class by class: the system M, log|V_1|, and their derivatives.

The formulas are in `jaxvp.likelihood.slopes`. With ``X_c = Y_c' H_c Y_c``, where ``H_c`` is as in
`jaxvp.likelihood.slope_sums`, all derivatives that are contracted are sums over classes of the
entries of X and B:

    tr(T M_s) = -sum_c tr(dG X),   tr(T M_st) = 2 sum_c tr(X dG B dG')   (of r with the other H).

Where there are many classes they are summed chunk by chunk, in a loop: 3,000 levels are no more
code than 64.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxvp.likelihood.lanes import inverse, lift
from jaxvp.likelihood.slope_sums import ByClass, ByLevel, Unsummed, Value, by_pair, inner, summed
from jaxvp.likelihood.slope_system import product
from jaxvp.likelihood.slope_terms import between, entries, offsets
from jaxvp.likelihood.system import Scalar
from jaxvp.statistics import CHUNK, Array, PerGene, RandomBlock, SlopeShared, triangle
from jaxvp.target import fence


class Eliminated(NamedTuple):
    """M, bordered by y, and log|V_1|."""

    system: Float[Array, "K1 K1 *genes"]
    log_det: Scalar

    @property
    def lost(self) -> Scalar:
        """``y'V_1^-1 y``: what rounding is relative to."""
        return self.system[-1, -1]


class Derivatives(NamedTuple):
    """In the m1 entries of the eliminated blocks; second ones of M, contracted."""

    systems: Float[Array, "m1 K K *genes"]  # M_s
    moved: Float[Array, "m1 K *genes"]  # g_s = (M_s e)_U
    log_det: Float[Array, "m1 *genes"]
    log_det2: Float[Array, "m1 m1 *genes"]
    trace: Float[Array, "m1 *genes"]  # tr(T M_s)
    trace2: Float[Array, "m1 m1 *genes"]  # tr(T M_st)
    form: Float[Array, "m1 *genes"]  # e'M_s e
    form2: Float[Array, "m1 m1 *genes"]  # e'M_st e


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


def _chunks(shared: SlopeShared) -> int:
    """How many chunks the classes are summed in."""
    return -(-len(shared.counts) // CHUNK)


class _Chunk(NamedTuple):
    roots: Float[Array, "classes c c *genes"]
    counts: Float[Array, "classes *genes"]
    sums: ByClass | ByLevel | Unsummed


def _chunk(number: Array | int, shared: SlopeShared, gene: PerGene) -> _Chunk:
    chunks, classes = _chunks(shared), len(shared.counts)
    width = classes // chunks

    def of_classes(array):
        array = jnp.asarray(array)
        shaped = array.reshape(chunks, width, *array.shape[1:])
        return jax.lax.dynamic_index_in_dim(shaped, number, 0, keepdims=False)

    def of_pairs(array):
        array = jnp.asarray(array)
        shaped = array.reshape(len(array) // classes, chunks, width, *array.shape[1:])
        return jax.lax.dynamic_index_in_dim(shaped, number, 1, keepdims=False)

    uu = of_pairs(shared.between) if len(shared.between) else None
    if shared.cross is not None:
        assert gene.level_sums is not None
        by_level = of_classes(shared.cross), of_classes(gene.level_sums)
        sums = Unsummed(*by_level) if uu is None else ByLevel(uu, *by_level)
    else:
        assert uu is not None
        sums = ByClass(uu, of_pairs(gene.between_uy), of_pairs(gene.between_yy))
    return _Chunk(of_classes(shared.roots), of_classes(shared.counts), sums)


def _sum_of_chunks(of_chunk, shared: SlopeShared, gene: PerGene):
    """``of_chunk(chunk)``, summed over all chunks."""
    count = _chunks(shared)
    if count == 1:
        return of_chunk(_chunk(0, shared, gene))
    shapes = jax.eval_shape(lambda: of_chunk(_chunk(0, shared, gene)))
    begin = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

    def add(number, carry):
        return jax.tree.map(jnp.add, carry, of_chunk(_chunk(number, shared, gene)))

    return jax.lax.fori_loop(0, count, add, begin)


def eliminate(gamma: Array, corner: Array, shared: SlopeShared, gene: PerGene) -> Eliminated:
    like = corner[0, 0]

    def of_chunk(chunk: _Chunk) -> tuple[Value, Array]:
        found = fence(_weights, gamma, corner, chunk.roots)
        log_det = inner(lift(chunk.counts, like, 1), found.log_det, 1)
        return fence(lambda sums, w: sums.value(w), chunk.sums, found.w), log_det

    value, log_det = _sum_of_chunks(of_chunk, shared, gene)

    def bordered(value, uy, yy):
        uu = value.uu + lift(shared.within, like, 2)
        uy = (value.uy + uy)[:, None]
        last = (value.yy + yy)[None, None]
        below = jnp.concatenate([uy, last]).swapaxes(0, 1)
        return jnp.concatenate([jnp.concatenate([uu, uy], 1), below])

    return Eliminated(fence(bordered, value, gene.within_uy, gene.within_yy), log_det)


def differentiate(
    gamma: Array, corner: Array, shared: SlopeShared, gene: PerGene, T: Array, u: Array
) -> Derivatives:
    """``T`` is the inverse of the system as the determinant has it, ``e = (-u, 1)``."""
    directions = _directions(shared.blocks)
    like, c = corner[0, 0], len(corner)
    place = triangle(c)

    def kinds(counts: Array, b: Array, trace: Array, rest: Array) -> tuple[Array, Array]:
        """n B, X and the other X; and B: (pairs, classes, *genes) each."""
        x = [lift(counts, like, 1) * b, trace, rest]
        return jnp.stack([by_pair(one) for one in x]), by_pair(b)

    def of_chunk(chunk: _Chunk):
        found = fence(_weights, gamma, corner, chunk.roots)
        moved = fence(lambda s, *a: s.moved(a[0], directions, *a[1:]), chunk.sums, found.y, T, u)
        x, b = fence(kinds, chunk.counts, found.b, moved.trace, moved.rest)
        x, b = jnp.moveaxis(x, 2, 0), jnp.moveaxis(b, 1, 0)
        second = inner(x[:, :, :, None], b[:, None, None], 1)
        return (moved.systems, moved.in_u), summed(x), second

    (systems, moved), first, second = _sum_of_chunks(of_chunk, shared, gene)

    def assembled(first, second):
        once = [[(1 if i == j else 2) * one[place[i, j]] for i, j in directions] for one in first]
        twice = [
            [
                [
                    sum(one[place[m, i], place[j, k]] for i, j in between(s) for k, m in between(t))
                    for t in directions
                ]
                for s in directions
            ]
            for one in second
        ]
        once = [jnp.stack(one) for one in once]
        twice = [jnp.stack([jnp.stack(row) for row in one]) for one in twice]
        return once[0], -twice[0], -once[1], 2 * twice[1], -once[2], 2 * twice[2]

    return Derivatives(systems, moved, *fence(assembled, first, second))
