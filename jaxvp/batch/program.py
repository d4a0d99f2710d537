"""The compiled solver of a call, on one device or several, and the blocks that it takes."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxvp.batch.compiled import PROGRAMS, run_compiled
from jaxvp.batch.devices import Devices
from jaxvp.batch.fitted import at_optimum
from jaxvp.likelihood import SWEEP_COLUMNS
from jaxvp.solver import MAX_ITERATIONS, SlopeSolution, SlopeTable, Solution, Surface, Table
from jaxvp.statistics import (
    PerGene,
    Records,
    Room,
    Shared,
    SharedPlan,
    SlopeShared,
    padded,
)

# Genes of a part of a block that is formed at once, at least, and bytes of its records beyond that.
# All 109 MB of a block of D would be new memory every time, by pages of 4 kB: a 40th of the call.
_FEWEST, _PART_BYTES = 64, 24 << 20


def capacity_for(genes: int, width: int) -> int:
    """Genes that a block's buffers hold: tiles in powers of two, for few shapes to compile."""
    tiles = -(-genes // width)
    return width << (tiles - 1).bit_length()


# What genes share, and what their searches begin with.
Placed = tuple[Shared | SlopeShared, Surface | Table | SlopeTable | None]


class Program(NamedTuple):
    """What every block of a call shares."""

    placed: Callable[[], Mapping[Devices, Placed]]
    records: bool  # genes' statistics are `Records`: where there will be a `Surface`, on a CPU
    solver: str
    width: int
    reml: bool
    capacity: int  # genes that the buffers hold: a multiple of the tile's width
    dtype: np.dtype
    devices: Devices
    plan: SharedPlan | None  # on the device that forms products of the design; None: NumPy does
    room: Room  # for measurements that it is formed of
    genes: int  # of a block, at most

    @property
    def shared(self) -> Placed:
        """What is on the devices. It may have to be waited for: a block's statistics need not."""
        return self.placed()[self.devices]

    def of(self, placed: Placed, **changes: Any) -> Program:
        """For other genes, whose statistics are arrays."""
        return self._replace(placed=lambda: {self.devices: placed}, records=False, **changes)

    def together(self, shared: Shared | SlopeShared, helpers: int) -> int:
        """Genes whose products a CPU's program forms at once, a power of two.

        No more than a block has, so that what is read is there; some for each of the threads that
        help; and of `Records` few bytes.
        """
        most = min(self.genes, self.capacity // helpers)
        if self.records:
            most = min(most, _PART_BYTES // (8 * shared.numbers_of_gene))
        return min(self.capacity, max(_FEWEST, 1 << max(1, most).bit_length() - 1))


def solve_block(
    program: Program, gene: PerGene | Records, wanted: np.ndarray
) -> Solution | SlopeSolution:
    """Run the solver on a block of at most `capacity` genes; those not ``wanted`` are not stepped.

    A gene whose optimum is outside of what a `Surface` covers is solved once more without.
    """
    shared, table = program.shared
    if not isinstance(table, Surface):
        # Records were made for one that there is not.
        return _run(program, gene.tree() if isinstance(gene, Records) else gene, wanted)
    found = _run(program, gene, wanted)
    left = np.flatnonzero(wanted & ~np.asarray(at_optimum(found)))
    if not len(left):
        return found
    # A few at a time, whatever their number, so that one program serves.
    alone = program.of((shared, None), capacity=program.width)
    for start in range(0, len(left), program.width):
        found = _once_more(alone, gene, found, left[start : start + program.width])
    return found


def _once_more(
    program: Program, gene: PerGene | Records, found: Solution | SlopeSolution, some: np.ndarray
) -> Solution | SlopeSolution:
    """The block's solution with some of the genes solved anew."""
    if isinstance(gene, Records):
        part = gene.take(some).tree()
    else:
        part = jax.tree.map(lambda a: a[..., some], gene)
    again = _run(program, part, np.ones(len(some), bool))
    again = again._replace(evaluations=again.evaluations + found.evaluations[some])

    def put(old: np.ndarray, new: np.ndarray) -> np.ndarray:
        out = np.array(old)
        out[..., some] = new
        return out

    return jax.tree.map(put, found, again)


def _run(program: Program, gene: PerGene | Records, wanted: np.ndarray) -> Solution | SlopeSolution:
    """The compiled program; on several devices it runs beside other blocks."""
    genes = len(wanted)
    stepped = np.zeros(program.capacity, dtype=bool)
    stepped[:genes] = wanted
    if isinstance(gene, PerGene):  # records have room for them
        gene = jax.tree.map(
            lambda a: padded(a, program.capacity).astype(program.dtype, copy=False), gene
        )
    devices = program.devices
    leaves, structure = jax.tree.flatten((program.shared, gene))
    shapes = tuple((leaf.shape, leaf.dtype) for leaf in leaves)
    key = (program.solver, program.width, program.reml, devices.all, structure, shapes)
    launch = partial(_launch, program, key)
    if devices.mesh is None:
        # They go where the arguments are that all blocks share: sooner than by `jax.device_put`.
        found = launch(gene, stepped)
    else:
        # Blocks of one launch have the same design, not only its shapes.
        same = tuple(id(leaf) for leaf in jax.tree.leaves(program.shared) if leaf.size)
        found = devices.spread((key, same), gene, stepped, launch)
    # Out of the device, and out of float32, before the context ends.
    return jax.tree.map(lambda a: np.asarray(a)[..., :genes], found)


def _launch(program: Program, key: Hashable, gene: Any, wanted: Any) -> Solution | SlopeSolution:
    """The solver for a block, or for one on every device."""
    shared, table = program.shared
    fixed = (program.width, program.reml, program.devices.platform)
    limit = np.int32(MAX_ITERATIONS)
    if isinstance(shared, SlopeShared):
        kind, settings = "slopes", fixed
    else:
        kind = "intercepts" if shared.n_columns <= SWEEP_COLUMNS else "large"
        settings = (program.solver, *fixed)
    mesh = program.devices.mesh
    if mesh is not None:
        kind, settings = f"spread {kind}", (mesh, program.solver, fixed)

    def run() -> Solution | SlopeSolution:
        return PROGRAMS[kind](*settings, shared, gene, wanted, limit, table)

    return run_compiled(key, run)
