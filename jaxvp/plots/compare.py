"""Two results gene by gene: what another model, normalisation or data set changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from jaxvp.expression import DataError
from jaxvp.results import Results

from . import canvas
from .inputs import fractions_of, residuals_last
from .palette import RESIDUAL_GREY, darker, palette

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PANEL = (2.1, 2.15)


def compare(
    one: Results | pd.DataFrame,
    other: Results | pd.DataFrame,
    *,
    labels: tuple[str, str] = ("first", "second"),
    figure: Figure | None = None,
) -> Figure:
    """Draw the fractions of one result against those of another, a panel a component.

    Parameters
    ----------
    one, other
        What `jaxvp.fit` returned, or tables genes x components of fractions.
    labels
        What they are called on the axes.
    figure
        An empty figure to draw into; without, a new one that has room for the panels.

    Returns
    -------
    Figure
        One point for each gene that both have and that both could fit, for the components that both
        have; a line where they are equal. Every panel says how far the genes are apart in the
        median and at most, in percentage points.

    Raises
    ------
    DataError
        If they share no gene or no component, gene names are not unique, or one has nothing to
        draw.
    TypeError
        If one is neither a result nor a table.

    Notes
    -----
    For fractions what ``plotCompareP`` of variancePartition is for p-values.

    Examples
    --------
    >>> ml, reml = (jaxvp.fit(expression, formula, metadata, reml=r) for r in (False, True))
    >>> jaxvp.pl.compare(ml, reml, labels=("ML", "REML"))
    """
    tables = [fractions_of(result, "compare") for result in (one, other)]
    for table in tables:
        if not table.index.is_unique:
            twice = table.index[table.index.duplicated()][0]
            raise DataError(f"two genes are called {twice!r}: give each its own name")
    x, y = tables
    names = residuals_last([name for name in x.columns if name in y.columns])
    if not names:
        raise DataError(
            f"the two results have no component in common: {', '.join(x.columns)} and "
            f"{', '.join(y.columns)}"
        )
    genes = x.index.intersection(y.index, sort=False)
    if not len(genes):
        raise DataError(
            f"the two results have no fitted gene in common: {x.index[0]!r}, ... and "
            f"{y.index[0]!r}, ..."
        )
    x, y = (100 * table.loc[genes, names].clip(0, 1) for table in (x, y))
    colours = palette(tables[0].columns)
    figure, panels = canvas.grid(figure, len(names), _PANEL)
    size, alpha = (3.0, 0.8) if len(genes) < 300 else (2.2, 0.35)
    end, ticks = canvas.reach(float(max(x.to_numpy().max(), y.to_numpy().max())))
    for ax, name in zip(panels, names, strict=True):
        colour = colours[name]
        ax.plot([0, end], [0, end], color=canvas.INK, linewidth=0.7, zorder=1)
        ax.plot(
            x[name].to_numpy(),
            y[name].to_numpy(),
            "o",
            # The light grey of an area is too light for points.
            color=darker(colour) if colour == RESIDUAL_GREY else colour,
            markersize=size,
            markeredgewidth=0,
            alpha=alpha,
            rasterized=len(genes) > 2000,
            zorder=2,
        )
        apart = np.abs(x[name] - y[name])
        ax.text(
            0.04,
            0.97,
            f"median {apart.median():.2g}\nmost {apart.max():.2g}",
            transform=ax.transAxes,
            va="top",
            fontsize=5.5 if canvas.is_small(ax) else "x-small",
            color=canvas.INK,
            bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1.0},
            zorder=3,
        )
        ax.set_xlim(-0.03 * end, 1.03 * end)
        ax.set_ylim(-0.03 * end, 1.03 * end)
        ax.set_aspect("equal")
        for axis in (ax.xaxis, ax.yaxis):
            canvas.percent(axis, ticks[:: 2 if canvas.is_small(ax) else 1])
        ax.tick_params(labelsize="x-small")
        canvas.plain(ax, "both")
    canvas.outer_numbers(panels)
    canvas.panel_titles(panels, names)
    figure.supxlabel(f"Variance explained, {labels[0]}", fontsize="medium").set_parse_math(False)
    figure.supylabel(f"Variance explained, {labels[1]}", fontsize="medium").set_parse_math(False)
    return figure
