"""Boxes: the middle half of the values, their median, whiskers to the last one that is near.

Near is within 1.5 box lengths (Tukey 1977). Drawn here: matplotlib's own box plot reads every
setting that there is, the backend among them, and so would choose one for the caller.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from .canvas import INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def box(
    ax: Axes,
    place: float | int,
    values: Float[np.ndarray, " n"],
    width: float | int,
    colour: str = "white",
    zorder: float = 2.0,
    line: float = 0.8,
) -> None:
    """One upright box at a place of the horizontal axis, with lines of so many points."""
    lower, median, upper = np.percentile(values, [25, 50, 75])
    reach = 1.5 * (upper - lower)
    near = values[(values >= lower - reach) & (values <= upper + reach)]
    ink: dict[str, Any] = {"color": INK, "linewidth": line, "solid_capstyle": "butt"}
    # Of a few values the quartiles, interpolated, may lie beyond all that are near.
    for box_end, whisker_end in [(lower, min(near.min(), lower)), (upper, max(near.max(), upper))]:
        ax.plot([place, place], [box_end, whisker_end], zorder=zorder, **ink)
    left, right = place - width / 2, place + width / 2
    (body,) = ax.fill([left, right, right, left], [lower, lower, upper, upper])
    body.set(facecolor=colour, edgecolor=INK, linewidth=line, zorder=zorder + 0.1)
    ax.plot(
        [left, right], [median, median], zorder=zorder + 0.2, **{**ink, "linewidth": 2.5 * line}
    )
