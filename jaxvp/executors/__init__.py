"""Blocks of genes on other processes and machines, through whatever `concurrent.futures` knows.

The scheduler is an existing one: a process pool, `Client.get_executor()` of Dask, MPI's. What is
added here is little. The `Job` (design, options, how to open the file) is sent once where the
executor allows it (`delivery`); a worker keeps what it makes of it (`worker`); blocks go out in
turn, those of lost workers again, those that fail are named (`schedule`).
"""

from jaxvp.executors.dask import connect
from jaxvp.executors.delivery import check_executor
from jaxvp.executors.job import Job
from jaxvp.executors.schedule import Failure, describe, fit_all

__all__ = ["Failure", "Job", "check_executor", "connect", "describe", "fit_all"]
