"""A result in an AnnData: what belongs to a gene beside the genes, the rest beside the data.

    adata.varm[key]                     genes x components: the fractions
    adata.uns[key]["formula"], ...      formula, reml, weighted, block_size, versions
    adata.uns[key]["variances"], ...    every other table, rows in the order of adata.var

Genes are matched by name (by position where the measurements had none); those that were not fitted
have NaN. Text is kept in the plain form that every version of anndata writes to a file, and ``/``
in the name of a column, which HDF5 takes for a path, is written ``÷``; `fractions_in` turns it
back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from jaxvp.expression import DataError

from .lookup import maybe


def write_into(
    adata: Any, tables: Mapping[str, pd.DataFrame], scalars: Mapping[str, Any], key: str
) -> None:
    """Write tables with one row a gene, and what is no table, into an AnnData.

    Parameters
    ----------
    adata
        Its `var_names` are the genes.
    tables
        By name; `fractions` is one of them.
    scalars
        Text, numbers and dictionaries of them.
    key
        Of `varm` and `uns`; what is there is replaced.

    Raises
    ------
    DataError
        If no gene is in the AnnData, or not all by position.
    """
    if not hasattr(adata, "varm") or not hasattr(adata, "uns"):
        raise DataError(f"a result is written into an AnnData, not into {type(adata).__name__}")
    check_key(key)
    names = adata.var_names
    places = _places(tables["fractions"].index, names)
    plain = {name: _plain(table, places, names) for name, table in tables.items()}
    fractions = plain.pop("fractions")
    adata.uns[key] = {**scalars, **plain}
    adata.varm[key] = fractions


def check_key(key: Any) -> None:
    """Check a name to write under.

    Raises
    ------
    DataError
        If it is no text, empty, or a path of HDF5.
    """
    if not isinstance(key, str) or not key or "/" in key:
        raise DataError(f"key_added={key!r}: use a name without '/'")


def fractions_in(adata: Any, key: Any) -> pd.DataFrame:
    """The fractions that `write_into` wrote, with the names of the components as the fit had them.

    Raises
    ------
    DataError
        If there are none under this key, with close matches.
    """
    if key not in adata.varm:
        tables = pd.Index([name for name, x in adata.varm.items() if isinstance(x, pd.DataFrame)])
        raise DataError(
            f"adata.varm has no {key!r}{maybe(str(key), tables)}; "
            "jaxvp.tl.variance_partition(adata, formula, key_added=...) writes it"
        )
    table = adata.varm[key]
    if not isinstance(table, pd.DataFrame):
        raise DataError(
            f"adata.varm[{key!r}] is {type(table).__name__}, not a table of fractions of jaxvp"
        )
    return table.set_axis([str(name).replace("÷", "/") for name in table.columns], axis="columns")


def _places(genes: pd.Index, names: pd.Index) -> np.ndarray:
    """For every gene of the AnnData its row in the tables, -1 where it has none."""
    if isinstance(genes, pd.RangeIndex):
        if len(genes) != len(names):
            raise DataError(
                f"the genes of the result have no names, and there are {len(genes):,} of them, not "
                f"the {len(names):,} of the AnnData"
            )
        return np.arange(len(genes))
    if not names.is_unique:
        raise DataError("gene names of the AnnData must be unique: adata.var_names_make_unique()")
    places = pd.Index(genes.astype(str)).get_indexer(names.astype(str))
    if len(names) and (places < 0).all():
        ours = f"{genes[0]!r}, ..." if len(genes) else "it has none"
        raise DataError(f"no gene of the result ({ours}) is one of the AnnData ({names[0]!r}, ...)")
    return places


def _plain(table: pd.DataFrame, places: np.ndarray, names: pd.Index) -> pd.DataFrame:
    """The table with the rows of the AnnData, in types that anndata writes."""
    columns = [_taken(column.to_numpy(), places) for _, column in table.items()]
    series = {i: pd.Series(values, dtype=values.dtype) for i, values in enumerate(columns)}
    plain = pd.DataFrame(series, index=range(len(places)))
    labels = [str(name).replace("/", "÷") for name in table.columns]
    return plain.set_axis(names, axis=0).set_axis(pd.Index(labels, dtype=object), axis=1)


def _taken(values: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Values at these places; where there is none NaN, zero, False or ``not fitted``."""
    if values.dtype.kind not in "fiub":
        values = values.astype(object)
    absent: Any = {"f": np.nan, "O": "not fitted"}.get(values.dtype.kind, 0)
    return np.append(values, np.array([absent], values.dtype))[places]
