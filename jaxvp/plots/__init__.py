"""Figures of a result; public as `jaxvp.pl`.

A function that draws one plot takes and returns matplotlib Axes (`ax`), one that draws several a
Figure (`figure`). Components have the same colours in all of them (`palette`).
"""

from .against_mean import components_against_mean
from .bars import bars
from .compare import compare
from .correlations import correlations
from .palette import palette
from .simpson import simpson
from .stratify import stratify
from .structure import correlation_structure
from .top_genes import top_genes
from .violins import violins

__all__ = [
    "bars",
    "compare",
    "components_against_mean",
    "correlation_structure",
    "correlations",
    "palette",
    "simpson",
    "stratify",
    "top_genes",
    "violins",
]
