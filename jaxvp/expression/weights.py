"""Precision weights beside the measurements: by name like these, or by position.

One weight a sample is a vector that all genes share; a table has weights of each gene's own and is
served in the same blocks as the measurements. What makes weights unfit for all genes is found here;
a single gene with bad ones gets a status.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from .again import find_again
from .alignment import open_container
from .blocks import Expression, as_rows, to_float
from .container import Container
from .names import DataError, among, check_levels, check_names, places_of
from .values import find_in_array

_GENES_TO_LOOK_AT = 64


def split_weights(
    weights: Any, expression: Expression, kept: Int[np.ndarray, " n"]
) -> tuple[Expression | None, Float[np.ndarray, " n"] | None]:
    """Weights of each gene's own, or those that all genes share, for the samples that are kept.

    Parameters
    ----------
    weights
        What the caller passed; None: neither.
    expression
        What `align` returned.
    kept
        Positions of the design's samples in it.

    Raises
    ------
    DataError
        If names or shape do not fit, a weight of a sample is negative, NaN or infinite, or the
        weights of all genes are unfit; the message names the culprit and the remedy.
    """
    if weights is None:
        return None, None
    if isinstance(weights, pd.Series):
        return None, _by_sample(weights, expression, kept)
    try:
        if isinstance(weights, np.ndarray | list | tuple):
            weights = np.asarray(weights)
        of_samples = isinstance(weights, np.ndarray) and weights.ndim == 1
        container = None if of_samples else open_container(weights)
    except ValueError as error:  # of lists that make no array, too
        raise DataError(f"weights: {error}") from error
    if container is None:
        return None, _by_position(weights, expression, kept)
    if container.index is None or container.columns is None:
        found = _array(container, expression)
    else:
        found = _table(container, expression)
    found = found.take(kept)
    _check_some_gene(found)
    return found, None


def find_weights(
    weights: Any, samples: tuple[str, ...], kept: Int[np.ndarray, " n"], genes: pd.Index
) -> Expression | Float[np.ndarray, " n"]:
    """Weights of a fit, passed once more: of the fit's samples and genes, in its order.

    Parameters
    ----------
    weights
        What the fit was given, or as much of it.
    samples, kept, genes
        As of `find_again`.

    Raises
    ------
    DataError
        If samples or genes of the fit are missing, or weights cannot be used.
    """
    names = pd.Index(samples)
    if isinstance(weights, pd.Series):
        places = weights.index.map(str).get_indexer(names)
        if (places < 0).any():
            lost = names[places < 0]
            raise DataError(
                f"weights has no value for {len(lost):,} of {len(names):,} samples of the fit, the "
                f"first is {lost[0]!r}: pass those of the fit"
            )
        return _checked(weights.to_numpy()[places], names)
    if isinstance(weights, np.ndarray | list | tuple) and np.ndim(weights) == 1:
        values = np.asarray(weights)
        if len(values) != len(names) and len(values) <= kept.max(initial=-1):
            raise DataError(
                f"there are {len(values):,} weights, and the fit had {len(names):,} samples: pass "
                "those of the fit"
            )
        return _checked(values if len(values) == len(names) else values[kept], names)
    again = find_again(weights, samples, kept, genes, "the weights")
    order = np.empty(len(genes), dtype=np.int64)
    order[again.rows[again.rows >= 0]] = np.flatnonzero(again.rows >= 0)
    return again.expression.reordered(order, genes)


def _by_sample(
    weights: pd.Series, expression: Expression, kept: Int[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    names = expression.sample_names[kept]
    check_names(weights.index, "sample", "the weights")
    known = among(names, weights.index)
    if not known.all():
        lost = names[~known]
        raise DataError(
            f"weights has no value for {len(lost):,} of {len(names):,} samples, the first is "
            f"{lost.tolist()[0]!r}: its index must hold the sample names (here "
            f"{_some(weights.index)}); by position, pass weights.to_numpy()"
        )
    return _checked(weights.iloc[places_of(weights.index, names)].to_numpy(), names)


def _by_position(
    weights: np.ndarray, expression: Expression, kept: Int[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    rows = expression.rows
    total = expression.n_source_samples
    if len(weights) != total:
        raise DataError(
            f"an array of weights goes by position, one for each of the {total:,} samples of the "
            f"expression, and this one has {len(weights):,}: pass that many, or a Series by "
            "sample name"
        )
    return _checked(weights[np.arange(total)[rows]][kept], expression.sample_names[kept])


def _checked(values: np.ndarray, names: pd.Index) -> Float[np.ndarray, " n"]:
    culprit = find_in_array(values[:, None], slice(None))
    if culprit is not None:
        raise DataError(
            f"weights must be numbers, and sample {names.tolist()[culprit.sample]!r} has "
            f"{culprit.what}: convert them, pd.to_numeric"
        )
    w = to_float(values).astype(np.float64)
    bad = np.flatnonzero(~(np.isfinite(w) & (w >= 0)))
    if len(bad):
        raise DataError(
            f"weights must be zero or more, and in {len(bad):,} of {len(w):,} samples they are "
            f"not, the first is {names.tolist()[bad[0]]!r} with {w[bad[0]]:g}: correct them, or "
            "set 0 to leave a sample out"
        )
    if not (w > 0).any():
        raise DataError("all weights are zero: no observation would count; leave weights= out")
    return w


def _table(container: Container, expression: Expression) -> Expression:
    assert container.index is not None and container.columns is not None
    samples, genes = expression.sample_names, expression.gene_names
    check_levels(container.index, "weights.index")
    check_levels(container.columns, "weights.columns")
    in_columns, in_rows = (
        among(samples, axis).sum() for axis in (container.columns, container.index)
    )
    turned = bool(in_columns > in_rows)
    own_samples, own_genes = (
        (container.columns, container.index) if turned else (container.index, container.columns)
    )
    for kind, wanted, there in (("sample", samples, own_samples), ("gene", genes, own_genes)):
        check_names(there, kind, "the weights")
        lost = wanted[~among(wanted, there)]
        if len(lost):
            raise DataError(
                f"the table of weights lacks {len(lost):,} of the {len(wanted):,} {kind}s of the "
                f"expression, the first is {lost.tolist()[0]!r}; it has {_some(there)}: give the "
                "same names on both axes, or pass an array of the expression's shape, which goes "
                "by position"
            )
    rows = places_of(own_samples, samples)
    _check_numbers(container, turned, rows)
    source, rows = container.source(turned), as_rows(rows)
    found = Expression(source, samples, own_genes, rows, container.origin, turned)
    return found.reordered(places_of(own_genes, genes), genes)


def _array(container: Container, expression: Expression) -> Expression:
    shape = (expression.n_source_samples, expression.n_genes)
    if container.shape == shape[::-1] and (shape[0] != shape[1] or expression.transposed):
        turned = True
    elif container.shape == shape:
        turned = False
    else:
        raise DataError(
            f"weights of shape {container.shape} fit neither the {shape[1]:,} genes and "
            f"{shape[0]:,} samples of the expression, nor its samples alone: pass an array of the "
            "expression's shape, or a table with the same names"
        )
    _check_numbers(container, turned, np.arange(shape[0]))
    source = container.source(turned)
    return Expression(
        source,
        expression.sample_names,
        expression.gene_names,
        expression.rows,
        container.origin,
        turned,
    )


def _check_numbers(container: Container, turned: bool, rows: Int[np.ndarray, " n"]) -> None:
    culprit = container.find(turned, rows)
    if culprit is not None:
        raise DataError(
            f"weights must be numbers, and gene {culprit.gene} of the table holds {culprit.what} "
            f"in sample {culprit.sample}: convert them, pd.to_numeric"
        )


def _check_some_gene(weights: Expression) -> None:
    """Some gene must have weights: the first that has ends the search."""
    first = None
    for start in range(0, weights.n_genes, _GENES_TO_LOOK_AT):
        w = weights.block(start, start + _GENES_TO_LOOK_AT)
        with np.errstate(invalid="ignore"):
            good = (w >= 0).all(axis=0) & (w > 0).any(axis=0)
            holes = np.isnan(w).any(axis=0) & ~(w < 0).any(axis=0) & (w > 0).any(axis=0)
        if good.any():
            return
        if first is None:
            gene = weights.gene_names.tolist()[start]
            what = (
                "NaN"
                if np.asarray(holes)[0]
                else "negative"
                if (w[:, 0] < 0).any()
                else "zero everywhere"
            )
            first = f"in {gene!r} they are {what}"
    if first is not None:
        raise DataError(
            f"no gene has weights that can be used, zero or more and some above zero: {first}"
        )


def _some(names: pd.Index) -> str:
    return ", ".join(map(repr, names[:3].tolist())) + (", ..." if len(names) > 3 else "")
