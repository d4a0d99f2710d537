"""One run a folder: the second one is told who has it.

The lock is the kernel's (`flock`), so it ends with its owner, however that ends: nothing has to be
cleaned up after a kill. The file is there to be locked, and to say who did.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from jaxvp.warning import warn

from .errors import RunError, writing

NAME = ".jaxvp.lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Have a folder to oneself.

    Raises
    ------
    RunError
        If another run has it.
    """
    path = folder / NAME
    handle = _acquire(path)
    try:
        with writing(folder):
            os.ftruncate(handle, 0)
            os.pwrite(handle, json.dumps(_owner()).encode(), 0)
        yield
    finally:
        path.unlink(missing_ok=True)  # while it is locked: see `_acquire`
        os.close(handle)


def _acquire(path: Path) -> int:
    import fcntl

    while True:
        with writing(path.parent):
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(handle, 4096, 0)
            os.close(handle)
            raise RunError(
                f"{path.parent} is in use by another run{_described(owner)}: wait until it ends, "
                "or choose another folder"
            ) from None
        except OSError as error:
            warn(
                f"{path.parent}: this file system has no locks ({error.strerror}): nothing keeps "
                "a second run out"
            )
            return handle
        # The owner before may have removed the file between our opening and locking it.
        if path.exists() and os.path.samestat(os.fstat(handle), os.stat(path)):
            return handle
        os.close(handle)


def _owner() -> dict[str, str | int]:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {"process": os.getpid(), "node": platform.node(), "since": now}


def _described(owner: bytes) -> str:
    try:
        found = json.loads(owner)
        return f" (process {found['process']} on {found['node']}, since {found['since']})"
    except (ValueError, KeyError, TypeError):
        return ""
