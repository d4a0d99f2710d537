"""Genes as stacked bars of 100 %: what the variance of each consists of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from jaxvp.expression import DataError
from jaxvp.results import Results
from jaxvp.results.lookup import find

from . import canvas, naming
from .inputs import KEY, fractions_of, residuals_last
from .palette import palette

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# More could not be told apart on a page.
MOST = 200
# Inches of a gene, of a line of the legend, and of a bar at most; of axes with few numbers below.
_ROW, _LEGEND_ROW, _THICKEST = 0.27, 0.21, 0.45
_LEGEND_LETTERS = 8.4  # points, at most
_CROWDED = 3.0


def bars(
    result: Results | pd.DataFrame | Any,
    genes: Sequence[Any] | None = None,
    *,
    key: str = KEY,
    ax: Axes | None = None,
) -> Axes:
    """Draw the variance fractions of some genes, a bar each.

    Parameters
    ----------
    result
        What `jaxvp.fit` returned, or a table genes x components of fractions, such as
        `result.top("Batch", 20)`, or an AnnData to which one was written.
    genes
        Names of the genes to draw, the first one on top; None draws all that there are.
    key
        Of an AnnData: the `key_added` under which its `varm` has the fractions.
    ax
        Axes to draw into; without, a new figure that has room for the genes.

    Returns
    -------
    Axes
        One row a gene. Components are stacked in the order of the table (see
        `Results.sort_columns`), ``Residuals`` last and light grey, in the colours of `palette`. A
        gene that could not be fitted has its status in place of a bar.

    Raises
    ------
    DataError
        If a gene is unknown (close matches are listed), there are more than 200, or there is
        nothing to draw.
    TypeError
        If it is no result, no table and no AnnData.

    Notes
    -----
    After ``plotPercentBars`` of variancePartition (Hoffman and Schadt 2016, BMC Bioinformatics
    17:483).

    Examples
    --------
    >>> jaxvp.pl.bars(result, ["OAS1", "IFIT1"])
    >>> jaxvp.pl.bars(result.top("Subject", 20))
    """
    fractions = fractions_of(result, "bars", failed=True, key=key)
    if genes is None:
        places = list(range(len(fractions)))
    else:
        genes = [genes] if isinstance(genes, str) else list(genes)
        places = [find(gene, fractions.index, "gene") for gene in genes]
    if not places:
        raise DataError("genes is empty: there is no gene to draw")
    if len(places) > MOST:
        raise DataError(
            f"bars of {len(places):,} genes cannot be read: name at most {MOST} of them, "
            'bars(result, genes=[...]) or bars(result.top("...", 20))'
        )
    chosen = fractions.iloc[places]
    why = ["not fitted"] * len(chosen)
    if isinstance(result, Results):
        why = [f"not fitted: {status}" for status in result.diagnostics["status"].iloc[places]]
    names = residuals_last(list(chosen.columns))
    ax = new_axes(chosen, names) if ax is None else ax
    draw(ax, chosen, names, palette(names), why)
    return ax


def draw(
    ax: Axes, chosen: pd.DataFrame, names: list[str], colours: dict[str, str], why: list[str]
) -> None:
    """Bars of these genes with these components from left to right."""
    shares = 100 * np.clip(chosen[names].to_numpy(np.float64), 0.0, 1.0)
    fitted = ~np.isnan(shares).any(axis=1)
    ends = np.cumsum(shares, axis=1)
    rows = np.flatnonzero(fitted)
    thick = min(0.82, _THICKEST * len(chosen) / canvas.height(ax))
    for i, name in enumerate(names):
        ax.barh(
            rows,
            shares[rows, i],
            left=ends[rows, i] - shares[rows, i],
            height=thick,
            color=colours[name],
            # Neighbours of similar lightness stay apart.
            edgecolor="white",
            linewidth=0.4,
        )
    for row in np.flatnonzero(~fitted).tolist():
        ax.text(1, row, why[row], va="center", style="italic", color="#595959", fontsize="small")
    naming.beside(ax, [str(gene) for gene in chosen.index])
    ax.set_ylim(len(chosen) - 0.5, -0.5)
    ax.set_xlim(0, 100)
    # The legend takes its part of the width: numbers of a small figure would touch.
    canvas.percent(ax.xaxis, range(0, 101, 25 if canvas.width(ax) > _CROWDED else 50))
    ax.set_xlabel("Variance explained")
    canvas.plain(ax)
    ax.spines["left"].set_visible(False)
    _legend(ax, names, colours)


def _legend(ax: Axes, names: list[str], colours: dict[str, str]) -> None:
    """Components right of the axes, in the order of the bars."""
    from matplotlib.patches import Patch

    whole = np.array(ax.figure.bbox.size) / ax.figure.dpi
    shown = canvas.fitting(names, 0.45 * float(whole[0]), "legend.fontsize")
    patches = [
        Patch(facecolor=colours[name], label=label)
        for name, label in zip(names, shown, strict=True)
    ]
    # A line of it is half as high again as its letters; a title may be above.
    size = float(np.clip(72 * (whole[1] - 0.25) / (1.5 * len(names) + 1), 4.5, _LEGEND_LETTERS))
    # One that goes further down than the axes would meet the last number of theirs.
    aside = 1.01 if size == _LEGEND_LETTERS else 1 + 0.25 / canvas.width(ax)
    legend = ax.legend(
        handles=patches,
        loc="upper left",
        bbox_to_anchor=(aside, 1.02),
        frameon=False,
        fontsize=size,
        handlelength=1.0,
        handleheight=1.0,
        labelspacing=0.35,
        borderaxespad=0.2,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def new_axes(chosen: pd.DataFrame, names: list[str]) -> Axes:
    """Axes in a figure with room for the genes and for the legend."""
    beside = canvas.longest(map(canvas.shorten, map(str, chosen.index)), "ytick.labelsize")
    legend = canvas.longest(map(canvas.shorten, names), "legend.fontsize") + 0.5
    height = max(_ROW * len(chosen) + 0.65, _LEGEND_ROW * len(names) + 0.3, 1.3)
    return canvas.new_axes(beside + legend + 4.0, height)
