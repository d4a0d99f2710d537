"""Real data that comes with the package: small, complete, citable.

Every function returns `(expression, metadata)` as `jaxvp.fit` takes them; its docstring says where
the data are from and what their licence asks.
"""

from jaxvp.datasets.gse30550 import influenza

__all__ = ["influenza"]
