"""A figure and axes that a notebook shows as they are returned, without pyplot.

pyplot keeps every figure that it makes until it is closed, and chooses a backend for the process.
A library that draws into figures of its own needs neither. What pyplot does for a notebook, to
show a figure at the end of a cell, is here one method that notebooks look for by its name.
"""

from __future__ import annotations

import io

from matplotlib.axes import Axes
from matplotlib.figure import Figure


class ShownFigure(Figure):
    """A figure that a notebook shows."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        # With room for what may stand beyond the edge, as notebooks do.
        self.savefig(buffer, format="png", bbox_inches="tight")
        return buffer.getvalue()


class ShownAxes(Axes):
    """Axes in whose place a notebook shows their figure."""

    def _repr_png_(self) -> bytes | None:
        return self.figure._repr_png_() if isinstance(self.figure, ShownFigure) else None
