r"""What a gene of a large system adds to the deviance: ``y'Py`` and its gradient, by one factor.

With ``G = diag(gamma)`` over the random columns and one over the fixed, ``L L' = G^(1/2) M G^(1/2)
+ diag(I, 0)`` and ``v = G^(1/2) (L L')^-1 G^(1/2) b``, where ``b = U'V_1^-1 y``; v holds the
predicted effects ``u = gamma Z'Py`` and the fixed ones,

    y'Py = y'V_1^-1 y - b'v,        d y'Py / d gamma_i = -|Z_i'Py|^2,
    d y'Py / d gamma_1 = c - 2 g'v + v'Dv,

where c, g and D are the derivatives of ``y'V_1^-1 y``, b and M in gamma_1.

The determinant and its derivatives, which would take the inverse, are not here: they are the same
for all genes.

Cost: ``2 C K^2 + K^3 / 3`` multiply-adds, against ``3 C K^2 + 6 K^3`` of `jaxvp.likelihood.factor`.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular
from jaxtyping import Float

from jaxvp.likelihood.lanes import dot
from jaxvp.likelihood.system import Scalar, class_weights, spread, term_slices
from jaxvp.statistics import Array, PerGene, Shared
from jaxvp.target import accelerated


class OwnPart(NamedTuple):
    """Of a tile of genes, on the last axis."""

    rss: Scalar  # y'Py
    first: Float[Array, "k genes"]  # its derivatives in gamma
    beta: Float[Array, "p genes"]
    lost: Scalar  # largest ratio of a column's square to what the others leave of it
    error: Scalar  # of v, relative, beyond rounding


def own_part(gamma: Float[Array, "k genes"], shared: Shared, gene: PerGene) -> OwnPart:
    """``y'Py`` of a tile of genes and what follows from it."""
    w0, w1, _ = class_weights(shared, gamma[0])
    q, columns = shared.n_columns - shared.p, shared.n_columns
    count, genes = w0.shape
    flat = shared.between.reshape(count, columns * columns)
    # A product with a transposed operand takes three times as long as one after transposing.
    m = (jax.lax.optimization_barrier(w0.T) @ flat).reshape(genes, columns, columns)
    m = m + shared.within
    ratio = spread(gamma, shared, gamma[0])
    root = jnp.concatenate([jnp.sqrt(ratio), jnp.ones((shared.p, genes), ratio.dtype)])
    random = (jnp.arange(columns) < q).astype(m.dtype)
    system = root.T[:, :, None] * m * root.T[:, None, :] + jnp.diag(random)
    b, b1 = dot(w0, gene.between_uy) + gene.within_uy, dot(w1, gene.between_uy)
    yy = (w0 * gene.between_yy).sum(0) + gene.within_yy
    pivots, half, z = _solve(system, (root * b).T)
    v = root * z.T
    rss = yy - (half**2).sum(1)
    images = (shared.between.reshape(count * columns, columns) @ v).reshape(count, columns, genes)
    quadratic = (images * v).sum(1)
    first = (w1 * (gene.between_yy + quadratic)).sum(0) - 2 * (b1 * v).sum(0)
    # Read off the predicted effects, without a difference, where gamma > 0.
    present = ratio > 0
    moved = dot(w0, images) + shared.within @ v
    zpy = jnp.where(present, v[:q] / jnp.where(present, ratio, 1.0), (b - moved)[:q])
    others = [-(zpy[block] ** 2).sum(0) for block in term_slices(shared)]
    kept = jnp.diagonal(system, axis1=1, axis2=2)
    lost = (kept / pivots**2).max(1)
    return OwnPart(rss, jnp.stack([first, *others]), v[q:], lost, jnp.zeros_like(rss))


def _solve(
    systems: Float[Array, "genes K K"], right: Float[Array, "genes K"]
) -> tuple[Float[Array, "genes K"], Float[Array, "genes K"], Float[Array, "genes K"]]:
    """`_solved` of every gene.

    On a CPU one after the other: a call of LAPACK for many matrices shares them out to the threads
    that it waits for itself, and two such calls at once, of two blocks, wait for ever.
    """
    if accelerated():
        return jax.vmap(_solved)(systems, right)
    return jax.lax.map(lambda one: _solved(*one), (systems, right))


def _solved(
    system: Float[Array, "K K"], right: Float[Array, " K"]
) -> tuple[Float[Array, " K"], Float[Array, " K"], Float[Array, " K"]]:
    """Pivots of the factor, ``L^-1`` of the right-hand side, and the solution; of one gene."""
    factor = jnp.linalg.cholesky(system)
    half = solve_triangular(factor, right, lower=True)
    return jnp.diag(factor), half, solve_triangular(factor, half, lower=True, trans=1)
