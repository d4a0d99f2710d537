"""What colours mean: beside the axes where there is room, above them in a narrow figure.

A legend beside the axes takes its width from them, and in a column of a page leaves nothing. Above,
it takes as many columns as fit, with letters and names as small as they have to be (`naming.LEAST`,
a dozen letters). Where it would take more than its part of the height even so, it says how many
levels there are, and leaves the axes to the data.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from . import canvas
from .naming import LEAST

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROWS = 13
# Of the figure's width and height, that it takes at most; inches that the axis of values takes.
_BESIDE, _ABOVE, _AXIS = 0.34, 0.33, 0.75
# And inches that a group needs.
_GROUP = 0.1
# Inches of a marker and the space around it; lines, in heights of letters, to the next.
_MARKER, _LINE = 0.35, 1.4


class Plan(NamedTuple):
    """Where a legend stands, and how."""

    names: list[str]
    """as they are shown; none where there is no room for them"""
    title: str
    letters: float
    """points"""
    columns: int
    beside: float
    """inches that it takes right of the axes; 0 where it is above them"""
    above: float
    """points that it takes above the axes"""


def plan(
    levels: Sequence[str],
    title: str,
    size: tuple[float, float],
    groups: int = 1,
    always_beside: bool = False,
) -> Plan:
    """Choose for a figure of that size in inches.

    Parameters
    ----------
    levels
        What is to be named.
    title
        What they are levels of.
    size
        Width and height of the figure.
    groups
        How many stand side by side in the axes, each with a name below.
    always_beside
        Whether the figure, whatever its size, is to be made with room for it.
    """
    letters, title = canvas.points("small"), canvas.shorten(title)
    names = [canvas.shorten(level) for level in levels]
    rows = ROWS
    if not always_beside:
        rows = int(np.clip((size[1] - 0.25) / (_LINE * letters / 72) - 1, 1, ROWS))
    columns = -(-len(names) // rows)
    widest = canvas.longest(names, letters) + _MARKER
    taken = max(widest * columns, canvas.longest([title], letters) + 0.1)
    most = min(_BESIDE * size[0], size[0] - _AXIS - _GROUP * groups)
    if always_beside or taken <= most:
        return Plan(names, title, letters, columns, taken, 0.0)
    room = size[0] - _AXIS
    title = canvas.fitting([title], room, letters)[0]
    for smaller in (letters, 7.0, 6.0, LEAST):
        for length in (44, 32, 24, 18, 12):
            names = [canvas.shorten(level, length) for level in levels]
            widest = canvas.longest(names, smaller) + _MARKER * smaller / 10
            columns = min(int(room / widest), len(names))
            if not columns:
                continue
            lines = -(-len(names) // columns) + 1
            above = _LINE * smaller * lines
            if above <= _ABOVE * 72 * size[1]:
                return Plan(names, title, smaller, columns, 0.0, above)
    title = f"{canvas.fitting([title], 0.6 * room, letters)[0]}: {len(levels)} levels"
    return Plan([], title, letters, 1, 0.0, _LINE * letters)


def draw(ax: Axes, handles: Sequence[Any], plan: Plan) -> None:
    """Handles in the order of the plan's names; a title of the axes goes `plan.above` higher."""
    place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1.01, 1.02)}
    if not plan.beside:
        place = {"loc": "lower left", "bbox_to_anchor": (0.0, 1.0), "columnspacing": 1.0}
    if plan.names:
        place |= {"handles": list(handles), "labels": plan.names}
    else:
        place |= {"handles": []}
    legend = ax.legend(
        title=plan.title,
        frameon=False,
        fontsize=plan.letters,
        title_fontsize=plan.letters,
        handletextpad=0.4,
        borderpad=0.4 if plan.beside else 0.0,
        labelspacing=0.5 if plan.beside else 0.3,
        borderaxespad=0.2,
        alignment="left",
        ncols=plan.columns,
        **place,
    )
    for text in [*legend.get_texts(), legend.get_title()]:
        text.set_parse_math(False)
