"""Correlations of the variables of a study as a heat map, those that belong together side by side.

Variables are joined by average linkage of the distance 1 - correlation, and their order is the one
of all that the tree allows in which neighbours are closest (Bar-Joseph, Gifford and Jaakkola 2001,
Bioinformatics 17:S22).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from jaxvp.expression import DataError

from . import canvas, naming

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# One hue from white to dark, read alike by every kind of colour vision and in print.
COLOURS = "Blues"
MISSING = "#D9D9D9"
# Numbers are written into the cells of so many variables at most.
_MOST_NUMBERS = 16
_CELL = 0.42
# Of the width of the heat map: gap and colour bar.
BAR_ROOM = 0.055


class Tree(NamedTuple):
    """A dendrogram."""

    order: list[int]
    """rows of the table, from left to right"""
    x: list[list[float]]
    """of every joint its four corners, in units of a cell"""
    heights: list[list[float]]
    """and their distance, 1 - correlation"""


def correlations(table: pd.DataFrame, *, cluster: bool = True, ax: Axes | None = None) -> Axes:
    """Draw the canonical correlations of the variables of a study.

    Parameters
    ----------
    table
        What `jaxvp.canonical_correlations` returned: variables x variables, symmetric, between 0
        and 1. NaN (a pair that has no correlation) is grey and joins last.
    cluster
        Whether to bring variables that belong together side by side, with the tree above; False
        keeps their order.
    ax
        Axes to draw into, which the heat map fills; without, a new figure that has room for the
        variables, in squares.

    Returns
    -------
    Axes
        The heat map. Tree and colour bar are insets of it, ``ax.child_axes``.

    Raises
    ------
    DataError
        If the table is empty, not symmetric, or holds other than correlations between 0 and 1.
    TypeError
        If it is no table.

    Notes
    -----
    After ``plotCorrMatrix`` of variancePartition (Hoffman and Schadt 2016, BMC Bioinformatics
    17:483).

    Examples
    --------
    >>> table = jaxvp.canonical_correlations("~ Age + Tissue + Batch", metadata)
    >>> jaxvp.pl.correlations(table)
    """
    values = _check(table)
    names = [str(name) for name in table.columns]
    tree = join(values) if cluster and len(names) > 1 else None
    order = list(range(len(names))) if tree is None else tree.order
    own = ax is None
    ax = _new_axes(names) if ax is None else ax
    image = _heat_map(ax, values[np.ix_(order, order)], [names[i] for i in order], own)
    if tree is not None:
        above = ax.inset_axes((0, 1.01, 1, 0.14))
        for x, heights in zip(tree.x, tree.heights, strict=True):
            above.plot(x, heights, color=canvas.INK, linewidth=0.9, solid_joinstyle="miter")
        above.set_xlim(-0.5, len(names) - 0.5)
        above.set_ylim(0, 1.03 * max(max(h) for h in tree.heights) or 1.0)
        above.set_axis_off()
    colour_bar(ax, image, "Canonical correlation")
    return ax


def join(values: Float[np.ndarray, "k k"]) -> Tree:
    """The dendrogram of two variables or more."""
    from scipy.cluster.hierarchy import dendrogram, linkage
    from scipy.spatial.distance import squareform

    distance = np.clip(1 - np.nan_to_num(values, nan=0.0), 0.0, 1.0)
    distance = (distance + distance.T) / 2
    np.fill_diagonal(distance, 0.0)
    joints = linkage(squareform(distance, checks=False), "average", optimal_ordering=True)
    drawn = dendrogram(joints, no_plot=True)
    # scipy puts the leaves at 5, 15, 25, ...
    x = [[(corner - 5) / 10 for corner in joint] for joint in drawn["icoord"]]
    return Tree(list(map(int, drawn["leaves"])), x, drawn["dcoord"])


def colour_bar(ax: Axes, image, label: str) -> None:
    """Right of a heat map that goes from 0 to 1."""
    beside = ax.inset_axes((1.02, 0.0, BAR_ROOM - 0.02, 1.0))
    bar = ax.figure.colorbar(image, cax=beside, ticks=[0, 0.25, 0.5, 0.75, 1])
    bar.outline.set_visible(False)  # type: ignore
    bar.set_label(label)
    beside.tick_params(length=2, labelsize="small")


def _heat_map(ax: Axes, values: Float[np.ndarray, "k k"], names: list[str], own: bool):
    from matplotlib import colormaps

    colours = colormaps[COLOURS].with_extremes(bad=MISSING)
    image = ax.imshow(values, cmap=colours, vmin=0, vmax=1, interpolation="none", aspect="auto")
    naming.around(ax, names, own)
    ax.spines[:].set_visible(False)
    edges = np.arange(len(names) + 1) - 0.5
    for draw in (ax.hlines, ax.vlines):
        draw(edges, -0.5, len(names) - 0.5, color="white", linewidth=0.8)
    # A number needs a third of an inch.
    if len(names) <= _MOST_NUMBERS and canvas.width(ax) / len(names) > 0.3:
        for (row, column), value in np.ndenumerate(values):
            shown = "" if np.isnan(value) else f"{value:.2f}"
            colour = "white" if value > 0.55 else canvas.INK
            ax.text(column, row, shown, ha="center", va="center", color=colour, fontsize="x-small")
    return image


def _check(table: object) -> Float[np.ndarray, "k k"]:
    if not isinstance(table, pd.DataFrame):
        raise TypeError(
            "correlations draws a DataFrame, variables x variables, such as "
            f"jaxvp.canonical_correlations returns, not {type(table).__name__}"
        )
    if not table.size:
        raise DataError("the table of correlations is empty: there is no variable to draw")
    rows, columns = table.shape
    if rows != columns or list(table.index) != list(table.columns):
        raise DataError(
            f"the table of correlations has {rows} rows and {columns} columns: it must have the "
            "same variables in rows and columns, in the same order"
        )
    text = [name for name, dtype in table.dtypes.items() if dtype.kind not in "fiu"]
    if text:
        raise DataError(f"not a table of correlations: column `{text[0]}` does not hold numbers")
    values = table.to_numpy(np.float64)
    if not np.allclose(values, values.T, rtol=0, atol=1e-8, equal_nan=True):
        raise DataError("the table of correlations is not symmetric")
    if np.isnan(values).all():
        raise DataError("the table of correlations has only NaN: nothing to draw")
    lowest, highest = np.nanmin(values), np.nanmax(values)
    if lowest < -1e-8 or highest > 1 + 1e-8:
        raise DataError(
            f"canonical correlations lie between 0 and 1, and these from {lowest:.3g} to "
            f"{highest:.3g}: of Pearson's, pass the absolute ones, table.abs()"
        )
    return np.clip(values, 0.0, 1.0)


def _new_axes(names: list[str]) -> Axes:
    """Axes in a figure with room for the cells, the names on two sides, tree and colour bar."""
    longest = canvas.longest(map(canvas.shorten, names))
    side = max(_CELL * min(len(names), 12) + 0.24 * max(len(names) - 12, 0), 1.8)
    slanted = longest > 0.95 * side / len(names)
    below = 0.3 + (canvas.SLANT * longest if slanted else 0.0)
    above = 0.1 + (0.16 * side if len(names) > 1 else 0.0)
    return canvas.square(side, longest + 0.2, below, BAR_ROOM * side + 0.75, above)
