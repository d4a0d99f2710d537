"""Tables in files: whole or not at all, and readable by anything that reads Parquet or CSV.

A file is written beside its place under another name and moved there when it is whole, so that an
interrupted run leaves what was there before. Parquet keeps every bit of a number (NaN is a null
there); CSV holds the shortest text that reads back as the same number, and NaN as an empty field.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd

from jaxvp.expression import DataError
from jaxvp.warning import warn

FORMATS = ("parquet", "csv")


@contextmanager
def atomic(path: Path, durable: bool = False) -> Iterator[Path]:
    """A file beside `path` that takes its place when all went well, and else is removed.

    With `durable` it is on the disk before: a power cut leaves the old file or the new one.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        yield temporary
        if durable:
            to_disk(temporary)
        os.replace(temporary, path)
        if durable:
            to_disk(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def to_disk(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that cannot
            raise
    finally:
        os.close(handle)


def write_folder(folder: Path, tables: Mapping[str, pd.DataFrame], format: str) -> None:
    """One file a table; the first takes its place when the last is written.

    Parameters
    ----------
    folder
        Made where it is not there.
    tables
        By the name that the file gets. The rows are genes: an index without a name becomes the
        column ``gene``.
    format
        ``"parquet"`` or ``"csv"``.
    """
    if format not in FORMATS:
        raise DataError(f"format={format!r}: use one of {', '.join(map(repr, FORMATS))}")
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        for name, table in tables.items():
            temporary = stack.enter_context(atomic(folder / f"{name}.{format}"))
            write_table(_with_named_index(table), temporary, format, keep_range=False)


def write_table(
    table: pd.DataFrame, where: Path | BytesIO, format: str, *, keep_range: bool
) -> None:
    """Write one table.

    Parameters
    ----------
    table
        Its index must be portable: see `portable`.
    where
        File or path.
    format
        ``"parquet"`` or ``"csv"``.
    keep_range
        True stores a RangeIndex as its three numbers, False as a column that any reader sees.
    """
    import pyarrow as pa

    arrow: Any = pa.Table.from_pandas(table, preserve_index=None if keep_range else True)
    if format == "csv":
        import pyarrow.csv

        # Names first, as people read tables; Arrow has them last.
        names = arrow.column_names
        count = table.index.nlevels
        pyarrow.csv.write_csv(arrow.select([*names[-count:], *names[:-count]]), where)
    else:
        import pyarrow.parquet

        pyarrow.parquet.write_table(arrow, where)


def portable(index: pd.Index) -> pd.Index:
    """An index that a file can hold: names of mixed types become text, with a warning.

    A fit that took an hour is not to be lost for a gene that is called 1 beside one called "A".
    """
    if index.inferred_type not in ("mixed", "mixed-integer"):
        return index
    warn(f"gene names of several types (first: {index[0]!r}) are written as text")
    return pd.Index([str(name) for name in index], name=index.name)


def _with_named_index(table: pd.DataFrame) -> pd.DataFrame:
    """The index has a name, and none that a column has."""
    name = table.index.name
    if name is None or name in table.columns:
        name = "gene" if "gene" not in table.columns else "gene name"
    return table.rename_axis(index=str(name))
