"""From measurements and weights to statistics, and what disqualifies a gene, without a branch.

In compiled code nothing can be left out, so a gene that cannot be fitted is given a harmless vector
in its place, and its ``status``; its results are blanked in the end. Weights that are none are
replaced by ones. Nothing of such a gene, no NaN and no derivative, reaches what others share.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from jaxvp.batch.fitted import Undo
from jaxvp.functional.maximum import unbounded
from jaxvp.functional.model import Design
from jaxvp.solver import Status
from jaxvp.statistics import (
    Array,
    Classes,
    LevelProducts,
    PerGene,
    Shared,
    Weighted,
    basis,
    gene_products,
    level_products,
    residualise,
    weigh,
)


class Prepared(NamedTuple):
    """A block of genes before the solver."""

    shared: Shared | None  # None without a random term
    gene: PerGene | None
    undo: Undo
    r_inverse: Float[Array, "p p"]
    inverse: Float[Array, "p p *genes"]  # (Q'WQ)^-1
    status: Int[Array, " genes"]


class Samples(NamedTuple):
    """What the samples are without measurements, for all genes or for each."""

    weighted: Weighted
    products: LevelProducts | None
    covariance: Float[Array, "p p"]  # of the columns of X
    status: Int[Array, ""]


def prepare(Y: Array, design: Design, weights: Array | None) -> Prepared:
    """Statistics of a block of genes (samples x genes) under weights, if there are any."""
    Q, r_inverse, log_det_r = basis(design.X)
    own = weights is not None and weights.ndim == 2
    if own:
        one = jax.vmap(lambda w: weighted_samples(design, Q, w), in_axes=-1, out_axes=-1)
        samples = one(weights)
    elif weights is not None:
        samples = weighted_samples(design, Q, weights)
    else:
        samples = samples_of(design, Q, jnp.ones(len(Q), Y.dtype), design.classes)
        if len(Q) <= len(design.columns) + sum(design.levels):
            # The columns may be others than those that the design was refused or taken for.
            endless = unbounded(design, jnp.ones(len(Q), bool), jnp.asarray(design.levels))
            status = _where(endless, Status.TOO_FEW_OBSERVATIONS)
            status = jnp.where(status == 0, samples.status, status)
            samples = samples._replace(status=status)
    each = jax.vmap(one_gene, in_axes=(-1 if own else None, -1), out_axes=-1)
    gene, scale, ols, status = each(samples, Y)
    weighted, products = samples.weighted, samples.products
    shared = None
    if products is not None:
        # Where each gene has its own products, those of the first stand in the design's place.
        first = jax.tree.map(lambda leaf: leaf[..., 0], products.own) if own else products.own
        shared = Shared(
            **vars(first),
            samples_per_level=design.samples_per_level,
            log_det_r=log_det_r,
            r_inverse=r_inverse,
            p=len(design.columns),
            levels=design.levels,
            order=design.order,
        )
        if own and gene is not None:
            gene = PerGene(
                gene.within_uy, gene.within_yy, gene.between_uy, gene.between_yy, products.own
            )
    covariance = jnp.moveaxis(samples.covariance, -1, 0) if own else samples.covariance
    one = jnp.ones_like(weighted.mean_weight)
    undo = Undo(scale, ols, weighted.n, weighted.half_log, one, covariance)
    return Prepared(shared, gene, undo, r_inverse, weighted.inverse, status)


def weighted_samples(design: Design, Q: Float[Array, "n p"], w: Float[Array, " n"]) -> Samples:
    """The samples under weights; weights that no gene can be fitted with are replaced by ones."""
    n = (w > 0).sum()
    bad = ~(jnp.isfinite(w) & (w >= 0)).all() | (n == 0)
    status = _where(jnp.asarray(bad), Status.BAD_WEIGHTS)
    status = _where(jnp.asarray(n <= Q.shape[1]), Status.TOO_FEW_OBSERVATIONS, status)
    if design.levels:
        left = _levels_left(design, w)
        too_few = (left >= n).any() | unbounded(design, w > 0, left)
        status = _where(jnp.asarray(too_few), Status.TOO_FEW_OBSERVATIONS, status)
        status = _where(jnp.asarray((left == 1).any()), Status.SINGLE_LEVEL, status)
    w = jnp.where(status == 0, w, 1)
    fixed = jax.lax.stop_gradient((Q, w))
    status = _where(~weigh(*fixed).full_rank, Status.RANK_DEFICIENT, status)
    samples = samples_of(design, Q, jnp.where(status == 0, w, 1), design.nodes)
    return samples._replace(status=jnp.where(status == 0, samples.status, status))


def samples_of(
    design: Design, Q: Float[Array, "n p"], w: Float[Array, " n"], classes: Classes | int | None
) -> Samples:
    """The samples under good weights, classes as in `level_products`."""
    weighted = weigh(Q, w)
    centred = jnp.where(weighted.counts[:, None], design.X, 0)
    centred = centred - (weighted.w @ design.X) / weighted.n
    covariance = centred.T @ (weighted.w[:, None] * centred) / weighted.n
    products = None
    if design.layout is not None and classes is not None:
        products = level_products(design.layout, weighted, classes)
    status = _where(~weighted.full_rank, Status.RANK_DEFICIENT)
    return Samples(weighted, products, covariance, status)


def one_gene(
    samples: Samples, y: Float[Array, " n"]
) -> tuple[PerGene | None, Array, Float[Array, " p"], Int[Array, ""]]:
    """Its products, the scale and coefficients that undo residualising, and its status."""
    weighted = samples.weighted
    w, counts, n = weighted.w, weighted.counts, weighted.n
    finite = jnp.where(counts, jnp.isfinite(y), True).all()
    y = jnp.where(counts & finite, y, 0)
    # Squares of 1e200 are infinite; in units of the largest value they are not.
    largest = jax.lax.stop_gradient(abs(y).max())
    largest = jnp.where(largest > 0, largest, 1)
    y = y / largest
    rounding = 8 * jnp.finfo(y.dtype).eps
    constant = ~(jnp.where(counts, abs(y - y.sum() / n), 0).max() > rounding)
    y, ols = residualise(weighted, y)
    explained = ~((w * y * y).sum() > n * rounding**2)
    status = _where(constant, Status.ZERO_VARIANCE)
    status = _where(explained, Status.ZERO_RESIDUAL, status)
    status = jnp.where(finite, status, Status.NON_FINITE)
    status = jnp.where(samples.status == 0, status, samples.status)
    good = status == 0
    y = jnp.where(good, y, jnp.where(counts, jnp.cos(jnp.arange(len(y), dtype=y.dtype)), 0))
    scale = jnp.sqrt((w * y * y).sum() / n)
    gene = None
    if samples.products is not None:
        gene = gene_products(samples.products, weighted, y / scale)
    return gene, scale * largest, jnp.where(good, ols, 0) * largest, status


def _where(
    found: Bool[Array, ""], status: Status, before: Int[Array, ""] | None = None
) -> Int[Array, ""]:
    """What was found first is what a gene's status says."""
    before = jnp.zeros((), jnp.int32) if before is None else before
    return jnp.where((before == 0) & found, jnp.int32(status), before)


def _levels_left(design: Design, w: Float[Array, " n"]) -> Int[Array, " k"]:
    """Levels with samples that count, of every random term."""
    assert design.layout is not None
    counts = (w > 0).astype(w.dtype)
    ends = np.cumsum((0, *design.levels[1:]))
    others = counts @ design.layout.others > 0
    terms = [jax.ops.segment_sum(counts, design.layout.level_of, design.layout.levels) > 0]
    terms += [others[a:b] for a, b in zip(ends[:-1], ends[1:], strict=True)]
    return jnp.stack([there.sum() for there in terms])
