"""Elimination by one Cholesky factor and matrix products, for large systems, one gene at a time."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxvp.likelihood.system import (
    Moments,
    Scalar,
    Vector,
    augmented,
    log_det_eliminated,
    term_slices,
)
from jaxvp.statistics import Array, PerGene, Shared


def factored(gamma: Vector, shared: Shared, gene: PerGene, reml: bool) -> Moments:
    """The same by one Cholesky factor of the scaled system, for many columns; one gene.

    No trailing axis.

    With ``T = lim (M0 + diag(1/gamma, 0))^-1 = R'R``, ``R = L^-1 G^(1/2)``, ``L L' = G^(1/2) M0
    G^(1/2) + diag(I, 0)``: ``u = T U'V_1^-1 y``, ``Z'PZ = M_zz - Y'Y`` with ``Y = R M_.z``, and the
    power series of log|.| and of r follow from ``d T = -T dM T``. Each call of LAPACK needs the
    result of the one before: calls that may run at once can hang (see docs).
    """
    m0, m1, m2 = augmented(shared, gene, gamma[0])
    blocks = term_slices(shared)
    q, columns = shared.n_columns - shared.p, shared.n_columns
    root = jnp.concatenate([_roots(gamma, shared), jnp.ones(shared.p, m0.dtype)])
    uu0, uu1, uu2 = m0[:-1, :-1], m1[:-1, :-1], m2[:-1, :-1]
    scaled = root[:, None] * uu0 * root[None] + jnp.diag(
        (jnp.arange(columns) < q).astype(root.dtype)
    )
    factor = jnp.linalg.cholesky(scaled)
    r = jax.scipy.linalg.solve_triangular(factor, jnp.diag(root), lower=True)
    rows = (
        columns if reml else q
    )  # ML: the determinant and the traces are those of V, without the fixed part
    r_det = r[:rows]

    l0, l1, l2 = log_det_eliminated(shared, gamma[0])
    l0 = l0 + 2 * jnp.log(jnp.diag(factor))[:rows].sum()
    r_m1 = r_det @ uu1
    middle = r_m1 @ r_det.T
    l1 = l1 + jnp.trace(middle)
    l2 = l2 + (r_det * (r_det @ uu2)).sum() - 0.5 * (middle**2).sum()

    uy0, uy1, uy2 = m0[:-1, -1], m1[:-1, -1], m2[:-1, -1]
    ry = r @ uy0
    u = r.T @ ry
    slope = uy1 - uu1 @ u
    rss0 = m0[-1, -1] - ry @ ry
    rss1 = m1[-1, -1] - 2 * (u @ uy1) + u @ (uu1 @ u)
    rss2 = m2[-1, -1] - 2 * (u @ uy2) + u @ (uu2 @ u) - ((r @ slope) ** 2).sum()

    y_det = r_det @ uu0[:, :q]
    zpz = uu0[:q, :q] - y_det.T @ y_det  # Z'PZ, by ML Z'V^-1 Z
    trace0 = jnp.diag(zpz)
    # d Z'PZ = E' M1 E with E = I - T M_.z; only its diagonal is wanted.
    trace1 = (
        jnp.diag(uu1)[:q] - 2 * (r_m1[:, :q] * y_det).sum(0) + (y_det * (middle @ y_det)).sum(0)
    )
    y_all = r @ uu0[:, :q]
    zpy = uy0[:q] - y_all.T @ ry
    zpy1 = slope[:q] - y_all.T @ (r @ slope)

    def squares(a, b):
        return (zpz[a, b] ** 2).sum()

    masked = [jnp.zeros_like(zpy).at[b].set(zpy[b]) for b in blocks]
    images = [uu0[:q, :q] @ h - y_all.T @ (y_all @ h) for h in masked]
    return Moments(
        (l0, l1, l2),
        (rss0, rss1, rss2),
        (tuple(trace0[b].sum() for b in blocks), tuple(trace1[b].sum() for b in blocks)),
        tuple(tuple(squares(a, b) for b in blocks) for a in blocks),
        (
            tuple((zpy[b] ** 2).sum() for b in blocks),
            tuple((2 * zpy[b] * zpy1[b]).sum() for b in blocks),
        ),
        tuple(tuple(h @ image for image in images) for h in masked),
    )


def _roots(gamma: Vector, shared: Shared) -> Array:
    """sqrt(gamma) of every random column that is left."""
    blocks = term_slices(shared)
    parts = [
        jnp.full(b.stop - b.start, jnp.sqrt(g)) for g, b in zip(gamma[1:], blocks, strict=True)
    ]
    return jnp.concatenate([jnp.zeros(0, jnp.result_type(*gamma)), *parts])


class FixedSystem(NamedTuple):
    """What is left of one gene's system when the random columns are eliminated."""

    covariance: Array  # (X'V^-1 X)^-1
    beta: Array
    rss: Scalar  # y'P y
    log_det: Scalar  # log|V|
    log_det_fixed: Scalar  # log|X'V^-1 X|


def factored_system(gamma: Vector, shared: Shared, gene: PerGene) -> FixedSystem:
    """The estimates' part of the system, value only."""
    m = augmented(shared, gene, gamma[0])[0]
    root = _roots(gamma, shared)
    q = root.shape[0]
    factor = jnp.linalg.cholesky(root[:, None] * m[:q, :q] * root[None] + jnp.eye(q, dtype=m.dtype))
    solved = jax.scipy.linalg.solve_triangular(factor, root[:, None] * m[:q, q:], lower=True)
    left = m[q:, q:] - solved.T @ solved
    log_det = log_det_eliminated(shared, gamma[0])[0] + 2 * jnp.log(jnp.diag(factor)).sum()
    # In a chain with the call before it: LAPACK calls that may run at once can hang.
    fixed = jnp.linalg.cholesky(left[:-1, :-1])
    half = jax.scipy.linalg.solve_triangular(
        fixed, jnp.concatenate([jnp.eye(shared.p, dtype=m.dtype), left[:-1, -1:]], 1), lower=True
    )
    covariance = half[:, :-1].T @ half[:, :-1]
    return FixedSystem(
        covariance,
        covariance @ left[:-1, -1],
        left[-1, -1] - half[:, -1] @ half[:, -1],
        log_det,
        2 * jnp.log(jnp.diag(fixed)).sum(),
    )
