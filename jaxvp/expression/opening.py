"""Files of measurements, by the endings of their names.

Tables of text, and whatever is compressed as a whole, are read at once; all other formats are read
in blocks of genes. `docs/formats.md` has what each costs.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from .annotated import open_h5ad, open_zarr
from .arrays import Matrix
from .container import Container
from .files import COMPRESSION, PARQUET, SEPARATORS, read_table
from .frames import Frame
from .names import DataError
from .origin import Origin
from .parquet import ParquetTable
from .reading import Unchanged, reading
from .signature import NUMPY

ARRAYS = (".npy", ".h5ad", ".zarr")


def open_file(
    path: str | os.PathLike[str],
    *,
    layer: str | None = None,
    names_column: str | None = None,
    genes_in: str | None = None,
) -> Container:
    """Measurements in a file, as `jaxvp.fit` takes them, where a path alone does not say enough.

    Parameters
    ----------
    path
        A table with names, ``.csv``, ``.tsv`` (``.tab``, ``.txt``) or ``.parquet`` (``.pq``), also
        compressed (``.gz``, ``.bz2``, ``.zst``); an AnnData, ``.h5ad`` or ``.zarr``; or an array
        without names, samples x genes, ``.npy`` or ``.zarr``.
    layer
        A layer of an AnnData, in place of `X`.
    names_column
        The column of a table that holds the names of its rows, in place of the first.
    genes_in
        ``"rows"`` or ``"columns"``, where names do not tell (an array: ``"columns"``).

    Returns
    -------
    Container
        What `jaxvp.fit` takes as ``expression``.

    Raises
    ------
    DataError
        If the file is missing, empty, damaged, of another format, or needs a package that is not
        installed; the message names the file.
    """
    path = Path(path)
    kind = path.suffix.lower()
    if genes_in not in (None, "rows", "columns"):
        raise DataError(f'genes_in={genes_in!r}: use "rows" or "columns"')
    _check(path, kind)
    unchanged = Unchanged(path)
    container = _open(path, kind, layer, names_column, genes_in)
    at_once = isinstance(container, Frame)
    container.origin = Origin(unchanged, layer, names_column, genes_in, at_once)
    return container


def _open(
    path: Path, kind: str, layer: str | None, names_column: str | None, genes_in: str | None
) -> Container:
    if kind in (".h5ad", ".zarr"):
        if names_column is not None:
            raise DataError(f"{path}: an AnnData has no names_column, its names are those of obs")
        matrix = (open_h5ad if kind == ".h5ad" else open_zarr)(path, layer)
        if matrix.genes_in is None:
            matrix.genes_in = genes_in
        elif genes_in == "rows":
            raise DataError(f"{path}: the genes of an AnnData are its columns (var)")
        return matrix
    if layer is not None:
        raise DataError(f"{path}: only an AnnData (.h5ad, .zarr) has layers, such as {layer!r}")
    if kind == ".npy":
        return _open_npy(path, genes_in)
    if kind in PARQUET:
        return ParquetTable(path, names_column, genes_in)
    return Frame(read_table(path, names_column=names_column), genes_in)


def _check(path: Path, kind: str) -> None:
    """That the format is known and the file is there."""
    known = (*SEPARATORS, *PARQUET, *ARRAYS)
    suffixes = [suffix.lower() for suffix in path.suffixes]
    inner = suffixes[-2] if kind in COMPRESSION and len(suffixes) > 1 else kind
    if inner not in known or (inner in ARRAYS and kind in COMPRESSION):
        raise DataError(
            f"{path}: the format is told by the file's name, which must end in one of "
            f"{', '.join(known)}; tables may end in {', '.join(COMPRESSION)} behind it"
        )
    if not path.exists():
        raise DataError(f"{path}: there is no such file")
    if path.is_dir() != (kind == ".zarr"):
        raise DataError(f"{path}: {'a folder' if path.is_dir() else 'a file, not a zarr folder'}")
    if path.is_file() and path.stat().st_size == 0:
        raise DataError(f"{path} is empty")


def _open_npy(path: Path, genes_in: str | None) -> Matrix:
    with reading(path):
        with open(path, "rb") as file:
            if file.read(len(NUMPY)) != NUMPY:  # NumPy would speak of pickles
                raise ValueError("it is no array of numpy.save")
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    if values.ndim != 2:
        raise DataError(f"{path} has shape {values.shape}, and two axes are needed")
    return Matrix(values, genes_in=genes_in, what=str(path))
