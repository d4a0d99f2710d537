"""The worker's side: a block of genes in, its fits out.

A worker process may fit several blocks at once, in threads (a worker of Dask with ``nthreads``):
they share one `Fitter`, which hands its devices to them in turn. The last jobs are kept, so that
the second block costs nothing but itself.
"""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxvp import batch, runtime
from jaxvp.expression import digest

from .job import Answer, Job

Read = Callable[[int, int], np.ndarray]
# Jobs: workers of a cluster may serve several fits at a time.
KEPT = 4
_lock = threading.Lock()
_kept: dict[str, tuple[Job, batch.Fitter, Read | None]] = {}


def fit_block(
    sent: Any,
    key: str,
    start: int,
    stop: int,
    y: np.ndarray | None,
    weights: np.ndarray | None = None,
) -> Answer:
    """Fit the genes ``start:stop``.

    Parameters
    ----------
    sent
        The `Job`, pickled or not, or the file that holds it.
    key
        Of the job.
    start, stop
        The block.
    y
        Its measurements, samples x genes. None: the job's reader has them.
    weights
        Of each gene's own.
    """
    job, fitter, read = _prepared(sent, key)
    if y is None:
        assert read is not None
        y = read(start, stop)
    return Answer(fitter(y, weights), digest(y) if job.digests else None)


def _prepared(sent: Any, key: str) -> tuple[Job, batch.Fitter, Read | None]:
    with _lock:
        if key not in _kept:
            job = load(sent)
            if job is not sent:  # another process, which fits one block a core
                runtime.set_blas_threads(1)
            if job.compile_cache and jax.config.values.get("jax_compilation_cache_dir") is None:
                runtime.enable_compile_cache()
            read = job.reader.open(job.block_size) if job.reader else None
            fitter = batch.Fitter(
                job.design,
                batch.compression_of(job.design, job.sample_weights),
                job.genes,
                reml=job.reml,
                solver=job.solver,
                dtype=job.dtype,
                block_size=job.block_size,
                devices=jax.local_devices(),
                rescale_weights=job.rescale_weights,
                own_weights=job.own_weights,
            )
            while len(_kept) >= KEPT:
                del _kept[next(iter(_kept))]
            _kept[key] = job, fitter, read
        return _kept[key]


def load(sent: Any) -> Job:
    """The job that was sent."""
    if isinstance(sent, Path):
        sent = sent.read_bytes()
    return pickle.loads(sent) if isinstance(sent, bytes) else sent
