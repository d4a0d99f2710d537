r"""From fitted components to variance fractions, variancePartition's definition.

*Mixed model.* With ``tau_k^2 = sigma^2 gamma_k`` for every random term, ``v_j = Var(X_j b_j)`` for
every fixed column but the intercept (population variance over the samples), rescaled so that they
add up to the variance of the whole fixed part, and ``sigma^2``,

    fraction = component / (sum_k tau_k^2 + sum_j v_j + sigma^2).

*Fixed model.* With ``f_t = X_t b_t`` for every fixed term, ``SS_t = sum_i w_i (f_ti - mean f_t)^2``
and the residual sum of squares, each divided by the sum of all.

Means and variances over the samples are weighted where these have weights, and are over the samples
that a gene has where some are missing.

Source: Hoffman and Schadt (2016), variancePartition, BMC Bioinformatics 17:483, and its
``calcVarPart``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxvp.design import Design


class Components(NamedTuple):
    """Columns of a fractions table, their variances and their shares."""

    names: tuple[str, ...]
    variances: Float[np.ndarray, "genes components"]
    fractions: Float[np.ndarray, "genes components"]


RESIDUALS = "Residuals"


class FixedPart:
    """Variances of the fixed components, from coefficients and the covariance of the columns.

    Those of a mixed model are the columns but the intercept, those of a fixed model its terms.
    """

    def __init__(self, design: Design) -> None:
        self.mixed = bool(design.codes)
        self.columns = [j for j, term in enumerate(design.term_of_column) if term >= 0]
        self.terms = [
            [j for j, t in enumerate(design.term_of_column) if t == term]
            for term in range(len(design.terms))
        ]

    def __call__(
        self,
        coefficients: Float[np.ndarray, "genes p"],
        covariance: Float[np.ndarray, "*genes p p"],
    ) -> Float[np.ndarray, "genes m"]:
        """In the squared units of the coefficients; one covariance of all genes, or one a gene."""
        with np.errstate(divide="ignore", invalid="ignore"):
            if not self.mixed:
                parts = [_form(coefficients, covariance, columns) for columns in self.terms]
                return np.stack(parts, axis=1) if parts else np.zeros((len(coefficients), 0))
            variances = np.diagonal(covariance, axis1=-2, axis2=-1)[..., self.columns]
            single = coefficients[:, self.columns] ** 2 * variances
            whole = _form(coefficients, covariance, list(range(coefficients.shape[1])))
            total = single.sum(axis=1)
            rescale = np.where(total == 0, 0.0, np.maximum(whole, 0.0) / total)
            return single * rescale[:, None]


def _form(
    coefficients: Float[np.ndarray, "genes p"],
    covariance: Float[np.ndarray, "*genes p p"],
    columns: list[int],
) -> Float[np.ndarray, " genes"]:
    """Variance of the part of some columns."""
    b = coefficients[:, columns]
    within = covariance[(..., *np.ix_(columns, columns))]
    if within.ndim == 2:
        return np.einsum("gi,ij,gj->g", b, within, b, optimize=True)
    return np.einsum("gi,gij,gj->g", b, within, b)


def mixed(
    design: Design,
    gamma: Float[np.ndarray, "genes k"],
    sigma: Float[np.ndarray, " genes"],
    fixed_part: Float[np.ndarray, "genes m"],
) -> Components:
    """Random terms by name, fixed columns in the design's order, Residuals.

    ``fixed_part`` is what `FixedPart` makes of the coefficients over sigma.
    """
    by_name = sorted(range(len(design.random_names)), key=lambda i: design.random_names[i])
    columns = [j for j, term in enumerate(design.term_of_column) if term >= 0]
    shares = np.concatenate([gamma[:, by_name], fixed_part, np.ones((len(sigma), 1))], axis=1)
    names = (
        *(design.random_names[i] for i in by_name),
        *(design.columns[j] for j in columns),
        RESIDUALS,
    )
    return _components(names, shares, sigma)


def _components(
    names: tuple[str, ...],
    relative: Float[np.ndarray, "genes components"],
    sigma: Float[np.ndarray, " genes"],
) -> Components:
    """From variances relative to sigma^2, so that genes of 1e-200 or 1e200 keep their shares."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        variances = relative * sigma[:, None] * sigma[:, None]
        fractions = relative / relative.sum(axis=1, keepdims=True)
    fractions[np.isnan(sigma)] = np.nan
    return Components(names, variances, fractions)


def fixed(
    design: Design,
    n_obs: Int[np.ndarray, " genes"],
    sigma: Float[np.ndarray, " genes"],
    fixed_part: Float[np.ndarray, "genes m"],
) -> Components:
    """One component for each fixed term, all columns of a factor together, and Residuals."""
    n = np.maximum(n_obs, 1)[:, None]
    shares = np.concatenate([fixed_part, (n - design.p) / n], axis=1)
    return _components((*design.terms, RESIDUALS), shares, sigma)
