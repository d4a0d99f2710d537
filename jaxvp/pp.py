"""Preprocessing of an AnnData, named as in scanpy: ``jaxvp.pp.pseudobulk(adata, "donor")``."""

from jaxvp.integrations.scverse import pseudobulk

__all__ = ["pseudobulk"]
