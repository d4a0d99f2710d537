"""Tables of pyarrow and polars: names in a column of text, numbers in the others.

A column stays where it is; a block is a piece of some columns (genes in columns) or of all (genes
in rows). polars hands its columns over to Arrow as they are. Missing values are NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from .blocks import Rows, Source
from .names import DataError
from .origin import Origin
from .values import Culprit, describe

if TYPE_CHECKING:
    import pyarrow as pa


class ArrowSource:
    """Columns of numbers, each an array of Arrow; the genes are rows if `transposed`."""

    def __init__(self, table: pa.Table, transposed: bool) -> None:
        self.columns = table.columns
        self.transposed = transposed
        self.n_samples = table.num_columns if transposed else table.num_rows
        self.dtype = common_dtype(table.schema)

    def read(self, rows: Rows, start: int, stop: int) -> Float[np.ndarray, "n genes"]:
        """See `Source`."""
        if self.transposed:
            positions = np.arange(self.n_samples)[rows].tolist()
            block = np.empty((len(positions), stop - start), self.dtype)
            for values, position in zip(block, positions, strict=True):
                values[:] = numbers(self.columns[position].slice(start, stop - start))
            return block
        block = np.empty((stop - start, self.n_samples), self.dtype)
        for values, column in zip(block, self.columns[start:stop], strict=True):
            values[:] = numbers(column)
        return block[:, rows].T


class ArrowTable:
    """See `Container`. One column holds the names of the rows.

    It is the index that pandas left in the table, or else its first column of text.
    """

    metadata: pd.DataFrame | None = None
    origin: Origin | None = None
    genes_in: str | None = None

    def __init__(self, table: pa.Table) -> None:
        place = index_of_pandas(table.schema)
        if place is None:
            texts = text_columns(table.schema)
            if not texts:
                raise DataError(
                    "the expression has no column of text, and one must hold the names of its "
                    "rows; to go by position pass an array, samples x genes: expression.to_numpy()"
                )
            place = texts[0]
        self.index = names_of(table.column(place))
        self.table = table.remove_column(place)
        self.columns = pd.Index(self.table.column_names)
        self.shape = (self.table.num_rows, self.table.num_columns)

    def source(self, transposed: bool) -> Source:
        """See `Container`."""
        return ArrowSource(self.table, transposed)

    def find(self, transposed: bool, samples: Int[np.ndarray, " n"]) -> Culprit | None:
        """See `Container`."""
        return find_in_columns(self.table.schema, self.table.column, transposed, samples)

    def text(self) -> pd.DataFrame:
        """See `Container`."""
        texts = self.table.select(text_columns(self.table.schema))
        return texts.to_pandas(ignore_metadata=True)

    def without(self, gene: object, transposed: bool) -> str:
        """See `Container`."""
        return "leave it out"


def index_of_pandas(schema: pa.Schema) -> int | None:
    """The place of the column that pandas wrote its index to.

    Plain row numbers are described by a dict in place of a name.
    """
    index = ((schema.pandas_metadata or {}).get("index_columns") or [None])[0]
    return schema.names.index(index) if isinstance(index, str) and index in schema.names else None


def text_columns(schema: pa.Schema) -> list[int]:
    """The places of columns of text, as categories too."""
    import pyarrow as pa

    def is_text(type: pa.DataType) -> bool:
        if pa.types.is_dictionary(type):
            return is_text(type.value_type)
        types = pa.types
        return types.is_string(type) or types.is_large_string(type) or types.is_string_view(type)

    return [i for i, field in enumerate(schema) if is_text(field.type)]


def names_of(column: pa.ChunkedArray) -> pd.Index:
    """A column as names: text, whatever it was."""
    import pyarrow as pa

    return pd.Index(column.cast(pa.string()).to_pandas())


def is_number(type: pa.DataType) -> bool:
    """Whether a column of this type is one of measurements; one without any value is."""
    import pyarrow as pa

    if pa.types.is_dictionary(type):
        return False  # categories, even if they are numbers
    types = pa.types
    return (
        types.is_integer(type)
        or types.is_floating(type)
        or types.is_boolean(type)
        or types.is_decimal(type)
        or types.is_null(type)
    )


def numbers(column: pa.ChunkedArray) -> Float[np.ndarray, " rows"]:
    """A column of numbers: float64, or float32 if it is that; nulls are NaN."""
    import pyarrow as pa

    if column.type not in (pa.float64(), pa.float32()):
        column = column.cast(pa.float64(), safe=False)  # beyond 2^53 rounded, as NumPy does
    return column.to_numpy()


def common_dtype(schema: pa.Schema) -> np.dtype:
    """The one to which all columns go: float32 if they all are."""
    import pyarrow as pa

    single = len(schema) and all(field.type == pa.float32() for field in schema)
    return np.dtype(np.float32 if single else np.float64)


def find_in_columns(
    schema: pa.Schema,
    column: Callable[[int], pa.ChunkedArray],
    transposed: bool,
    samples: Int[np.ndarray, " n"],
) -> Culprit | None:
    """The first column that holds no numbers, and what it holds, among those that are read.

    Parameters
    ----------
    schema
        Of the columns but the names.
    column
        Gets one by its place.
    transposed, samples
        As of `Container.find`.
    """
    for position in samples.tolist() if transposed else range(len(schema)):
        if is_number(schema.field(position).type):
            continue
        values = column(position)
        if transposed:
            gene = int(np.argmax(values.is_valid().to_numpy())) if len(values) else 0
            value = values[gene].as_py() if len(values) else None
            return Culprit(gene, position, describe(value, None))
        valid = values.is_valid().to_numpy()[samples]
        sample = int(samples[np.argmax(valid)])
        return Culprit(position, sample, describe(values[sample].as_py(), None))
    return None
