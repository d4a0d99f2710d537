r"""Score and estimates of one gene as functions of its statistics, to be differentiated once more.

`jaxvp.likelihood.evaluate` finds optima; it is written for speed in its own values, and its
derivative through all pivots would hold each of them. Here are the same quantities with one inverse
in their middle, whose derivative is known. With the eliminated system in blocks of its random and
fixed columns,

    A = [R, E; E', F],   b = [b_z; b_x],        T = (R + Gamma^-1)^-1,      W = I - T R,
    C = (F - E'T E)^-1   (X'V^-1 X inverted),   beta = C (b_x - E'T b_z),

T finite at ``gamma = 0``, where its rows are zero. The score in a swept gamma is the sum over its
block of

    diag(Z'V^-1 Z) - (N / r) (Z'P y)^2,   Z'V^-1 Z = R W,   Z'P y = W'b_z - W'E beta,

by REML with the diagonal of ``Z'P Z = R W - W'E C E'W``, and the score in gamma_1, with
``A_1 = dA / d gamma_1`` and ``u`` the solution of the system,

    d log|V_1| + tr(T R_1) + (N / r) (yy_1 - 2 u'b_1 + u'A_1 u)     (REML: and tr(C d(X'V^-1 X))).

The derivatives of the inverse, ``d T = -T dR T + W dGamma W'`` and ``d log|I + Gamma R| = tr(T dR)
+ tr(R W dGamma)``, are all that is not left to JAX: K^2 numbers a gene are kept for reverse mode.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Float

from jaxvp.likelihood.estimates import Estimates, estimates
from jaxvp.likelihood.system import (
    FixedSystem,
    class_weights,
    log_det_eliminated,
    spread,
    term_slices,
)
from jaxvp.statistics import SWEEP_COLUMNS, Array, PerGene, Shared


def conditions(
    gamma: Float[Array, " k"], shared: Shared, gene: PerGene, *, reml: bool
) -> tuple[Float[Array, " k"], Estimates]:
    """Score in gamma, and what follows from gamma, of one gene (no trailing axis)."""
    shared = shared.of(gene.own)
    w0, w1, _ = class_weights(shared, gamma[0])
    uu, uy, yy = (
        within + jnp.tensordot(w0, between, 1)
        for within, between in (
            (shared.within, shared.class_sums),
            (gene.within_uy, gene.between_uy),
            (gene.within_yy, gene.between_yy),
        )
    )
    uu1, uy1, yy1 = (
        jnp.tensordot(w1, between, 1)
        for between in (shared.class_sums, gene.between_uy, gene.between_yy)
    )
    q = shared.n_columns - shared.p
    zz, zx, xx, zy, xy = uu[:q, :q], uu[:q, q:], uu[q:, q:], uy[:q], uy[q:]
    t, log_det = inverse(spread(gamma, shared, yy), zz)
    tzz, tzx, tzy = t @ zz, t @ zx, t @ zy
    half = zx - zz @ tzx  # Z'V^-1 X
    covariance, log_det_fixed = inverse_of(xx - zx.T @ tzx)
    right = xy - zx.T @ tzy
    beta = covariance @ right
    rss = yy - zy @ tzy - right @ beta
    base, slope, _ = log_det_eliminated(shared, gamma[0])
    fixed = FixedSystem(covariance, beta, rss, base + log_det, log_det_fixed)

    size = (shared.n - shared.p if reml else shared.n) / rss
    zpy = zy - zz @ tzy - half @ beta
    diagonal = jnp.diagonal(zz) - (zz * tzz.T).sum(1)
    trace = (t * uu1[:q, :q]).sum()
    if reml:
        diagonal = diagonal - ((half @ covariance) * half).sum(1)
        across = uu1[:q, q:].T @ tzx
        moved = uu1[q:, q:] - across - across.T + tzx.T @ uu1[:q, :q] @ tzx
        trace = trace + (covariance * moved).sum()
    u = jnp.concatenate([tzy - tzx @ beta, beta])
    first = slope + trace + size * (yy1 - 2 * (u @ uy1) + u @ uu1 @ u)
    each = diagonal - size * zpy**2
    score = jnp.stack([first, *(each[block].sum() for block in term_slices(shared))])
    return score, estimates(fixed, shared, reml)


@jax.custom_jvp
def inverse(ratio: Float[Array, " q"], matrix: Float[Array, "q q"]) -> tuple[Array, Array]:
    """``(matrix + diag(1 / ratio))^-1``, and ``log|I + diag(ratio) matrix|``."""
    root = jnp.sqrt(ratio)
    scaled = jnp.eye(len(ratio), dtype=matrix.dtype) + root[:, None] * matrix * root
    found, log_det = _inverse(scaled)
    return root[:, None] * found * root, log_det


@jax.custom_jvp
def inverse_of(matrix: Float[Array, "p p"]) -> tuple[Array, Array]:
    """Inverse and log determinant of a positive definite matrix."""
    return _inverse(matrix)


def _inverse_jvp(primals, tangents):
    ratio, matrix = primals
    d_ratio, d_matrix = tangents
    t, log_det = inverse(ratio, matrix)
    d_t, d_log_det = jnp.zeros_like(t), jnp.zeros_like(log_det)
    if not isinstance(d_matrix, SymbolicZero):
        d_t, d_log_det = d_t - t @ d_matrix @ t, d_log_det + (t * d_matrix).sum()
    if not isinstance(d_ratio, SymbolicZero):
        w = jnp.eye(len(ratio), dtype=t.dtype) - t @ matrix
        d_t = d_t + (w * d_ratio) @ w.T
        d_log_det = d_log_det + ((matrix * w.T).sum(1) * d_ratio).sum()
    return (t, log_det), (d_t, d_log_det)


inverse.defjvp(_inverse_jvp, symbolic_zeros=True)


@inverse_of.defjvp
def _inverse_of_jvp(primals, tangents):
    found, log_det = inverse_of(*primals)
    (moved,) = tangents
    return (found, log_det), (-found @ moved @ found, (found * moved).sum())


@custom_vmap
def _inverse(matrix: Float[Array, "q q *genes"]) -> tuple[Array, Array]:
    """By symmetric sweeps; of large matrices, one at a time, by Cholesky's factor.

    Batched calls of LAPACK can hang where two run at the same time.
    """
    if not len(matrix):  # a single random term, or no fixed column
        return matrix, jnp.zeros(matrix.shape[2:], matrix.dtype)
    if len(matrix) > SWEEP_COLUMNS:
        factor = jnp.linalg.cholesky(matrix)
        half = jax.scipy.linalg.solve_triangular(
            factor, jnp.eye(len(matrix), dtype=matrix.dtype), lower=True
        )
        return half.T @ half, 2 * jnp.log(jnp.diag(factor)).sum()

    def sweep(j, carry):
        m, log_det = carry
        column = m[:, j]
        pivot = column[j]
        row = column / pivot
        m = (m - row[:, None] * column[None]).at[j].set(row).at[:, j].set(row)
        return m.at[j, j].set(-1 / pivot), log_det + jnp.log(pivot)

    begin = (matrix, jnp.zeros(matrix.shape[2:], matrix.dtype))
    swept, log_det = jax.lax.fori_loop(0, len(matrix), sweep, begin)
    return -swept, log_det


@_inverse.def_vmap
def _mapped(size, batched, matrix):
    """Genes last, where code reads memory in order."""
    if matrix.shape[1] > SWEEP_COLUMNS:
        return jax.lax.map(_inverse, matrix), (True, True)
    found, log_det = _inverse(jnp.moveaxis(matrix, 0, -1))
    return (jnp.moveaxis(found, -1, 0), jnp.moveaxis(log_det, -1, 0)), (True, True)
