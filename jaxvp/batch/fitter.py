"""The fitter of a study: what all blocks of its genes share, and the programs of its devices."""

from __future__ import annotations

import queue
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Num

from jaxvp import threads
from jaxvp.batch.block import fit_block
from jaxvp.batch.devices import Device, Devices
from jaxvp.batch.fitted import Fitted, FixedPart
from jaxvp.batch.own import Own
from jaxvp.batch.patterns import Patterns, fit_rare
from jaxvp.batch.program import Placed, Program, capacity_for
from jaxvp.batch.shared import column_covariance
from jaxvp.batch.waiting import Rest
from jaxvp.batch.work import Work
from jaxvp.design import Design
from jaxvp.likelihood import SWEEP_COLUMNS
from jaxvp.solver import lanes, prepare_many, searches_surface
from jaxvp.statistics import (
    Compression,
    Room,
    Shared,
    SharedPlan,
    SlopeShared,
    compiled_here,
)

# On an accelerator, by measurement on an H100: how many blocks are in flight, and how much larger
# the tiles of statistics are that many threads form on the host.
_ACCELERATED_THREADS, _ACCELERATED_TILES = 4, 4
# Columns up to which a CPU has a thread more than cores (5 % for A; nothing for B, which has 27).
_WAITING_COLUMNS = 16


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
        platform = next((d.platform for d in devices if d.platform != "cpu"), "cpu")
        groups = Devices.alike(devices)
        workers = [
            group
            for group in groups
            for device in group.all
            for _ in range(threads_of(shared, device, len(devices)))
        ][:blocks]
        self._work = Work(
            compression,
            column_covariance(design.X, compression),
            FixedPart.of(design),
            Own(design, compression, genes),
            Patterns(),
            rescale_weights,
            helpers=max(1, threads.cores() // max(1, len(workers))),
            larger_tiles=1 if platform == "cpu" else _ACCELERATED_TILES,
        )
        # The error of tabulated determinants is measured in float64.
        many = genes if dtype == "float64" else 0
        # Searches of slopes begin by it with weights of a gene's own, too.
        tabulated = bool(workers) and (not own_weights or design.slopes)

        def place() -> dict[Devices, Placed]:
            with jax.enable_x64(True):
                table = (
                    prepare_many(solver, compression, reml, many, platform) if tabulated else None
                )
                host = jax.tree.map(partial(_as_type, dtype), (shared, table))
                return {group: jax.device_put(host, group.everywhere) for group in groups}

        # What a large system's searches need takes some of the cores: blocks are formed meanwhile.
        long = tabulated and searches_surface(solver, shared, many)
        self._later = threads.Later(place) if long else None
        here = {} if long else place()
        placed = self._later or (lambda: here)
        with jax.enable_x64(True):
            plans = {g: _plan(g, compression, genes) for g in groups if not own_weights}
        self.threads = len(workers)
        # Genes of larger systems are fitted one by one: together they take no less time.
        self.gathers = shared.n_columns <= SWEEP_COLUMNS
        self._programs: queue.SimpleQueue[Program] = queue.SimpleQueue()
        most = min(block_size, genes)
        for group in workers:
            width = lanes(shared, group.platform)
            if group.platform != "cpu":  # where the lanes are more than there are genes
                width = min(width, max(16, 1 << (most - 1).bit_length()))
            capacity, kind = capacity_for(most, width), np.dtype(dtype)
            records = long and group.platform == "cpu"
            settings = (solver, width, reml, capacity, kind, group, plans.get(group))
            self._programs.put(Program(placed, records, *settings, Room(most), most))

    def __call__(
        self, y: Num[np.ndarray, "n genes"], weights: Num[np.ndarray, "n genes"] | None = None
    ) -> Fitted:
        """Fit one block of genes; ``weights`` are of each gene's own."""
        block = self.begin(y, weights)
        self.finish([block])
        return block.fitted

    def begin(
        self, y: Num[np.ndarray, "n genes"], weights: Num[np.ndarray, "n genes"] | None
    ) -> Rest:
        """Fit one block of genes but for those that had better be fitted with some of others."""
        out = empty(self.design, y.shape[1])
        with self._program() as program:
            rare = fit_block(program, self._work, y, weights, out)
            if len(rare):  # fitted at the end, it may be, when nobody is at work beside them
                self._work.own.prepare(program.devices)
        return Rest(out, rare, y[:, rare])

    def finish(self, blocks: Sequence[Rest]) -> None:
        """Fit what blocks lack."""
        blocks = [block for block in blocks if len(block.genes)]
        if not blocks:
            return
        y = np.concatenate([block.y for block in blocks], axis=1)
        out = empty(self.design, y.shape[1])
        with self._program() as program:
            fit_rare(program, self._work, y, out)
        ends = np.cumsum([len(block.genes) for block in blocks])
        for block, end in zip(blocks, ends.tolist(), strict=True):
            block.fitted.put(block.genes, out.take(slice(end - len(block.genes), end)))

    def stop(self) -> None:
        """Let no block wait for what its solution needs: an error or an interrupt ends the call."""
        if self._later is not None:
            self._later.abandon()

    @contextmanager
    def _program(self) -> Iterator[Program]:
        """A device's program, for one block at a time."""
        program = self._programs.get()
        try:
            with jax.enable_x64(True):
                yield program
        finally:
            self._programs.put(program)


def _as_type(dtype: str, a: Any) -> np.ndarray:
    """In this type; what is float32 already, for a CPU's products, stays so."""
    a = np.asarray(a)
    return a if a.dtype == np.float32 else a.astype(dtype, copy=False)


def _plan(devices: Devices, compression: Compression, genes: int) -> SharedPlan | None:
    """Of the products that a compiled program forms; None where NumPy does."""
    if devices.mesh is not None or compression.grouping is None:
        return None
    if devices.platform == "cpu" and not compiled_here(compression, genes):
        return None
    return jax.device_put(SharedPlan.of(compression, devices.platform), devices.all[0])


def threads_of(shared: Shared | SlopeShared, device: Device, devices: int) -> int:
    """Blocks in flight on one of so many devices."""
    if device.platform != "cpu":
        return _ACCELERATED_THREADS
    cores = threads.cores() // devices
    # While one waits for the interpreter, its core solves the block of another. The larger a system
    # the less of its time is spent there, and blocks take memory.
    return max(1, cores + (cores > 1 and shared.n_columns <= _WAITING_COLUMNS))
