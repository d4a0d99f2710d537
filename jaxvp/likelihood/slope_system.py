"""What is left when the first factor is eliminated: swept blocks and fixed columns, inverted.

The formulas are in `jaxvp.likelihood.slopes`. Swept columns are turned into the basis in which
their Gamma is diagonal, and scaled by its roots: nothing is divided by a variance that may be zero.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxvp.likelihood import sweep
from jaxvp.likelihood.lanes import apply, dot, inverse, lift
from jaxvp.likelihood.slope_terms import Basis, offsets
from jaxvp.likelihood.system import FixedSystem, Scalar
from jaxvp.statistics import Array, RandomBlock, SlopeShared
from jaxvp.target import fence

# Larger systems are inverted in a loop over the pivots.
_PIVOTS = 6


def product(a: Array, b: Array) -> Array:
    """Matrix product over the two leading axes; of one gene an ordinary one."""
    if a.ndim == b.ndim == 2:
        return jnp.matmul(a, b, precision="highest")
    return sweep.product(a, b)


def invert(matrix: Array) -> tuple[Array, Scalar]:
    """Inverse and log determinant of a positive definite matrix, Gauss and Jordan in place."""
    if len(matrix) <= _PIVOTS:
        return inverse(matrix)

    def pivot(t, carry):
        matrix, log_det = carry
        p = matrix[t, t]
        row = (matrix[t] / p).at[t].set(1 / p)
        column = matrix[:, t].at[t].set(0)
        rest = matrix.at[:, t].set(0) - column[:, None] * row[None]
        return rest.at[t].set(row), log_det + jnp.log(p)

    start = (matrix, jnp.zeros(matrix.shape[2:], matrix.dtype))
    return jax.lax.fori_loop(0, len(matrix), lambda t, c: fence(pivot, t, c), start)


class System(NamedTuple):
    """The eliminated system; z the swept random columns, in the basis E, x the fixed ones."""

    log_det: Scalar  # log|I + G^(1/2) M_zz G^(1/2)|
    fixed: FixedSystem  # without log|V_1|
    inverse: Float[Array, "K K *genes"]  # T
    inverse_det: Float[Array, "K K *genes"]  # T of the determinant: by ML without x
    zz: Float[Array, "q q *genes"]  # A
    zpz: Float[Array, "q q *genes"]
    zpy: Float[Array, "q *genes"]
    maps: tuple[Array, Array]  # K - T M: columns z, of the determinant and of the data
    in_u: tuple[Array, Array]  # `inverse_det` and u in the columns of U, not turned by E


def _rotation(basis: Basis, blocks: tuple[RandomBlock, ...]) -> list[tuple[slice, Array]]:
    """The swept columns of every correlated block, and its eigenvectors."""
    found, start = [], 0
    for block, vectors in zip(blocks, basis, strict=True):
        if not block.eliminated:
            columns = slice(start, start + block.size * block.levels)
            if block.size > 1:
                found.append((columns, vectors))
            start = columns.stop
    return found


def _rotate(matrix: Array, rotations: list[tuple[slice, Array]], back: bool = False) -> Array:
    """Rows of the swept columns into the basis E, or back."""
    for columns, vectors in rotations:
        turn = vectors if back else vectors.swapaxes(0, 1)
        part = matrix[columns].reshape(len(vectors), -1, *matrix.shape[1:])
        rows = [dot(turn[i], part) for i in range(len(vectors))]
        matrix = jnp.concatenate(
            [matrix[: columns.start], *rows, matrix[columns.stop :]],
        )
    return matrix


def _both_sides(matrix: Array, rotations: list[tuple[slice, Array]], back: bool = False) -> Array:
    if not rotations:
        return matrix
    once = _rotate(matrix, rotations, back)
    return _rotate(once.swapaxes(0, 1), rotations, back).swapaxes(0, 1)


def _ratios(gamma: Array, blocks: tuple[RandomBlock, ...]) -> Array:
    """The variance ratio of every swept column, in the basis E."""
    like = gamma[0]
    parts = [jnp.zeros((0, *like.shape), like.dtype)]
    for block, start in zip(blocks, offsets(blocks), strict=True):
        if not block.eliminated:
            for i in range(block.size):
                one = gamma[start + i][None]
                parts.append(jnp.broadcast_to(one, (block.levels, *like.shape)))
    return jnp.concatenate(parts)


def turned(
    basis: Basis, shared: SlopeShared, systems: Array, vectors: Array
) -> tuple[Array, Array]:
    """Systems (m, K, K, *genes) and vectors (m, K, *genes) in the basis E."""
    rotations = _rotation(basis, shared.blocks)
    if not rotations:
        return systems, vectors
    return (
        jnp.stack([_both_sides(one, rotations) for one in systems]),
        jnp.stack([_rotate(one, rotations) for one in vectors]),
    )


def solve(
    gamma: Array,
    basis: Basis,
    matrix: Float[Array, "K1 K1 *genes"],
    shared: SlopeShared,
    reml: bool,
) -> System:
    K, p = shared.n_columns, shared.p
    q = K - p
    rotations = _rotation(basis, shared.blocks)
    m = _both_sides(matrix, rotations)
    like = m[0, 0]
    ratio = _ratios(gamma, shared.blocks)
    root = jnp.sqrt(ratio)
    none = jnp.zeros_like(m[-1, -1])
    if q:
        identity = lift(jnp.eye(q, dtype=m.dtype), like)
        core, log_det = invert(identity + root[:, None] * m[:q, :q] * root[None])
        t = root[:, None] * core * root[None]
    else:
        core, log_det, t = m[:0, :0], none, m[:0, :0]

    h = product(t, m[:q, q:K])  # T_zz M_zx
    information = m[q:K, q:K] - product(m[q:K, :q], h)
    covariance, log_det_fixed = invert(information) if p else (information, none)
    xy = m[q:K, K] - apply(h.swapaxes(0, 1), m[:q, K])
    beta = apply(covariance, xy)
    scaled = apply(core, root * (m[:q, K] - apply(m[:q, q:K], beta)))  # G^(-1/2) u_z
    u = jnp.concatenate([root * scaled, beta])
    rss = m[K, K] - dot(u, m[:K, K])
    fixed = FixedSystem(covariance, beta, rss, log_det, log_det_fixed)

    side = product(h, covariance)
    full = jnp.concatenate(
        [
            jnp.concatenate([t + product(side, h.swapaxes(0, 1)), -side], 1),
            jnp.concatenate([-side.swapaxes(0, 1), covariance], 1),
        ]
    )
    padded = jnp.zeros_like(full).at[:q, :q].set(t) if q else jnp.zeros_like(full)
    of_det = full if reml else padded

    unit = lift(jnp.eye(K, q, dtype=m.dtype), like)
    map_data = unit - product(full, m[:K, :q])
    map_det = map_data if reml else unit - product(padded, m[:K, :q])
    zpz = product(m[:q, :K], map_data)
    zz = zpz if reml else product(m[:q, :K], map_det)
    # Where gamma > 0, Z'Py is read off the predicted effects, without a difference.
    positive = ratio > 0
    difference = m[:q, K] - apply(m[:q, :K], u)
    zpy = jnp.where(positive, scaled / jnp.where(positive, root, 1.0), difference)
    in_u = _both_sides(of_det, rotations, True), _rotate(u, rotations, True)
    maps = (map_det, map_data)
    return System(log_det, fixed, full, of_det, zz, zpz, zpy, maps, in_u)
