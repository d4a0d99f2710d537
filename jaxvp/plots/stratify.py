"""One gene by one or two variables: boxes with every sample as a point, raw or adjusted.

What a variable explains is blurred in the raw measurements by all the others. With `adjusted`, what
the model attributes to its other terms is taken away (`effects.adjust`), so that what is left is
what the model sees of the variables shown, and the residuals.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from jaxvp.design.variables import Factor, is_missing, kind_of, select, to_factor
from jaxvp.expression import DataError, Expression, align
from jaxvp.results import Results
from jaxvp.results.lookup import find

from . import canvas, legends, naming
from .boxes import box
from .effects import adjust
from .inputs import check_result
from .palette import level_colours, paler, palette

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

# Numbers of more different values are no groups.
_MOST_NUMBERS = 30
_MOST_LEVELS = 150
# Inches left of the axes.
_MARGIN = 0.9


def stratify(
    expression: Any,
    metadata: pd.DataFrame,
    gene: Any,
    by: str | Sequence[str],
    *,
    result: Results | None = None,
    adjusted: bool = False,
    weights: Any = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the measurements of one gene in groups of samples.

    Parameters
    ----------
    expression, metadata
        As `jaxvp.fit` takes them.
    gene
        Name of the gene; of an array its number.
    by
        The variable of the metadata whose levels stand side by side, or two: the levels of the
        second stand side by side within those of the first, and have colours.
    result
        What `jaxvp.fit` returned for these data. Gives the variable its colour of the other
        figures, and says how much of the gene's variance it explains.
    adjusted
        Whether to take away what the other terms of the model explain: fixed effects and, of random
        terms, the predicted effects of their levels (BLUPs), slopes too. Needs `result`; shows its
        samples, but those of weight zero.
    weights
        Those of the fit, for `adjusted`. Needed after `jaxvp.load` only.
    ax
        Axes to draw into, where not all names of many groups may have room; without, a new figure
        that has room for the groups and their names.

    Returns
    -------
    Axes
        A box and the samples as points for every group that has samples. Samples that lack the
        measurement or a variable are left out.

    Raises
    ------
    DataError
        If the gene is unknown (close matches are listed), a variable has too many levels,
        no sample is left, or `adjusted` is asked for without a result, for other measurements,
        samples or weights than those of the fit, or for a gene that could not be fitted.
    DesignError
        If a variable is unknown (close matches are listed).

    Notes
    -----
    After ``plotStratify`` of variancePartition (Hoffman and Schadt 2016, BMC Bioinformatics
    17:483). Points are spread at random, always in the same way.

    Examples
    --------
    >>> jaxvp.pl.stratify(expression, metadata, "OAS1", ["Hours", "Condition"])
    >>> jaxvp.pl.stratify(
    ...     expression, metadata, "OAS1", "Condition", result=result, adjusted=True
    ... )
    """
    names = [by] if isinstance(by, str) else list(by)
    if not 1 <= len(names) <= 2 or len(set(names)) < len(names):
        raise DataError(f"by={by!r}: name one variable, or two different ones")
    if adjusted or result is not None:
        if result is None:
            raise DataError("adjusted=True needs the model: pass result=, what fit returned")
        result = check_result(result, "stratify", "the model")
    measured, table = align(expression, metadata)
    y = _one_gene(measured, gene)
    columns = select(table, tuple(names))
    keep = ~np.isnan(y) & ~np.any([is_missing(column) for column in columns.values()], axis=0)
    if adjusted:
        assert result is not None
        y = adjust(measured, result, gene, names, table, weights)
        keep &= ~np.isnan(y)
    if not keep.any():
        raise DataError(f"no sample has both {gene!r} and {' and '.join(names)}")
    factors = [_groups(columns[name].loc[keep]) for name in names]
    legend, own = None, ax is None
    if len(names) == 2:
        size = (math.inf, math.inf) if ax is None else canvas.size(ax)
        legend = legends.plan(factors[1][1], names[1], size, len(factors[0][1]), own)
    ax = _new_axes(factors, legend) if ax is None else ax
    colours = _colours(names, factors, result)
    _draw(ax, y[keep], factors, colours, legend, own)
    ax.set_xlabel(names[0]).set_parse_math(False)
    ax.set_ylabel("Expression, adjusted" if adjusted else "Expression")
    above = 0.0
    if legend is not None:
        legends.draw(ax, [_marker(colour) for colour in colours], legend)
        above = legend.above
    canvas.headline(ax, _title(gene, names, result), canvas.size(ax)[0] - _MARGIN, above)
    return ax


def _one_gene(measured: Expression, gene: Any) -> Float[np.ndarray, " samples"]:
    place = find(gene, measured.gene_names, "gene")
    return measured.block(place, place + 1)[:, 0].astype(np.float64)


def _groups(column: pd.Series) -> Factor:
    codes, levels = to_factor(column)
    numeric = kind_of(column) == "numeric"
    if len(levels) > (_MOST_NUMBERS if numeric else _MOST_LEVELS):
        remedy = f"make groups of it, pd.qcut(metadata[{column.name!r}], 4)"
        raise DataError(
            f"`{column.name}` has {len(levels)} different values, too many to stand side by side"
            + (f": {remedy}" if numeric else "")
        )
    return codes, levels


def _colours(names: list[str], factors: list[Factor], result: Results | None) -> list[str]:
    """Of the levels of the second variable, or the one of the variable."""
    if len(names) == 2:
        return level_colours(len(factors[1][1]))
    if result is not None and names[0] in result.fractions.columns:
        return [palette(map(str, result.fractions.columns))[names[0]]]
    return level_colours(1)


def _draw(
    ax: Axes,
    y: Float[np.ndarray, " n"],
    factors: list[Factor],
    colours: list[str],
    legend: legends.Plan | None,
    own: bool,
) -> None:
    codes, levels = factors[0]
    inner, count = (factors[1][0], len(factors[1][1])) if len(factors) == 2 else (0 * codes, 1)
    present = [sorted(set(inner[codes == level].tolist())) for level in range(len(levels))]
    # Levels that occur in one group only, such as people within a condition, close ranks.
    if sum(map(len, present)) > count:
        present = [list(range(count)) for _ in levels]
    slot = 0.84 / max(map(len, present))
    random = np.random.default_rng(0)
    # The layout makes room for the legend when it is drawn, which is later.
    whole, high = canvas.size(ax)
    beside = 0.0 if legend is None else legend.beside
    left = min(canvas.width(ax), max(whole - _MARGIN - beside, 0.3 * whole))
    if legend is not None and not beside:
        left = whole - _MARGIN
    room = 72 * left / len(levels) * slot  # points of a group
    least = 2.0 if room > 6 else 1.3
    size = float(np.clip(80 / np.sqrt(len(y)), least, min(4.5, max(room / 3, least))))
    line = float(np.clip(room / 9, 0.3, 0.8))
    for level in range(len(levels)):
        for rank, second in enumerate(present[level]):
            values = y[(codes == level) & (inner == second)]
            if not len(values):
                continue
            place = level + (rank - (len(present[level]) - 1) / 2) * slot
            box(ax, place, values, 0.8 * slot, paler(colours[second]), line=line)
            spread = (random.random(len(values)) - 0.5) * 0.5 * slot
            ax.plot(
                place + spread,
                values,
                "o",
                color=colours[second],
                markersize=size,
                markeredgecolor="white",
                markeredgewidth=0.3 if room > 6 else 0.1,
                zorder=3,
            )
    # What is above and below the axes leaves them half of the height; one of our own has room.
    below = (0.36 if legend is None or beside else 0.28) * high
    naming.below(ax, levels, left / len(levels), math.inf if own else below)
    ax.set_xlim(-0.6, len(levels) - 0.4)
    canvas.plain(ax, "y")


def _title(gene: Any, names: list[str], result: Results | None) -> str:
    text = canvas.shorten(gene, 32)
    if result is None or gene not in result.fractions.index:
        return text
    shares = result.fractions.loc[gene]
    known = [f"{canvas.shorten(n, 24)} {shares[n]:.0%}" for n in names if n in shares.index]
    return f"{text}: {', '.join(known)}" if known and not shares.isna().any() else text


def _marker(colour: str) -> Artist:
    from matplotlib.lines import Line2D

    return Line2D([], [], linestyle="", marker="o", color=colour)


def _new_axes(factors: list[Factor], legend: legends.Plan | None) -> Axes:
    """Axes in a figure with room for the groups and the legend."""
    levels, count = factors[0][1], len(factors[1][1]) if len(factors) == 2 else 1
    longest = canvas.longest(map(canvas.shorten, levels))
    slot = float(np.clip(5.6 / len(levels), 0.24, 0.9))
    width = max(len(levels) * max(slot, 0.13 * count), 2.0)
    below = canvas.SLANT * longest if longest > 0.95 * width / len(levels) else 0.0
    beside = 0.0 if legend is None else legend.beside
    return canvas.new_axes(width + _MARGIN + beside, 3.4 + below)
