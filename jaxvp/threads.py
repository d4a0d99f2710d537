"""Independent pieces of work on the cores that this process may use."""

from __future__ import annotations

import contextvars
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future, InvalidStateError, ThreadPoolExecutor
from contextlib import suppress
from typing import Generic, TypeVar

Piece = TypeVar("Piece")
Made = TypeVar("Made")


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def each(
    work: Callable[[Piece], object],
    pieces: Sequence[Piece],
    threads: int,
    stop: Callable[[], object] = lambda: None,
) -> None:
    """``work(piece)`` for all of them, in their order but at the same time.

    The first error, or an interrupt, ends it: what has not begun is not begun, and ``stop()`` is
    for those that have.
    """
    threads = min(threads, len(pieces))
    if threads <= 1:
        for piece in pieces:
            work(piece)
        return
    with ThreadPoolExecutor(threads) as pool:
        pending = [pool.submit(work, piece) for piece in pieces]
        try:
            for done in pending:
                done.result()
        except BaseException:
            stop()
            pool.shutdown(cancel_futures=True)
            raise


class Later(Generic[Made]):
    """``work()`` by a thread of its own, from now on."""

    def __init__(self, work: Callable[[], Made]) -> None:
        self._found: Future[Made] = Future()
        context = contextvars.copy_context()
        threading.Thread(target=context.run, args=(self._run, work)).start()

    def _run(self, work: Callable[[], Made]) -> None:
        try:
            found = work()
        except BaseException as error:
            with suppress(InvalidStateError):
                self._found.set_exception(error)
        else:
            with suppress(InvalidStateError):
                self._found.set_result(found)

    def __call__(self) -> Made:
        """What it made: wait for it. Its error is raised here."""
        return self._found.result()

    def abandon(self) -> None:
        """Nobody shall wait for it any more."""
        with suppress(InvalidStateError):
            self._found.set_exception(CancelledError())
