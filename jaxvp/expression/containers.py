"""From what the caller has to an `Expression`: a table goes by names, an array by position."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Shaped

from .blocks import ArraySource, ColumnsSource, Expression, as_rows
from .metadata import check_metadata, type_name
from .names import DataError, check_common, check_names, samples_in_columns, warn_dropped
from .values import find_in_array, find_in_frame, warn_counts

# Containers that are not read yet, by the package they are from, and what to pass today.
NOT_YET = {
    "anndata": "adata.to_df() (samples are its rows), with adata.obs as metadata",
    "scipy": "expression.toarray()",
    "polars": "expression.to_pandas().set_index(...)",
    "pyarrow": "expression.to_pandas().set_index(...)",
    "dask": "expression.compute()",
    "xarray": "expression.to_pandas()",
    "zarr": "expression[:]",
    "h5py": "expression[:]",
}

# What reads a file that is no table, today.
READERS = {
    ".npy": "an array, numpy.load",
    ".h5ad": "adata.to_df() and adata.obs of adata = anndata.read_h5ad",
}


def align(expression: Any, metadata: Any) -> tuple[Expression, pd.DataFrame]:
    """Measurements and metadata of the samples that both have, in the metadata's order.

    Parameters
    ----------
    expression
        A DataFrame with sample names on one axis and gene names on the other, either way round,
        or a 2-d array, samples x genes, whose rows are those of the metadata.
    metadata
        A DataFrame: samples in rows; the index holds their names.

    Returns
    -------
    expression : Expression
        Refers to the measurements, which are not copied.
    metadata : DataFrame
        The same object if no sample was dropped.

    Raises
    ------
    DataError
        If names, shape or values cannot be used; the message names the culprit and the remedy.
    NotImplementedError
        For containers that are not read yet.

    Warns
    -----
    UserWarning
        If samples are dropped because only one side has them, and if the values look like raw
        counts; one warning each.
    """
    check_metadata(metadata)
    if isinstance(expression, pd.DataFrame):
        aligned, metadata = _align_frame(expression, metadata)
    else:
        aligned = _align_array(_as_array(expression), metadata)
    warn_counts(aligned)
    return aligned, metadata


def _align_frame(frame: pd.DataFrame, metadata: pd.DataFrame) -> tuple[Expression, pd.DataFrame]:
    transposed = samples_in_columns(frame, metadata)
    samples, genes = (frame.columns, frame.index) if transposed else (frame.index, frame.columns)
    check_names(metadata.index, "sample", "the metadata")
    check_names(samples, "sample", "the expression")
    check_names(genes, "gene", "the expression")

    common = metadata.index.isin(samples)
    check_common(samples, metadata.index, common)
    positions = samples.get_indexer(metadata.index[common])
    rows = as_rows(positions)
    values = _view(frame)
    if values is None:
        source = ColumnsSource(frame, transposed)
        culprit = find_in_frame(frame, transposed, positions)
    else:
        source = ArraySource(values.T if transposed else values)
        culprit = find_in_array(source.values, rows)
    if culprit is not None:
        (gene,) = genes[[culprit.gene]].tolist()  # as Python shows it: 5, not np.int64(5)
        (sample,) = samples[[culprit.sample]].tolist()
        side, axis = ("gene", "index") if transposed else ("column", "columns")
        raise DataError(
            f"expression must be numbers, and the {side} {gene!r} holds {culprit.what} in sample "
            f"{sample!r}. If it is no gene, expression.drop({axis}=[{gene!r}]); if it is one, "
            "make numbers of it, pd.to_numeric"
        )
    warn_dropped(samples, metadata.index, common, _unnamed_genes(frame, transposed, metadata.index))
    if not common.all():
        metadata = metadata.loc[common]
    return Expression(source, metadata.index, genes, rows), metadata


def _unnamed_genes(frame: pd.DataFrame, transposed: bool, samples: pd.Index) -> str:
    """A hint, where a column that is dropped is likely to hold the names of the genes."""
    if not transposed or not isinstance(frame.index, pd.RangeIndex):
        return ""
    text = frame.loc[:, ~frame.columns.isin(samples)].select_dtypes(exclude="number").columns
    if not len(text):
        return ""
    return f". If {text[0]!r} holds the names of the genes, expression.set_index({text[0]!r})"


def _view(frame: pd.DataFrame) -> Shaped[np.ndarray, "rows columns"] | None:
    """The array in which a table keeps its values, if it is one array; None if it is several."""
    if not frame.size:
        return np.empty(frame.shape)
    if frame.dtypes.nunique() > 1 or not isinstance(frame.dtypes.iloc[0], np.dtype):
        return None
    # to_numpy() would copy several arrays into one. On one row that costs nothing, and shows it.
    row, column = frame.iloc[:1].to_numpy(), frame.iloc[:, 0].to_numpy()
    return frame.to_numpy() if np.may_share_memory(row, column) else None


def _as_array(expression: Any) -> Shaped[np.ndarray, "*shape"]:
    package = type_name(expression).split(".")[0]
    if isinstance(expression, str | os.PathLike):
        path = os.fsdecode(expression)
        reader = READERS.get(Path(path).suffix, "a DataFrame, jaxvp.expression.read_table")
        raise NotImplementedError(f"files are not read by fit yet: pass {reader}({path!r})")
    if isinstance(expression, pd.Series):
        raise DataError("a Series has one axis: pass a table of it, expression.to_frame()")
    if isinstance(expression, np.ma.MaskedArray):
        raise DataError("masked arrays are not read: pass expression.filled(numpy.nan)")
    if package in NOT_YET:
        raise NotImplementedError(
            f"{type_name(expression)} is not read yet: pass {NOT_YET[package]}"
        )
    try:
        values = np.asarray(expression)
        if values.ndim == 0:  # NumPy wraps what it does not know
            raise TypeError("it has no axes")
        return values
    except Exception as error:  # whatever a foreign __array__ raises
        raise DataError(
            f"expression must be a DataFrame or a 2-d array, samples x genes; "
            f"{type_name(expression)} makes none: {error}"
        ) from error


def _align_array(values: Shaped[np.ndarray, "*shape"], metadata: pd.DataFrame) -> Expression:
    n = len(metadata)
    if values.ndim != 2:
        remedy = "; one gene is expression[:, None]" if values.ndim == 1 else ""
        raise DataError(
            f"expression must have two axes, samples x genes, and has shape {values.shape}{remedy}"
        )
    if len(values) != n:
        fits = "pass the rows of the metadata's samples, or a DataFrame, which goes by name"
        if values.shape[1] == n:
            fits = "its other axis fits: pass expression.T"
        raise DataError(
            f"an array goes by position, samples x genes, and this one of shape {values.shape} "
            f"has {len(values):,} rows for the {n:,} samples of the metadata: {fits}"
        )
    check_names(metadata.index, "sample", "the metadata")
    culprit = find_in_array(values, slice(None))
    if culprit is not None:
        raise DataError(
            f"expression must be numbers, and the array ({values.dtype}) holds {culprit.what} in "
            f"row {culprit.sample}, column {culprit.gene}: leave such columns out, or convert them"
        )
    return Expression(ArraySource(values), metadata.index, pd.RangeIndex(values.shape[1]))
