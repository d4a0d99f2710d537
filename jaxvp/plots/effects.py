r"""The parts that a fitted model sees in one gene: what every term adds to every sample.

Fixed terms add ``X_t b_t`` and random terms ``Z_k u_k``, with the best linear unbiased predictions
(BLUPs) of `jaxvp.prediction` at the estimates of the gene.

A gene is adjusted for some terms by taking away their parts, each without its mean, so that the
gene keeps its level:

    adjusted = y - sum_t (part_t - mean part_t),    t: all terms but those of the variables shown.

A term belongs to the variables shown if it reads no other variable, or groups the samples as one of
them does (plates with names of their own, in `Plate:Site`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from jaxvp import prediction
from jaxvp.design import Design
from jaxvp.design.variables import select
from jaxvp.expression import DataError
from jaxvp.formula import names_in
from jaxvp.results import Results
from jaxvp.results.lookup import find

from .inputs import check_fitted


def random_effects(
    residual: Float[np.ndarray, " n"],
    codes: tuple[Int[np.ndarray, " n"], ...],
    theta: Float[np.ndarray, " k"],
) -> list[Float[np.ndarray, " levels"]]:
    """BLUPs of every level of every random term.

    Parameters
    ----------
    residual
        The measurements of one gene without the fixed part, y - X b.
    codes
        The level of every sample, 0, 1, 2, ..., for each of the k random terms.
    theta
        Standard deviations of the terms relative to the residual's.

    Returns
    -------
    list of arrays
        One a term, in the units of the residual. Zero where theta is.
    """
    if not codes:
        return []
    n = len(residual)
    terms = [prediction.Term(code, np.ones((n, 1)), int(code.max()) + 1) for code in codes]
    factors = [np.full((1, 1, 1), scale, dtype=np.float64) for scale in theta]
    structure = prediction.arrange(terms)
    found = prediction.random_effects(structure, residual[:, None], factors)
    return [effects[:, 0] for effects in found.values]


def parts(
    y: Float[np.ndarray, " n"],
    design: Design,
    coefficients: Float[np.ndarray, " p"],
    theta: Float[np.ndarray, " k"],
) -> tuple[list[Float[np.ndarray, " n"]], list[Float[np.ndarray, " n"]]]:
    """What the fixed terms, and what the random terms add to every sample.

    Parameters
    ----------
    y
        The measurements of one gene on the samples of the design.
    design, coefficients, theta
        The model and its estimates for the gene.

    Returns
    -------
    fixed, random : lists of arrays
        One array a term, in the order of the design's ``terms`` and ``random_names``. With the
        intercept and the residuals they add up to `y`.
    """
    owner = np.array(design.term_of_column, dtype=int)
    fixed = [
        design.X[:, owner == term] @ coefficients[owner == term]
        for term in range(len(design.terms))
    ]
    effects = random_effects(y - design.X @ coefficients, design.codes, theta)
    random = [effect[code] for effect, code in zip(effects, design.codes, strict=True)]
    return fixed, random


def adjust(
    y: Float[np.ndarray, " samples"],
    result: Results,
    gene: Any,
    shown: list[str],
    metadata: pd.DataFrame,
) -> tuple[Float[np.ndarray, " samples"], Bool[np.ndarray, " samples"]]:
    """Measurements without what the terms explain that are not of these variables.

    Parameters
    ----------
    y
        The measurements of the gene.
    result, gene
        The model and the gene's name in it.
    shown
        Variables whose terms stay.
    metadata
        Of the samples of `y`, in their order.

    Returns
    -------
    adjusted, inside
        NaN and False for samples that the model does not have.

    Raises
    ------
    DataError
        If the gene has no fit, or the samples of the fit are not all there.
    """
    if result.weighted:
        raise DataError("adjusted values of a fit with weights are not there yet: adjusted=False")
    design = result.design
    assert design is not None
    if design.slopes:
        raise DataError(
            "adjusted values of a fit with random slopes are not there yet: adjusted=False"
        )
    place = find(gene, result.fractions.index, "gene")
    check_fitted(result, place)
    if result.diagnostics["n_obs"].iloc[place] < design.n:
        raise DataError(
            f"{gene!r} lacks measurements, and adjusted values of such genes are not there yet: "
            "adjusted=False"
        )
    rows = metadata.index.astype(str).get_indexer_for(list(design.samples))
    if len(rows) != design.n or (rows < 0).any():
        lost = next((s for s, row in zip(design.samples, rows, strict=False) if row < 0), "")
        raise DataError(
            f"the result was fitted to {design.n} samples, and of these data it lacks some "
            f"({lost!r}): pass those that were fitted"
        )
    measured = y[rows]
    if np.isnan(measured).any():
        raise DataError(f"{gene!r} lacks measurements that the model has: pass the data of the fit")
    estimates = (
        table.iloc[place].to_numpy(np.float64) for table in (result.coefficients, result.theta)
    )
    fixed, random = parts(measured, design, *estimates)
    reads = [
        {name for factor in term for name in names_in(factor)} for term in design.formula.terms
    ]
    reads += [set(term.reads) for term in design.formula.random]
    groups = [None] * len(fixed) + list(design.codes)
    selected = select(metadata.iloc[rows], tuple(shown))
    partitions = [pd.factorize(column)[0] for column in selected.values()]
    adjusted = np.full(len(y), np.nan)
    rest = measured.copy()
    for part, names, codes in zip([*fixed, *random], reads, groups, strict=True):
        own = names <= set(shown) or any(_same(codes, other) for other in partitions)
        if not own:
            rest -= part - part.mean()
    adjusted[rows] = rest
    return adjusted, ~np.isnan(adjusted)


def _same(one: np.ndarray | None, other: np.ndarray) -> bool:
    """Whether two codings put the samples into the same groups."""
    if one is None:
        return False
    pairs = len(set(zip(one.tolist(), other.tolist(), strict=True)))
    return pairs == len(set(one.tolist())) == len(set(other.tolist()))
