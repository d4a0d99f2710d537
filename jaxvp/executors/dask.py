"""A Dask scheduler by its address, for those who have no `Client`: the command line."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager

from jaxvp.expression import DataError
from jaxvp.expression.extras import require

PATIENCE = 120  # seconds, for the scheduler and for its first worker


@contextmanager
def connect(address: str) -> Iterator[Executor]:
    """The executor of a scheduler, connected for as long as this context is open.

    Parameters
    ----------
    address
        Such as ``tcp://host:8786``.

    Raises
    ------
    DataError
        If Dask is not installed, nobody answers there, or there is no worker.
    """
    distributed = require("distributed", "dask", "--dask")
    try:
        client = distributed.Client(address, timeout=PATIENCE, set_as_default=False)
    except (OSError, ValueError) as error:
        raise DataError(
            f"--dask: no scheduler answers at {address!r} ({error}): the address is what "
            "`dask scheduler` prints, such as tcp://host:8786"
        ) from error
    with client:
        try:
            client.wait_for_workers(1, timeout=PATIENCE)
        except TimeoutError as error:
            raise DataError(
                f"--dask: the scheduler at {address} has no worker: start some, "
                f"`dask worker {address}`"
            ) from error
        yield client.get_executor()
