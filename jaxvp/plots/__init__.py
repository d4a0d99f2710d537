"""Figures of a result; public as `jaxvp.pl`. Every function takes and returns matplotlib Axes."""

from .palette import palette
from .violins import violins

__all__ = ["palette", "violins"]
