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

from jaxvp.likelihood.elementary import log
from jaxvp.likelihood.lanes import dot, lift, product
from jaxvp.likelihood.system import FixedSystem, Scalar
from jaxvp.statistics import Array, Shared, SlopeShared


class Estimates(NamedTuple):
    """One gene, in the units of its scaled residual."""

    coefficients: Float[Array, "p *genes"]  # b_Q
    variances: Float[Array, "p *genes"]  # diagonal of cov b / sigma^2, for the columns of X
    sigma: Scalar
    log_likelihood: Scalar  # without the terms of the scale s

    def rows(self) -> Float[Array, "rows *genes"]:
        """All of it as one array."""
        scalars = jnp.stack([self.sigma, self.log_likelihood])
        return jnp.concatenate([self.coefficients, self.variances, scalars])

    @classmethod
    def of(cls, rows: Float[Array, "rows *genes"]) -> Estimates:
        """What `rows` made."""
        p = (len(rows) - 2) // 2
        return cls(rows[:p], rows[p : 2 * p], rows[-2], rows[-1])


def estimates(system: FixedSystem, shared: Shared | SlopeShared, reml: bool) -> Estimates:
    """Estimates of one gene (or of a tile of genes on a trailing axis) from its system."""
    size = shared.n - shared.p if reml else shared.n
    log_det = system.log_det
    if reml:
        log_det = log_det + system.log_det_fixed + 2 * shared.log_det_r
    variances = coefficient_variances(system.covariance, shared)
    sigma2 = system.rss / size
    log_likelihood = -0.5 * (log_det + size * (1 + log(2 * jnp.pi * sigma2)))
    return Estimates(system.beta, variances, jnp.sqrt(sigma2), log_likelihood)


def coefficient_variances(
    covariance: Float[Array, "p p *genes"], shared: Shared | SlopeShared
) -> Float[Array, "p *genes"]:
    """Diagonal of cov b / sigma^2, for the columns of X, from that for the columns of Q."""
    r_inverse = lift(shared.r_inverse, jnp.zeros(covariance.shape[2:]))
    half = product(r_inverse, covariance)
    return dot(half.swapaxes(0, 1), r_inverse.swapaxes(0, 1))


def no_estimates(shared: Shared | SlopeShared) -> Estimates:
    """Of one gene, before there are any."""
    zero = jnp.zeros((), shared.r_inverse.dtype)
    columns = jnp.zeros(shared.p, zero.dtype)
    return Estimates(columns, columns, zero, zero)
