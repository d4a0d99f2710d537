"""Tables from files: CSV, TSV and Parquet, compressed or not, read by pyarrow on all cores.

The first column holds the names of the rows unless told otherwise, and they stay text (``007``): so
are the names in a header, and the two must match. R's `write.table` gives its header no field
for the row names; such a file is read as it is meant.

Columns stay apart in memory, as they come, where rows are many: putting them into one array would
cost a second copy of the measurements, which blocks of genes do not need. Thousands of columns
become one array: apart, each would cost pandas more than what it holds.
"""

from __future__ import annotations

import csv
import difflib
import io
import itertools
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from .arrow import index_of_pandas
from .names import DataError
from .reading import Unchanged
from .signature import DAMAGED, TEXT, looks_like, remedy

if TYPE_CHECKING:
    import pyarrow as pa

SEPARATORS = {".csv": ",", ".tsv": "\t", ".tab": "\t", ".txt": "\t"}
PARQUET = (".parquet", ".pq")
COMPRESSION = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}
UNNAMED_INDEX = "__index_level_0__"  # pandas' name for it in Parquet files


def read_table(path: str | os.PathLike[str], *, names_column: str | None = None) -> pd.DataFrame:
    """Read a table whose rows have names.

    Parameters
    ----------
    path
        A file named ``.csv``, ``.tsv`` (also ``.tab``, ``.txt``) or ``.parquet`` (``.pq``), with
        ``.gz``, ``.bz2`` or ``.zst`` behind it if it is compressed. Text is UTF-8; empty cells,
        ``NA`` and ``NaN`` are missing.
    names_column
        The column that holds the names of the rows. None: the first; or, in a Parquet file written
        by pandas with an index, that index.

    Returns
    -------
    DataFrame
        The names are its index, as text.

    Raises
    ------
    DataError
        If the file is missing, empty, broken, of another format, or has no such column; the
        message names the file.
    """
    import pyarrow as pa

    path = Path(path)
    kind, compression = _kind(path)
    if not path.is_file():
        raise DataError(f"{path}: {'a folder' if path.is_dir() else 'there is no such file'}")
    unchanged = Unchanged(path)  # it is read in several passes
    try:
        if kind in PARQUET:
            table, names = _read_parquet(path, compression, names_column)
        else:
            table, names = _read_text(path, SEPARATORS[kind], compression, names_column)
        index = table.column(names).cast(pa.string()).to_pandas()
    except (pa.ArrowException, OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:300]
        todo = remedy(path)
        if "utf" in reason.lower() and todo == DAMAGED:
            todo = "text must be UTF-8: save it as that"
        raise DataError(f"{path} cannot be read: {reason}; {todo}") from error
    unchanged.check()
    label = table.column_names[names]
    # Freed as it is converted, so that there are not two copies at the end.
    frame = table.remove_column(names).to_pandas(
        split_blocks=table.num_columns <= table.num_rows, self_destruct=True, ignore_metadata=True
    )
    frame.index = pd.Index(index, name=None if label in ("", UNNAMED_INDEX) else label)
    return frame


def _kind(path: Path) -> tuple[str, str | None]:
    """The suffix that names the format, and the compression."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    compression = COMPRESSION.get(suffixes[-1]) if suffixes else None
    kind = suffixes[-2:-1] if compression else suffixes[-1:]
    if not kind or kind[0] not in (*SEPARATORS, *PARQUET):
        known = ", ".join((*SEPARATORS, *PARQUET))
        raise DataError(
            f"{path}: the format is told by the file's name, which must end in one of {known}, "
            f"and may end in {', '.join(COMPRESSION)} behind it"
        )
    return kind[0], compression


def place_of(path: Path, columns: list[str], names_column: str | None, default: int = 0) -> int:
    """Which column holds the names."""
    if not columns:
        raise DataError(f"{path} has no columns")
    if names_column is None:
        return default
    if names_column not in columns:
        close = difflib.get_close_matches(names_column, columns, n=3)
        maybe = f" (did you mean {' or '.join(map(repr, close))}?)" if close else ""
        shown = ", ".join(columns[:8]) + (", ..." if len(columns) > 8 else "")
        raise DataError(f"{path} has no column {names_column!r}{maybe}. Its columns are: {shown}")
    return columns.index(names_column)


def _read_parquet(
    path: Path, compression: str | None, names_column: str | None
) -> tuple[pa.Table, int]:
    """A table, and the place of the column that holds the names."""
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    if compression is None:
        table = ParquetFile(path, pre_buffer=True).read()
    else:
        with pa.input_stream(str(path), compression=compression) as stream:
            table = ParquetFile(pa.BufferReader(stream.read())).read()
    return table, place_of(
        path, table.column_names, names_column, index_of_pandas(table.schema) or 0
    )


def _read_text(
    path: Path, separator: str, compression: str | None, names_column: str | None
) -> tuple[pa.Table, int]:
    """A table, and the place of the column that holds the names."""
    import pyarrow as pa
    from pyarrow import csv as arrow

    def lines() -> pa.NativeFile:
        return pa.input_stream(str(path), compression=compression)

    with lines() as stream:
        text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
        above, head = next(((i, line) for i, line in enumerate(text) if line.strip()), (0, ""))
        kind, _ = looks_like(head.encode()[:200]) or ("", ())
        if "\0" in head or kind not in ("", TEXT):
            reason = "it is no table" if kind else "it has zero bytes, and text must be UTF-8"
            raise DataError(f"{path} cannot be read: {reason}; {remedy(path)}")
        _check_separator(path, head, separator)
        reader = csv.reader(itertools.chain([head], text), delimiter=separator)
        columns = next(reader, [])
        above += reader.line_num
        first = next((row for row in reader if row), [])
    if not columns:
        raise DataError(f"{path} is empty")
    if len(first) == len(columns) + 1:
        columns = ["", *columns]  # R: the row names have no field in the header
    names = place_of(path, columns, names_column)
    if not first:
        types = [pa.string() if i == names else pa.float64() for i in range(len(columns))]
        return pa.table([pa.array([], type) for type in types], names=columns), names
    width = sum(map(len, first)) + len(first)

    def read(text: list[str]) -> pa.Table:
        return arrow.read_csv(
            lines() if compression else str(path),
            read_options=arrow.ReadOptions(
                column_names=columns,
                skip_rows=above,
                # Blocks of many rows, and no thread for every column of thousands: tasks cost, too.
                block_size=min(max(4 << 20, 500 * width), max(64 << 20, 4 * width)),
                use_threads=len(columns) < 5000,
            ),
            parse_options=arrow.ParseOptions(delimiter=separator),
            convert_options=arrow.ConvertOptions(
                column_types=dict.fromkeys(text, pa.string()), strings_can_be_null=True
            ),
        )

    table = read([columns[names]])
    for field in table.schema:
        if pa.types.is_binary(field.type):
            raise DataError(f"{path} cannot be read: text must be UTF-8; see column {field.name!r}")
    times = [field.name for field in table.schema if pa.types.is_temporal(field.type)]
    # Dates are names of batches here: as they were written, not as 00:00 of that day.
    return (read([columns[names], *times]) if times else table), names


def _check_separator(path: Path, head: str, separator: str) -> None:
    """Refuse a header that would be one field, as long as the line."""
    if separator in head:
        return
    other = max(",;\t|", key=head.count)
    if other in head:
        raise DataError(
            f"{path}: fields are separated by {other!r}, and a file of this name has {separator!r} "
            "between them: .csv is for commas, .tsv for tabs"
        )
