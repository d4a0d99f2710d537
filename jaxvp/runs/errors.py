"""What can be wrong with the folder of a run, in words that say what to do."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


class RunError(ValueError):
    """A folder that this run cannot use: another run's, one in use, one that cannot be written."""


class UnfinishedError(RunError):
    """A run that did not come to its end; what it finished is kept for the next."""


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Errors of the disk become one clear error; what was written before stays."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            why, remedy = "no room is left (disk, quota or largest file)", "make room"
        elif error.errno in _FORBIDDEN:
            why, remedy = "it must not be written to", "mend its permissions"
        else:
            why, remedy = error.strerror or str(error), "mend that"
        raise UnfinishedError(
            f"{folder}: {why}. What was finished before is kept: {remedy} and give the same "
            "command again, which goes on from there"
        ) from error
