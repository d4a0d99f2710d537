"""Variance fractions of all genes: one violin a component, a thin box inside.

All violins have the same greatest width, so that a component that is zero in most genes does not
flatten the others; what they say is how the genes of *one* component are distributed. The box holds
the middle half of the genes, the line in it is the median, the whiskers end at the last gene within
1.5 box lengths. What lies beyond is the tail of the violin, not a cloud of points.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from jaxvp.results import Results, by_median

from . import canvas, naming
from .boxes import box
from .density import outline
from .inputs import KEY, fractions_of
from .palette import darker, palette

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HALF_WIDTH = 0.42
BOX_WIDTH = 0.12
# Inches, in a figure of our own: of a component, and of a crowded one at least.
_SLOT, _LEAST_SLOT = 0.62, 0.42


def violins(
    result: Results | pd.DataFrame | Any, *, key: str = KEY, ax: Axes | None = None
) -> Axes:
    """Draw the distribution of every component's variance fractions over the genes.

    Parameters
    ----------
    result
        What `jaxvp.fit` returned, or a table genes x components of fractions between 0 and 1,
        or an AnnData to which one was written. Genes with NaN (they could not be fitted) are left
        out.
    key
        Of an AnnData: the `key_added` under which its `varm` has the fractions.
    ax
        Axes to draw into; without, a new figure that has room for the components.

    Returns
    -------
    Axes
        Components by their median, the largest first, ``Residuals`` last and light grey. Every
        component has the colour that `palette` gives it, in whatever order it stands.

    Raises
    ------
    DataError
        If there is nothing to draw (no gene, none that was fitted, no component), or a value is
        not a fraction.
    TypeError
        If it is no result, no table and no AnnData.

    Notes
    -----
    After ``plotVarPart`` of variancePartition (Hoffman and Schadt 2016, BMC Bioinformatics 17:483).

    Examples
    --------
    >>> ax = jaxvp.pl.violins(result)
    >>> ax.figure.savefig("fractions.pdf")
    >>> jaxvp.pl.violins(adata)  # after jaxvp.tl.variance_partition(adata, formula)
    """
    fractions = fractions_of(result, "violins", key=key)
    names = by_median(fractions)
    colours = palette(names)
    # A layout takes room from axes that are given when it is drawn, which is later.
    ax, slot = _new_axes(names) if ax is None else (ax, 0.85 * canvas.width(ax) / len(names))
    for place, name in enumerate(names):
        values = np.clip(fractions[name].to_numpy(np.float64), 0.0, 1.0)
        _violin(ax, place, values, colours[name])
    naming.below(ax, names, slot)
    ax.set_xlim(-0.6, len(names) - 0.4)
    ax.set_ylim(-1.5, 101.5)
    canvas.percent(ax.yaxis)
    ax.set_ylabel("Variance explained")
    canvas.plain(ax, "y")
    return ax


def _violin(ax: Axes, place: int, values: Float[np.ndarray, " genes"], colour: str) -> None:
    """One violin and its box, in percent."""
    heights, widths = outline(values)
    ax.fill_betweenx(
        100 * heights,
        place - HALF_WIDTH * widths,
        place + HALF_WIDTH * widths,
        facecolor=colour,
        # Not black: of a long thin tail the edge is all there is to see.
        edgecolor=darker(colour),
        linewidth=0.7,
    )
    box(ax, place, 100 * values, BOX_WIDTH)


def _new_axes(names: list[str]) -> tuple[Axes, float]:
    """Axes in a figure that has room for the components and their names; inches a component."""
    shown = [canvas.shorten(name) for name in names]
    longest, count = canvas.longest(shown), max(len(names), 4)
    margin, height, slot = 0.9, 3.4, max(_SLOT, 1.15 * longest)
    if margin + count * slot > canvas.PAGE:  # slanted, then
        slot = min(_SLOT, max(_LEAST_SLOT, (canvas.PAGE - margin) / count))
        height += canvas.SLANT * longest
        margin = max(margin, canvas.SLANT * canvas.longest(shown[:1]))
    # A few components do not fill the width that the labels of the axis need.
    return canvas.new_axes(margin + count * slot, height), slot * count / len(names)
