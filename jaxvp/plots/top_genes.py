"""The genes of which one component explains the most, as bars that start with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from jaxvp.expression import DataError
from jaxvp.results import Results
from jaxvp.results.lookup import find

from . import canvas
from .bars import MOST, draw, new_axes
from .inputs import KEY, fractions_of, residuals_last
from .palette import palette

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def top_genes(
    result: Results | pd.DataFrame | Any,
    component: str,
    n: int = 20,
    *,
    key: str = KEY,
    ax: Axes | None = None,
) -> Axes:
    """Draw the genes with the largest share of a component.

    Parameters
    ----------
    result
        What `jaxvp.fit` returned, or a table genes x components of fractions, or an AnnData to
        which one was written.
    component
        Its name.
    n
        How many genes, at most 200.
    key
        Of an AnnData: the `key_added` under which its `varm` has the fractions.
    ax
        Axes to draw into; without, a new figure that has room for the genes.

    Returns
    -------
    Axes
        Bars as those of `bars`, the gene with the largest share on top; the component comes first
        in every bar. Fewer where fewer genes could be fitted.

    Raises
    ------
    DataError
        If there is no such component (close matches are listed), `n` is not 1 to 200, or there is
        nothing to draw.
    TypeError
        If it is no result, no table and no AnnData.

    Notes
    -----
    ``plotPercentBars(vp[order(-vp$Batch)[1:20], ])`` in variancePartition. The table is
    `Results.top`.

    Examples
    --------
    >>> jaxvp.pl.top_genes(result, "Subject")
    """
    fractions = fractions_of(result, "top_genes", key=key)
    place = find(component, fractions.columns, "component")
    whole = isinstance(n, int | np.integer) and not isinstance(n, bool)
    if not whole or not 1 <= n <= MOST:
        raise DataError(f"n={n!r}: use a number of genes from 1 to {MOST}")
    order = np.argsort(-fractions.iloc[:, place].to_numpy(), kind="stable")
    chosen = fractions.iloc[order[:n]]
    first = fractions.columns[place]
    names = [first, *residuals_last([name for name in fractions.columns if name != first])]
    ax = new_axes(chosen, names) if ax is None else ax
    draw(ax, chosen, names, palette(names), [""] * len(chosen))
    begin = "Genes with the most "
    beside = canvas.longest(ax.get_yticklabels()[i].get_text() for i in range(len(chosen)))
    room = float(ax.figure.bbox.width / ax.figure.dpi) - canvas.longest([begin], "medium") - beside
    name = canvas.fitting([first], room - 0.3, "medium")[0]
    canvas.title(ax, begin + name, loc="left", fontsize="medium")
    return ax
