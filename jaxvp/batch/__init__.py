"""The gene axis, and nothing else: blocks, padding, threads, devices.

A block of genes goes through three stages: its statistics (host, `jaxvp.statistics`), the bounded
loop of the solver with the estimates (`jaxvp.solver.solve`, one compiled program), and the undoing
of scales. Blocks have one size, a smaller last one is padded, so that one program serves all; a
block's numbers never depend on other blocks.

Blocks are independent: worker threads take them in turn, on a CPU one a core (programs of different
threads run at the same time on one device), on an accelerator two a device, so that the statistics
of one block are formed while another is solved. Each thread enters the float64 context itself:
threads do not inherit it.
"""

from __future__ import annotations

import os
import queue
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np

from jaxvp.batch.block import fit_block
from jaxvp.batch.fitted import Fitted, FixedPart
from jaxvp.batch.own import Own
from jaxvp.batch.patterns import Patterns
from jaxvp.batch.program import Device, Program, capacity_for
from jaxvp.batch.shared import column_covariance
from jaxvp.batch.work import Blocks, Work
from jaxvp.design import Design
from jaxvp.solver import lanes, prepare
from jaxvp.statistics import Compression, Shared

__all__ = ["Device", "Fitted", "block_genes", "fit_all"]

_BLOCK_BYTES = 48 << 20
_LARGEST_BLOCK = 2048


def block_genes(shared: Shared) -> int:
    """Genes in a block: by the bytes of a gene's statistics, never by the machine: runs repeat."""
    classes, columns = shared.between.shape[:2]
    width = lanes(shared)
    fits = _BLOCK_BYTES // (8 * (classes + 1) * (columns + 1))
    return int(np.clip(fits // width * width, width, _LARGEST_BLOCK))


def fit_all(
    design: Design,
    compression: Compression,
    measurements: Blocks,
    genes: int,
    *,
    fixed_part: FixedPart,
    weights: Blocks | None = None,
    rescale_weights: bool = True,
    reml: bool,
    solver: str,
    dtype: str,
    block_size: int,
    devices: Sequence[Device],
    report: Callable[[int], object] = lambda done: None,
) -> Fitted:
    """Fit ``genes`` genes; ``measurements(start, stop)`` serves samples x genes.

    So does ``weights``, where genes have weights of their own; those that all share are in the
    compression. ``report`` hears how many more are done.
    """
    shared = compression.shared
    covariance = column_covariance(design.X, compression)
    parts = fixed_part(np.zeros((0, shared.p)), covariance).shape[1]
    out = Fitted.empty(genes, len(shared.levels), shared.p, parts)
    work = Work(
        compression,
        covariance,
        fixed_part,
        measurements,
        weights,
        Own(design, compression, genes),
        Patterns(),
        rescale_weights,
    )
    starts = range(0, genes, block_size)
    programs: queue.SimpleQueue[Program] = queue.SimpleQueue()
    workers = [device for device in devices for _ in range(_threads(device, len(devices)))]
    workers = workers[: len(starts)]
    with jax.enable_x64(True):
        host = (shared, prepare(solver, shared, reml) if starts else None)
        host = jax.tree.map(lambda a: np.asarray(a, dtype), host)
        placed = {device: jax.device_put(host, device) for device in set(workers)}
    for device in workers:
        width = lanes(shared, device.platform)
        capacity = capacity_for(min(block_size, genes), width)
        programs.put(
            Program(placed[device], solver, width, reml, capacity, np.dtype(dtype), device)
        )

    def one_block(start: int) -> None:
        stop = min(start + block_size, genes)
        program = programs.get()
        try:
            with jax.enable_x64(True):
                fit_block(program, work, start, stop, Fitted(*(a[start:stop] for a in out)))
        finally:
            programs.put(program)
        report(stop - start)

    if len(workers) <= 1:
        for start in starts:
            one_block(start)
        return out
    with ThreadPoolExecutor(len(workers)) as pool:
        pending = [pool.submit(one_block, start) for start in starts]
        try:
            for done in pending:
                done.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return out


def _threads(device: Device, devices: int) -> int:
    if device.platform != "cpu":
        return 2
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, (cores or 1) // devices)
