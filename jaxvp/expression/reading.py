"""One clear error for whatever goes wrong in somebody else's reader.

Every format has a library of its own, and a damaged file may raise anything there. The user gets
the name of the file and the first line of the reason; the rest is the error's cause.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .names import DataError


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
        raise DataError(f"{what} cannot be read: {reason}") from error


class Unchanged:
    """Whether a file, or the folder of a store, is still what it was.

    A file that is written to while it is read gives numbers that belong to neither version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stamp = self._stamp()

    def _stamp(self) -> tuple[int, int, int]:
        status = os.stat(self.path)
        return status.st_ino, status.st_size, status.st_mtime_ns

    def check(self) -> None:
        """Raise `DataError` if it is not."""
        with reading(self.path):
            if self._stamp() != self.stamp:
                raise DataError(f"{self.path} was changed while it was read: run again")
