"""Elimination by one Cholesky factor and matrix products, for large systems, one gene at a time."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxvp.likelihood.system import (
    FixedSystem,
    Moments,
    Scalar,
    Vector,
    augmented,
    log_det_eliminated,
    term_slices,
)
from jaxvp.statistics import Array, PerGene, Shared


def factored(
    gamma: Vector, shared: Shared, gene: PerGene, reml: bool
) -> tuple[Moments, FixedSystem]:
    """`Moments` of one gene (no trailing axis) by one Cholesky factor of the scaled system.

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

    def sums(vector):
        return jnp.stack([vector[b].sum() for b in blocks]) if blocks else vector

    moments = Moments(
        (l0, l1, l2),
        (rss0, rss1, rss2),
        jnp.stack([sums(trace0), sums(trace1)]),
        _matrix(lambda a, b: (zpz[a, b] ** 2).sum(), blocks, zpy),
        jnp.stack([sums(zpy**2), sums(2 * zpy * zpy1)]),
        _matrix(
            lambda a, b: zpy[a] @ (uu0[a, b] @ zpy[b] - y_all[:, a].T @ (y_all[:, b] @ zpy[b])),
            blocks,
            zpy,
        ),
    )
    log_diagonal = 2 * jnp.log(jnp.diag(factor))
    eliminated = log_det_eliminated(shared, gamma[0])[0]
    fixed = FixedSystem(
        r[q:, q:].T @ r[q:, q:],
        u[q:],
        rss0,
        eliminated + log_diagonal[:q].sum(),
        log_diagonal[q:].sum(),
    )
    return moments, fixed


def _matrix(entry: Callable[[slice, slice], Scalar], blocks: list[slice], empty: Array) -> Array:
    if not blocks:
        return empty[None]
    return jnp.stack([jnp.stack([entry(a, b) for b in blocks]) for a in blocks])


def _roots(gamma: Vector, shared: Shared) -> Array:
    """sqrt(gamma) of every random column that is left."""
    blocks = term_slices(shared)
    parts = [
        jnp.full(b.stop - b.start, jnp.sqrt(g)) for g, b in zip(gamma[1:], blocks, strict=True)
    ]
    return jnp.concatenate([jnp.zeros(0, jnp.result_type(*gamma)), *parts])
