"""Fractions against mean expression: does what is measured depend on how much there is to measure?

Genes of low expression have more noise than others, and their residual share shows it. A line
follows the median of the genes, in bins of equally many.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from jaxvp.expression import DataError
from jaxvp.expression.annotated import from_object, is_annotated
from jaxvp.results import Results
from jaxvp.results.lookup import find

from . import canvas
from .inputs import KEY, fractions_of, residuals_last
from .palette import RESIDUAL_GREY, darker, palette

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PANEL = (2.3, 2.0)
# Genes for one place of the line, and places at most.
_LEAST_IN_BIN, _MOST_BINS = 10, 25
# Genes whose measurements are in memory at a time.
_BLOCK = 256


def components_against_mean(
    result: Results | pd.DataFrame | Any,
    expression: Any = None,
    *,
    components: Sequence[str] | str | None = None,
    key: str = KEY,
    figure: Figure | None = None,
) -> Figure:
    """Draw the fractions of every component against the mean expression of the genes.

    Parameters
    ----------
    result
        What `jaxvp.fit` returned, or a table genes x components of fractions, or an AnnData to
        which one was written.
    expression
        The measurements (a DataFrame, either way round, AnnData, or an array samples x genes), or
        the means (a Series by gene). None takes the mean that the model of a result predicts for
        its samples, or that of the AnnData's `X`; a table of fractions has neither.
    components
        Those to draw; None draws all.
    key
        Of an AnnData: the `key_added` under which its `varm` has the fractions.
    figure
        An empty figure to draw into; without, a new one that has room for the panels.

    Returns
    -------
    Figure
        One panel a component with a point for every gene that could be fitted, and the median of
        the genes, in bins along the mean.

    Raises
    ------
    DataError
        If a component is unknown (close matches are listed), a gene has no mean, or there is
        nothing to draw.
    TypeError
        If it is no result, no table and no AnnData.

    Examples
    --------
    >>> jaxvp.pl.components_against_mean(result)
    >>> jaxvp.pl.components_against_mean(result.fractions, expression, components="Residuals")
    """
    fractions = fractions_of(result, "components_against_mean", key=key)
    colours = palette(fractions.columns)
    if components is None:
        names = residuals_last(list(fractions.columns))
    else:
        wanted = [components] if isinstance(components, str) else list(components)
        names = [fractions.columns[find(name, fractions.columns, "component")] for name in wanted]
    if not names:
        raise DataError("components is empty: there is nothing to draw")
    if expression is None and is_annotated(result):
        expression = result
    mean = _means(result, expression, fractions.index)
    order = np.argsort(mean, kind="stable")
    figure, panels = canvas.grid(figure, len(names), _PANEL)
    size, alpha = (3.0, 0.7) if len(mean) < 300 else (2.0, 0.3)
    end, ticks = canvas.reach(100 * float(fractions[names].to_numpy().max()))
    for ax, name in zip(panels, names, strict=True):
        share = 100 * np.clip(fractions[name].to_numpy(np.float64), 0.0, 1.0)
        colour = colours[name]
        ax.plot(
            mean,
            share,
            "o",
            color=darker(colour) if colour == RESIDUAL_GREY else colour,
            markersize=size,
            markeredgewidth=0,
            alpha=alpha,
            rasterized=len(mean) > 2000,
        )
        ax.plot(*trend(mean[order], share[order]), color="white", linewidth=3.2)
        ax.plot(*trend(mean[order], share[order]), color=canvas.INK, linewidth=1.5)
        ax.set_ylim(-0.03 * end, 1.03 * end)
        canvas.percent(ax.yaxis, ticks)
        ax.tick_params(labelsize="x-small")
        canvas.plain(ax, "y")
    canvas.outer_numbers(panels)
    canvas.panel_titles(panels, names)
    figure.supxlabel("Mean expression", fontsize="medium")
    figure.supylabel("Variance explained", fontsize="medium")
    return figure


def trend(
    x: Float[np.ndarray, " genes"], y: Float[np.ndarray, " genes"]
) -> tuple[Float[np.ndarray, " bins"], Float[np.ndarray, " bins"]]:
    """Medians of x and y in bins of equally many genes, x in ascending order."""
    bins = int(np.clip(len(x) // _LEAST_IN_BIN, 1, _MOST_BINS))
    x_of, y_of = (np.array_split(values, bins) for values in (x, y))
    return np.array([np.median(v) for v in x_of]), np.array([np.median(v) for v in y_of])


def _means_in(adata: Any) -> pd.Series:
    """Of the `X` of an AnnData, in blocks of genes: a sparse one is never dense as a whole."""
    matrix = from_object(adata)
    source, genes = matrix.source(False), len(adata.var_names)
    blocks = [source.read(slice(None), i, min(i + _BLOCK, genes)) for i in range(0, genes, _BLOCK)]
    means = [np.nanmean(block, axis=0, dtype=np.float64) for block in blocks]
    return pd.Series(np.concatenate(means) if means else [], index=adata.var_names)


def _means(result: object, expression: Any, genes: pd.Index) -> Float[np.ndarray, " genes"]:
    """The mean of every gene that is drawn."""
    if is_annotated(expression):
        means = _means_in(expression)
    elif expression is None:
        if not isinstance(result, Results) or result.design is None:
            raise DataError(
                "a table of fractions says nothing of the mean: pass expression=, the measurements "
                "or their mean by gene"
            )
        fixed = result.coefficients.loc[genes].to_numpy(np.float64)
        means = pd.Series(fixed @ result.design.X.mean(axis=0), index=genes)
    elif isinstance(expression, pd.Series):
        means = expression
    elif isinstance(expression, pd.DataFrame):
        in_rows = expression.index.isin(genes).sum() >= expression.columns.isin(genes).sum()
        means = pd.Series(expression.mean(axis=1 if in_rows else 0))
    else:
        table: pd.DataFrame = result.fractions if isinstance(result, Results) else result  # type: ignore
        if not isinstance(expression, np.ndarray):
            raise DataError(
                f"the mean of {type(expression).__name__} is not taken here: pass a DataFrame, an "
                "array, or the mean by gene, a Series"
            )
        if expression.ndim != 2 or expression.shape[1] != len(table):
            raise DataError(
                f"expression has shape {expression.shape}: an array goes by position, samples x "
                f"genes, with the {len(table):,} genes of the result"
            )
        means = pd.Series(np.nanmean(expression, axis=0), index=table.index)
    if not means.index.is_unique:
        twice = means.index[means.index.duplicated()][0]
        raise DataError(f"two genes are called {twice!r}: give each its own name")
    found = means.reindex(genes)
    missing = found.isna()
    if missing.any():
        first = ", ".join(repr(gene) for gene in genes[missing][:3])
        raise DataError(f"{missing.sum():,} of {len(genes):,} genes have no mean, such as {first}")
    return found.to_numpy(np.float64)
