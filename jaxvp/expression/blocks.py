"""Samples x genes, one block of genes at a time.

A source knows how its container lies in memory and reads the genes ``start:stop`` of some samples;
`Expression` adds the names and the samples that are wanted. Where the samples are a plain range and
the container is an array, a block is a view; otherwise that block alone is gathered or converted.
float64 and float32 stay what they are, all other numbers become float64.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd
from jaxtyping import Float, Int, Shaped

from jaxvp.memory import by_genes

from .origin import Origin

Rows = slice | Int[np.ndarray, " n"]
# One of pandas' own types is kept as it is: an ExtensionArray.
Column = Shaped[np.ndarray, " n"] | Any
FLOATS = (np.dtype(np.float64), np.dtype(np.float32))


@runtime_checkable  # so that checked annotations can name it
class Source(Protocol):
    """Measurements of all samples and genes of a container, by position."""

    n_samples: int

    def read(self, rows: Rows, start: int, stop: int) -> Float[np.ndarray, "n genes"]:
        """Some samples of the genes ``start:stop``, float64 or float32, any strides."""
        ...


class ArraySource:
    """An array, samples x genes, of any strides."""

    def __init__(self, values: Shaped[np.ndarray, "samples genes"]) -> None:
        self.values = values
        self.n_samples = len(values)

    def read(self, rows: Rows, start: int, stop: int) -> Float[np.ndarray, "n genes"]:
        """See `Source`."""
        part = self.values[:, start:stop]
        if isinstance(rows, slice):
            return to_float(part[rows])
        if by_genes(part):  # gather along a gene
            return to_float(part.T.take(rows, axis=1).T)
        return to_float(part[rows])


class ColumnsSource:
    """A table whose columns are apart in memory or of several types, converted block by block.

    Parameters
    ----------
    frame
        The table. Every column that is read holds numbers.
    transposed
        True if its columns are the samples.
    """

    def __init__(self, frame: pd.DataFrame, transposed: bool) -> None:
        self.frame, self.transposed = frame, transposed
        self.n_samples = frame.shape[1] if transposed else frame.shape[0]
        # A block of genes is a piece of every sample's column. To let pandas take the same rows of
        # thousands of columns is twenty times as slow as to slice them one by one.
        self.samples = [_values(frame.iloc[:, i]) for i in range(frame.shape[1] * transposed)]
        dtypes = frame.dtypes.unique()
        self.dtype = np.float32 if all(dtype == np.float32 for dtype in dtypes) else np.float64
        self.plain = all(isinstance(dtype, np.dtype) and dtype.kind != "O" for dtype in dtypes)

    def read(self, rows: Rows, start: int, stop: int) -> Float[np.ndarray, "n genes"]:
        """See `Source`."""
        if self.transposed:
            positions = np.arange(self.n_samples)[rows].tolist()
            block = np.empty((len(positions), stop - start), self.dtype)
            for values, position in zip(block, positions, strict=True):
                values[:] = _numbers(self.samples[position][start:stop])
            return block
        part = self.frame.iloc[:, start:stop]
        if self.plain:
            return part.to_numpy(dtype=self.dtype)[rows]
        columns = [_numbers(_values(part.iloc[:, i])) for i in range(stop - start)]
        return np.array(columns, self.dtype).reshape(stop - start, self.n_samples)[:, rows].T


class Reordered:
    """A source whose genes are wanted in another order, or some of them."""

    def __init__(self, source: Source, genes: Int[np.ndarray, " genes"]) -> None:
        self.source, self.genes = source, genes
        self.n_samples = source.n_samples

    def read(self, rows: Rows, start: int, stop: int) -> Float[np.ndarray, "n genes"]:
        """See `Source`: runs of neighbours are read together."""
        wanted = self.genes[start:stop]
        runs = np.split(wanted, np.flatnonzero(np.diff(wanted) != 1) + 1)
        parts = [self.source.read(rows, int(r[0]), int(r[-1]) + 1) for r in runs if len(r)]
        if not parts:
            return np.zeros((len(np.arange(self.n_samples)[rows]), 0))
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


def _values(column: pd.Series) -> Column:
    """A column as it lies in memory."""
    return column.to_numpy() if isinstance(column.dtype, np.dtype) else column.array


def _numbers(column: Column) -> Float[np.ndarray, " n"]:
    if isinstance(column, np.ndarray):
        return to_float(column)
    return column.to_numpy(dtype=np.float64, na_value=np.nan)


def floating(dtype: np.dtype) -> np.dtype:
    """float64 and float32 as they are, for all else float64."""
    return dtype if dtype in FLOATS else np.dtype(np.float64)


def to_float(values: Shaped[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """float64 and float32 as they are, all else as float64; None and NA are NaN."""
    if values.dtype in FLOATS:
        return values
    if values.dtype == object:
        values = np.where(pd.isna(values), np.nan, values)
    return values.astype(np.float64)


def as_rows(positions: Int[np.ndarray, " n"]) -> Rows:
    """A slice where the positions are a range, so that reading them makes a view."""
    if len(positions) and (np.diff(positions) == 1).all():
        return slice(int(positions[0]), int(positions[-1]) + 1)
    return positions


class Expression:
    """Measurements, samples x genes, with their names.

    Attributes
    ----------
    sample_names, gene_names : Index
        An array without names has a RangeIndex of genes.
    n_samples, n_genes : int
    origin : Origin or None
        The file that is read.
    source, rows, transposed
        What serves the blocks: a source, the rows of it that are wanted, and whether its container
        has samples in columns.
    """

    def __init__(
        self,
        source: Source,
        sample_names: pd.Index,
        gene_names: pd.Index,
        rows: Rows = slice(None),
        origin: Origin | None = None,
        transposed: bool = False,
    ) -> None:
        self.source, self.rows = source, rows
        self.origin, self.transposed = origin, transposed
        self.sample_names, self.gene_names = sample_names, gene_names

    @property
    def n_samples(self) -> int:
        """Number of samples."""
        return len(self.sample_names)

    @property
    def n_genes(self) -> int:
        """Number of genes."""
        return len(self.gene_names)

    @property
    def n_source_samples(self) -> int:
        """Number of samples of the container, those that are not wanted too."""
        return self.source.n_samples

    def __repr__(self) -> str:
        return f"Expression: {self.n_samples:,} samples x {self.n_genes:,} genes"

    def take(self, rows: Int[np.ndarray, " n"]) -> Expression:
        """Some of the samples, in this order; nothing is copied.

        Parameters
        ----------
        rows
            Their positions among the samples of this object.
        """
        positions = np.arange(self.source.n_samples)[self.rows][rows]
        return Expression(
            self.source,
            self.sample_names[rows],
            self.gene_names,
            as_rows(positions),
            self.origin,
            self.transposed,
        )

    def reordered(
        self, genes: Int[np.ndarray, " genes"], names: pd.Index | None = None
    ) -> Expression:
        """Some of the genes, in this order; nothing is copied.

        Parameters
        ----------
        genes
            Their positions. One that is negative stands for any: what is read there is of no use.
        names
            Of these genes. None: as they are called here.
        """
        order = np.maximum(genes, 0)
        there = pd.Index(self.gene_names[order]) if names is None else names
        source = self.source
        if not np.array_equal(order, np.arange(self.n_genes)):
            source = Reordered(source, order)
        return Expression(source, self.sample_names, there, self.rows, self.origin, self.transposed)

    def block(self, start: int, stop: int) -> Float[np.ndarray, "n genes"]:
        """The genes ``start:stop``, or those of them that there are: samples x genes.

        float64 or float32, any strides. It may be a view of the caller's data and is not to be
        written to. Threads may call this at the same time.

        Raises
        ------
        DataError
            If a file that is read block by block is no longer the one that was opened.
        """
        block = self.source.read(self.rows, start, min(stop, self.n_genes))
        if self.origin is not None:
            self.origin.check_block()
        return block
