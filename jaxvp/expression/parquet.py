"""Parquet files, read piece by piece: some columns, or some groups of rows.

With genes in columns a block is a few columns, which the file keeps apart. With genes in rows
it is a few rows, which lie in a row group: a group is decoded as a whole, for the wanted samples.
A file with genes in rows that is one large row group (what pandas writes by default) is turned once
on the disk (`spool`). Only the names are read before blocks are asked for.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from .arrow import (
    common_dtype,
    find_in_columns,
    index_of_pandas,
    names_of,
    numbers,
    text_columns,
)
from .blocks import Rows, Source
from .files import place_of
from .origin import Origin
from .panels import LARGEST_PANEL, PanelSource, even_edges, joined_edges
from .reading import Unchanged, reading
from .spool import spooled
from .values import Culprit

if TYPE_CHECKING:
    import pyarrow as pa


class ParquetTable:
    """See `Container`.

    Parameters
    ----------
    path
        The file, not compressed as a whole.
    names_column
        The column of the names of the rows. None: the index that pandas left, or the first.
    genes_in
        See `Container`.
    """

    metadata: pd.DataFrame | None = None
    origin: Origin | None = None

    def __init__(
        self, path: Path, names_column: str | None = None, genes_in: str | None = None
    ) -> None:
        from pyarrow.parquet import ParquetFile

        self.path, self.genes_in = path, genes_in
        with reading(path):
            self.unchanged = Unchanged(path)
            self.file = ParquetFile(path)
            schema = self.file.schema_arrow
        default = index_of_pandas(schema) or 0
        place = place_of(path, schema.names, names_column, default)
        self.lock = threading.Lock()
        self.schema = schema.remove(place)
        self.names = self.schema.names  # a list, made anew each time that it is asked for
        self.columns = pd.Index(self.names)
        with reading(path):
            self.index = names_of(self._read([schema.names[place]]).column(0))
        self.shape = (len(self.index), len(self.columns))
        self.dtype = common_dtype(self.schema)

    def _read(self, names: list[str], groups: list[int] | None = None) -> pa.Table:
        """Columns by their names, of all row groups or of some."""
        with self.lock, reading(self.path):
            self.unchanged.check()
            if groups is None:
                table = self.file.read(columns=names)
            else:
                table = self.file.read_row_groups(groups, columns=names)
            return table.select(names)  # "a" is also read as the parent of "a.b"

    def _columns(
        self, positions: list[int], groups: list[int] | None = None
    ) -> Float[np.ndarray, "columns rows"]:
        table = self._read([self.names[i] for i in positions], groups)
        values = np.empty((table.num_columns, table.num_rows), self.dtype)
        with reading(self.path):
            for line, column in zip(values, table.columns, strict=True):
                line[:] = numbers(column)
        return values

    def source(self, transposed: bool) -> Source:
        """See `Container`."""
        if not transposed:
            n, genes = self.shape

            def load(rows: Rows, start: int, stop: int) -> Float[np.ndarray, "n genes"]:
                return self._columns(list(range(start, stop))).T

            return PanelSource(load, even_edges(genes, n * self.dtype.itemsize), n)
        genes, n = self.shape
        groups = self.file.metadata
        sizes = [groups.row_group(i).num_rows for i in range(groups.num_row_groups)]
        width = n * self.dtype.itemsize
        if max(sizes, default=0) * width > LARGEST_PANEL:
            return spooled(
                lambda start, stop: self._columns(list(range(start, stop))),
                n,
                genes,
                self.dtype,
                str(self.path),
            )
        begins = np.cumsum([0, *sizes])

        def load_groups(rows: Rows, start: int, stop: int) -> Float[np.ndarray, "n genes"]:
            first, last = np.searchsorted(begins, [start, stop])
            positions = np.arange(n)[rows].tolist()
            return self._columns(positions, list(range(first, last)))

        return PanelSource(load_groups, joined_edges(sizes, width), n, by_rows=True)

    def find(self, transposed: bool, samples: Int[np.ndarray, " n"]) -> Culprit | None:
        """See `Container`."""
        return find_in_columns(
            self.schema, lambda i: self._read([self.names[i]]).column(0), transposed, samples
        )

    def text(self) -> pd.DataFrame:
        """See `Container`."""
        names = [self.names[i] for i in text_columns(self.schema)]
        return self._read(names).to_pandas(ignore_metadata=True)

    def without(self, gene: object, transposed: bool) -> str:
        """See `Container`."""
        return "leave it out"
