"""The compiled solver of a call, on one device or several, and the blocks that it takes."""

from __future__ import annotations

import threading
from collections.abc import Hashable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from jaxvp.batch.devices import GENES, Devices
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


def capacity_for(genes: int, width: int) -> int:
    """Genes that a block's buffers hold: tiles in powers of two, for few shapes to compile."""
    tiles = -(-genes // width)
    return width << (tiles - 1).bit_length()


class Program(NamedTuple):
    """What every block of a call shares."""

    shared: tuple[Shared | SlopeShared, Surface | Table | None]  # on the devices
    solver: str
    width: int
    reml: bool
    capacity: int  # genes that the buffers hold: a multiple of the tile's width
    dtype: np.dtype
    devices: Devices


# XLA prefers vectors of 256 bits, also where a processor has 512.
_WIDE = {"xla_cpu_prefer_vector_width": 512}


def _solve_spread(
    mesh: Mesh, solver: str, fixed: tuple[int, bool, str], shared: Any, gene: Any, wanted: Any,
    limit: Any, table: Any,
) -> Any:  # fmt: skip
    """A block of genes on every device of a mesh: those of genes have an axis of blocks in front.

    Genes that are sharded automatically would make the devices agree, in every iteration, whether
    any of them has one left.
    """

    def solve_one(shared, block, limit, table):
        gene, wanted = jax.tree.map(lambda a: a[0], block)
        if isinstance(shared, SlopeShared):
            found = solve_slopes(*fixed, shared, gene, wanted, limit)
        else:
            found = solve(solver, *fixed, shared, gene, wanted, limit, table)
        return jax.tree.map(lambda a: a[None], found)

    every, each = PartitionSpec(), PartitionSpec(GENES)
    specs = {"in_specs": (every, each, every, every), "out_specs": each}
    spread = jax.shard_map(solve_one, mesh=mesh, check_vma=False, **specs)
    return spread(shared, (gene, wanted), limit, table)


def _programs(options: dict[str, int] | None) -> dict[str, Any]:
    """The solvers of intercepts and of slopes, and both on several devices, for options of XLA."""
    return {
        "intercepts": jax.jit(solve, static_argnums=(0, 1, 2, 3), compiler_options=options),
        "slopes": jax.jit(solve_slopes, static_argnums=(0, 1, 2), compiler_options=options),
        "spread": jax.jit(_solve_spread, static_argnums=(0, 1, 2), compiler_options=options),
    }


_solvers = _programs(_WIDE)
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
    """The compiled program; on several devices it runs beside other blocks."""
    genes = len(wanted)
    stepped = np.zeros(program.capacity, dtype=bool)
    stepped[:genes] = wanted
    gene = jax.tree.map(lambda a: _pad(a, program.capacity).astype(program.dtype, copy=False), gene)
    devices = program.devices
    leaves, structure = jax.tree.flatten((program.shared, gene))
    shapes = tuple((leaf.shape, leaf.dtype) for leaf in leaves)
    key = (program.solver, program.width, program.reml, devices.all, structure, shapes)
    launch = partial(_launch, program, key)
    if devices.mesh is None:
        found = launch(*jax.device_put((gene, stepped), devices.everywhere))
    else:
        # Blocks of one launch have the same design, not only its shapes.
        same = tuple(id(leaf) for leaf in jax.tree.leaves(program.shared) if leaf.size)
        found = devices.spread((key, same), gene, stepped, launch)
    # Out of the device, and out of float32, before the context ends.
    return jax.tree.map(lambda a: np.asarray(a)[..., :genes], found)


def _launch(program: Program, key: Hashable, gene: Any, wanted: Any) -> Solution | SlopeSolution:
    """Two threads do not compile the same program (but after `_forget`)."""
    shared, table = program.shared
    fixed = (program.width, program.reml, program.devices.platform)
    limit = np.int32(MAX_ITERATIONS)

    def run() -> Solution | SlopeSolution:
        if program.devices.mesh is not None:
            settings = (program.devices.mesh, program.solver, fixed)
            return _solvers["spread"](*settings, shared, gene, wanted, limit, table)
        if isinstance(shared, SlopeShared):
            return _solvers["slopes"](*fixed, shared, gene, wanted, limit)
        return _solvers["intercepts"](program.solver, *fixed, shared, gene, wanted, limit, table)

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
    _solvers.update(_programs(None))


def _forget() -> None:
    """Drop all programs, of other threads too: those that run end, the next call compiles."""
    _compiled.clear()
    for program in _solvers.values():
        program.clear_cache()


def _pad(array: np.ndarray, capacity: int) -> np.ndarray:
    spare = capacity - array.shape[-1]
    return (
        array
        if not spare
        else np.concatenate([array, np.repeat(array[..., -1:], spare, axis=-1)], axis=-1)
    )
