r"""What follows from gamma: coefficients and their covariance, sigma, the log-likelihood.

With X = Q R and the gene scaled as `jaxvp.statistics` says, ``b = R^-1 (b_ls + s b_Q)`` where ``b_Q
= (Q'V^-1 Q)^-1 Q'V^-1 y``, ``cov b = sigma^2 R^-1 (Q'V^-1 Q)^-1 R^-T``, ``sigma^2 = s^2 r / N``
with N = n (ML) or n - p (REML), and

    -2 log L = log|V| + N (1 + log(2 pi sigma^2))  [REML: + log|Q'V^-1 Q| + 2 log|det R|].
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Float

from jaxvp.likelihood.factor import random_factored
from jaxvp.likelihood.sweep import inverse, random_swept
from jaxvp.likelihood.system import (
    SWEEP_COLUMNS,
    Scalar,
    Vector,
    class_sum,
    class_weights,
    fence,
    lift,
    log_det_eliminated,
)
from jaxvp.statistics import Array, PerGene, Shared


class Estimates(NamedTuple):
    """One gene, in the units of its scaled residual."""

    coefficients: Float[Array, "p *genes"]  # b_Q
    variances: Float[Array, "p *genes"]  # diagonal of cov b / sigma^2, for the columns of X
    sigma: Scalar
    log_likelihood: Scalar  # without the terms of the scale s


def estimate(gamma: Vector, shared: Shared, gene: PerGene, *, reml: bool) -> Estimates:
    """Estimates of one gene (or of a tile of genes on a trailing axis) at ``gamma``."""
    p = shared.p
    size = shared.n - p if reml else shared.n
    weights = class_weights(shared, gamma[0])[0]
    uu = lift(shared.within, gamma[0]) + class_sum(weights, lift(shared.between, gamma[0]))
    uy = gene.within_uy + class_sum(weights, gene.between_uy)
    rss = gene.within_yy + class_sum(weights, gene.between_yy)
    log_det = log_det_eliminated(shared, gamma[0])[0]
    if shared.n_columns > SWEEP_COLUMNS and jnp.ndim(rss) == 0:
        uu, uy, rss, log_random = random_factored(gamma, shared, uu, uy, rss)
    else:
        uu, uy, rss, log_random = random_swept(gamma, shared, uu, uy, rss)
    log_det = log_det + log_random
    always = shared.level_counts[0] > 0
    if p:
        covariance, log_fixed = fence(always, inverse, uu)
        coefficients = fence(always, lambda c, b: (c * b[None]).sum(1), covariance, uy)
        rss = rss - (uy * coefficients).sum(0)
        if reml:
            log_det = log_det + log_fixed + 2 * shared.log_det_r
        half = jnp.tensordot(shared.r_inverse, covariance, axes=1)
        variances = (half * lift(shared.r_inverse, gamma[0])).sum(1)
    else:
        coefficients = variances = uy
    sigma2 = rss / size
    log_likelihood = -0.5 * (log_det + size * (1 + jnp.log(2 * jnp.pi * sigma2)))
    return Estimates(coefficients, variances, jnp.sqrt(sigma2), log_likelihood)
