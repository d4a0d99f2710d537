r"""What a gene's variances mean for its fixed effects and for its number of samples.

*Collinearity score.* The estimated fixed effects of a gene have the covariance

    cov b = sigma^2 (X'V^-1 X)^-1,     V = I + sum_i gamma_i Z_i Z_i',   gamma_i = theta_i^2;

scaled to a correlation matrix, its largest off-diagonal element in absolute value is the score
(``colinearityScore`` of variancePartition). It depends on the gene through theta alone. With the
cross-products that all genes share (`jaxvp.statistics.compress`), X = Q R, term 1 eliminated, A =
U'V_1^-1 U for U = [Z_2 ... Z_k, Q] and G the gammas of the other terms,

    Q'V^-1 Q = A_QQ - A_QZ G^1/2 (I + G^1/2 A_ZZ G^1/2)^-1 G^1/2 A_ZQ,
    (X'V^-1 X)^-1 = R^-1 (Q'V^-1 Q)^-1 R^-T:

K x K algebra for each distinct theta, in blocks of genes, whatever the number of samples. Without
random terms V = I and all genes have one score.

*Effective sample size.* n samples that are correlated by rho within groups of sizes n_j are worth

    1'C^-1 1 = sum_j n_j / (1 + rho (n_j - 1)),   C = rho Z Z' + (1 - rho) I,

independent ones (Liu and Liang 1997, Biometrics 53:937): one inverse a group, in closed form, which
at rho = 1 is the pseudo-inverse's value, the number of groups. variancePartition's ``ESS`` takes
for rho the term's variance fraction, one term at a time, and, with ``method="approximate"``, for
every n_j their mean, n over the number of groups.

*Weights and missing values.* With ``V = W^-1 + sum_i gamma_i Z_i Z_i'`` the score is formed from
the gene's own products, of the observations that count. An effective sample size is a number of
samples that are all worth the same: those that a gene has, but not samples with weights.
"""

from typing import Literal

import jax
import numpy as np
from jaxtyping import Bool, Float

from jaxvp.design import Design
from jaxvp.design.variables import DesignError
from jaxvp.statistics import Shared, compress, indicator, own, structure, sums

METHODS = ("full", "approximate")
# A residual share of 1e-14: `jaxvp.fit` calls a gene with less than 1e-12 explained exactly. Beyond
# it the subtraction above would have no digits left.
_LARGEST_THETA = 1e7
# K x K systems that are held at a time.
_BLOCK_BYTES = 1 << 25


def collinearity_score(
    design: Design, theta: Float[np.ndarray, "genes k"], intercept: bool = True
) -> Float[np.ndarray, " genes"]:
    """Largest correlation, in absolute value, of two estimated fixed effects of each gene.

    Parameters
    ----------
    design
        What all genes share.
    theta
        Of each gene and random term, in formula order; no column for a fixed model.
    intercept
        Whether the intercept counts as one of the effects, as it does in variancePartition.

    Returns
    -------
    array
        From 0 to 1; 0 where there are fewer than two effects.
    """
    skip = 1 if design.formula.intercept and not intercept else 0
    if design.p - skip < 2:
        return np.zeros(len(theta))
    shared = compress(design).shared
    theta = np.minimum(theta, _LARGEST_THETA)
    distinct, gene_of = np.unique(theta, axis=0, return_inverse=True)
    size = max(1, _BLOCK_BYTES // (8 * max(1, shared.n_columns) ** 2))
    scores = np.concatenate(
        [
            _largest_correlation(shared, distinct[start : start + size] ** 2, skip)
            for start in range(0, len(distinct), size)
        ]
        or [np.zeros(0)]
    )
    return scores[gene_of.reshape(-1)]


def _largest_correlation(
    shared: Shared, gamma: Float[np.ndarray, "genes k"], skip: int
) -> Float[np.ndarray, " genes"]:
    return _of_covariance(_in_columns(shared, np.linalg.inv(information(shared, gamma)), skip))


def _in_columns(
    shared: Shared, inverse: Float[np.ndarray, "genes p p"], skip: int
) -> Float[np.ndarray, "genes c c"]:
    """Covariance of the coefficients over sigma^2, from that of Q's."""
    r_inverse = np.asarray(shared.r_inverse)[skip:]
    return r_inverse @ inverse @ r_inverse.T


def _of_covariance(covariance: Float[np.ndarray, "genes c c"]) -> Float[np.ndarray, " genes"]:
    deviation = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    correlation = covariance / (deviation[:, :, None] * deviation[:, None, :])
    above = np.triu_indices(covariance.shape[1], 1)
    return np.minimum(np.abs(correlation[:, *above]).max(axis=1), 1.0)


def own_collinearity_score(
    design: Design,
    theta: Float[np.ndarray, "genes k"],
    weights: Float[np.ndarray, "n genes"],
    intercept: bool = True,
) -> Float[np.ndarray, " genes"]:
    """The same for genes with weights of their own, zero where an observation does not count.

    ``theta`` is relative to the sigma of weight 1.
    """
    skip = 1 if design.formula.intercept and not intercept else 0
    if design.p - skip < 2:
        return np.zeros(len(theta))
    shared = compress(design).shared
    s = structure(design, shared)
    levels = max(s.levels, 1)
    size = max(1, _BLOCK_BYTES // (8 * levels * (shared.n_columns + 1) ** 2))
    scores = np.empty(len(theta))
    for start in range(0, len(theta), size):
        part = slice(start, start + size)
        w = weights[:, part]
        found = sums(s, np.zeros_like(w), w)
        # The products are of weights with mean 1: the same model for gamma times the mean.
        gamma = np.minimum(theta[part], _LARGEST_THETA) ** 2 * found.mean_weight[:, None]
        if not s.levels:
            inverse = np.moveaxis(found.inverse, -1, 0)
            scores[part] = _of_covariance(_in_columns(shared, inverse, skip))
            continue
        products = own(s, found, s.levels).own
        for j, place in enumerate(range(start, start + w.shape[1])):
            one = shared.of(jax.tree.map(lambda leaf, j=j: leaf[..., j], products))
            scores[place] = _largest_correlation(one, gamma[[j]], skip)[0]
    return scores


def information(
    shared: Shared, gamma: Float[np.ndarray, "genes k"]
) -> Float[np.ndarray, "genes p p"]:
    """Q'V^-1 Q of each gene, from gamma in formula order."""
    p, genes = shared.p, len(gamma)
    if not shared.order:
        return np.broadcast_to(np.eye(p), (genes, p, p))
    gamma = gamma[:, list(shared.order)]
    weights = 1 / (1 + gamma[:, :1] * np.asarray(shared.sizes))
    between = np.asarray(shared.between)
    system = np.asarray(shared.within) + np.tensordot(weights, between, axes=1)
    root = np.repeat(np.sqrt(gamma[:, 1:]), shared.levels[1:], axis=1)
    q = root.shape[1]
    random = root[:, :, None] * system[:, :q, :q] * root[:, None, :]
    random[:, np.arange(q), np.arange(q)] += 1
    cross = root[:, :, None] * system[:, :q, q:]
    return system[:, q:, q:] - np.swapaxes(cross, 1, 2) @ np.linalg.solve(random, cross)


def effective_sample_size(
    design: Design,
    fractions: Float[np.ndarray, "genes k"],
    method: Literal["full", "approximate"] | str = "full",
) -> Float[np.ndarray, "genes k"]:
    """How many independent samples the samples are worth, by gene and random term.

    Parameters
    ----------
    design
        What all genes share.
    fractions
        Variance fractions of the random terms, in formula order.
    method
        ``"full"``, or ``"approximate"``: as if all groups of a term were of one size.

    Raises
    ------
    DesignError
        If the model has no random term.
    ValueError
        If the method is another one.
    """
    if method not in METHODS:
        raise ValueError(f"method={method!r}: it is 'full' or 'approximate'")
    if not design.codes:
        raise DesignError(
            "the effective sample size is that of a random term, such as (1|Individual), and the "
            f"model has none: all {design.n} samples count"
        )
    effective = np.empty(fractions.shape)
    for i, codes in enumerate(design.codes):
        sizes, count = np.unique(np.bincount(codes), return_counts=True)
        if method == "approximate":
            sizes, count = np.array([design.n / count.sum()]), count.sum(keepdims=True)
        rho = fractions[:, i, None]
        effective[:, i] = (count * sizes / (1 + rho * (sizes - 1))).sum(axis=1)
    return effective


def own_effective_sample_size(
    design: Design,
    fractions: Float[np.ndarray, "genes k"],
    there: Bool[np.ndarray, "n genes"],
    method: str = "full",
) -> Float[np.ndarray, "genes k"]:
    """The same for genes that have some of the samples."""
    effective = np.empty(fractions.shape)
    for i, codes in enumerate(design.codes):
        sizes = indicator(codes, int(codes.max()) + 1) @ there.astype(np.float64)
        count = (sizes > 0) * 1.0
        if method == "approximate":
            count = count.sum(axis=0, keepdims=True)
            sizes = there.sum(axis=0) / count
        effective[:, i] = (count * sizes / (1 + fractions[:, i] * (sizes - 1))).sum(axis=0)
    return effective
