"""Fits of an AnnData: of all its samples, or one for each group of them."""

from __future__ import annotations

from typing import Any

import numpy as np

import jaxvp
from jaxvp.design.variables import select
from jaxvp.expression import DataError
from jaxvp.expression.annotated import from_object
from jaxvp.formula import Formula
from jaxvp.results import Results
from jaxvp.results.annotated import check_key
from jaxvp.warning import warn

from .given import check_annotated, column_of, groups_of

__all__ = ["by_group", "variance_partition"]


def variance_partition(
    adata: Any,
    formula: str,
    layer: str | None = None,
    key_added: str = "variance_partition",
    *,
    weights: Any = None,
    **options: Any,
) -> Results:
    """Partition the variance of every gene of an AnnData, and write the shares beside the genes.

    Parameters
    ----------
    adata : AnnData
        Samples in `obs`, with the variables of the formula; of single cells make samples first
        (`jaxvp.pp.pseudobulk`). It is changed.
    formula
        ``"~ age + (1|donor) + (1|batch)"``.
    layer
        The layer to fit, log-scale measurements. None: `X`. A sparse one is read in blocks of
        genes.
    key_added
        ``adata.varm[key_added]`` gets the fractions, ``adata.uns[key_added]`` everything else: see
        `Results.to_anndata`. What is there is replaced.
    weights
        The name of a column of `obs`, such as ``"n_cells"``; or what `jaxvp.fit` takes.
    **options
        Of `jaxvp.fit`: `reml`, `dtype`, `block_size`, `devices`, `progress`, ...

    Returns
    -------
    Results
        What was written, for figures and predictions that need the model.

    Raises
    ------
    DataError
        If it is no AnnData, or has no such layer or column (close matches are listed), or the
        weights are negative or NaN.
    FormulaError, DesignError
        As `jaxvp.fit` does.

    Examples
    --------
    >>> result = jaxvp.tl.variance_partition(adata, "~ (1|donor) + (1|batch)", layer="logcounts")
    >>> adata.varm["variance_partition"]
    >>> jaxvp.pl.violins(adata)
    """
    check_annotated(adata, "jaxvp.tl.variance_partition", layer)
    check_key(key_added)
    weights = _weights(adata, weights)
    result = jaxvp.fit(from_object(adata, layer), formula, weights=weights, **options)
    result.to_anndata(adata, key_added)
    return result


def by_group(
    adata: Any,
    formula: str,
    group: str,
    layer: str | None = None,
    *,
    weights: Any = None,
    **options: Any,
) -> dict[str, Results]:
    """Partition the variance in every group of samples on its own: one fit a cell type.

    Parameters
    ----------
    adata : AnnData
        Samples in `obs`; usually what `jaxvp.pp.pseudobulk` returned. It is not changed.
    formula
        The same for all groups.
    group
        A column of `obs`, such as ``"cell_type"``.
    layer, weights, **options
        As of `variance_partition`.

    Returns
    -------
    dict
        Level of `group`, as text, to its `Results`; in the order of the categories, or sorted.

    Raises
    ------
    DataError, FormulaError, DesignError
        As `variance_partition` does; and if no group can be fitted, with the reason of the first.

    Warns
    -----
    UserWarning
        If some groups cannot be fitted (too few samples, one batch alone): they are left out, with
        the reason; one warning. If samples have no group.

    Examples
    --------
    >>> results = jaxvp.tl.by_group(samples, "~ (1|donor) + (1|batch)", group="cell_type")
    >>> pandas.concat({name: result.fractions.median() for name, result in results.items()})
    >>> results["B cell"].to_anndata(samples, "variance_partition_B")
    """
    check_annotated(adata, "jaxvp.tl.by_group", layer)
    rows, (factor,) = groups_of([column_of(adata, group)])
    select(adata.obs, Formula.parse(formula).variables)
    weights = _weights(adata, weights)
    results: dict[str, Results] = {}
    failed: dict[str, ValueError] = {}
    codes, levels = factor
    for i, level in enumerate(levels):
        mine = rows[codes == i]
        own = weights[mine] if isinstance(weights, np.ndarray) else weights
        try:
            part = from_object(adata[mine], layer)
            results[level] = jaxvp.fit(part, formula, weights=own, **options)
        except (jaxvp.DesignError, DataError) as error:
            failed[level] = error
    why = "; ".join(f"{level!r} ({error})" for level, error in failed.items())
    if not results:
        first = next(iter(failed.values()))
        raise type(first)(f"no group of {group!r} can be fitted: {why}") from first
    if failed:
        warn(f"{len(failed)} of {len(levels)} groups of {group!r} are left out: {why}")
    return results


def _weights(adata: Any, weights: Any) -> Any:
    """A column of `obs` by its name; an array, which goes by position, of the length of `obs`."""
    if isinstance(weights, str):
        return column_of(adata, weights)
    if isinstance(weights, np.ndarray | list | tuple):
        weights = np.asarray(weights)
        if weights.ndim == 0 or len(weights) != len(adata.obs):
            raise DataError(
                f"an array of weights goes by position, and this one of shape {weights.shape} does "
                f"not fit the {len(adata.obs):,} rows of adata.obs"
            )
    return weights
