"""Finished blocks: in memory, and on the disk as Parquet files that any reader reads.

A part holds the blocks that were finished since the one before it: a row a gene, a column
``table.column`` for every column of the result's tables. It is written when two seconds, or a
hundredth of the run's time so far, have passed: a kill costs no more than that (and the blocks that
were under way), small runs write none, and a run of ten hours a few hundred. The file's metadata
lists its blocks with the SHA-256 of their measurements; its name ends with the first digits of its
own, and a part that is damaged is computed again.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from jaxvp.results import SERIES, TABLES, Results, files
from jaxvp.warning import warn

from .errors import writing
from .manifest import Manifest

if TYPE_CHECKING:
    import pyarrow as pa

INTERVAL = 2.0  # seconds
SHARE = 0.01
BLOCKS = b"jaxvp.blocks"


@dataclass(frozen=True)
class Block:
    """One finished block."""

    start: int
    stop: int
    digest: str
    table: pa.Table


class Parts:
    """The finished blocks of a run; threads may add to them at the same time.

    Parameters
    ----------
    folder
        Made with the first part.
    manifest
        Makes what is written before it: small runs need none.
    """

    def __init__(self, folder: Path, manifest: Callable[[], Manifest]) -> None:
        self.folder, self._make_manifest = folder, manifest
        self.blocks: dict[int, Block] = {}
        self._held: list[Block] = []
        self._written = 0
        self._lock = threading.Lock()
        self._started = self._last = perf_counter()

    @functools.cached_property
    def manifest(self) -> Manifest:
        """What the blocks are of."""
        return self._make_manifest()

    def load(self) -> list[Path]:
        """Read what is finished; the files that are damaged."""
        damaged = []
        for path in sorted(self.folder.glob("part-*.parquet")):
            self._written = max(self._written, int(path.stem.split("-")[1]) + 1)
            try:
                self.blocks |= {block.start: block for block in read(path)}
            except ValueError as error:
                warn(f"{path} is damaged ({error}): what it held is not finished")
                damaged.append(path)
        return damaged

    def take_up(self) -> None:
        """Go on from what an earlier run finished, and remove what it left half written."""
        damaged = self.load()
        leftovers = [p for name in ("part-", "manifest.") for p in self.folder.glob(f".{name}*")]
        for path in [*leftovers, *damaged]:
            path.unlink(missing_ok=True)

    def add(self, start: int, stop: int, result: Results, digest: str) -> None:
        """Keep a block; write what has gathered when it is time."""
        block = Block(start, stop, digest, to_arrow(result))
        with self._lock:
            self.blocks[start] = block
            self._held.append(block)
            now = perf_counter()
            if now - self._last > max(INTERVAL, SHARE * (now - self._started)):
                self._flush()

    def flush(self, if_long: bool = False) -> None:
        """Write what has gathered; with `if_long` only in a run that would have written before."""
        with self._lock:
            if self._held and not (if_long and perf_counter() - self._started < INTERVAL):
                self._flush()

    def _flush(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet

        if not (self.folder / "manifest.json").exists():
            with writing(self.folder.parent):
                self.folder.mkdir(parents=True, exist_ok=True)
                for stray in self.folder.glob("part-*.parquet"):  # nobody knows of what
                    stray.unlink()
            self.manifest.write(self.folder)
        table = pa.concat_tables([block.table for block in self._held])
        described = json.dumps([[b.start, b.stop, b.digest] for b in self._held])
        table = table.replace_schema_metadata({BLOCKS: described})
        content = io.BytesIO()
        pyarrow.parquet.write_table(table, content)
        path = self.folder / f"part-{self._written:05d}-{_checksum(content)}.parquet"
        with writing(self.folder), files.atomic(path, durable=True) as temporary:
            temporary.write_bytes(content.getbuffer())
        self._written += 1
        self._held.clear()
        self._last = perf_counter()

    def missing(self, blocks: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Those that are not finished."""
        return [block for block in blocks if block[0] not in self.blocks]

    def table(self) -> pa.Table | None:
        """All blocks, in the order of the genes; None if there are none."""
        import pyarrow as pa

        ordered = [self.blocks[start].table for start in sorted(self.blocks)]
        return pa.concat_tables(ordered) if ordered else None


def read(path: Path) -> list[Block]:
    """The blocks of a part.

    Raises
    ------
    ValueError
        If the file is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet

    try:
        content = io.BytesIO(path.read_bytes())
        if _checksum(content) != path.stem.split("-")[-1]:
            raise ValueError("its checksum is not the one in its name")
        table = pyarrow.parquet.read_table(content)
        blocks, first = [], 0
        for start, stop, digest in json.loads((table.schema.metadata or {})[BLOCKS]):
            rows = table.slice(first, stop - start).replace_schema_metadata(None)
            blocks.append(Block(start, stop, digest, rows))
            first += stop - start
        if first != table.num_rows:
            raise ValueError(f"{table.num_rows} rows in place of {first}")
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError((str(error).splitlines() or [type(error).__name__])[0]) from error
    return blocks


def _checksum(content: io.BytesIO) -> str:
    return hashlib.sha256(content.getbuffer(), usedforsecurity=False).hexdigest()[:12]


def to_arrow(result: Results) -> pa.Table:
    """The tables of a result side by side."""
    import pyarrow as pa

    genes = result.fractions.index
    named = not isinstance(genes, pd.RangeIndex)
    columns: dict[str, Any] = {"gene": pa.array([str(g) for g in genes] if named else genes)}
    for name, table in _tables(result).items():
        for column in table.columns:
            columns[f"{name}.{column}"] = pa.array(table[column].to_numpy())
    return pa.table(columns)


def to_results(table: pa.Table | None, genes: pd.Index, like: Results) -> dict[str, Any]:
    """The tables of a result, of what `to_arrow` made of its blocks.

    Parameters
    ----------
    table
        None: of no gene.
    genes
        Their names.
    like
        A result of no gene, with the columns.
    """

    def column(name: str, empty: Any) -> np.ndarray:
        return empty.to_numpy() if table is None else table.column(name).to_numpy()

    found: dict[str, Any] = {}
    for name, empty in _tables(like).items():
        values = {c: column(f"{name}.{c}", empty[c]) for c in empty.columns}
        found[name] = pd.DataFrame(values, index=genes, columns=empty.columns)
    for name in SERIES:
        found[name] = found[name][name]
    return found


def _tables(result: Results) -> dict[str, pd.DataFrame]:
    tables = {name: getattr(result, name) for name in TABLES}
    return tables | {name: getattr(result, name).to_frame(name) for name in SERIES}
