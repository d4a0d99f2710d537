r"""The statistics of `weighted` in pure JAX: for compiled code, accelerators and derivatives.

They come in stages, so that what all genes share is formed once: `basis` (X alone), `weigh` (X and
the weights), `level_products` (and the random terms), then `residualise` and `gene_products` of one
gene. `traced_statistics` runs them all for a gene with weights of its own. ``jax.jit`` compiles
them, ``jax.vmap(..., out_axes=-1)`` maps them over genes, and they are differentiable in ``y``,
``w`` and ``Q`` (no host callback, no LAPACK, no branch on a value). The products are those of
`jaxvp.statistics.weighted.own`, formed densely:

    F = Z_1'W U,   S = (U - Z_1 D F)'W (U - Z_1 D F),   C_c = F' diag(L_c / n) F,   D = diag(1 / n),

``C J K^2`` multiply-adds in matrix products, where the host's sparse ones cost a fraction of that.
Two calls, one with weights of ones, differ in nothing else: a gene without weights has ``w = 1``
where it was measured and 0 where not.

    gene, undo = traced_statistics(layout(design, shared), Q, y, w, nodes)
    evaluate(gamma, shared, gene, reml=False)

``Q = X T`` with a ``T`` that makes the columns orthonormal. Nothing below needs them to be: T is a
change of coordinates, held fixed in derivatives, and ``dQ = dX T``.

Gradients at the optimum in gamma need no derivative of gamma for the deviance itself (envelope
theorem); for fractions they do (`jaxvp.functional`).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from jaxvp.design import Design

from .compression import Compression
from .nodes import chebyshev, from_unit, to_unit
from .types import Array, Own, PerGene, Shared

# What is left of a fixed column beside the ones before it: R's 1e-7, of lengths.
_RANK = 1e-7


class Layout(NamedTuple):
    """Where the samples stand in the random terms; term 1 is the eliminated one."""

    level_of: Int[Array, " n"]
    others: Float[Array, "n q"]  # indicators of the other terms
    levels: int  # J


class Classes(NamedTuple):
    """Classes of the levels of term 1 that are known beforehand, because nothing is weighted."""

    sizes: Float[Array, " C"]  # or interpolation nodes
    shares: Float[Array, "C J"]  # how much of each level is in each class
    level_sizes: Float[Array, " L"]  # distinct true sizes
    level_counts: Float[Array, " L"]


class Undoing(NamedTuple):
    """What undoes residualising, scaling and the division of weights (see `Estimates`)."""

    scale: Float[Array, ""]
    ols: Float[Array, " p"]  # weighted least squares on Q
    half_log: Float[Array, ""]  # half the sum of log w: to be added to the log-likelihood
    mean_weight: Float[Array, ""]
    n: Float[Array, ""]


class Weighted(NamedTuple):
    """The fixed part under weights."""

    Q: Float[Array, "n p"]
    w: Float[Array, " n"]  # mean one over the samples that count, zero elsewhere
    counts: Bool[Array, " n"]
    inverse: Float[Array, "p p"]  # (Q'WQ)^-1
    full_rank: Bool[Array, ""]
    half_log: Float[Array, ""]
    mean_weight: Float[Array, ""]
    n: Float[Array, ""]


class LevelProducts(NamedTuple):
    """The random terms under weights."""

    own: Own
    level_of: Int[Array, " n"]
    share: Float[Array, " J"]  # one over the size of a level, zero where it is lost
    deviation: Float[Array, "n K"]  # U minus its level means
    class_shares: Float[Array, "C J"]  # of a level's a_j^2 / n_j in the classes
    class_sums: Float[Array, "C J K"]  # of F_j / n_j


def layout(design: Design, shared: Shared) -> Layout:
    """Of a design with a random term, in the elimination order of its statistics."""
    codes = [np.asarray(design.codes[i]) for i in shared.order]
    eyes = [np.eye(n)[c] for n, c in zip(shared.levels[1:], codes[1:], strict=True)]
    return Layout(codes[0], np.hstack([np.zeros((design.n, 0)), *eyes]), shared.levels[0])


def known_classes(compression: Compression) -> Classes:
    """Those of a design whose samples all count the same."""
    shared, grouping = compression.shared, compression.grouping
    assert grouping is not None and grouping.class_indicator is not None
    shares = (grouping.class_indicator.toarray() > 0).astype(np.float64)
    if grouping.nodes is not None:
        shares = grouping.nodes @ shares
    return Classes(shared.sizes, shares, shared.level_sizes, shared.level_counts)


def basis(X: Float[Array, "n p"]) -> tuple[Float[Array, "n p"], Float[Array, "p p"], Array]:
    """``Q = X T`` with orthonormal columns, ``T``, and ``log|det T^-1|``; T is not differentiated.

    By Gram and Schmidt, twice, a column at a time: no LAPACK. A column that the ones before it
    explain becomes zero.
    """
    fixed = jax.lax.stop_gradient(X)
    p = X.shape[1]

    def column(j, carry):
        q, t, log_det = carry
        x = fixed[:, j]
        length = jnp.sqrt((x * x).sum())
        rest, taken = x, jnp.zeros(p, x.dtype)
        for _ in range(2):
            part = q.T @ rest
            rest, taken = rest - q @ part, taken + part
        norm = jnp.sqrt((rest * rest).sum())
        new = norm > _RANK * length
        scale = jnp.where(new, 1 / jnp.where(new, norm, 1), 0)
        coordinates = jnp.zeros(p, x.dtype).at[j].set(1) - t @ taken
        log_det = log_det + jnp.log(jnp.where(new, norm, 1))
        return q.at[:, j].set(rest * scale), t.at[:, j].set(coordinates * scale), log_det

    begin = (jnp.zeros_like(fixed), jnp.zeros((p, p), X.dtype), jnp.zeros((), X.dtype))
    q, t, log_det = jax.lax.stop_gradient(jax.lax.fori_loop(0, p, column, begin))
    return q + (X - fixed) @ t, t, log_det


def weigh(Q: Float[Array, "n p"], w: Float[Array, " n"]) -> Weighted:
    """The fixed part under weights, zero or more, some above zero."""
    counts = w > 0
    n = counts.sum().astype(w.dtype)
    mean_weight = jnp.where(counts, w, 0).sum() / n
    w = jnp.where(counts, w, 0) / mean_weight
    half_log = 0.5 * jnp.log(jnp.where(counts, w, 1)).sum()
    inverse, full_rank = _inverse(Q.T @ (w[:, None] * Q))
    return Weighted(Q, w, counts, inverse, full_rank, half_log, mean_weight, n)


def residualise(
    weighted: Weighted, y: Float[Array, " n"]
) -> tuple[Float[Array, " n"], Float[Array, " p"]]:
    """One gene without its least-squares fit, and the coefficients of that.

    Where the weight is zero the measurement may be anything, NaN too; its residual is zero.
    """
    Q, w, counts = weighted.Q, weighted.w, weighted.counts
    y = jnp.where(counts, y, 0)
    ols = jnp.zeros(Q.shape[1], y.dtype)
    for _ in range(2):  # the second time for the digits that a large mean took
        b = weighted.inverse @ (Q.T @ (w * y))
        y = jnp.where(counts, y - Q @ b, 0)
        ols = ols + b
    return y, ols


def level_products(layout: Layout, weighted: Weighted, classes: Classes | int) -> LevelProducts:
    """What a random term adds, without a measurement.

    ``classes`` are those of a design without weights, or the number of interpolation nodes.
    """
    w, Q = weighted.w, weighted.Q
    U = jnp.concatenate([jnp.asarray(layout.others, Q.dtype), Q], axis=1)
    size = jax.ops.segment_sum(w, layout.level_of, layout.levels)
    F = jax.ops.segment_sum(w[:, None] * U, layout.level_of, layout.levels)
    there = size > 0
    share = jnp.where(there, 1 / jnp.where(there, size, 1), 0)
    deviation = U - (share[:, None] * F)[layout.level_of]
    if isinstance(classes, int):
        sizes, shares = _classes(size, classes)
        level_sizes, level_counts = size, jnp.ones_like(size)
    else:
        sizes, shares, level_sizes, level_counts = (jnp.asarray(a, Q.dtype) for a in classes)
    shares = shares * share
    sums = shares[:, :, None] * F
    own = Own(
        within=deviation.T @ (w[:, None] * deviation),
        between=jnp.einsum("cja,jb->cab", sums, F),
        sizes=sizes,
        level_sizes=level_sizes,
        level_counts=level_counts,
        n=weighted.n,
    )
    return LevelProducts(own, layout.level_of, share, deviation, shares, sums)


def gene_products(products: LevelProducts, weighted: Weighted, y: Float[Array, " n"]) -> PerGene:
    """Of one gene, residualised and scaled; ``own`` is left out."""
    a = jax.ops.segment_sum(weighted.w * y, products.level_of, len(products.share))
    d = y - (products.share * a)[products.level_of]
    wd = weighted.w * d
    return PerGene(
        within_uy=products.deviation.T @ wd,
        within_yy=(wd * d).sum(),
        between_uy=jnp.tensordot(products.class_sums, a, ((1,), (0,))),
        between_yy=products.class_shares @ (a * a),
    )


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
        weighted = weigh(jnp.asarray(Q), w)
        products = level_products(layout, weighted, nodes)
        y, ols = residualise(weighted, y)
        scale = jnp.sqrt((weighted.w * y * y).sum() / weighted.n)
        gene = gene_products(products, weighted, y / scale)
        own = PerGene(
            gene.within_uy, gene.within_yy, gene.between_uy, gene.between_yy, products.own
        )
        return own, Undoing(scale, ols, weighted.half_log, weighted.mean_weight, weighted.n)


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
    knots, barycentric = (jnp.asarray(a, size.dtype) for a in chebyshev(nodes))
    z = to_unit(jnp.where(there, t - middle, 0), half)
    gap = z - knots[:, None]
    gap = jnp.where(abs(gap) < 1e-15, 1e-15, gap)
    weights = barycentric[:, None] / gap
    return jnp.exp(middle + from_unit(knots, half)), weights / weights.sum(axis=0)


def _inverse(matrix: Float[Array, "p p"]) -> tuple[Float[Array, "p p"], Bool[Array, ""]]:
    """Of a positive definite matrix, and whether it is.

    By Gauss and Jordan: batched LAPACK calls that run at the same time can hang.
    """
    p = len(matrix)
    least = max(_RANK**2, 8 * float(jnp.finfo(matrix.dtype).eps))
    full_rank = jnp.ones((), bool)
    rows = jnp.concatenate([matrix, jnp.eye(p, dtype=matrix.dtype)], axis=1)
    for t in range(p):
        healthy = rows[t, t] > least * matrix[t, t]
        full_rank = full_rank & healthy
        row = rows[t] / jnp.where(healthy, rows[t, t], 1)
        rows = (rows - rows[:, t, None] * row).at[t].set(row)
    return rows[:, p:], full_rank
