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
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np
from jaxtyping import Float, Int, Num

from jaxvp.design import Design
from jaxvp.likelihood import Estimates, least_squares
from jaxvp.solver import (
    MAX_ITERATIONS,
    SlopeSolution,
    Solution,
    Status,
    Table,
    lanes,
    newton,
    prepare,
    relative_factors,
    solve,
    solve_slopes,
)
from jaxvp.statistics import (
    Block,
    Compression,
    PerGene,
    Shared,
    SlopeShared,
    compress,
    compress_slopes,
    statistics,
)

Device: TypeAlias = Any  # jax.Device, which is a variable to type checkers

_BLOCK_BYTES = 48 << 20
_LARGEST_BLOCK = 2048
# Residual share below which a gene counts as explained exactly.
_RESIDUAL_SHARE = 1e-12
# A score as large as this is no optimum, however uncertain it is: what is left of the gene is lost
# in rounding (a float32 fit with a residual share of 1e-7).
_LARGEST_VIOLATION = 1.0


class Fitted(NamedTuple):
    """All genes, fitted; random terms in formula order. Genes that could not be fitted hold NaN."""

    gamma: Float[np.ndarray, "genes k"]  # relative variance of every random component
    sigma: Float[np.ndarray, " genes"]
    coefficients: Float[np.ndarray, "genes p"]
    standard_errors: Float[np.ndarray, "genes p"]
    log_likelihood: Float[np.ndarray, " genes"]
    gradient: Float[np.ndarray, " genes"]
    iterations: Int[np.ndarray, " genes"]
    status: Int[np.ndarray, " genes"]
    theta: Float[np.ndarray, "genes m"]  # square roots of gamma; with slopes, relative factors


def block_genes(shared: Shared | SlopeShared) -> int:
    """Genes in a block: by the bytes of a gene's statistics, never by the machine: runs repeat."""
    classes, columns = shared.between.shape[:2]
    width = lanes(shared)
    fits = _BLOCK_BYTES // (8 * (classes + 1) * (columns + 1))
    return int(np.clip(fits // width * width, width, _LARGEST_BLOCK))


def compression_of(design: Design) -> Compression:
    """The design prepared for blocks of genes."""
    return compress_slopes(design) if design.slopes else compress(design)


def empty(design: Design, genes: int) -> Fitted:
    """Room for genes that are not fitted yet."""
    k, p = len(design.random_names), design.p
    return Fitted(
        np.full((genes, k), np.nan),
        np.full(genes, np.nan),
        np.full((genes, p), np.nan),
        np.full((genes, p), np.nan),
        np.full(genes, np.nan),
        np.full(genes, np.nan),
        np.zeros(genes, dtype=np.int32),
        np.zeros(genes, dtype=np.int8),
        np.full((genes, len(design.theta_names)), np.nan),
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
        Taken in turn.
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
    ) -> None:
        self.design, self.compression = design, compression
        shared = compression.shared
        workers = [device for device in devices for _ in range(_threads(device, len(devices)))]
        workers = workers[: -(-genes // block_size)]
        with jax.enable_x64(True):
            host = (shared, prepare(solver, shared, reml) if workers else None)
            host = jax.tree.map(lambda a: np.asarray(a, dtype), host)
            placed = {device: jax.device_put(host, device) for device in set(workers)}
        self.threads = len(workers)
        self._programs: queue.SimpleQueue[_Program] = queue.SimpleQueue()
        for device in workers:
            width = lanes(shared, device.platform)
            capacity = _capacity(min(block_size, genes), width)
            self._programs.put(
                _Program(placed[device], solver, width, reml, capacity, np.dtype(dtype), device)
            )

    def __call__(self, y: Num[np.ndarray, "n genes"]) -> Fitted:
        """Fit one block of genes."""
        out = empty(self.design, y.shape[1])
        program = self._programs.get()
        try:
            with jax.enable_x64(True):
                _fit_block(program, self.compression, y, out)
        finally:
            self._programs.put(program)
        return out


def fit_all(
    fitter: Fitter,
    measurements: Callable[[int, int], Num[np.ndarray, "n genes"]],
    blocks: Sequence[tuple[int, int]],
    finished: Callable[[int, int, Fitted], object],
) -> None:
    """Fit blocks of genes with all threads of a fitter.

    ``measurements(start, stop)`` serves samples x genes, ``finished(start, stop, fitted)`` gets a
    block as soon as it is done; both are called by several threads.
    """

    def one_block(start: int, stop: int) -> None:
        finished(start, stop, fitter(measurements(start, stop)))

    threads = min(fitter.threads, len(blocks))
    if threads <= 1:
        for block in blocks:
            one_block(*block)
        return
    with ThreadPoolExecutor(threads) as pool:
        pending = [pool.submit(one_block, *block) for block in blocks]
        try:
            for done in pending:
                done.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def blocks_of(genes: int, block_size: int) -> list[tuple[int, int]]:
    """Where blocks begin and end."""
    return [(start, min(start + block_size, genes)) for start in range(0, genes, block_size)]


def _threads(device: Device, devices: int) -> int:
    if device.platform != "cpu":
        return 2
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, (cores or 1) // devices)


def _capacity(genes: int, width: int) -> int:
    """Genes that a block's buffers hold: tiles in powers of two, for few shapes to compile."""
    tiles = -(-genes // width)
    return width << (tiles - 1).bit_length()


class _Program(NamedTuple):
    """What every block of a call shares."""

    shared: tuple[Shared | SlopeShared, Table | None]  # on the device
    solver: str
    width: int
    reml: bool
    capacity: int  # genes that the buffers hold: a multiple of the tile's width
    dtype: np.dtype
    device: Device


_solve = jax.jit(solve, static_argnums=(0, 1, 2))
_solve_slopes = jax.jit(solve_slopes, static_argnums=(0, 1))
_compiled: set[Any] = set()
_compiling = threading.Lock()


def _solve_block(program: _Program, gene: PerGene, wanted: np.ndarray) -> Solution | SlopeSolution:
    """Run the solver on the program's device; two threads never compile the same program."""
    shared, table = program.shared
    placed = jax.device_put((gene, wanted, np.int32(MAX_ITERATIONS)), program.device)
    arguments = (shared, *placed, table)

    def run() -> Solution | SlopeSolution:
        if isinstance(shared, SlopeShared):
            found = _solve_slopes(program.width, program.reml, *arguments[:-1])
        else:
            found = _solve(program.solver, program.width, program.reml, *arguments)
        # Out of the device, and out of float32, before the context ends.
        return jax.tree.map(np.asarray, found)

    leaves, structure = jax.tree.flatten(arguments)
    shapes = tuple((leaf.shape, leaf.dtype) for leaf in leaves)
    key = (program.solver, program.width, program.reml, program.device, structure, shapes)
    if key not in _compiled:
        with _compiling:
            if key not in _compiled:
                found = run()
                _compiled.add(key)
                return found
    return run()


def _pad(array: np.ndarray, capacity: int) -> np.ndarray:
    spare = capacity - array.shape[-1]
    return (
        array
        if not spare
        else np.concatenate([array, np.repeat(array[..., -1:], spare, axis=-1)], axis=-1)
    )


def _fit_block(program: _Program, compression: Compression, y: np.ndarray, out: Fitted) -> None:
    """Fit one block into the rows of ``out``."""
    genes = y.shape[1]
    block = statistics(compression, y)
    out.status[block.non_finite] = Status.NON_FINITE
    out.status[block.constant] = Status.ZERO_VARIANCE
    out.status[block.explained] = Status.ZERO_RESIDUAL
    shared = compression.shared
    if not shared.levels:
        estimates = least_squares(shared, block)
        none = np.zeros((0, genes))
        _write(out, compression, block, none, np.zeros(genes), estimates, program.reml)
        out.gradient[:] = 0.0
        return _blank(out)
    wanted = np.zeros(program.capacity, dtype=bool)
    wanted[:genes] = out.status == Status.CONVERGED
    gene = jax.tree.map(
        lambda a: _pad(a, program.capacity).astype(program.dtype, copy=False), block.gene
    )
    found = _solve_block(program, gene, wanted)
    found = jax.tree.map(lambda a: a[..., :genes], found)
    out.gradient[:] = found.violation
    out.iterations[:] = found.evaluations
    if isinstance(found, SlopeSolution):
        gamma, factors = relative_factors(found, shared, compression.slopes)
        out.theta[:] = compression.slopes.in_formula_order(factors)
        random = np.square(found.deviations, dtype=np.float64).sum(axis=0)
    else:
        gamma = found.gamma.astype(np.float64)
        out.theta[:, list(shared.order)] = np.sqrt(gamma).T
        random = gamma.sum(axis=0)
    _write(out, compression, block, gamma, random, found.estimates, program.reml)
    limit = np.clip(found.tolerance, newton.GRADIENT_TOLERANCE, _LARGEST_VIOLATION)
    out.status[(out.status == Status.CONVERGED) & ~(found.violation <= limit)] = (
        Status.MAX_ITERATIONS
    )
    _blank(out)


def _blank(out: Fitted) -> None:
    """A gene without a certified optimum has NaN everywhere.

    Iterations and gradient stay where it was iterated, to tell how far it came.
    """
    failed = out.status != Status.CONVERGED
    for array in (
        out.gamma,
        out.theta,
        out.sigma,
        out.coefficients,
        out.standard_errors,
        out.log_likelihood,
    ):
        array[failed] = np.nan
    never = failed & (out.status != Status.MAX_ITERATIONS)
    out.gradient[never] = np.nan
    out.iterations[never] = 0


def _write(
    out: Fitted,
    compression: Compression,
    block: Block,
    gamma: Float[np.ndarray, "k genes"],
    random: Float[np.ndarray, " genes"],
    found: Estimates,
    reml: bool,
) -> None:
    """Undo elimination order, scaling and residualising.

    ``random`` is the variance of all random terms, over the samples and relative to sigma^2.
    """
    shared = compression.shared
    size = shared.n - shared.p if reml else shared.n
    centred = compression.q - compression.q.mean(axis=0)
    with np.errstate(all="ignore"):
        out.gamma[:, list(shared.order)] = gamma.T
        out.sigma[:] = found.sigma * block.scale
        raw = block.ols + block.scale * found.coefficients
        out.coefficients[:] = (shared.r_inverse @ raw).T
        out.standard_errors[:] = (np.sqrt(found.variances) * out.sigma).T
        out.log_likelihood[:] = found.log_likelihood - size * np.log(block.scale)
        fixed = raw / block.scale / found.sigma
        spread = np.einsum("pg,pg->g", fixed, centred.T @ centred @ fixed) / shared.n
        share = 1 / (1 + random + spread)
        # Where nothing is left, not even rounding, there is nothing to compare with.
        explained = (share < _RESIDUAL_SHARE) | (found.sigma == 0)
        explained &= out.status == Status.CONVERGED
        out.status[explained] = Status.ZERO_RESIDUAL
