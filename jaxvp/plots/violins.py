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

from jaxvp.expression import DataError
from jaxvp.results import Results, by_median

from .density import outline
from .palette import darker, palette

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HALF_WIDTH = 0.42
BOX_WIDTH = 0.12
INK = "#262626"
# Inches, in a figure of our own: of a component, at least (crowded), and of a page.
_SLOT, _LEAST_SLOT, _PAGE = 0.62, 0.42, 7.2
# Of its length: how far a slanted name goes down and left.
_SLANT = 0.71


def violins(result: Results | pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw the distribution of every component's variance fractions over the genes.

    Parameters
    ----------
    result
        What `jaxvp.fit` returned, or a table genes x components of fractions between 0 and 1.
        Genes with NaN (they could not be fitted) are left out.
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
        If it is neither a result nor a table.

    Notes
    -----
    After ``plotVarPart`` of variancePartition (Hoffman and Schadt 2016, BMC Bioinformatics 17:483).

    Examples
    --------
    >>> ax = jaxvp.pl.violins(result)
    >>> ax.figure.savefig("fractions.pdf")
    """
    fractions = _fractions(result)
    names = by_median(fractions)
    colours = palette(names)
    ax, slot = _new_axes(names) if ax is None else (ax, _width(ax) / len(names))
    for place, name in enumerate(names):
        values = np.clip(fractions[name].to_numpy(np.float64), 0.0, 1.0)
        _violin(ax, place, values, colours[name])
    _dress(ax, names, slanted=_longest(names) > 0.95 * slot)
    return ax


def _fractions(result: object) -> pd.DataFrame:
    """The rows to draw; says why there are none."""
    if not isinstance(result, Results | pd.DataFrame):
        raise TypeError(
            "violins draws a jaxvp.Results or a DataFrame of fractions (genes x components), "
            f"not {type(result).__name__}"
        )
    table: pd.DataFrame = result.fractions if isinstance(result, Results) else result
    table = table.set_axis([str(name) for name in table.columns], axis="columns")
    genes, components = table.shape
    if not components:
        raise DataError("the table of fractions has no columns: there is no component to draw")
    if not genes:
        raise DataError("the table of fractions has no rows: there is no gene to draw")
    if not table.columns.is_unique:
        twice = table.columns[table.columns.duplicated()][0]
        raise DataError(f"two columns are called `{twice}`: rename one")
    text = [name for name, dtype in table.dtypes.items() if dtype.kind not in "fiu"]
    if text:
        raise DataError(f"not a table of fractions: column `{text[0]}` does not hold numbers")
    fitted = table.dropna()
    if len(fitted) == 0:
        why = "all have NaN"
        if isinstance(result, Results):
            counts = result.diagnostics["status"].value_counts()
            why = ", ".join(f"{count:,} {status}" for status, count in counts.items())
        raise DataError(f"none of the {genes:,} genes could be fitted ({why}): nothing to draw")
    for name in fitted.columns:
        values = fitted[name].to_numpy(np.float64)
        lowest, highest = values.min(), values.max()
        # Fractions may miss 0 and 1 by a rounding error.
        if lowest < -1e-9 or highest > 1 + 1e-9:
            raise DataError(
                f"fractions lie between 0 and 1 and `{name}` goes from {lowest:.3g} to "
                f"{highest:.3g}: pass result.fractions, not variances or percentages"
            )
    return fitted


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
    lower, median, upper = 100 * np.percentile(values, [25, 50, 75])
    reach = 1.5 * (upper - lower)
    near = 100 * values
    near = near[(near >= lower - reach) & (near <= upper + reach)]
    # Drawn here: matplotlib's own box plot reads every setting that there is, the backend among
    # them, and so would choose one for the caller.
    line: dict[str, Any] = {"color": INK, "linewidth": 0.8, "solid_capstyle": "butt"}
    # Of a few genes the quartiles, interpolated, may lie beyond all that are near.
    for box_end, whisker_end in [(lower, min(near.min(), lower)), (upper, max(near.max(), upper))]:
        ax.plot([place, place], [box_end, whisker_end], zorder=2, **line)
    left, right = place - BOX_WIDTH / 2, place + BOX_WIDTH / 2
    (box,) = ax.fill([left, right, right, left], [lower, lower, upper, upper])
    box.set(facecolor="white", edgecolor=INK, linewidth=0.8, zorder=2.1)
    ax.plot([left, right], [median, median], zorder=2.2, **{**line, "linewidth": 2.0})


def _longest(names: list[str]) -> float:
    """Inches that the longest name takes, in the font that the axis will have."""
    from matplotlib import rcParams
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(size=rcParams["xtick.labelsize"])
    measure = text_to_path.get_text_width_height_descent
    return max(float(measure(name, font, ismath=False)[0]) for name in names) / 72


def _width(ax: Axes) -> float:
    """Of the axes, in inches."""
    return float(ax.get_window_extent().width / ax.figure.dpi)


def _new_axes(names: list[str]) -> tuple[Axes, float]:
    """Axes in a figure that has room for the components and their names; inches a component."""
    import matplotlib.pyplot as plt

    longest, count = _longest(names), max(len(names), 4)
    margin, height, slot = 0.9, 3.4, max(_SLOT, 1.15 * longest)
    if margin + count * slot > _PAGE:  # slanted, then
        slot = min(_SLOT, max(_LEAST_SLOT, (_PAGE - margin) / count))
        height += _SLANT * longest
        margin = max(margin, _SLANT * _longest(names[:1]))
    size = (margin + count * slot, height)
    return plt.subplots(figsize=size, layout="constrained")[1], slot


def _dress(ax: Axes, names: list[str], slanted: bool) -> None:
    """Names below, percent on the left, and no ink that says nothing."""
    from matplotlib.ticker import PercentFormatter

    ax.set_xticks(range(len(names)), names)
    for label in ax.get_xticklabels():
        label.set_parse_math(False)  # a dollar in a name is a dollar
        if slanted:
            label.set(rotation=45, ha="right", rotation_mode="anchor")
    ax.set_xlim(-0.6, len(names) - 0.4)
    ax.set_ylim(-1.5, 101.5)
    ax.set_yticks(range(0, 101, 25))
    ax.yaxis.set_major_formatter(PercentFormatter(decimals=0))
    ax.set_ylabel("Variance explained")
    ax.set_axisbelow(True)
    ax.grid(axis="y", color="#E6E6E6", linewidth=0.6)
    ax.tick_params(axis="x", length=0)
    ax.spines[["top", "right"]].set_visible(False)
