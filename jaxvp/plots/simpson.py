"""One slope for all samples beside one slope within groups: Simpson's paradox, where there is one.

The first line is least squares, ``~ x``; the others are the mixed model, ``~ x + (1|group)``: one
slope for all groups, and for every group the intercept that the model predicts for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from jaxvp.api import fit
from jaxvp.design.variables import Factor, select, to_factor
from jaxvp.expression import DataError, align
from jaxvp.formula.expressions import Variable
from jaxvp.results.lookup import find

from . import canvas, legends
from .inputs import check_fitted
from .palette import darker, level_colours

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

_MOST_IN_LEGEND = 12
# Inches left of the axes.
_MARGIN = 0.9


class Lines(NamedTuple):
    """Two models of one gene."""

    pooled: tuple[float, float]
    """intercept and slope of least squares"""
    slope: float
    """of the mixed model, within groups"""
    intercepts: Float[np.ndarray, " groups"]
    """of the mixed model, by group"""
    x: Float[np.ndarray, " n"]
    y: Float[np.ndarray, " n"]
    groups: Factor


def simpson(
    expression: Any,
    metadata: pd.DataFrame,
    gene: Any,
    x: str,
    group: str,
    *,
    ax: Axes | None = None,
) -> Axes:
    """Draw one gene against a number, with and without the grouping in the model.

    Parameters
    ----------
    expression, metadata
        As `jaxvp.fit` takes them.
    gene
        Name of the gene; of an array its number.
    x
        A numeric variable of the metadata.
    group
        A categorical one.
    ax
        Axes to draw into; without, a new figure.

    Returns
    -------
    Axes
        Samples as points with the colour of their group; the line of ``~ x`` dashed; the lines of
        ``~ x + (1|group)``, one a group, over the range of its samples. The legend has both slopes.

    Raises
    ------
    DataError, DesignError
        If the gene or a variable is unknown (close matches are listed), or the two models cannot be
        fitted.

    Notes
    -----
    variancePartition has no such figure. The paradox: Simpson (1951), Journal of the Royal
    Statistical Society B 13:238.

    Examples
    --------
    >>> expression, metadata = jaxvp.datasets.simpson()
    >>> jaxvp.pl.simpson(expression, metadata, "reversed", "Age", "Centre")
    """
    lines = slopes(expression, metadata, gene, x, group)
    ax = canvas.new_axes(5.6, 3.6) if ax is None else ax
    codes, levels = lines.groups
    colours = level_colours(len(levels))
    handles = _handles(lines, colours)
    legend = legends.plan(list(handles), f"Slope, {canvas.shorten(group, 24)}", canvas.size(ax))
    for level, colour in enumerate(colours):
        own = lines.x[codes == level]
        ax.plot(
            own,
            lines.y[codes == level],
            "o",
            color=colour,
            markersize=4,
            markeredgecolor="white",
            markeredgewidth=0.4,
        )
        ends = np.array([own.min(), own.max()])
        ax.plot(ends, lines.intercepts[level] + lines.slope * ends, color=darker(colour), lw=2)
    ends = np.array([lines.x.min(), lines.x.max()])
    intercept, slope = lines.pooled
    ax.plot(ends, intercept + slope * ends, color=canvas.INK, linewidth=1.5, linestyle="--")
    ax.set_xlabel(x).set_parse_math(False)
    ax.set_ylabel("Expression")
    canvas.headline(ax, canvas.shorten(gene), canvas.size(ax)[0] - _MARGIN, legend.above)
    canvas.plain(ax, "y")
    legends.draw(ax, list(handles.values()), legend)
    return ax


def slopes(expression: Any, metadata: pd.DataFrame, gene: Any, x: str, group: str) -> Lines:
    """Fit both models to one gene."""
    measured, table = align(expression, metadata)
    place = find(gene, measured.gene_names, "gene")
    columns = select(table, (x, group))
    if x == group:
        raise DataError(f"x and group are both {x!r}: name a number and a grouping")
    complete = pd.DataFrame(columns).notna().all(axis=1).to_numpy()
    values = measured.block(place, place + 1)[:, 0]
    complete = complete & ~np.isnan(values)
    table = pd.DataFrame(columns).loc[complete]
    one = pd.DataFrame({str(gene): values[complete]}, index=table.index)
    a, b = Variable(x).text, Variable(group).text
    results = [fit(one, f"~ {right}", table, progress=False) for right in (a, f"{a} + (1|{b})")]
    for result in results:
        check_fitted(result, 0)
        if result.coefficients.shape[1] != 2:
            raise DataError(f"`{x}` is categorical: x must be a number")
    pooled, within = (r.coefficients.iloc[0].to_numpy(np.float64) for r in results)
    design = results[1].design
    assert design is not None
    y = one.iloc[:, 0].to_numpy(np.float64)
    effects = results[1].random_effects(format="wide")["effect"].iloc[0].to_numpy(np.float64)
    return Lines(
        pooled=(float(pooled[0]), float(pooled[1])),
        slope=float(within[1]),
        intercepts=within[0] + effects,
        x=design.X[:, 1],
        y=y,
        groups=to_factor(table[group]),
    )


def _handles(lines: Lines, colours: list[str]) -> dict[str, Line2D]:
    """The two slopes, and the groups if they are few."""
    from matplotlib.lines import Line2D

    handles = {
        f"all: {lines.pooled[1]:+.3g}": Line2D([], [], color=canvas.INK, linestyle="--"),
        f"within: {lines.slope:+.3g}": Line2D([], [], color=canvas.INK, linewidth=2),
    }
    if len(colours) <= _MOST_IN_LEGEND:
        for level, colour in zip(lines.groups[1], colours, strict=True):
            handles[level] = Line2D([], [], linestyle="", marker="o", markersize=4, color=colour)
    return handles
