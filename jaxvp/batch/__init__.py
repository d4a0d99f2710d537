"""The gene axis, and nothing else: blocks, padding, threads, devices.

A block of genes goes through three stages: its statistics (host, `jaxvp.statistics`), the bounded
loop of the solver with the estimates (`jaxvp.solver.solve`, one compiled program), and the undoing
of scales. Blocks have one size, a smaller last one is padded, so that one program serves all; a
block's numbers never depend on other blocks.

Blocks are independent: worker threads take them in turn, on a CPU one a core, for small systems one
more (programs of different threads run at the same time on one device), on an accelerator four a
device, so that the statistics of some blocks are formed while another is solved. Devices that are
alike run one program (`jaxvp.batch.devices`). Each thread enters the float64 context itself:
threads do not inherit it.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jaxtyping import Bool, Float, Num

from jaxvp import memory, threads
from jaxvp.batch.block import fit_block
from jaxvp.batch.devices import Device, Devices
from jaxvp.batch.fitted import Fitted, FixedPart
from jaxvp.batch.own import Own, losses
from jaxvp.batch.patterns import Patterns
from jaxvp.batch.program import Program, capacity_for, own_products
from jaxvp.batch.shared import column_covariance
from jaxvp.batch.work import Blocks, Work
from jaxvp.design import Design
from jaxvp.expression import DataError
from jaxvp.likelihood import SWEEP_COLUMNS
from jaxvp.solver import Status, lanes, prepare_many
from jaxvp.statistics import (
    Compression,
    Shared,
    SharedPlan,
    SlopeShared,
    compress,
    compress_slopes,
    sums,
)

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
# Of large systems few genes are many: of a small study two cores shall have some, too. Of others
# blocks are larger, as tiles of genes that share a node are fuller then (two cores take a fifth
# less time for D). More than `_MANY_LARGE` genes make two blocks that are full, or nearly.
_BLOCK_BYTES_LARGE = 192 << 20
_LARGEST_BLOCK_LARGE, _LARGEST_BLOCK_OF_MANY, _MANY_LARGE = 512, 1024, 1536
# On an accelerator, by measurement on an H100: bytes and genes of a block, how many blocks are in
# flight, and how much larger the tiles of their statistics are, which many threads form.
_ACCELERATED_BYTES, _SMALLEST_ACCELERATED, _LARGEST_ACCELERATED = 1 << 30, 64, 1 << 15
_ACCELERATED_THREADS, _ACCELERATED_TILES = 4, 4
# Columns up to which a CPU has a thread more than cores (5 % for A; nothing for B, which has 27).
_WAITING_COLUMNS = 16


def block_genes(
    shared: Shared | SlopeShared, samples: int, genes: int, platform: str = "cpu"
) -> int:
    """Genes in a block: by the bytes of a gene's statistics, not by the machine: runs repeat.

    ``genes`` is how many the study has. On an accelerator a block is large, so that few launches
    serve many genes: by the bytes of a gene's measurements and statistics.
    """
    classes, columns = shared.between.shape[:2]
    if platform != "cpu":
        fits = _ACCELERATED_BYTES // block_bytes(shared, samples, 1)
        return 1 << int(np.clip(fits, _SMALLEST_ACCELERATED, _LARGEST_ACCELERATED)).bit_length() - 1
    width = lanes(shared)
    one = 8 * (classes + 1) * (columns + 1)
    if columns > SWEEP_COLUMNS:
        # Buffers hold powers of two, and filling them costs as much as genes.
        most = _LARGEST_BLOCK_OF_MANY if genes > _MANY_LARGE else _LARGEST_BLOCK_LARGE
        tiles = int(np.clip(_BLOCK_BYTES_LARGE // (one * width), 1, most // width))
        return width << (tiles.bit_length() - 1)
    return int(np.clip(_BLOCK_BYTES // one // width * width, width, _LARGEST_BLOCK))


def platform_of(devices: Sequence[Device]) -> str:
    """What blocks are made for: without devices of our own, as with an executor, a CPU."""
    return devices[0].platform if devices else "cpu"


def block_bytes(shared: Shared | SlopeShared, samples: int, genes: int) -> int:
    """What a block takes: its measurements, its statistics, and their copy for the solver."""
    classes, columns = shared.between.shape[:2]
    return 8 * genes * (samples + 3 * (classes + 1) * (columns + 1))


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
    workers = _threads(shared, jax.local_devices()[0], 1)
    smallest = lanes(shared)
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


def empty(design: Design, genes: int) -> Fitted:
    """Room for genes that are not fitted yet."""
    return Fitted.empty(
        genes,
        len(design.random_names),
        design.p,
        len(FixedPart.of(design).names),
        len(design.theta_names),
    )


class Fitter:
    """Fits blocks of the genes of one study; threads may call it at the same time.

    Parameters
    ----------
    design, compression
        Of the study, and what `compression_of` made of it.
    genes
        How many genes the study has: with `block_size` it decides the shapes that are compiled, so
        that a block has the same numbers whoever fits it, and which others are fitted.
    devices
        For a block each; those of one kind share a compiled program.
    rescale_weights
        Whether weights stay divided by their mean.
    own_weights
        Whether every gene comes with weights of its own: nothing is tabulated for all of them then.
    """

    def __init__(
        self,
        design: Design,
        compression: Compression,
        genes: int,
        *,
        reml: bool,
        solver: str,
        dtype: str,
        block_size: int,
        devices: Sequence[Device],
        rescale_weights: bool = True,
        own_weights: bool = False,
    ) -> None:
        self.design = design
        shared = compression.shared
        blocks = -(-genes // block_size)
        devices = list(dict.fromkeys(devices))[:blocks]
        groups = Devices.alike(devices)
        workers = [
            group
            for group in groups
            for device in group.all
            for _ in range(_threads(shared, device, len(devices)))
        ][:blocks]
        self._work = Work(
            compression,
            column_covariance(design.X, compression),
            FixedPart.of(design),
            Own(design, compression, genes),
            Patterns(),
            rescale_weights,
            helpers=max(1, threads.cores() // max(1, len(workers))),
            larger_tiles=1 if all(d.platform == "cpu" for d in devices) else _ACCELERATED_TILES,
        )
        # The error of tabulated determinants is measured in float64.
        many = genes if dtype == "float64" else 0
        with jax.enable_x64(True):
            tabulated = bool(workers) and not own_weights
            host = (shared, prepare_many(solver, compression, reml, many) if tabulated else None)
            host = jax.tree.map(lambda a: np.asarray(a, dtype), host)
            placed = {group: jax.device_put(host, group.everywhere) for group in groups}
            plans = {g: _plan(g, compression) for g in groups if not own_weights}
        self.threads = len(workers)
        self._programs: queue.SimpleQueue[Program] = queue.SimpleQueue()
        for group in workers:
            width = lanes(shared, group.platform)
            if group.platform != "cpu":  # where the lanes are more than there are genes
                width = min(width, max(16, 1 << (min(block_size, genes) - 1).bit_length()))
            capacity = capacity_for(min(block_size, genes), width)
            kind = np.dtype(dtype)
            self._programs.put(
                Program(placed[group], solver, width, reml, capacity, kind, group, plans.get(group))
            )

    def __call__(
        self, y: Num[np.ndarray, "n genes"], weights: Num[np.ndarray, "n genes"] | None = None
    ) -> Fitted:
        """Fit one block of genes; ``weights`` are of each gene's own."""
        out = empty(self.design, y.shape[1])
        program = self._programs.get()
        try:
            with jax.enable_x64(True):
                fit_block(program, self._work, y, weights, out)
        finally:
            self._programs.put(program)
        return out


def fit_all(
    fitter: Fitter,
    measurements: Blocks,
    blocks: Sequence[tuple[int, int]],
    finished: Callable[[int, int, Fitted], object],
    weights: Blocks | None = None,
) -> None:
    """Fit blocks of genes with all threads of a fitter.

    ``measurements(start, stop)`` serves samples x genes, ``finished(start, stop, fitted)`` gets a
    block as soon as it is done; both are called by several threads. ``weights`` serves those of
    each gene's own.
    """

    def one_block(block: tuple[int, int]) -> None:
        w = None if weights is None else weights(*block)
        finished(*block, fitter(measurements(*block), w))

    threads.each(one_block, blocks, fitter.threads)


def blocks_of(genes: int, block_size: int) -> list[tuple[int, int]]:
    """Where blocks begin and end."""
    return [(start, min(start + block_size, genes)) for start in range(0, genes, block_size)]


def _plan(devices: Devices, compression: Compression) -> SharedPlan | None:
    """Of the products that an accelerator forms; None where the host does: several want a core."""
    if devices.platform == "cpu" or devices.mesh is not None or compression.grouping is None:
        return None
    return jax.device_put(SharedPlan.of(compression), devices.all[0])


def _threads(shared: Shared | SlopeShared, device: Device, devices: int) -> int:
    if device.platform != "cpu":
        return _ACCELERATED_THREADS
    cores = threads.cores() // devices
    # While one waits for the interpreter, its core solves the block of another. The larger a system
    # the less of its time is spent there, and blocks take memory.
    return max(1, cores + (cores > 1 and shared.n_columns <= _WAITING_COLUMNS))
