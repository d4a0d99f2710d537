"""Tools for an AnnData, named as in scanpy: ``jaxvp.tl.variance_partition(adata, formula)``."""

from jaxvp.integrations.scverse import by_group, variance_partition

__all__ = ["by_group", "variance_partition"]
