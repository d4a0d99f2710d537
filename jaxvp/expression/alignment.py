"""From what the caller has to an `Expression`: a container with names goes by them.

One without goes by position.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Int

from . import annotated, labelled
from .absent import check_measurements
from .arrays import Matrix, readable, roots
from .arrow import ArrowTable
from .blocks import Expression, as_rows
from .container import Container
from .frames import Frame
from .metadata import find_metadata, type_name
from .names import (
    Axes,
    DataError,
    among,
    check_common,
    check_names,
    places_of,
    samples_in_columns,
    warn_dropped,
)
from .opening import open_file
from .parquet import ParquetTable
from .values import warn_counts


def align(expression: Any, metadata: Any = None) -> tuple[Expression, pd.DataFrame]:
    """Measurements and metadata of the samples that both have, in the metadata's order.

    Parameters
    ----------
    expression
        A table with sample names on one axis and gene names on the other, either way round; an
        AnnData; an array or sparse matrix, samples x genes, whose rows are those of the metadata;
        or the path of one of them. `open_container` lists them.
    metadata
        A DataFrame: samples in rows; the index holds their names. Or the path of a table. None:
        the one that the expression brings, the `obs` of AnnData.

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

    Warns
    -----
    UserWarning
        If samples are dropped because only one side has them, and if the values look like raw
        counts; one warning each.
    """
    container = open_container(expression)
    metadata = find_metadata(metadata, container.metadata)
    if container.index is None or container.columns is None:
        aligned = _by_position(container, metadata)
    else:
        axes = Axes(container.index, container.columns, container.text)
        aligned, metadata = _by_name(container, axes, metadata)
    warn_counts(aligned)
    return aligned, metadata


def open_container(expression: Any) -> Container:
    """What `align` reads, of anything that it can read.

    Parameters
    ----------
    expression
        A DataFrame of pandas or polars, a Table of pyarrow, an AnnData, a DataArray of xarray; an
        array of NumPy (also memory-mapped), dask, h5py or zarr; a sparse matrix of SciPy; whatever
        makes an array of itself; the path of a file; or what `open_file` returned.

    Raises
    ------
    DataError
        If it is something else.

    Warns
    -----
    UserWarning
        If a store of zarr lacks chunks.
    """
    container = _container(expression)
    if isinstance(container, Matrix):
        check_measurements(getattr(container.values, "parts", {}))
    return container


def _container(expression: Any) -> Container:
    if isinstance(expression, Frame | Matrix | ArrowTable | ParquetTable):
        return expression
    if isinstance(expression, str | os.PathLike):
        return open_file(expression)
    if isinstance(expression, pd.DataFrame):
        return Frame(expression)
    if isinstance(expression, pd.Series):
        raise DataError("a Series has one axis: pass a table of it, expression.to_frame()")
    if isinstance(expression, np.ma.MaskedArray):
        raise DataError("masked arrays are not read: pass expression.filled(numpy.nan)")
    if annotated.is_annotated(expression):
        return annotated.from_object(expression)
    packages = roots(expression)
    if "xarray" in packages:
        return labelled.from_data_array(expression)
    if packages & {"polars", "pyarrow"}:
        return _arrow(expression)
    values = readable(expression)
    return Matrix(_array(expression) if values is None else values)


def _arrow(expression: Any) -> ArrowTable:
    import pyarrow as pa

    table = expression.to_arrow() if hasattr(expression, "to_arrow") else expression  # polars
    if isinstance(table, pa.RecordBatch):
        table = pa.Table.from_batches([table])
    if isinstance(table, pa.Table):
        return ArrowTable(table)
    remedy = "its .collect()" if hasattr(expression, "collect") else "a table"
    raise DataError(f"{type_name(expression)} is not read: pass {remedy}")


def _array(expression: Any) -> np.ndarray:
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


def _by_name(
    container: Container, axes: Axes, metadata: pd.DataFrame
) -> tuple[Expression, pd.DataFrame]:
    transposed = samples_in_columns(axes, metadata, container.genes_in)
    samples, genes = (axes.columns, axes.index) if transposed else (axes.index, axes.columns)
    check_names(metadata.index, "sample", "the metadata")
    check_names(samples, "sample", "the expression")
    check_names(genes, "gene", "the expression")

    common = among(metadata.index, samples)
    check_common(samples, metadata.index, common)
    positions = places_of(samples, metadata.index[common])
    check_values(container, transposed, positions, samples, genes)
    hint = _unnamed_genes(axes, metadata.index) if transposed else ""
    warn_dropped(samples, metadata.index, common, hint)
    if not common.all():
        metadata = metadata.loc[common]
    source = container.source(transposed)
    aligned = Expression(
        source, metadata.index, genes, as_rows(positions), container.origin, transposed
    )
    return aligned, metadata


def check_values(
    container: Container,
    transposed: bool,
    positions: Int[np.ndarray, " n"],
    samples: pd.Index,
    genes: pd.Index,
) -> None:
    """Check that the measurements of some samples are numbers; `transposed`: genes are its rows.

    Raises
    ------
    DataError
        Naming the first gene and sample that are not.
    """
    culprit = container.find(transposed, positions)
    if culprit is None:
        return
    (gene,) = genes[[culprit.gene]].tolist()  # as Python shows it: 5, not np.int64(5)
    (sample,) = samples[[culprit.sample]].tolist()
    raise DataError(
        f"expression must be numbers, and the {'gene' if transposed else 'column'} {gene!r} "
        f"holds {culprit.what} in sample {sample!r}. If it is no gene, "
        f"{container.without(gene, transposed)}; if it is one, make numbers of it, "
        "pd.to_numeric"
    )


def _unnamed_genes(axes: Axes, samples: pd.Index) -> str:
    """A hint, where a column that is dropped is likely to hold the names of the genes."""
    if not isinstance(axes.index, pd.RangeIndex):
        return ""
    text = axes.text()
    names = text.columns[~among(text.columns, samples)]
    if not len(names):
        return ""
    return f". If {names[0]!r} holds the names of the genes, expression.set_index({names[0]!r})"


def _by_position(container: Container, metadata: pd.DataFrame) -> Expression:
    transposed = container.genes_in == "rows"
    rows, genes = container.shape[::-1] if transposed else container.shape
    n = len(metadata)
    if rows != n:
        fits = "pass the rows of the metadata's samples, or a DataFrame, which goes by name"
        if genes == n:
            fits = "its other axis fits: pass expression.T"
        raise DataError(
            f"an array goes by position, samples x genes, and this one of shape {(rows, genes)} "
            f"has {rows:,} rows for the {n:,} samples of the metadata: {fits}"
        )
    check_names(metadata.index, "sample", "the metadata")
    culprit = container.find(transposed, np.arange(n))
    if culprit is not None:
        raise DataError(
            f"expression must be numbers, and the array holds {culprit.what} in row "
            f"{culprit.sample}, column {culprit.gene}: leave such columns out, or convert them"
        )
    source = container.source(transposed)
    names = pd.RangeIndex(genes)
    return Expression(source, metadata.index, names, origin=container.origin, transposed=transposed)
