"""One clear error for whatever goes wrong in somebody else's reader.

Every format has a library of its own, and a damaged file may raise anything there. The user gets
the name of the file, the first line of the reason, and what to do; the rest is the error's cause.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from .names import DataError
from .signature import remedy


class PartOfFile(str):
    """How a part of a file is called in messages, such as a layer."""


@contextmanager
def reading(what: str | Path) -> Iterator[None]:
    """Errors of a reader become `DataError`; ours, and those of memory, stay what they are."""
    try:
        yield
    except (DataError, MemoryError):
        raise
    except Exception as error:
        lines = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
        reason = (lines.strip().splitlines() or [type(error).__name__])[0][:300]
        gone = isinstance(error, FileNotFoundError)
        hint = f"; {remedy(Path(what))}" if isinstance(what, Path | PartOfFile) and not gone else ""
        raise DataError(f"{what} cannot be read: {reason}{hint}") from error


class Stamp(NamedTuple):
    """What tells versions of a file apart at no cost; of a folder, sums over all files in it."""

    size: int
    mtime_ns: int
    inode: int

    @property
    def portable(self) -> tuple[int, int]:
        """What another machine sees of the same file."""
        return self.size, self.mtime_ns


class Unchanged:
    """Whether a file, or the folder of a store, is still what it was.

    A file that is written to while it is read gives numbers that belong to neither version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with reading(path):
            self.is_file = path.is_file()
            self.stamp = self._stamp()

    def _stamp(self) -> Stamp:
        if self.is_file:
            status = os.stat(self.path)
            return Stamp(status.st_size, status.st_mtime_ns, status.st_ino)
        found = [
            os.stat(Path(folder, name)) for folder, _, names in os.walk(self.path) for name in names
        ]
        return Stamp(
            sum(status.st_size for status in found),
            sum(status.st_mtime_ns for status in found),  # not the latest: old files come back
            sum(status.st_ino for status in found),
        )

    def check(self) -> None:
        """Raise `DataError` if it is not."""
        with reading(self.path):
            if self._stamp() != self.stamp:
                raise DataError(f"{self.path} was changed while it was read: run again")
