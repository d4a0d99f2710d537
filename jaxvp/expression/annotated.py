"""AnnData: measurements with names and metadata of both axes; in memory, in HDF5 or in zarr.

Its `obs` are the samples and bring their own metadata, its `var` the genes. Of a file only those
two are read at once. The matrix, `X` or a layer, is read in blocks where it is dense or stored by
columns (CSC); stored by rows (CSR) it is read as it is, sparse, and turned.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pandas as pd

from .absent import check_table
from .arrays import Matrix, readable, roots
from .extras import require
from .names import DataError
from .reading import PartOfFile, reading


def is_annotated(thing: Any) -> bool:
    """Whether this is an AnnData (or of a type made from it); imports nothing."""
    return "anndata" in roots(thing) and hasattr(thing, "obs")


def from_object(adata: Any, layer: str | None = None) -> Matrix:
    """A matrix of an AnnData with its names and `obs`.

    Parameters
    ----------
    adata
        The AnnData.
    layer
        The name of a layer that it has. None: `X`.
    """
    if layer is not None:
        what = f"adata.layers[{layer!r}]"
        with reading(what):
            values = adata.layers[layer]
        return _matrix(values, adata.obs, adata.var_names, what)
    with reading("adata.X"):
        values = adata.X
    if values is None:
        layers = ", ".join(map(repr, adata.layers)) or "none"
        raise DataError(
            f"adata.X is empty (layers: {layers}): pass adata.layers[...], with adata.obs as "
            "metadata"
        )
    return _matrix(values, adata.obs, adata.var_names, "adata.X")


def _matrix(values: Any, obs: pd.DataFrame, genes: pd.Index, what: str) -> Matrix:
    found = readable(values, what)
    if found is None:
        raise DataError(f"{what} is {type(values).__name__}, which is no array and not sparse")
    if tuple(found.shape) != (len(obs), len(genes)):
        raise DataError(
            f"{what} has shape {tuple(found.shape)}, and there are {len(obs):,} obs and "
            f"{len(genes):,} var: it is damaged"
        )
    return Matrix(found, obs.index, genes, genes_in="columns", metadata=obs, what=what)


def open_h5ad(path: Path, layer: str | None = None) -> Matrix:
    """A file of AnnData, kept open for as long as it is read.

    Parameters
    ----------
    path
        The ``.h5ad`` file.
    layer
        The name of a layer. None: `X`.
    """
    require("anndata", "anndata", str(path))
    import h5py  # pyright: ignore[reportMissingImports]

    with reading(path):
        file = h5py.File(path, "r")
    return _from_store(file, path, layer)


def open_zarr(path: Path, layer: str | None = None) -> Matrix:
    """A folder of zarr: AnnData, or one array on two axes, samples x genes, without names."""
    zarr = require("zarr", "zarr", str(path))
    with reading(path):
        store = zarr.open(path, mode="r")
    if isinstance(store, zarr.Group):
        require("anndata", "anndata,zarr", str(path))
        return _from_store(store, path, layer)
    if layer is not None:
        raise DataError(f"{path} is one array and has no layers")
    array = readable(store, PartOfFile(path))
    if array is None:
        raise DataError(f"{path} has shape {store.shape}, and two axes are needed")
    return Matrix(array, what=str(path))


def _from_store(store: Any, path: Path, layer: str | None) -> Matrix:
    """The matrix and the tables of a group of HDF5 or zarr that AnnData wrote."""
    with ExitStack() as stack:
        if hasattr(store, "close"):
            stack.callback(store.close)
        obs, var = _table(store, path, "obs"), _table(store, path, "var")
        with reading(path):
            layers = store.get("layers", {})
            parts, name = (store, "X") if layer is None else (layers, layer)
            if name not in parts:
                what = "X" if layer is None else f"layer {layer!r}"
                raise DataError(
                    f"{path} has no {what}; its layers: {', '.join(map(repr, layers)) or 'none'}"
                )
            values = parts[name]
        matrix = _matrix(values, obs, var.index, PartOfFile(f"{path} ({name})"))
        stack.pop_all()  # all is well: it stays open
    return matrix


def _table(store: Any, path: Path, name: str) -> pd.DataFrame:
    from anndata.io import read_elem  # pyright: ignore[reportMissingImports]

    with reading(path):
        group = store.get(name)
    if group is not None:
        check_table(group, PartOfFile(f"{path} ({name})"))
    with reading(path):
        table = None if group is None else read_elem(group)
    if not isinstance(table, pd.DataFrame):
        raise DataError(f"{path} is no AnnData: it has no table {name}")
    return table
