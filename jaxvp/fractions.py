r"""From fitted components to variance fractions, variancePartition's definition.

*Mixed model.* With ``tau_k^2 = sigma^2 gamma_k`` for every random term, ``v_j = Var(X_j b_j)`` for
every fixed column but the intercept (population variance over the samples), rescaled so that they
add up to the variance of the whole fixed part, and ``sigma^2``,

    fraction = component / (sum_k tau_k^2 + sum_j v_j + sigma^2).

*Fixed model.* With ``f_t = X_t b_t`` for every fixed term, ``SS_t = sum_i (f_ti - mean f_t)^2`` and
the residual sum of squares, each divided by the sum of all.

Source: Hoffman and Schadt (2016), variancePartition, BMC Bioinformatics 17:483, and its
``calcVarPart``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jaxvp.design import Design


class Components(NamedTuple):
    """Columns of a fractions table, their variances and their shares."""

    names: tuple[str, ...]
    variances: Float[np.ndarray, "genes components"]
    fractions: Float[np.ndarray, "genes components"]


RESIDUALS = "Residuals"


def mixed(
    design: Design,
    gamma: Float[np.ndarray, "genes k"],
    sigma: Float[np.ndarray, " genes"],
    coefficients: Float[np.ndarray, "genes p"],
) -> Components:
    """Random terms by name, fixed columns in the design's order, Residuals."""
    by_name = sorted(range(len(design.random_names)), key=lambda i: design.random_names[i])
    columns = [j for j, term in enumerate(design.term_of_column) if term >= 0]
    centred = design.X - design.X.mean(axis=0)
    covariance = centred.T @ centred / len(centred)
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = coefficients / sigma[:, None]
        single = relative[:, columns] ** 2 * np.diag(covariance)[columns]
        whole = np.einsum("gi,ij,gj->g", relative, covariance, relative, optimize=True)
        total = single.sum(axis=1)
        rescale = np.where(total == 0, 0.0, np.maximum(whole, 0.0) / total)
    shares = np.concatenate(
        [gamma[:, by_name], single * rescale[:, None], np.ones((len(sigma), 1))], axis=1
    )
    names = (
        *(design.random_names[i] for i in by_name),
        *(design.columns[j] for j in columns),
        RESIDUALS,
    )
    return _components(names, shares, sigma)


def joined(parts: Sequence[Components]) -> Components:
    """Those of several blocks of genes, below each other."""
    names, variances, shares = zip(*parts, strict=True)
    return Components(names[0], np.concatenate(variances), np.concatenate(shares))


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
    sigma: Float[np.ndarray, " genes"],
    coefficients: Float[np.ndarray, "genes p"],
) -> Components:
    """One component for each fixed term, all columns of a factor together, and Residuals."""
    n, p = design.X.shape
    centred = design.X - design.X.mean(axis=0)
    covariance = centred.T @ centred / n
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = coefficients / sigma[:, None]
    explained = []
    for term in range(len(design.terms)):
        columns = [j for j, t in enumerate(design.term_of_column) if t == term]
        b = relative[:, columns]
        within = covariance[np.ix_(columns, columns)]
        explained.append(np.einsum("gi,ij,gj->g", b, within, b, optimize=True))
    residual = np.full(len(sigma), (n - p) / n)
    return _components((*design.terms, RESIDUALS), np.stack([*explained, residual], axis=1), sigma)
