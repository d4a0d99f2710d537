r"""The statistics of `weighted` in pure JAX: for compiled code, accelerators and derivatives.

`traced_statistics` is written for one gene: ``jax.jit`` compiles it, ``jax.vmap(..., out_axes=-1)``
maps it over genes, and it is differentiable in ``y``, ``w`` and ``Q`` (no host callback, no LAPACK,
no branch on a value). The products are those of `jaxvp.statistics.weighted.own`, formed densely:

    F = Z_1'W U,   S = (U - Z_1 D F)'W (U - Z_1 D F),   C_c = F' diag(L_c / n) F,   D = diag(1 / n),

``C J K^2`` multiply-adds in matrix products, where the host's sparse ones cost a fraction of that.
Two calls, one with weights of ones, differ in nothing else: a gene without weights has ``w = 1``
where it was measured and 0 where not.

    gene, undo = traced_statistics(layout(design, shared), Q, y, w, nodes)
    evaluate(gamma, shared, gene, reml=False)

Gradients at the optimum in gamma need no derivative of gamma for the deviance itself (envelope
theorem); for fractions they do.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxvp.design import Design

from .nodes import chebyshev
from .types import Array, Own, PerGene, Shared


class Layout(NamedTuple):
    """Where the samples stand in the random terms; term 1 is the eliminated one."""

    level_of: Int[np.ndarray, " n"]
    others: Float[np.ndarray, "n q"]  # indicators of the other terms
    levels: int  # J


class Undoing(NamedTuple):
    """What undoes residualising, scaling and the division of weights (see `Estimates`)."""

    scale: Float[Array, ""]
    ols: Float[Array, " p"]  # weighted least squares on Q
    half_log: Float[Array, ""]  # half the sum of log w: to be added to the log-likelihood
    mean_weight: Float[Array, ""]
    n: Float[Array, ""]


def layout(design: Design, shared: Shared) -> Layout:
    """Of a design with a random term, in the elimination order of its statistics."""
    codes = [np.asarray(design.codes[i]) for i in shared.order]
    eyes = [np.eye(n)[c] for n, c in zip(shared.levels[1:], codes[1:], strict=True)]
    return Layout(codes[0], np.hstack([np.zeros((design.n, 0)), *eyes]), shared.levels[0])


def traced_statistics(
    layout: Layout,
    Q: Float[Array, "n p"],
    y: Float[Array, " n"],
    w: Float[Array, " n"],
    nodes: int,
) -> tuple[PerGene, Undoing]:
    """Statistics of one gene with weights.

    Parameters
    ----------
    layout
        Of the design.
    Q
        Fixed columns, ``X R^-1``: the basis to which ``Shared.r_inverse`` belongs.
    y
        Measurements; where the weight is zero they may be anything, NaN too.
    w
        Weights, zero or more, some above zero.
    nodes
        Static: interpolation nodes of the class sums (`jaxvp.statistics.nodes.node_counts`), or the
        number of levels of term 1: then each is a class of its own, and nothing is interpolated.
    """
    with jax.default_matmul_precision("highest"):
        return _statistics(layout, jnp.asarray(Q), y, w, nodes)


def _statistics(
    layout: Layout, Q: Array, y: Array, w: Array, nodes: int
) -> tuple[PerGene, Undoing]:
    counts = w > 0
    n = counts.sum().astype(w.dtype)
    mean_weight = jnp.where(counts, w, 0).sum() / n
    w = jnp.where(counts, w, 0) / mean_weight
    y = jnp.where(counts, y, 0)
    half_log = 0.5 * jnp.log(jnp.where(counts, w, 1)).sum()
    ols = jnp.zeros(Q.shape[1], y.dtype)
    for _ in range(2):  # the second time for the digits that a large mean took
        b = _solve(Q.T @ (w[:, None] * Q), Q.T @ (w * y))
        y = jnp.where(counts, y - Q @ b, 0)
        ols = ols + b
    scale = jnp.sqrt((w * y * y).sum() / n)
    y = y / scale

    def by_level(values):
        return jax.ops.segment_sum(values, layout.level_of, layout.levels)

    U = jnp.concatenate([jnp.asarray(layout.others, Q.dtype), Q], axis=1)
    size, F, a = by_level(w), by_level(w[:, None] * U), by_level(w * y)
    there = size > 0
    share = jnp.where(there, 1 / jnp.where(there, size, 1), 0)
    deviation = U - (share[:, None] * F)[layout.level_of]
    d = y - (share * a)[layout.level_of]
    sizes, weights = _classes(size, nodes)
    weights = weights * share
    own = Own(
        within=deviation.T @ (w[:, None] * deviation),
        between=jnp.einsum("cj,ja,jb->cab", weights, F, F),
        sizes=sizes,
        level_sizes=size,
        level_counts=jnp.ones_like(size),
        n=n,
    )
    gene = PerGene(
        within_uy=deviation.T @ (w * d),
        within_yy=(w * d * d).sum(),
        between_uy=weights @ (F * a[:, None]),
        between_yy=weights @ (a * a),
        own=own,
    )
    return gene, Undoing(scale, ols, half_log, mean_weight, n)


def _classes(size: Float[Array, " J"], nodes: int) -> tuple[Float[Array, " C"], Array]:
    """Class sizes, and how much of each level is in each class."""
    there = size > 0
    if nodes == len(size):
        return jnp.where(there, size, 1), jnp.eye(nodes, dtype=size.dtype)
    t = jnp.log(jnp.where(there, size, 1))
    low, high = jnp.where(there, t, jnp.inf).min(), jnp.where(there, t, -jnp.inf).max()
    # Any nodes give the same sums, to rounding: they are not differentiated.
    middle = jax.lax.stop_gradient((low + high) / 2)
    half = jax.lax.stop_gradient(jnp.maximum((high - low) / 2, 1e-3))
    knots, barycentric = chebyshev(nodes)
    z = jnp.where(there, (t - middle) / half, 0)
    gap = z - knots[:, None]
    gap = jnp.where(abs(gap) < 1e-15, 1e-15, gap)
    weights = barycentric[:, None] / gap
    return jnp.exp(middle + half * knots), weights / weights.sum(axis=0)


def _solve(matrix: Float[Array, "p p"], right: Float[Array, " p"]) -> Float[Array, " p"]:
    """By Gauss and Jordan: batched LAPACK calls that run at the same time can hang."""
    rows = jnp.concatenate([matrix, right[:, None]], axis=1)
    for t in range(len(right)):
        row = rows[t] / rows[t, t]
        rows = (rows - rows[:, t, None] * row).at[t].set(row)
    return rows[:, -1]
