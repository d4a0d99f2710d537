"""Room to draw in: figures of our own, sizes in inches, axes that say no more than they must.

Figures are made without pyplot (`notebook`), so that no state of the process changes and nothing
has to be closed. To have a figure in a window, make it with pyplot and pass its axes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
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
# Inches that labels around panels take, a title above each, and a panel that is small.
_AROUND, _TITLE, _SMALL = 0.5, 0.2, 1.5


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

    A figure that is given has the number of columns that leaves panels the longest shorter side.
    """
    columns = min(math.isqrt(panels - 1) + 1, 5)
    if figure is not None:
        wide, high = figure.get_size_inches() - _AROUND
        sides = {n: min(wide / n, high / -(-panels // n) - _TITLE) for n in range(1, panels + 1)}
        columns = max(sides, key=lambda n: sides[n])
    rows = -(-panels // columns)
    if figure is None:
        figure = new_figure(max(columns * size[0], 3.0) + 0.4, max(rows * size[1] + 0.4, 2.8))
    return figure, [figure.add_subplot(rows, columns, i + 1) for i in range(panels)]


def outer_numbers(panels: Sequence[Axes]) -> None:
    """Of panels with the same axes: numbers where no other stands left or below."""
    for i, ax in enumerate(panels):
        place = ax.get_subplotspec()
        assert place is not None
        columns = place.get_gridspec().ncols
        ax.tick_params(labelleft=i % columns == 0, labelbottom=i + columns >= len(panels))


def is_small(ax: Axes) -> bool:
    """Whether a panel is too small for more than the ends of an axis."""
    return min(size(ax)) < _SMALL


def shorten(name: object, longest: int = _LONGEST_NAME) -> str:
    """A name with its middle left out, if it is a very long one."""
    name = " ".join(str(name).split())
    if len(name) <= longest:
        return name
    head = longest * 3 // 5
    return f"{name[:head]}…{name[head + 1 - longest :]}"


def fitting(names: Sequence[str], room: float, size: str | float = "xtick.labelsize") -> list[str]:
    """Names as short as so many inches ask for, and no shorter than a dozen letters."""
    for letters in (_LONGEST_NAME, 32, 24, 18, 12):
        shown = [shorten(name, letters) for name in names]
        if longest(shown, size) <= room:
            break
    return shown


def longest(names: Iterable[str], size: str | float = "xtick.labelsize") -> float:
    """Inches that the longest name takes, in the font of that setting, or of that size."""
    from matplotlib.font_manager import FontProperties, findfont

    font = findfont(FontProperties())
    return points(size) * max(_width(name, font) for name in names) / 72


@lru_cache(maxsize=4096)
def _width(name: str, font: str) -> float:
    """Of a name, in its letters' size; asked again for every size that is tried."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    measure = text_to_path.get_text_width_height_descent
    return float(measure(name, FontProperties(size=1), ismath=False)[0])


def points(size: str | float) -> float:
    """Of a setting (``"legend.fontsize"``), or of a size by name."""
    from matplotlib import rcParams
    from matplotlib.font_manager import FontProperties

    if isinstance(size, str):
        size = rcParams.get(size, size)  # type: ignore
    return float(FontProperties(size=size).get_size_in_points())  # type: ignore


def width(ax: Axes) -> float:
    """Of the axes, in inches."""
    return float(ax.get_window_extent().width / ax.figure.dpi)


def height(ax: Axes) -> float:
    """Of the axes, in inches."""
    return float(ax.get_window_extent().height / ax.figure.dpi)


def size(ax: Axes) -> tuple[float, float]:
    """Width and height of what some axes have of their figure, in inches."""
    wide, high = (float(length / ax.figure.dpi) for length in ax.figure.bbox.size)
    place = ax.get_subplotspec()
    if place is None:
        return wide, high
    rows, columns = place.get_gridspec().get_geometry()
    return wide * len(place.colspan) / columns, high * len(place.rowspan) / rows


def title(ax: Axes, text: str, **settings: Any) -> None:
    """A title in which a dollar is a dollar."""
    ax.set_title(text, **settings).set_parse_math(False)


def headline(ax: Axes, text: str, room: float, above: float = 0.0) -> None:
    """A title above the left end of the axes, in so many inches and `above` so many points."""
    from matplotlib import rcParams

    letters = points("medium")
    letters = max(min(letters, letters * room / longest([text], letters)), 0.65 * letters)
    text = fitting([text], room, letters)[0] if longest([text], letters) > room else text
    title(ax, text, loc="left", fontsize=letters, pad=rcParams["axes.titlepad"] + above)


def panel_titles(panels: Sequence[Axes], names: Sequence[str]) -> None:
    """A name above each axes of a `grid`, no longer than these are wide."""
    for ax, name in zip(panels, names, strict=True):
        place = ax.get_subplotspec()
        assert place is not None
        room = 0.85 * (size(ax)[0] - 0.5 / place.get_gridspec().ncols)
        (shown,), letters = fitting([name], room, "small"), points("small")
        letters = max(min(letters, letters * room / longest([shown], letters)), 5.0)
        title(ax, shown, fontsize=letters)


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
