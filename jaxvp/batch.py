"""The gene axis, and nothing else: blocks, padding, threads, devices.

And the host's schedule of the solver's loop.

A block of genes goes through three stages: its statistics (host, one pass over the measurements),
bursts of solver iterations over tiles of genes (`jaxvp.solver.advance`), and its estimates. After
the first burst most genes are done; the ones that are not are gathered to the front of the block's
buffers and only they go on, so that a slow gene costs its own iterations and nobody else's. The
buffers keep their size, so that one compiled program serves every block and every burst, and a
block's numbers never depend on other blocks.

Blocks are independent: one worker thread for each device takes them in turn. JAX runs one program
at a time on a device, so a CPU shows all its cores only as several devices (`jaxvp.use_all_cores`).
Each thread enters the float64 context itself: threads do not inherit it.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, Num

from jaxvp.likelihood import Estimates, estimate, least_squares
from jaxvp.solver import MAX_ITERATIONS, Status, advance, initial, lanes, newton
from jaxvp.statistics import Block, Compression, PerGene, Shared, statistics

Device: TypeAlias = Any  # jax.Device, which is a variable to type checkers

# Iterations before what is left is gathered: first burst, then the later ones.
_BURSTS = (6, 3, 4, 8)
_BLOCK_BYTES = 48 << 20
_LARGEST_BLOCK = 2048
# Residual share below which a gene counts as explained exactly.
_RESIDUAL_SHARE = 1e-12


class Fitted(NamedTuple):
    """All genes, fitted; random terms in formula order. Genes that could not be fitted hold NaN."""

    gamma: Float[np.ndarray, "genes k"]
    sigma: Float[np.ndarray, " genes"]
    coefficients: Float[np.ndarray, "genes p"]
    standard_errors: Float[np.ndarray, "genes p"]
    log_likelihood: Float[np.ndarray, " genes"]
    gradient: Float[np.ndarray, " genes"]
    iterations: Int[np.ndarray, " genes"]
    status: Int[np.ndarray, " genes"]


def block_genes(shared: Shared) -> int:
    """Genes in a block: by the bytes of a gene's statistics, never by the machine.

    So that runs repeat.
    """
    classes, columns = shared.between.shape[:2]
    width = lanes(shared)
    fits = _BLOCK_BYTES // (8 * (classes + 1) * (columns + 1))
    return int(np.clip(fits // width * width, width, _LARGEST_BLOCK))


def fit_all(
    compression: Compression,
    measurements: Callable[[int, int], Num[np.ndarray, "n genes"]],
    genes: int,
    *,
    reml: bool,
    solver: str,
    dtype: str,
    block_size: int,
    devices: Sequence[Device],
    report: Callable[[int], object] = lambda done: None,
) -> Fitted:
    """Fit ``genes`` genes; ``measurements(start, stop)`` serves samples x genes.

    ``report`` hears how many more are done.
    """
    shared = compression.shared
    k, p = len(shared.levels), shared.p
    out = Fitted(
        np.full((genes, k), np.nan),
        np.full(genes, np.nan),
        np.full((genes, p), np.nan),
        np.full((genes, p), np.nan),
        np.full(genes, np.nan),
        np.full(genes, np.nan),
        np.zeros(genes, dtype=np.int32),
        np.zeros(genes, dtype=np.int8),
    )
    starts = range(0, genes, block_size)
    programs: queue.SimpleQueue[_Program] = queue.SimpleQueue()
    with jax.enable_x64(True):
        for device in devices[: len(starts)]:
            width = lanes(shared, device.platform)
            capacity = -(-min(block_size, genes) // width) * width
            placed = jax.device_put(jax.tree.map(lambda a: np.asarray(a, dtype), shared), device)
            programs.put(_Program(placed, solver, width, reml, capacity, np.dtype(dtype), device))

    def one_block(start: int) -> None:
        stop = min(start + block_size, genes)
        program = programs.get()
        try:
            with jax.enable_x64(True):
                _fit_block(
                    program,
                    compression,
                    measurements(start, stop),
                    jax.tree.map(lambda a: a[start:stop], out),
                )
        finally:
            programs.put(program)
        report(stop - start)

    if len(devices) == 1 or len(starts) <= 1:
        for start in starts:
            one_block(start)
        return out
    with ThreadPoolExecutor(len(devices)) as pool:
        pending = [pool.submit(one_block, start) for start in starts]
        try:
            for done in pending:
                done.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return out


class _Program(NamedTuple):
    """What every block of a call shares."""

    shared: Shared  # on the device
    solver: str
    width: int
    reml: bool
    capacity: int  # genes that the buffers hold: a multiple of the tile's width
    dtype: np.dtype
    device: Device


_advance = jax.jit(advance, static_argnums=(0, 1, 2), donate_argnums=(5,))


@partial(jax.jit, static_argnums=(0, 1))
def _start(solver: str, genes: int, shared: Shared) -> Any:
    return initial(solver, shared, genes)


@partial(jax.jit, static_argnums=(0, 1))
def _estimate(width: int, reml: bool, shared: Shared, gene: PerGene, gamma: tuple) -> Any:
    """Estimates of all genes of a block, tile by tile."""
    tiles = gamma[0].shape[-1] // width

    def tile(index):
        def take(leaf):
            part = jax.lax.dynamic_slice_in_dim(leaf, index * width, width, axis=-1)
            return part[..., 0] if width == 1 else part

        return estimate(tuple(take(g) for g in gamma), shared, jax.tree.map(take, gene), reml=reml)

    found = jax.lax.map(tile, jnp.arange(tiles))
    return jax.tree.map(
        lambda leaf: jnp.moveaxis(leaf, 0, -1 if width == 1 else -2).reshape(
            *leaf.shape[1 : -1 if width > 1 else None], -1
        ),
        found,
    )


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
        _write(out, shared, block, np.zeros((0, genes)), estimates, program.reml)
        out.gradient[:] = 0.0
        return _blank(out)
    padded = jax.tree.map(
        lambda a: _pad(a, program.capacity).astype(program.dtype, copy=False), block.gene
    )
    x, gradient, evaluations, tolerance = _solve(program, padded, out.status == Status.CONVERGED)
    gamma = np.expm1(x) / shared.samples_per_level[:, None]
    estimates = _estimate(
        program.width,
        program.reml,
        program.shared,
        jax.device_put(padded, program.device),
        tuple(jax.device_put(_pad(g, program.capacity), program.device) for g in gamma),
    )
    estimates = Estimates(*(np.asarray(e, np.float64)[..., :genes] for e in estimates))
    _write(out, shared, block, gamma, estimates, program.reml)
    out.gradient[:] = gradient
    out.iterations[:] = evaluations
    out.status[
        (out.status == 0) & ~(gradient <= np.maximum(newton.GRADIENT_TOLERANCE, tolerance))
    ] = Status.MAX_ITERATIONS
    _blank(out)


def _blank(out: Fitted) -> None:
    """A gene without a certified optimum has NaN everywhere; iterations and gradient stay.

    To tell how far it came.
    """
    failed = out.status != Status.CONVERGED
    for array in (out.gamma, out.sigma, out.coefficients, out.standard_errors, out.log_likelihood):
        array[failed] = np.nan
    never = failed & (out.status != Status.MAX_ITERATIONS)
    out.gradient[never] = np.nan
    out.iterations[never] = 0


def _solve(program: _Program, gene: PerGene, wanted: np.ndarray) -> tuple[np.ndarray, ...]:
    """Bursts over the genes that are ``wanted`` and not done; x, gradient, evaluations.

    Tolerance of every gene.
    """
    genes = len(wanted)
    state = jax.tree.map(np.array, _start(program.solver, program.capacity, program.shared))
    left = np.flatnonzero(wanted)
    spent = 0
    burst = iter(_BURSTS)
    while len(left) and spent < MAX_ITERATIONS:
        steps = min(next(burst, 16), MAX_ITERATIONS - spent)
        whole = len(left) == genes
        index = (
            left
            if whole
            else np.concatenate([left, np.repeat(left[-1:], -len(left) % program.width)])
        )

        def gather(leaf, index=index, whole=whole):
            return leaf if whole else _pad(leaf[..., index], program.capacity)

        part = jax.device_put(
            (jax.tree.map(gather, gene), jax.tree.map(gather, state)), program.device
        )
        moved = _advance(
            program.solver,
            program.width,
            program.reml,
            program.shared,
            part[0],
            part[1],
            np.int32(len(index)),
            np.int32(steps),
        )

        def scatter(leaf, new, left=left):
            leaf[..., left] = np.asarray(new)[..., : len(left)]

        jax.tree.map(scatter, state, moved)
        left = left[~state.done[left]]
        spent += steps
    x = state.x[:, :genes].astype(np.float64)
    gradient = np.asarray(newton.violation(jnp.asarray(state.x), jnp.asarray(state.score)))
    return x, gradient[:genes], state.evaluations[:genes], np.asarray(state.tolerance)[:genes]


def _write(
    out: Fitted,
    shared: Shared,
    block: Block,
    gamma: Float[np.ndarray, "k genes"],
    found: Estimates,
    reml: bool,
) -> None:
    """Undo elimination order, scaling and residualising."""
    size = shared.n - shared.p if reml else shared.n
    with np.errstate(all="ignore"):
        out.gamma[:, list(shared.order)] = gamma.T
        out.sigma[:] = found.sigma * block.scale
        raw = block.ols + block.scale * found.coefficients
        out.coefficients[:] = (shared.r_inverse @ raw).T
        out.standard_errors[:] = (np.sqrt(found.variances) * out.sigma).T
        out.log_likelihood[:] = found.log_likelihood - size * np.log(block.scale)
        share = 1 / (1 + gamma.sum(axis=0))
        explained = (out.status == Status.CONVERGED) & ~(share >= _RESIDUAL_SHARE)
        out.status[explained] = Status.ZERO_RESIDUAL
