"""Data that come with the package: small, complete, citable; real, or simulated and said to be so.

Every function returns `(expression, metadata)` as `jaxvp.fit` takes them; its docstring says where
the data are from and what their licence asks.
"""

from jaxvp.datasets.gse30550 import influenza
from jaxvp.datasets.simpsons import simpson

__all__ = ["influenza", "simpson"]
