"""Room to draw in: figures of our own, sizes in inches, axes that say no more than they must.

Figures are made without pyplot (`notebook`), so that no state of the process changes and nothing
has to be closed. To have a figure in a window, make it with pyplot and pass its axes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

INK = "#262626"
GRID = "#E6E6E6"
# Inches that a figure of our own is wide at most, where it can be helped: a page of text.
PAGE = 7.2
# Letters of a name that are shown.
_LONGEST_NAME = 44
# Of its length: how far a slanted name goes down and left.
SLANT = 0.71
# Inches that a panel and the numbers beside it take.
_LEAST_PANEL = 1.3
# Of a figure's height and width, that names take at most.
_BELOW, _BESIDE = 0.45, 0.45
# Points of the smallest letters.
_LEAST_LETTERS = 4.5


def new_figure(width: float | int, height: float | int) -> Figure:
    """An empty figure of this size in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    from .notebook import ShownFigure

    figure = ShownFigure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def new_axes(width: float | int, height: float | int) -> Axes:
    """The only axes of a new figure."""
    from .notebook import ShownAxes

    return new_figure(width, height).add_subplot(axes_class=ShownAxes)


def square(side: float, left: float, below: float, right: float, above: float) -> Axes:
    """The only axes of a new figure: a square with so many inches around it.

    For heat maps, the margins of which are known: a layout that is found by drawing would not see
    that the insets follow a square.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    from .notebook import ShownAxes, ShownFigure

    width, height = left + side + right, below + side + above
    figure = ShownFigure(figsize=(width, height))
    FigureCanvasAgg(figure)
    place = (left / width, below / height, side / width, side / height)
    ax = ShownAxes(figure, place)
    figure.add_axes(ax)
    return ax


def grid(
    figure: Figure | None, panels: int, size: tuple[float, float]
) -> tuple[Figure, list[Axes]]:
    """Axes for so many panels, of that size in inches, in rows of one length.

    A figure that is given has as many in a row as there is room for.
    """
    columns = min(math.isqrt(panels - 1) + 1, 5)
    if figure is not None:
        columns = min(columns, max(int(figure.get_figwidth() / _LEAST_PANEL), 1))
    rows = -(-panels // columns)
    if figure is None:
        figure = new_figure(max(columns * size[0], 3.0) + 0.4, max(rows * size[1] + 0.4, 2.8))
    return figure, [figure.add_subplot(rows, columns, i + 1) for i in range(panels)]


def shorten(name: object, longest: int = _LONGEST_NAME) -> str:
    """A name with its middle left out, if it is a very long one."""
    name = " ".join(str(name).split())
    if len(name) <= longest:
        return name
    head = longest * 3 // 5
    return f"{name[:head]}…{name[head + 1 - longest :]}"


def fitting(names: Sequence[str], room: float, size: str = "xtick.labelsize") -> list[str]:
    """Names as short as so many inches ask for, and no shorter than a dozen letters."""
    for letters in (_LONGEST_NAME, 32, 24, 18, 12):
        shown = [shorten(name, letters) for name in names]
        if longest(shown, size) <= room:
            break
    return shown


def longest(names: Iterable[str], size: str = "xtick.labelsize") -> float:
    """Inches that the longest name takes, in the font of that setting, or of that size."""
    from matplotlib import rcParams
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(size=rcParams.get(size, size))  # type: ignore
    measure = text_to_path.get_text_width_height_descent
    return max(float(measure(name, font, ismath=False)[0]) for name in names) / 72


def width(ax: Axes) -> float:
    """Of the axes, in inches."""
    return float(ax.get_window_extent().width / ax.figure.dpi)


def height(ax: Axes) -> float:
    """Of the axes, in inches."""
    return float(ax.get_window_extent().height / ax.figure.dpi)


def names_below(
    ax: Axes, names: Sequence[str], slot: float | None = None, room: float | None = None
) -> None:
    """Names at 0, 1, 2, ..., in `room` inches; slanted where `slot` is too narrow for one."""
    slot = width(ax) / len(names) if slot is None else slot
    whole = float(ax.figure.bbox.height / ax.figure.dpi)
    shown = fitting(names, (_BELOW * whole if room is None else room) / SLANT)
    ax.set_xticks(range(len(shown)), shown)
    slanted = longest(shown) > 0.95 * slot
    for label in ax.get_xticklabels():
        label.set_parse_math(False)  # a dollar in a name is a dollar
        if slanted:
            label.set(rotation=45, ha="right", rotation_mode="anchor")
            # Slanted lines are this far apart.
            _lower(label, 72 * SLANT * slot)
    ax.tick_params(axis="x", length=0)


def names_beside(
    ax: Axes, names: Sequence[str], slot: float | None = None, room: float | None = None
) -> None:
    """Names at 0, 1, 2, ... from above, in `room` inches; small ones where `slot` is low."""
    slot = height(ax) / len(names) if slot is None else slot
    whole = float(ax.figure.bbox.width / ax.figure.dpi)
    ax.set_yticks(
        range(len(names)),
        fitting(names, _BESIDE * whole if room is None else room, "ytick.labelsize"),
    )
    for label in ax.get_yticklabels():
        label.set_parse_math(False)
        _lower(label, 72 * slot)
    ax.tick_params(axis="y", length=0)


def _lower(label: Any, points: float) -> None:
    """Letters no higher than that."""
    label.set_fontsize(min(label.get_fontsize(), max(points, _LEAST_LETTERS)))


def title(ax: Axes, text: str, **settings: Any) -> None:
    """A title in which a dollar is a dollar."""
    ax.set_title(text, **settings).set_parse_math(False)


def panel_titles(panels: Sequence[Axes], names: Sequence[str]) -> None:
    """A name above each axes of a `grid`, no longer than these are wide."""
    for ax, name in zip(panels, names, strict=True):
        place = ax.get_subplotspec()
        assert place is not None
        room = ax.figure.bbox.width / ax.figure.dpi / place.get_gridspec().ncols
        title(ax, fitting([name], 0.8 * room, "small")[0], fontsize="small")


def reach(highest: float) -> tuple[int, tuple[int, ...]]:
    """Where an axis of percent ends that has to reach so high, and its ticks."""
    for end in (10, 25, 50):
        if highest <= end:
            return end, (0, end // 2, end) if end != 25 else (0, 10, 20)
    return 100, (0, 50, 100)


def percent(axis: Axis, ticks: Sequence[float | int] = range(0, 101, 25)) -> None:
    """Ticks of an axis as percent."""
    from matplotlib.ticker import PercentFormatter

    axis.set_ticks(ticks)
    axis.set_major_formatter(PercentFormatter(decimals=0))


def plain(ax: Axes, lines: str | None = None) -> None:
    """No ink that says nothing; thin lines behind an axis (``"x"``, ``"y"``, ``"both"``)."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_axisbelow(True)
    if lines == "both":
        ax.grid(color=GRID, linewidth=0.6)
    elif lines is not None:
        ax.grid(axis="x" if lines == "x" else "y", color=GRID, linewidth=0.6)
