r"""What a gene's variances mean for its fixed effects and for its number of samples.

*Collinearity score.* The estimated fixed effects of a gene have the covariance

    cov b = sigma^2 (X'V^-1 X)^-1,     V = I + Z Lambda Lambda' Z';

scaled to a correlation matrix, its largest off-diagonal element in absolute value is the score
(``colinearityScore`` of variancePartition). It depends on the gene through theta, which Lambda
holds, alone: with X = Q R, ``(X'V^-1 X)^-1 = R^-1 (Q'V^-1 Q)^-1 R^-T`` is K x K algebra for each
distinct theta (`information`), in blocks of genes, whatever the number of samples, with random
slopes too. Without random terms V = I and all genes have one score.

*Effective sample size.* n samples that are correlated by rho within groups of sizes n_j are worth

    1'C^-1 1 = sum_j n_j / (1 + rho (n_j - 1)),   C = rho Z Z' + (1 - rho) I,

independent ones (Liu and Liang 1997, Biometrics 53:937): one inverse a group, in closed form, which
at rho = 1 is the pseudo-inverse's value, the number of groups. variancePartition's ``ESS`` takes
for rho the term's variance fraction, one term at a time, and, with ``method="approximate"``, for
every n_j their mean, n over the number of groups.

*Weights and missing values.* With ``V = W^-1 + Z Lambda Lambda' Z'`` the score is formed from the
gene's own products, of the observations that count. An effective sample size is a number of samples
that are all worth the same: those that a gene has, but not samples with weights, nor samples whose
variance, and correlation with those of their group, follows a covariate (random slopes).
"""

from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

from jaxvp.design import Design
from jaxvp.design.variables import DesignError
from jaxvp.statistics import indicator

from .information import Model

METHODS = ("full", "approximate")
# K x K systems that are held at a time.
_BLOCK_BYTES = 1 << 25


def collinearity_score(
    design: Design, theta: Float[np.ndarray, "genes m"], intercept: bool = True
) -> Float[np.ndarray, " genes"]:
    """Largest correlation, in absolute value, of two estimated fixed effects of each gene.

    Parameters
    ----------
    design
        What all genes share.
    theta
        Of each gene, as in `Results.theta`; no column for a fixed model.
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
    model = Model(design)
    distinct, gene_of = np.unique(theta, axis=0, return_inverse=True)
    size = max(1, _BLOCK_BYTES // (8 * max(1, model.shared.n_columns) ** 2))
    scores = [
        _largest_correlation(model, model.information(distinct[start : start + size]), skip)
        for start in range(0, len(distinct), size)
    ]
    return np.concatenate([np.zeros(0), *scores])[gene_of.reshape(-1)]


def own_collinearity_score(
    design: Design,
    theta: Float[np.ndarray, "genes m"],
    weights: Float[np.ndarray, "n genes"],
    intercept: bool = True,
) -> Float[np.ndarray, " genes"]:
    """The same for genes with weights of their own, zero where an observation does not count.

    ``theta`` is relative to the sigma of weight 1.
    """
    skip = 1 if design.formula.intercept and not intercept else 0
    if design.p - skip < 2:
        return np.zeros(len(theta))
    model = Model(design)
    size = max(1, _BLOCK_BYTES // model.bytes)
    scores = np.empty(len(theta))
    for start in range(0, len(theta), size):
        part = slice(start, start + size)
        found = model.own_information(theta[part], weights[:, part])
        scores[part] = _largest_correlation(model, found, skip)
    return scores


def _largest_correlation(
    model: Model, information: Float[np.ndarray, "genes p p"], skip: int
) -> Float[np.ndarray, " genes"]:
    r_inverse = np.asarray(model.shared.r_inverse)[skip:]
    covariance = r_inverse @ np.linalg.inv(information) @ r_inverse.T
    deviation = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    correlation = covariance / (deviation[:, :, None] * deviation[:, None, :])
    above = np.triu_indices(covariance.shape[1], 1)
    return np.minimum(np.abs(correlation[:, *above]).max(axis=1), 1.0)


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
