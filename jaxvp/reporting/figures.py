"""The figures of a report: those of `jaxvp.pl`, as SVG in the page, with descriptions.

A figure stands in the page as an image of its own, so that it can be saved and nothing in it meets
the page's names or colours. It is drawn with matplotlib's own settings, whatever the caller's are:
the same result gives the same report. Letters are drawn as shapes, since a font that is missing
where the report is read would not fit.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from jaxvp import plots
from jaxvp.results import Results

from .design import largest
from .outcomes import Component, components, explained
from .page import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TOP = 10
# Bars of the top genes are drawn for so many components; a page of more is not read.
MOST_COMPONENTS = 20
# Pairs of variables that the description of the heat map names.
_PAIRS = 5


class Picture(NamedTuple):
    """An image, or the reason why there is none."""

    title: str
    source: str | None
    """a data URI"""
    description: str
    """what it shows, in words; or why it is not there"""
    width: int = 0
    height: int = 0
    """in CSS pixels"""


class Pictures(NamedTuple):
    """All figures of a report."""

    violins: Picture
    tops: list[Picture]
    left_out: list[str]
    """components whose top genes are not drawn, since there are too many"""
    correlations: Picture


def draw(result: Results, correlations: pd.DataFrame | None) -> Pictures:
    """Every figure that the result allows."""
    fitted = result.fractions.notna().all(axis=1).any()
    named = [component for component in components(result) if fitted and explained(component)]
    shown, more = named[:MOST_COMPONENTS], named[MOST_COMPONENTS:]
    return Pictures(
        violins=violins(result),
        tops=[top(result, component) for component in shown],
        left_out=[component.name for component in more],
        correlations=heat_map(correlations),
    )


def violins(result: Results) -> Picture:
    """The fractions of all genes."""
    title = "Variance explained by each component, over all genes"
    if not len(result.fractions):
        return Picture(title, None, "There is no figure: the result has no genes.")
    if result.fractions.isna().any(axis=1).all():
        return Picture(title, None, "There is no figure: none of the genes could be fitted.")
    medians = ", ".join(f"{c.name} {percent(c.median)}" for c in components(result))
    genes = len(result.fractions.dropna())
    description = (
        f"Violin plot of the variance fractions of {genes:,} genes, a violin for each component. "
        f"Medians: {medians}."
    )
    return _picture(title, description, lambda: plots.violins(result))


def top(result: Results, component: Component) -> Picture:
    """The genes of which a component explains the most; genes with nothing of it are no such."""
    title = component.name
    place = [str(label) for label in result.fractions.columns].index(component.name)
    values = result.fractions.iloc[:, place].to_numpy(np.float64)
    count = min(int((values > 0).sum()), TOP)
    if not count:
        return Picture(title, None, "There is no figure: it is exactly zero in all genes.")
    shares = result.top(component.name, count).iloc[:, place]
    listed = ", ".join(f"{gene} {percent(share)}" for gene, share in shares.items())
    description = (
        f"Stacked bars of the {count} genes with the largest share of {component.name}: {listed}."
    )
    return _picture(title, description, lambda: plots.top_genes(result, component.name, count))


def heat_map(correlations: pd.DataFrame | None) -> Picture:
    """Canonical correlations of the variables."""
    title = "Canonical correlations of the variables"
    if correlations is None:
        return Picture(title, None, "There is no figure: it takes two variables or more.")
    pairs = largest(correlations)
    if not pairs:
        return Picture(title, None, "There is no figure: no pair of variables has a correlation.")
    named = "; ".join(f"{one} and {other} {value:.2f}" for one, other, value in pairs[:_PAIRS])
    description = (
        f"Heat map of the canonical correlations of {len(correlations)} variables. "
        f"The largest: {named}."
    )
    return _picture(title, description, lambda: plots.correlations(correlations))


def _picture(title: str, description: str, plot: Callable[[], Axes]) -> Picture:
    import matplotlib
    from matplotlib import style

    with style.context("default"), matplotlib.rc_context({"svg.hashsalt": "jaxvp"}):
        figure: Any = plot().figure
        buffer = io.BytesIO()
        # Neither the day nor the program: the same figure is the same bytes.
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    # 96 CSS pixels an inch, and matplotlib's default letters are large on a page.
    width, height = (round(80 * float(inches)) for inches in figure.get_size_inches())
    encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
    return Picture(title, f"data:image/svg+xml;base64,{encoded}", description, width, height)
