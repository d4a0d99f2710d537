"""How a result is kept: methods of `Results` that write files, or into an AnnData."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pandas as pd

from . import archive
from .files import portable, write_folder

TABLES = ("fractions", "variances", "coefficients", "standard_errors", "theta", "diagnostics")
SERIES = ("sigma", "log_likelihood")
SCALARS = ("formula", "reml", "weighted", "block_size", "options", "versions")


def save(self, path: str | os.PathLike[str]) -> None:
    """Write everything to one file, from which `jaxvp.load` reads the same bits.

    Parameters
    ----------
    path
        The file, such as ``result.vp``: a zip archive of Parquet tables and one JSON file,
        readable without jaxvp. It is replaced when the new one is whole.

    Raises
    ------
    FileNotFoundError
        If its folder does not exist.

    Warns
    -----
    UserWarning
        If gene names are of several types: they become text.
    """
    scalars = {name: getattr(self, name) for name in SCALARS}
    archive.write(Path(path), _portable_tables(self), scalars, self.design)


def write_tables(self, directory: str | os.PathLike[str], format: str = "parquet") -> None:
    """Write one file a table, for other tools: ``fractions.parquet`` and so on.

    Parameters
    ----------
    directory
        Made where it is not there. Files of these names are replaced, all of them when the
        last new one is written.
    format
        ``"parquet"`` or ``"csv"``. The gene names are the first column of a CSV file.

    Raises
    ------
    DataError
        If the format is another one.

    Warns
    -----
    UserWarning
        If gene names are of several types: they become text.
    """
    write_folder(Path(directory), _portable_tables(self), format)


def to_anndata(self, adata: Any, key_added: str = "variance_partition") -> Any:
    """Write everything into an AnnData, so that it is in its file from then on.

    Parameters
    ----------
    adata
        The AnnData; its `var_names` are genes of this result. It is changed.
    key_added
        ``adata.varm[key_added]`` gets the fractions, ``adata.uns[key_added]`` all the rest:
        the other tables, formula, options and versions. What is there is replaced.

    Returns
    -------
    AnnData
        The same object. A gene that this result does not have gets NaN and the status
        ``not fitted``.

    Raises
    ------
    DataError
        If it is no AnnData or has none of the genes.
    """
    from .annotated import write_into

    tables = {name: getattr(self, name) for name in TABLES}
    tables |= {name: getattr(self, name).to_frame(name) for name in SERIES}
    write_into(adata, tables, {name: getattr(self, name) for name in SCALARS}, key_added)
    return adata


def _portable_tables(self) -> dict[str, pd.DataFrame]:
    """Every table by name, none of them a Series."""
    tables = {name: getattr(self, name) for name in TABLES}
    tables |= {name: getattr(self, name).to_frame(name) for name in SERIES}
    genes = portable(self.fractions.index)
    if genes is not self.fractions.index:
        tables = {name: table.set_axis(genes) for name, table in tables.items()}
    return tables
