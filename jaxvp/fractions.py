r"""From fitted components to variance fractions, variancePartition's definition.

*Mixed model.* With ``tau_k^2 = sigma^2 gamma_k`` for every random term, ``v_j = Var(X_j b_j)`` for
every fixed column but the intercept (population variance over the samples), rescaled so that they
add up to the variance of the whole fixed part, and ``sigma^2``,

    fraction = component / (sum_k tau_k^2 + sum_j v_j + sigma^2).

A random slope is one component a coefficient, ``sigma^2 Gamma_aa``: the variance that one unit of
its variable adds where the others are zero (`at` says what there is at other values).

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
from jaxtyping import Float, Int, Num

from jaxvp.design import Design
from jaxvp.formula import names_in
from jaxvp.statistics import Array, namespace


class Components(NamedTuple):
    """Columns of a fractions table, their variances and their shares."""

    names: tuple[str, ...]
    variances: Float[Array, "genes components"]
    fractions: Float[Array, "genes components"]


RESIDUALS = "Residuals"


def mixed(
    design: Design,
    gamma: Float[Array, "genes k"],
    sigma: Float[Array, " genes"],
    fixed_part: Float[Array, "genes m"],
) -> Components:
    """Random terms by name, fixed columns in the design's order, Residuals.

    ``fixed_part`` is what `FixedPart` makes of the coefficients over sigma.
    """
    names, by_name = mixed_names(design)
    return Components(names, *mixed_shares(by_name, gamma, sigma, fixed_part))


def mixed_names(design: Design) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Names of the components of a mixed model, and the order of its random terms among them."""
    by_name = tuple(sorted(range(len(design.random_names)), key=lambda i: design.random_names[i]))
    columns = [j for j, term in enumerate(design.term_of_column) if term >= 0]
    names = (
        *(design.random_names[i] for i in by_name),
        *(design.columns[j] for j in columns),
        RESIDUALS,
    )
    return names, by_name


def mixed_shares(
    by_name: tuple[int, ...],
    gamma: Float[Array, "genes k"],
    sigma: Float[Array, " genes"],
    fixed_part: Float[Array, "genes m"],
) -> tuple[Float[Array, "genes components"], Float[Array, "genes components"]]:
    """Variances and fractions of a mixed model, on the host or in compiled code."""
    xp = namespace(sigma)
    one = xp.ones((len(sigma), 1), sigma.dtype)
    return _components(xp.concatenate([gamma[:, list(by_name)], fixed_part, one], axis=1), sigma)


def _components(
    relative: Float[Array, "genes components"], sigma: Float[Array, " genes"]
) -> tuple[Float[Array, "genes components"], Float[Array, "genes components"]]:
    """From variances relative to sigma^2, so that genes of 1e-200 or 1e200 keep their shares."""
    xp = namespace(sigma)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        variances = relative * sigma[:, None] * sigma[:, None]
        fractions = relative / relative.sum(axis=1, keepdims=True)
    return variances, xp.where(xp.isnan(sigma)[:, None], xp.nan, fractions)


def fixed(
    design: Design,
    n_obs: Int[np.ndarray, " genes"],
    sigma: Float[np.ndarray, " genes"],
    fixed_part: Float[np.ndarray, "genes m"],
) -> Components:
    """One component for each fixed term, all columns of a factor together, and Residuals."""
    return Components((*design.terms, RESIDUALS), *fixed_shares(design.p, n_obs, sigma, fixed_part))


def fixed_shares(
    p: int,
    n_obs: Num[Array, " genes"],
    sigma: Float[Array, " genes"],
    fixed_part: Float[Array, "genes m"],
) -> tuple[Float[Array, "genes components"], Float[Array, "genes components"]]:
    """Variances and fractions of a fixed model of ``p`` columns."""
    xp = namespace(sigma)
    n = xp.maximum(n_obs, 1)[:, None]
    return _components(xp.concatenate([fixed_part, (n - p) / n], axis=1), sigma)


def factors(
    design: Design, theta: Float[np.ndarray, "genes m"]
) -> list[Float[np.ndarray, "genes _ _"]]:
    """Lower triangular L of every correlated term."""
    found, start = [], 0
    for block in design.blocks or [(i,) for i in range(len(design.random_names))]:
        c = len(block)
        column, row = np.triu_indices(c)
        factor = np.zeros((len(theta), c, c))
        factor[:, row, column] = theta[:, start : start + len(row)]
        start += len(row)
        found.append(factor)
    return found


def at(
    design: Design,
    theta: Float[np.ndarray, "genes m"],
    sigma: Float[np.ndarray, " genes"],
    coefficients: Float[np.ndarray, "genes p"],
    multipliers: Float[np.ndarray, "rows k"],
    given: tuple[str, ...],
) -> tuple[tuple[str, ...], Float[np.ndarray, "genes rows components"]]:
    r"""Shares at given values of what stands left of the bars.

    With z the multipliers of a grouping factor's coefficients there, its variance is ``sigma^2
    z'Gamma z``, summed over its terms. The fixed columns that read a given variable are constant
    there; the others have their variances over the samples, as in `mixed`; sigma^2; all divided by
    their sum.

    Parameters
    ----------
    design, theta, sigma, coefficients
        The fits.
    multipliers
        Of the random components, one row a set of values.
    given
        The variables that have a value there.

    Returns
    -------
    names, fractions
        Grouping factors by name, fixed columns in the design's order, Residuals.
    """
    groups: dict[str, np.ndarray] = {}
    blocks = design.blocks or [(i,) for i in range(len(design.random_names))]
    for block, factor in zip(blocks, factors(design, theta), strict=True):
        first = block[0]
        name = design.groups[first]
        there = np.einsum("rc,gck->grk", multipliers[:, list(block)], factor, optimize=True)
        groups[name] = groups.get(name, 0.0) + (there**2).sum(axis=2)
    columns = [j for j, term in enumerate(design.term_of_column) if term >= 0]
    constant = {
        number
        for number, term in enumerate(design.formula.terms)
        if any(name in given for factor in term for name in names_in(factor))
    }
    free = [j for j in columns if design.term_of_column[j] not in constant]
    centred = design.X - design.X.mean(axis=0)
    covariance = centred.T @ centred / len(centred)
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = coefficients / sigma[:, None]
        single = relative[:, free] ** 2 * np.diag(covariance)[free]
        among = covariance[np.ix_(free, free)]
        whole = np.einsum("gi,ij,gj->g", relative[:, free], among, relative[:, free])
        total = single.sum(axis=1)
        single = single * np.where(total == 0, 0.0, np.maximum(whole, 0.0) / total)[:, None]
    fixed = np.zeros((len(sigma), len(columns)))
    fixed[:, [columns.index(j) for j in free]] = single
    names = (*sorted(groups), *(design.columns[j] for j in columns), RESIDUALS)
    rows = len(multipliers)
    spread = np.broadcast_to(fixed[:, None], (len(sigma), rows, len(columns)))
    random = [groups[name][:, :, None] for name in sorted(groups)]
    parts = np.concatenate([*random, spread, np.ones((len(sigma), rows, 1))], axis=2)
    shares = parts / parts.sum(axis=2, keepdims=True)
    shares[np.isnan(sigma)] = np.nan
    return names, shares
