"""Independent pieces of work on the cores that this process may use."""

from __future__ import annotations

import contextvars
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Piece = TypeVar("Piece")
Made = TypeVar("Made")


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def each(work: Callable[[Piece], object], pieces: Sequence[Piece], threads: int) -> None:
    """``work(piece)`` for all of them, in their order but at the same time.

    The first error, or an interrupt, ends it: what has not begun is not begun.
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
            pool.shutdown(cancel_futures=True)
            raise


def later(work: Callable[[], Made]) -> Callable[[], Made]:
    """``work()`` by a thread of its own, from now on; the result waits for it, or has its error."""
    pool = ThreadPoolExecutor(1)
    found = pool.submit(contextvars.copy_context().run, work)
    pool.shutdown(wait=False)
    return found.result
