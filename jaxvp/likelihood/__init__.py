r"""The profiled deviance of one gene, its score and its curvature, in closed form.

Model: ``y = X b + sum_i Z_i u_i + e`` with ``u_i ~ N(0, sigma^2 gamma_i I)``, ``e ~ N(0, sigma^2
I)``. With ``V = I + sum_i gamma_i Z_i Z_i'``, ``P = V^-1 - V^-1 X (X' V^-1 X)^-1 X' V^-1`` and ``r
= y' P y`` the deviance (-2 log likelihood, sigma and b profiled out) is, up to a constant,

    ML:    log|V| + n log r            REML:  log|V| + log|X' V^-1 X| + (n - p) log r.

With weights ``V = W^-1 + ...``: the statistics carry W, and ``-sum log w`` is added where scales
are undone (`jaxvp.batch`). A gene whose weights or samples are its own brings its system with it
(``PerGene.own``), and the same lines run on arrays that have the gene axis.

*Sweeping.* Adding one random column ``z`` with variance ratio ``gamma`` to ``V`` changes every
inner product ``M = U' V^-1 U`` by a rank-one update (Sherman and Morrison),

    M <- M - d M_i M_i',     d = gamma / (1 + gamma M_ii),
    log|V| <- log|V| + log(1 + gamma M_ii),

no square root, no division by gamma: ``gamma = 0`` costs and means nothing special. A fixed column
is the limit ``gamma = inf`` (``d = 1 / M_ii``). After all columns, with ``y`` as one more column of
U, ``M`` holds ``Z' P Z``, ``Z' P y`` and ``y' P y``, and from these every derivative with respect
to the swept terms:

    d log|V| / d gamma_i = tr(Z_i' V^-1 Z_i),   d2 = -|Z_i' V^-1 Z_j|^2 (Frobenius; REML: with P),
    d r / d gamma_i      = -|Z_i' P y|^2,       d2 = 2 y'P Z_i (Z_i' P Z_j) Z_j' P y.

*The eliminated term.* Term 1 is not among the columns; its variance ratio enters ``M`` before the
sweep, through the class weights ``1 / (1 + gamma_1 n_c)`` of `jaxvp.statistics`. As a power series
in a change of gamma_1, ``M0 + e M1 + e^2 M2``, it gives every quantity its first and second
derivative there (`jaxvp.likelihood.sweep`).

For many columns the sweep's K passes are replaced by one Cholesky factorisation and matrix products
(`jaxvp.likelihood.factor`), same results. What is to be differentiated once more, the score and
estimates at an optimum, is written for that in `jaxvp.likelihood.conditions`.

Everything here acts on *leading* axes: for one gene a matrix is (K, K); with the genes of a tile on
a trailing axis, (K, K, genes), the same lines run for all of them at once, contiguous in memory
over genes. It is what `jax.vmap` of the function of one gene gives, which would move the genes to
the front.

Sources: Bates, Maechler, Bolker and Walker (2015), J. Stat. Softw. 67(1), for the profiled
deviance; Searle, Casella and McCulloch, Variance Components (1992), ch. 6, for score and
information.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxvp.likelihood.conditions import conditions
from jaxvp.likelihood.elementary import log
from jaxvp.likelihood.estimates import Estimates, estimates, no_estimates
from jaxvp.likelihood.factor import factored
from jaxvp.likelihood.lanes import dot, every, lift
from jaxvp.likelihood.least_squares import least_squares
from jaxvp.likelihood.sweep import swept
from jaxvp.likelihood.system import (
    Moments,
    Scalar,
    Vector,
    class_weights,
)
from jaxvp.statistics import SWEEP_COLUMNS, Array, PerGene, Shared
from jaxvp.target import accelerated, fence, traced_for

__all__ = [
    "SWEEP_COLUMNS",
    "Estimates",
    "Evaluation",
    "Scalar",
    "Vector",
    "accelerated",
    "conditions",
    "evaluate",
    "every",
    "fence",
    "lift",
    "no_estimates",
    "least_squares",
    "traced_for",
]


class Evaluation(NamedTuple):
    """Deviance (without its constants) at gamma and its derivatives there, in elimination order."""

    deviance: Scalar
    score: Float[Array, "k *genes"]
    hessian: Float[Array, "k k *genes"]
    # Expected second derivatives, sigma profiled out: positive semidefinite.
    fisher: Float[Array, "k k *genes"]
    rounding: Float[Array, "k *genes"]  # size of the score's rounding error
    estimates: Estimates  # what follows from gamma


def evaluate(gamma: Vector, shared: Shared, gene: PerGene, *, reml: bool) -> Evaluation:
    """Deviance, score and curvature at ``gamma`` (variance ratios, elimination order).

    They are those of one gene, or of as many as ``gamma`` and ``gene`` have on a trailing axis.
    """
    lanes = jnp.ndim(gene.within_yy)
    shared = shared.of(gene.own)
    eliminate = factored if shared.n_columns > SWEEP_COLUMNS and lanes == 0 else swept
    moments, system = fence(lambda g, s: eliminate(g, shared, s, reml), gamma, gene)
    size = shared.n - shared.p if reml else shared.n
    log_det1, rss1, log_det2, rss2 = fence(_derivatives, moments)
    r0 = moments.rss[0]
    # r is what is left of y'V_1^-1 y, and pivots are what is left of the columns' squares: relative
    # rounding errors grow with what was taken away.
    taken = dot(class_weights(shared, gamma[0])[0], gene.between_yy) + gene.within_yy
    noise = 8 * jnp.finfo(r0.dtype).eps * (1 + taken / r0 + moments.lost)
    relative = rss1 / r0
    return Evaluation(
        moments.log_det[0] + size * log(r0),
        log_det1 + size * relative,
        log_det2 + size * (rss2 / r0 - relative[:, None] * relative[None]),
        -log_det2 - log_det1[:, None] * log_det1[None] / size,
        noise * (abs(log_det1) + size * abs(relative)),
        fence(lambda system: estimates(system, shared, reml), system),
    )


def _derivatives(moments: Moments) -> tuple[Array, Array, Array, Array]:
    """Of log|.| and of r: first derivatives in all gammas, and second ones.

    The first row of the sums is empty: what belongs to term 1 takes its place.
    """
    sums, k = moments.sums, moments.sums.shape[0]
    # As a factor: a choice between rows would be a loop for each.
    first = lift(np.eye(k)[0].astype(sums.dtype), moments.rss[0])

    def matrix(block: Array, corner: Scalar) -> Array:
        edge = block[:, 0] + first * corner
        return block + first[:, None] * edge

    return (
        sums[:, 0] + first * moments.log_det[1],
        sums[:, 1] + first * moments.rss[1],
        matrix(sums[:, 2 : 2 + k], 2 * moments.log_det[2]),
        matrix(sums[:, 2 + k :], 2 * moments.rss[2]),
    )
