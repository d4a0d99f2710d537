"""The gene axis, and nothing else: blocks, padding, threads, devices.

A block of genes goes through three stages: its statistics (`jaxvp.statistics`: NumPy, or a compiled
program), the bounded loop of the solver with the estimates (`jaxvp.solver.solve`, a compiled
program), and the undoing of scales. Blocks have one size, a smaller last one is padded, so that one
program serves all; a block's numbers never depend on other blocks.

Blocks are independent: worker threads take them in turn, on a CPU one a core, for small systems one
more (programs of different threads run at the same time on one device), on an accelerator four a
device, so that some blocks are sent, or their statistics formed, while another is solved. Devices
that are alike run one program (`jaxvp.batch.devices`). Each thread enters the float64 context
itself: threads do not inherit it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import numpy as np
from jaxtyping import Bool, Float

from jaxvp import memory, threads
from jaxvp.batch.devices import Device
from jaxvp.batch.fitted import Fitted
from jaxvp.batch.fitter import Fitter, empty, threads_of
from jaxvp.batch.own import Own, losses
from jaxvp.batch.products import own_products
from jaxvp.batch.waiting import Rest, Waiting
from jaxvp.batch.work import Blocks
from jaxvp.design import Design
from jaxvp.expression import DataError
from jaxvp.likelihood import SWEEP_COLUMNS
from jaxvp.solver import Status, lanes
from jaxvp.statistics import Compression, Shared, SlopeShared, compress, compress_slopes, sums

__all__ = [
    "Device",
    "Fitted",
    "Fitter",
    "block_bytes",
    "block_genes",
    "blocks_of",
    "compression_of",
    "empty",
    "own_products",
    "fit_all",
    "platform_of",
    "status_of",
    "that_fits",
]

_BLOCK_BYTES = 48 << 20
_LARGEST_BLOCK = 2048
# Where memory is short: the measurements of a tile of the tiniest systems would be too many.
_SMALLEST_BLOCK = 128
# Of the smallest systems blocks are larger where there are many, as what is done once a block costs
# as much as genes (F, 20,000 genes: a tenth of the time); of many samples it does not.
_BYTES_OF_SMALL, _LARGEST_BLOCK_OF_SMALL, _MANY_SMALL = 2 << 20, 4096, 16384
# Of large systems few genes are many: of a small study two cores shall have some, too. Of others
# blocks are larger, as tiles of genes that share a node are fuller then (two cores take a fifth
# less time for D). More than `_MANY_LARGE` genes make two blocks that are full, or nearly.
_BLOCK_BYTES_LARGE = 192 << 20
_LARGEST_BLOCK_LARGE, _LARGEST_BLOCK_OF_MANY, _MANY_LARGE = 512, 1024, 1536
# On an accelerator, by measurement on an H200: genes that are not done yet wait for the slowest of
# their block, so that one large block takes less time than several that overlap.
_ACCELERATED_BYTES, _SMALLEST_ACCELERATED, _LARGEST_ACCELERATED = 1 << 30, 64, 1 << 15


def block_genes(
    shared: Shared | SlopeShared, samples: int, genes: int, platform: str = "cpu"
) -> int:
    """Genes in a block: by the bytes of a gene's statistics, not by the machine: runs repeat.

    ``genes`` is how many the study has. On an accelerator a block is large, so that few launches
    serve many genes: by the bytes of a gene's measurements and statistics.
    """
    columns = shared.n_columns
    if platform != "cpu":
        fits = _ACCELERATED_BYTES // block_bytes(shared, samples, 1)
        return 1 << int(np.clip(fits, _SMALLEST_ACCELERATED, _LARGEST_ACCELERATED)).bit_length() - 1
    width = lanes(shared)
    one = 8 * shared.numbers_of_gene
    if columns > SWEEP_COLUMNS:
        # Buffers hold powers of two, and filling them costs as much as genes.
        most = _LARGEST_BLOCK_OF_MANY if genes > _MANY_LARGE else _LARGEST_BLOCK_LARGE
        tiles = int(np.clip(_BLOCK_BYTES_LARGE // (one * width), 1, most // width))
        return width << (tiles.bit_length() - 1)
    most = _LARGEST_BLOCK
    if isinstance(shared, Shared) and genes >= _MANY_SMALL:
        whole = block_bytes(shared, samples, _LARGEST_BLOCK_OF_SMALL)
        if one * _LARGEST_BLOCK_OF_SMALL <= _BYTES_OF_SMALL and whole <= _BLOCK_BYTES:
            most = _LARGEST_BLOCK_OF_SMALL
    return int(np.clip(_BLOCK_BYTES // one // width * width, width, most))


def platform_of(devices: Sequence[Device]) -> str:
    """What blocks are made for: without devices of our own, as with an executor, a CPU."""
    return devices[0].platform if devices else "cpu"


def block_bytes(shared: Shared | SlopeShared, samples: int, genes: int) -> int:
    """What a block takes: its measurements, its statistics, and their copy for the solver."""
    return 8 * genes * (samples + 3 * shared.numbers_of_gene)


def that_fits(shared: Shared | SlopeShared, samples: int, genes: int) -> int:
    """A block size that the free memory has room for: ``genes``, or a half of it, and so on.

    Raises
    ------
    DataError
        If not even the smallest block fits.
    """
    free = memory.available()
    if free is None:
        return genes
    workers = threads_of(shared, jax.local_devices()[0], 1)
    smallest = min(lanes(shared), _SMALLEST_BLOCK)
    while workers * block_bytes(shared, samples, genes) > free and genes > smallest:
        genes = max(smallest, genes // 2 // smallest * smallest)
    needed = block_bytes(shared, samples, genes)
    if needed > free:
        raise DataError(
            f"a block of {genes} genes takes {needed / 1e9:.3g} GB and {free / 1e9:.3g} GB of "
            "memory are free: fit a model with fewer levels, or on a machine with more memory"
        )
    return genes


def compression_of(design: Design, weights: Float[np.ndarray, " n"] | None = None) -> Compression:
    """The design prepared for blocks of genes; ``weights`` are those of the samples."""
    return compress_slopes(design, weights) if design.slopes else compress(design, weights)


def status_of(design: Design, there: Bool[np.ndarray, " n"]) -> Status:
    """Whether some of the samples determine the model: `CONVERGED`, or what a gene would get."""
    if there.sum() <= design.p:
        return Status.TOO_FEW_OBSERVATIONS
    s = Own(design, compression_of(design), 1).structure
    w = there[:, None].astype(np.float64)
    return Status(losses(s, sums(s, np.zeros_like(w), w))[0])


def fit_all(
    fitter: Fitter,
    measurements: Blocks,
    blocks: Sequence[tuple[int, int]],
    finished: Callable[[int, int, Fitted], object],
    weights: Blocks | None = None,
) -> None:
    """Fit blocks of genes with all threads of a fitter.

    ``measurements(start, stop)`` serves samples x genes, ``finished(start, stop, fitted)`` gets a
    block as soon as it is done, or a little later (`Waiting`); both are called by several threads.
    ``weights`` serves those of each gene's own.
    """
    waiting = Waiting()

    def one_block(block: tuple[int, int]) -> None:
        w = None if weights is None else weights(*block)
        rest = fitter.begin(measurements(*block), w)
        if fitter.gathers and len(rest.genes):
            waiting.add(block, rest)
        else:
            finish([(block, rest)])
        finish(waiting.take())

    def finish(some: Sequence[tuple[tuple[int, int], Rest]]) -> None:
        fitter.finish([rest for _, rest in some])
        for block, rest in some:
            finished(*block, rest.fitted)

    threads.each(one_block, blocks, fitter.threads, fitter.stop)
    finish(waiting.take(ready=False))


def blocks_of(genes: int, block_size: int) -> list[tuple[int, int]]:
    """Where blocks begin and end."""
    return [(start, min(start + block_size, genes)) for start in range(0, genes, block_size)]
