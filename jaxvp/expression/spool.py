"""Files that hold all genes of a sample together are turned once, on the disk.

To read a block of genes from such a file (a large row group of Parquet, HDF5 or zarr chunks as
wide as the table) is to read all of it. It is read once, some samples at a time, into a temporary
file with the samples of a gene beside each other, from which blocks are served. That file is in the
folder of Python's `tempfile` (set ``TMPDIR`` for another one) and has no name: it is gone when the
process ends, however it ends.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from .mapped import MappedSource, forget
from .names import DataError
from .panels import PANEL_BYTES

logger = logging.getLogger("jaxvp")


def spooled(
    load: Callable[[int, int], Float[np.ndarray, "n genes"]],
    n_samples: int,
    n_genes: int,
    dtype: np.dtype,
    what: str,
    unit: int = 1,
) -> MappedSource:
    """Turn measurements into a temporary file, genes x samples.

    Parameters
    ----------
    load
        ``load(start, stop)`` reads all genes of the samples ``start:stop``.
    n_samples, n_genes
        Of all.
    dtype
        float64 or float32.
    what
        Names the measurements in messages.
    unit
        Samples that are best read together.

    Raises
    ------
    DataError
        If the temporary file has no room.
    """
    size = n_samples * n_genes * dtype.itemsize
    folder = tempfile.gettempdir()
    logger.info(
        "%s: the genes of a sample lie together in the file, so it is copied once, turned, "
        "to a temporary file of %.1f GB in %s",
        what,
        size / 1e9,
        folder,
    )
    with tempfile.TemporaryFile() as file:
        try:
            # Room is asked for now: a write through the mapping could not say that there is none.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            raise DataError(
                f"{what}: blocks of genes are served from a temporary copy of "
                f"{size / 1e9:.1f} GB, and {folder} has no room for it ({error.strerror}): set "
                "TMPDIR to a folder on a larger disk"
            ) from error
        turned = np.memmap(file, dtype, "w+", shape=(n_genes, n_samples))
    step = max(PANEL_BYTES // (n_genes * dtype.itemsize) // unit, 1) * unit
    for start in range(0, n_samples, step):
        stop = min(start + step, n_samples)
        turned[:, start:stop] = load(start, stop).T
        forget(turned)
    return MappedSource(turned.T)
