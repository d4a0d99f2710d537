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
over genes: `jaxvp.solver.genes_last` is the batching rule that `jax.vmap` uses.

Sources: Bates, Maechler, Bolker and Walker (2015), J. Stat. Softw. 67(1), for the profiled
deviance; Searle, Casella and McCulloch, Variance Components (1992), ch. 6, for score and
information.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from jaxvp.likelihood.conditions import conditions
from jaxvp.likelihood.estimates import Estimates, estimates, no_estimates
from jaxvp.likelihood.factor import factored
from jaxvp.likelihood.least_squares import least_squares
from jaxvp.likelihood.sweep import swept
from jaxvp.likelihood.system import (
    SWEEP_COLUMNS,
    Matrix,
    Scalar,
    Vector,
    class_sum,
    class_weights,
    fence,
    lift,
)
from jaxvp.statistics import PerGene, Shared

__all__ = [
    "SWEEP_COLUMNS",
    "Estimates",
    "Evaluation",
    "Matrix",
    "Scalar",
    "Vector",
    "conditions",
    "evaluate",
    "fence",
    "lift",
    "no_estimates",
    "least_squares",
]


class Evaluation(NamedTuple):
    """Deviance (without its constants) at gamma and its derivatives there, in elimination order."""

    deviance: Scalar
    score: Vector
    hessian: Matrix
    fisher: Matrix  # expected second derivatives, sigma profiled out: positive semidefinite
    rounding: Vector  # size of the score's rounding error
    estimates: Estimates  # what follows from gamma


def evaluate(gamma: Vector, shared: Shared, gene: PerGene, *, reml: bool) -> Evaluation:
    """Deviance, score and curvature at ``gamma`` (variance ratios, elimination order).

    They are those of one gene, or of as many as ``gamma`` and ``gene`` have on a trailing axis
    (`jaxvp.solver.genes_last` maps it that way).
    """
    lanes = jnp.ndim(gene.within_yy)
    shared = shared.of(gene.own)
    eliminate = factored if shared.n_columns > SWEEP_COLUMNS and lanes == 0 else swept
    moments, system = fence(lambda g, s: eliminate(g, shared, s, reml), gamma, gene)
    size = shared.n - shared.p if reml else shared.n
    r0, r1, r2 = moments.rss
    l0, l1, l2 = moments.log_det
    others = range(len(gamma) - 1)
    log_det1 = (l1, *(moments.trace[0][i] for i in others))
    rss1 = (r1, *(-moments.data[0][i] for i in others))

    def matrix(corner: Scalar, edge: Vector, inner: Matrix) -> Matrix:
        return ((corner, *edge), *((edge[i], *inner[i]) for i in others))

    log_det2 = matrix(
        2 * l2,
        tuple(moments.trace[1][i] for i in others),
        tuple(tuple(-moments.squares[i][j] for j in others) for i in others),
    )
    rss2 = matrix(
        2 * r2,
        tuple(-moments.data[1][i] for i in others),
        tuple(tuple(2 * moments.curved[i][j] for j in others) for i in others),
    )
    terms = range(len(gamma))
    score = tuple(log_det1[i] + size * rss1[i] / r0 for i in terms)
    hessian = tuple(
        tuple(log_det2[i][j] + size * (rss2[i][j] / r0 - rss1[i] * rss1[j] / r0**2) for j in terms)
        for i in terms
    )
    fisher = tuple(
        tuple(-log_det2[i][j] - log_det1[i] * log_det1[j] / size for j in terms) for i in terms
    )
    # r is what is left of y'V_1^-1 y, and pivots are what is left of the columns' squares: relative
    # rounding errors grow with what was taken away.
    taken = class_sum(class_weights(shared, gamma[0])[0], gene.between_yy) + gene.within_yy
    noise = 8 * jnp.finfo(r0.dtype).eps * (1 + taken / r0 + moments.lost)
    rounding = tuple(noise * (abs(log_det1[i]) + size * abs(rss1[i]) / r0) for i in terms)
    found = fence(lambda system: estimates(system, shared, reml), system)
    return Evaluation(l0 + size * jnp.log(r0), score, hessian, fisher, rounding, found)
