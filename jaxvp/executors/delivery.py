"""How the job reaches the workers: once, where the executor allows it.

- Threads share it.
- A process pool is on this machine: a temporary file, read once by every process.
- Dask: a future that all blocks depend on. The scheduler brings it to a worker before its first
  block, and makes it again where the only worker that had it was lost.
- Any other: with every block, as bytes; a worker unpacks them once.
"""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jaxvp.expression import DataError

from .job import Job
from .worker import load


@contextmanager
def delivered(job: Job, executor: Executor) -> Iterator[Any]:
    """What to send with every block so that a worker has the job."""
    if isinstance(executor, ThreadPoolExecutor):
        yield job
        return
    packed = pickle.dumps(job, protocol=pickle.HIGHEST_PROTOCOL)
    client = dask_client(executor)
    if client is not None:
        yield client.submit(load, packed, pure=False, key=f"jaxvp-job-{job.key}")
    elif isinstance(executor, ProcessPoolExecutor):
        with tempfile.TemporaryDirectory(prefix="jaxvp-") as folder:
            path = Path(folder, "job")
            path.write_bytes(packed)
            yield path
    else:
        yield packed


def dask_client(executor: Executor) -> Any:
    """The client behind an executor of Dask, or None."""
    if type(executor).__module__.split(".")[0] != "distributed":
        return None
    return getattr(executor, "_client", None)


def workers(executor: Executor) -> int:
    """How many blocks an executor computes at once, where it says so."""
    client = dask_client(executor)
    if client is not None:
        return max(1, sum(client.nthreads().values()))
    return max(1, int(getattr(executor, "_max_workers", None) or 8))


def check_executor(executor: Any, devices: Any) -> None:
    """Refuse what is no executor, before any work."""
    if executor is None:
        return
    if hasattr(executor, "get_executor"):
        raise DataError("executor= is a Dask client: pass client.get_executor()")
    if not isinstance(executor, Executor):
        raise DataError(
            f"executor={executor!r}: use one of concurrent.futures, Client.get_executor() of Dask, "
            "or None"
        )
    if devices is not None:
        raise DataError("devices= is for this process; the workers of executor= use what they have")
