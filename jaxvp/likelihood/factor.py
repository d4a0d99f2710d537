r"""Elimination by one Cholesky factor and matrix products, for large systems, one gene at a time.

With ``G = diag(gamma)`` over the random columns and one over the fixed, ``L L' = G^(1/2) M G^(1/2)
+ diag(I, 0)`` and ``R = L^-1 G^(1/2)``, the inverse of the system is ``T = R'R`` (by ML its
determinant and traces are those of the rows of R that belong to random columns). With ``W = I - T
M``, ``Z'V^-1 Z = M W`` and its derivative in gamma_1 is ``W' M_1 W``; those of the determinant and
of r follow from ``d T = -T dM T``. What a difference would cost digits is read off: where gamma >
0, ``Z'Py`` off the predicted effects ``u = gamma Z'Py``, and where gamma is large, W off ``T = W
gamma`` (entry by entry: rows of a large gamma are what ``T M`` loses most of) and
the diagonal of ``Z'V^-1 Z`` off ``T = gamma - gamma Z'V^-1 Z gamma``.

Cost of an evaluation: about ``3 C K^2 + 6 K^3`` multiply-adds, nearly all in matrix products.
Each call of LAPACK needs the result of the one before: calls that may run at once can hang.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxvp.likelihood.system import (
    FixedSystem,
    Moments,
    Scalar,
    Vector,
    by_term,
    class_weights,
    log_det_eliminated,
    spread,
    term_slices,
)
from jaxvp.statistics import Array, PerGene, Shared


def factored(
    gamma: Vector, shared: Shared, gene: PerGene, reml: bool
) -> tuple[Moments, FixedSystem]:
    """`Moments` of one gene, without a trailing axis."""
    uu, uy, yy = _series(shared, gene, gamma[0])
    blocks = term_slices(shared)
    q, columns = shared.n_columns - shared.p, shared.n_columns
    ratio = spread(gamma, shared, gene.within_yy)
    root = jnp.concatenate([jnp.sqrt(ratio), jnp.ones(shared.p, uu.dtype)])
    random = (jnp.arange(columns) < q).astype(uu.dtype)
    system = root[:, None] * uu[0] * root[None] + jnp.diag(random)
    factor = jnp.linalg.cholesky(system)
    r = jax.scipy.linalg.solve_triangular(factor, jnp.diag(root), lower=True)

    r_det = r if reml else r[:q]
    t = r_det.T @ r_det
    t1 = t @ uu[1]
    l0, l1, l2 = log_det_eliminated(shared, gamma[0])
    log_diagonal = 2 * jnp.log(jnp.diag(factor))
    log_det = (
        l0 + log_diagonal[: len(r_det)].sum(),
        l1 + jnp.trace(t1),
        l2 + (t * uu[2]).sum() - 0.5 * (t1 * t1.T).sum(),
    )
    own, positive = jnp.diag(uu[0]), jnp.where(ratio > 0, ratio, 1)
    per_gamma = jnp.where(ratio > 0, jnp.diag(t)[:q] / positive, 1.0)
    w = jnp.eye(columns, q, dtype=uu.dtype) - t @ uu[0][:, :q]
    # T is known to eps |T_ii T_jj|^(1/2), T M to eps |T_ii M_ii|: the larger it is the worse.
    read = (jnp.diag(t) * own)[:, None] * (ratio * own[:q]) > 1
    w = jnp.where(read, t[:, :q] / positive, w)
    a = uu[0][:q] @ w  # Z'V^-1 Z, by REML Z'PZ
    # It is symmetric: the columns of the larger gamma are what is read.
    a = jnp.where(ratio >= ratio[:, None], a, a.T)
    trace1 = (w * (uu[1] @ w)).sum(0)
    trace = jnp.where(per_gamma < 0.5, (1 - per_gamma) / positive, jnp.diag(a))

    def solve(right):
        """``T right``, of all columns."""
        return r.T @ (r @ right)

    def z_p(right, solved):
        """``Z'P`` of a right-hand side of which the system's solution is known."""
        scaled = solved[:q] / jnp.where(ratio > 0, ratio, 1)
        return jnp.where(ratio > 0, scaled, right[:q] - uu[0][:q] @ solved)

    ry = r @ uy[0]
    u = r.T @ ry
    zpy = z_p(uy[0], u)
    slope = uy[1] - uu[1] @ u
    moved = solve(slope)
    zpy1 = z_p(slope, moved)
    rss = (
        yy[0] - ry @ ry,
        yy[1] - u @ uy[1] - u @ slope,
        yy[2] - 2 * (u @ uy[2]) + u @ (uu[2] @ u) - slope @ moved,
    )

    def image(block):
        right = uu[0][:, block] @ zpy[block]
        return z_p(right, solve(right))

    summed = [
        trace,
        -(zpy**2),
        trace1,
        *(-(a[b] ** 2).sum(0) for b in blocks),
        -2 * zpy * zpy1,
        *(2 * zpy * image(b) for b in blocks),
    ]
    lost = (jnp.diag(system) / jnp.diag(factor) ** 2).max()
    moments = Moments(log_det, rss, by_term(summed, shared), lost)
    fixed = FixedSystem(
        r[q:, q:].T @ r[q:, q:],
        u[q:],
        rss[0],
        l0 + log_diagonal[:q].sum(),
        log_diagonal[q:].sum(),
    )
    return moments, fixed


def _series(shared: Shared, gene: PerGene, gamma: Scalar) -> tuple[Array, Array, Array]:
    """``U'V_1^-1 U``, ``U'V_1^-1 y`` and ``y'V_1^-1 y`` as power series in gamma_1.

    The class sums are read once for all three coefficients: they may be hundreds of megabytes.
    """
    weights = jnp.stack(class_weights(shared, gamma))
    uu, uy, yy = (
        jnp.tensordot(weights, sums, 1)
        for sums in (shared.class_sums, gene.between_uy, gene.between_yy)
    )
    return uu.at[0].add(shared.within), uy.at[0].add(gene.within_uy), yy.at[0].add(gene.within_yy)
