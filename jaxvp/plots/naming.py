"""Names along an axis: as long and as large as there is room for, and never on top of each other.

Below an axes they stand level where the widest one fits between its neighbours, slanted where their
lines are far enough apart, and upright else, which needs the least room. Letters shrink to 5
points, the least that journals print; where not even these fit, every second, third, ... name is
written.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from . import canvas
from .canvas import SLANT

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Points of the smallest letters, and of the smallest that are slanted.
LEAST, _LEAST_SLANTED = 5.0, 6.5
# Of a figure's height and width, that names take at most.
_BELOW, _BESIDE = 0.45, 0.45
# Of axes that hold a heat map: what is left for the cells; of their figure, what names take.
_CELLS, _AROUND = 0.6, 0.33


def below(
    ax: Axes,
    names: Sequence[str],
    slot: float | None = None,
    room: float | None = None,
    most: str = "xtick.labelsize",
) -> None:
    """Names at 0, 1, 2, ..., `slot` inches apart, in `room` inches; letters are of size `most`."""
    slot = canvas.width(ax) / len(names) if slot is None else slot
    room = _BELOW * float(ax.figure.bbox.height / ax.figure.dpi) if room is None else room
    letters, angle, step = canvas.points(most), 0, 1
    shown = canvas.fitting(names, room / SLANT, letters)
    if canvas.longest(shown, letters) > 0.95 * slot:
        angle, apart = 45, 72 * SLANT * slot
        if apart < _LEAST_SLANTED:
            angle, apart = 90, 72 * slot
        letters, step = _size(apart, letters)
        shown = canvas.fitting(names, room / SLANT if angle == 45 else room, letters)
    ax.set_xticks(range(len(shown)), _every(shown, step))
    for label in ax.get_xticklabels():
        label.set_parse_math(False)  # a dollar in a name is a dollar
        label.set_fontsize(letters)
        if angle == 45:
            label.set(rotation=45, ha="right", rotation_mode="anchor")
        elif angle == 90:
            label.set(rotation=90)
    ax.tick_params(axis="x", length=0)


def beside(
    ax: Axes,
    names: Sequence[str],
    slot: float | None = None,
    room: float | None = None,
    most: str = "ytick.labelsize",
) -> None:
    """The same from above, left of the axes."""
    slot = canvas.height(ax) / len(names) if slot is None else slot
    room = _BESIDE * float(ax.figure.bbox.width / ax.figure.dpi) if room is None else room
    letters, step = _size(72 * slot, canvas.points(most))
    shown = canvas.fitting(names, room, letters)
    ax.set_yticks(range(len(names)), _every(shown, step))
    for label in ax.get_yticklabels():
        label.set_parse_math(False)
        label.set_fontsize(letters)
    ax.tick_params(axis="y", length=0)


def _size(apart: float, most: float) -> tuple[float, int]:
    """Points of the letters of lines that far apart, and every which of them is written."""
    if apart >= LEAST:
        return min(most, apart), 1
    step = math.ceil(LEAST / apart)
    return min(most, step * apart, _LEAST_SLANTED), step


def _every(names: Sequence[str], step: int) -> list[str]:
    return [name if place % step == 0 else "" for place, name in enumerate(names)]


def around(ax: Axes, names: Sequence[str], own: bool, most: str = "xtick.labelsize") -> None:
    """The same names below and beside a heat map, in a figure of our own or in axes given.

    One of our own has room for all names. Of axes that are given, names and a colour bar leave the
    cells less than these are wide and high before a layout is drawn.
    """
    if own:
        part, rooms = 1.0, (math.inf, math.inf)
    else:
        wide, high = canvas.size(ax)
        part, rooms = _CELLS, (_AROUND * wide, _AROUND * high)
    beside(ax, names, part * canvas.height(ax) / len(names), rooms[0], most)
    below(ax, names, part * canvas.width(ax) / len(names), rooms[1], most)
