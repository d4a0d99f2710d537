"""The compiled solver of a call on one device, and the blocks that it takes."""

from __future__ import annotations

import threading
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np

from jaxvp.batch.fitted import at_optimum
from jaxvp.solver import (
    MAX_ITERATIONS,
    SlopeSolution,
    Solution,
    Surface,
    Table,
    solve,
    solve_slopes,
)
from jaxvp.statistics import PerGene, Shared, SlopeShared

Device: TypeAlias = Any  # jax.Device, which is a variable to type checkers


def capacity_for(genes: int, width: int) -> int:
    """Genes that a block's buffers hold: tiles in powers of two, for few shapes to compile."""
    tiles = -(-genes // width)
    return width << (tiles - 1).bit_length()


class Program(NamedTuple):
    """What every block of a call shares."""

    shared: tuple[Shared | SlopeShared, Surface | Table | None]  # on the device
    solver: str
    width: int
    reml: bool
    capacity: int  # genes that the buffers hold: a multiple of the tile's width
    dtype: np.dtype
    device: Device


# XLA prefers vectors of 256 bits, also where a processor has 512.
_WIDE = {"xla_cpu_prefer_vector_width": 512}


def _programs(options: dict[str, int] | None) -> tuple[Any, Any]:
    """The solvers of intercepts and of slopes, for these options of XLA."""
    return (
        jax.jit(solve, static_argnums=(0, 1, 2, 3), compiler_options=options),
        jax.jit(solve_slopes, static_argnums=(0, 1, 2), compiler_options=options),
    )


_solve, _solve_slopes = _programs(_WIDE)
_compiled: set[Any] = set()
_compiling = threading.Lock()
# Programs that are kept, for a process that fits one design after the other. One holds some 600
# mappings of memory, of which Linux allows a process 65,530: where there are no more the compiler
# dies of a segmentation fault.
_KEPT = 32


def solve_block(program: Program, gene: PerGene, wanted: np.ndarray) -> Solution | SlopeSolution:
    """Run the solver on a block of at most `capacity` genes; those not ``wanted`` are not stepped.

    A gene whose optimum is outside of what a `Surface` covers is solved once more without.
    """
    found = _run(program, gene, wanted)
    shared, table = program.shared
    if not isinstance(table, Surface):
        return found
    left = np.flatnonzero(wanted & ~np.asarray(at_optimum(found)))
    if not len(left):
        return found
    # A few at a time, whatever their number, so that one program serves.
    alone = program._replace(shared=(shared, None), capacity=program.width)
    for start in range(0, len(left), program.width):
        found = _once_more(alone, gene, found, left[start : start + program.width])
    return found


def _once_more(
    program: Program, gene: PerGene, found: Solution | SlopeSolution, some: np.ndarray
) -> Solution | SlopeSolution:
    """The block's solution with some of the genes solved anew."""
    part = jax.tree.map(lambda a: a[..., some], gene)
    again = _run(program, part, np.ones(len(some), bool))
    again = again._replace(evaluations=again.evaluations + found.evaluations[some])

    def put(old: np.ndarray, new: np.ndarray) -> np.ndarray:
        out = np.array(old)
        out[..., some] = new
        return out

    return jax.tree.map(put, found, again)


def _run(program: Program, gene: PerGene, wanted: np.ndarray) -> Solution | SlopeSolution:
    """The compiled program; two threads do not compile the same one (but after `_forget`)."""
    genes = len(wanted)
    stepped = np.zeros(program.capacity, dtype=bool)
    stepped[:genes] = wanted
    gene = jax.tree.map(lambda a: _pad(a, program.capacity).astype(program.dtype, copy=False), gene)
    shared, table = program.shared
    placed = jax.device_put((gene, stepped, np.int32(MAX_ITERATIONS)), program.device)
    arguments = (shared, *placed, table)
    fixed = (program.width, program.reml, program.device.platform)

    def run() -> Solution | SlopeSolution:
        if isinstance(shared, SlopeShared):
            found = _solve_slopes(*fixed, *arguments[:-1])
        else:
            found = _solve(program.solver, *fixed, *arguments)
        # Out of the device, and out of float32, before the context ends.
        return jax.tree.map(lambda a: np.asarray(a)[..., :genes], found)

    leaves, structure = jax.tree.flatten(arguments)
    shapes = tuple((leaf.shape, leaf.dtype) for leaf in leaves)
    key = (program.solver, program.width, program.reml, program.device, structure, shapes)
    if key not in _compiled:
        with _compiling:
            if key not in _compiled:
                if len(_compiled) >= _KEPT:
                    _forget()
                try:
                    found = run()
                except jax.errors.JaxRuntimeError as error:
                    if "No such compile option" not in str(error):
                        raise
                    _without_options()
                    found = run()
                _compiled.add(key)
                return found
    return run()


def _without_options() -> None:
    """From now on: this version of XLA does not know them."""
    global _solve, _solve_slopes
    _solve, _solve_slopes = _programs(None)


def _forget() -> None:
    """Drop all programs, of other threads too: those that run end, the next call compiles."""
    _compiled.clear()
    for program in (_solve, _solve_slopes):
        program.clear_cache()


def _pad(array: np.ndarray, capacity: int) -> np.ndarray:
    spare = capacity - array.shape[-1]
    return (
        array
        if not spare
        else np.concatenate([array, np.repeat(array[..., -1:], spare, axis=-1)], axis=-1)
    )
