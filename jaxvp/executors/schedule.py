"""Blocks go out, answers come in, until all are fitted or named as failed.

Workers die: of memory, of a queue's time limit, of a machine that is switched off. What they had
is computed again elsewhere. Dask does that by itself, and gives a block up that took several
workers with it. A process pool is lost with any of its processes; it is started anew, and the
blocks that were out go out one at a time, so that one that kills is found and only it is given up.
Other executors that break leave their blocks to this process.

An error of a block itself (memory, a disk) is that block's failure. A `DataError` is everybody's:
the file changed, or is not there.
"""

from __future__ import annotations

import logging
import queue
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import (
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ProcessPoolExecutor,
)
from typing import Any, NamedTuple

import numpy as np

from jaxvp.expression import DataError
from jaxvp.warning import warn

from .delivery import delivered, workers
from .job import Answer, Job
from .worker import fit_block

logger = logging.getLogger("jaxvp")

Block = tuple[int, int]
Blocks = Callable[[int, int], np.ndarray]
# How often a block of lost workers is sent out, and how many pools are lost in a row, before that
# is no accident.
ATTEMPTS = 3
POOLS = 5


class Failure(NamedTuple):
    """A block that could not be computed."""

    start: int
    stop: int
    error: BaseException


def describe(failures: Sequence[Failure], genes: Any) -> str:
    """Which blocks failed, by the names of their genes, and why the first did."""
    first = failures[0]
    return (
        f"{len(failures)} {'block' if len(failures) == 1 else 'blocks'} of genes could not be "
        f"computed: {', '.join(f'{genes[f.start]} to {genes[f.stop - 1]}' for f in failures[:5])}"
        f"{', ...' if len(failures) > 5 else ''} "
        f"({type(first.error).__name__}: {str(first.error)[:300]})"
    )


def fit_all(
    executor: Executor,
    job: Job,
    measurements: Blocks,
    blocks: Sequence[tuple[int, int]],
    finished: Callable[[int, int, Answer], object],
    weights: Blocks | None = None,
) -> list[Failure]:
    """Fit blocks of genes by an executor.

    Parameters
    ----------
    executor
        Of any kind. It stays the caller's.
    job
        What all blocks share.
    measurements
        Serves samples x genes, where the job's reader does not.
    blocks
        Where they begin and end.
    finished
        Gets a block as soon as it is there, in the thread that called.
    weights
        Serves those of each gene's own, which go with its block.

    Returns
    -------
    list
        The blocks that failed, and why.
    """
    with delivered(job, executor) as sent:
        schedule = _Schedule(executor, job, sent, measurements, finished, weights)
        try:
            schedule.run(blocks)
        finally:
            schedule.close()
    return schedule.failures


class _Schedule:
    """The state of one `fit_all`."""

    def __init__(self, executor, job, sent, measurements, finished, weights) -> None:
        self.executor, self.own = executor, None  # a pool that was started here
        self.job, self.sent = job, sent
        self.measurements, self.finished, self.weights = measurements, finished, weights
        self.failures: list[Failure] = []
        self.waiting: deque[Block] = deque()
        self.suspects: deque[Block] = deque()  # were out when a pool was lost
        self.running: dict[Future, Block] = {}
        self.done: queue.SimpleQueue[Future] = queue.SimpleQueue()
        self.losses: Counter[Block] = Counter()
        self.pools_lost = 0  # without a block that came back

    def run(self, blocks: Sequence[Block]) -> None:
        self.waiting.extend(blocks)
        window = len(blocks)
        # Arrays wait in memory for a worker, and what is out is suspect when a pool is lost.
        arrays = self.job.reader is None or self.weights is not None
        if arrays or isinstance(self.executor, ProcessPoolExecutor):
            window = workers(self.executor) + 2
        while self.waiting or self.suspects or self.running:
            if self.suspects and not self.running:
                self._send(self.suspects)
            while self.waiting and not self.suspects and len(self.running) < window:
                self._send(self.waiting)
            if self.running:
                self._receive(self.done.get())

    def close(self) -> None:
        """Whatever ended it: nothing is left running."""
        for future in self.running:
            future.cancel()
        if self.own is not None:
            self.own.shutdown(wait=False, cancel_futures=True)

    def _send(self, blocks: deque[Block]) -> None:
        """The first of them goes out."""
        y = None if self.job.reader else np.asarray(self.measurements(*blocks[0]))
        w = None if self.weights is None else np.asarray(self.weights(*blocks[0]))
        try:
            future = self.executor.submit(fit_block, self.sent, self.job.key, *blocks[0], y, w)
        except BrokenExecutor as error:
            return self._lost_pool(error)
        self.running[future] = blocks.popleft()
        future.add_done_callback(self.done.put)

    def _receive(self, future: Future) -> None:
        if future not in self.running:  # of a pool that was lost
            return
        try:
            answer = future.result()
        except DataError:
            raise
        except BrokenExecutor as error:
            return self._lost_pool(error)
        except (Exception, CancelledError) as error:
            return self._lost_block(self.running.pop(future), error, again=_is_loss(error))
        self.pools_lost = 0
        self.finished(*self.running.pop(future), answer)

    def _lost_block(self, block: Block, error: BaseException, again: bool) -> None:
        self.losses[block] += 1
        if again and self.losses[block] < ATTEMPTS:
            logger.warning("genes %d to %d were lost with a worker: again", *block)
            self.suspects.append(block)
        else:
            self.failures.append(Failure(*block, error))

    def _lost_pool(self, error: BrokenExecutor) -> None:
        """One process died, and took the pool and all blocks that were out with it."""
        out = list(self.running.values())
        self.running.clear()
        self.pools_lost += 1
        logger.warning("a worker was lost (%s); again: %d blocks", error, len(out))
        if len(out) == 1:
            self._lost_block(out[0], error, again=True)
        else:
            self.suspects.extend(out)
        if self.pools_lost > POOLS:  # it is not the blocks, it is the workers
            self.failures += [Failure(*block, error) for block in [*self.suspects, *self.waiting]]
            self.suspects.clear()
            self.waiting.clear()
        else:
            self._replace(error)

    def _replace(self, error: BrokenExecutor) -> None:
        """Another pool like the one that was lost, or this process."""
        if self.own is not None:
            self.own.shutdown(wait=False, cancel_futures=True)
        like: Any = self.executor
        if isinstance(like, ProcessPoolExecutor):
            self.executor = self.own = ProcessPoolExecutor(
                getattr(like, "_max_workers", None),
                getattr(like, "_mp_context", None),
                getattr(like, "_initializer", None),
                getattr(like, "_initargs", ()),
            )
        else:
            warn(f"the executor is lost ({error}): what is left is computed in this process")
            self.executor = Here()


class Here(Executor):
    """Computes at once, in the thread that submits."""

    def submit(self, fn, /, *args, **kwargs):
        """See `concurrent.futures.Executor`."""
        future: Future = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


def _is_loss(error: BaseException) -> bool:
    """Whether a worker was lost, not a block wrong: a future that was cancelled, or Dask's word."""
    losses = {
        "CancelledError",
        "FutureCancelledError",
        "FuturesCancelledError",
        "KilledWorker",
        "CommClosedError",
        "WorkerStartTimeoutError",
    }
    return bool(losses & {base.__name__ for base in type(error).__mro__})
