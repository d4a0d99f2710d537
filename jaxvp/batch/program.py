"""The compiled solver of a call, on one device or several, and the blocks that it takes."""

from __future__ import annotations

from collections.abc import Hashable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Int, Num

from jaxvp.batch.compiled import PROGRAMS, run_compiled
from jaxvp.batch.devices import Devices
from jaxvp.batch.fitted import at_optimum
from jaxvp.likelihood import SWEEP_COLUMNS
from jaxvp.solver import MAX_ITERATIONS, SlopeSolution, SlopeTable, Solution, Surface, Table
from jaxvp.statistics import (
    Block,
    Compression,
    Genes,
    PerGene,
    Plan,
    Records,
    Shared,
    SharedPlan,
    SlopeShared,
    Structure,
    Sums,
    careful_statistics,
    chunk_of,
    padded,
)


def capacity_for(genes: int, width: int) -> int:
    """Genes that a block's buffers hold: tiles in powers of two, for few shapes to compile."""
    tiles = -(-genes // width)
    return width << (tiles - 1).bit_length()


class Program(NamedTuple):
    """What every block of a call shares."""

    shared: tuple[Shared | SlopeShared, Surface | Table | SlopeTable | None]  # on the devices
    solver: str
    width: int
    reml: bool
    capacity: int  # genes that the buffers hold: a multiple of the tile's width
    dtype: np.dtype
    devices: Devices
    plan: SharedPlan | None  # on the device that forms products of the design; None: the host does

    @property
    def takes_records(self) -> bool:
        """Does it read the genes' statistics as records? (What has a `Surface` is in float64.)"""
        return isinstance(self.shared[1], Surface) and self.devices.platform == "cpu"


def solve_block(
    program: Program, gene: PerGene | Records, wanted: np.ndarray
) -> Solution | SlopeSolution:
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


def form_products(devices: Devices, nodes: int, plan: Plan, genes: Genes, count: int) -> PerGene:
    """Products of genes with weights of their own, on the device that they are solved on.

    Of several the first one forms them.
    """
    leaves, structure = jax.tree.flatten((plan, genes))
    key = (nodes, devices.all[0], structure, *((leaf.shape, leaf.dtype) for leaf in leaves))
    arguments = (nodes, devices.platform, plan, genes, np.int32(count))
    return run_compiled(key, lambda: PROGRAMS["products"](*arguments))


def form_block(program: Program, compression: Compression, y: Num[np.ndarray, "n genes"]) -> Block:
    """Statistics of a block whose genes share the design, on the device that they are solved on.

    Genes that want care are formed on the host, and put in their places.
    """
    genes = y.shape[1]
    turned = y.T.flags.c_contiguous
    # Nobody keeps the pieces: they are freed once they are put together.
    sent = PROGRAMS["put together"](
        program.capacity,
        turned,
        program.devices.send(y.T if turned else np.ascontiguousarray(y)),
    )
    leaves, structure = jax.tree.flatten((program.plan, sent))
    shapes = tuple((leaf.shape, leaf.dtype) for leaf in leaves)
    key = (turned, program.devices.all[0], structure, shapes)
    arguments = (program.devices.platform, turned, program.plan, sent)
    gene, scale, ols, plain = run_compiled(key, lambda: PROGRAMS["shared products"](*arguments))
    scale, ols = np.array(scale)[:genes], np.array(ols)[:, :genes]
    flags = (np.zeros(genes, dtype=bool) for _ in range(3))
    block = Block(gene, scale, ols, *flags)
    again = np.flatnonzero(~np.asarray(plain)[:genes])
    if not len(again):
        return block
    return _with_care(block, again, careful_statistics(compression, y[:, again]))


def _with_care(block: Block, places: Int[np.ndarray, " some"], careful: Block) -> Block:
    """The block with some genes of another."""
    for mine, its in zip(block[1:], careful[1:], strict=True):
        mine[..., places] = its
    fitted = np.flatnonzero(~(careful.non_finite | careful.constant | careful.explained))
    if not len(fitted):
        return block
    # As many as a power of two, for few programs.
    room = 1 << (len(fitted) - 1).bit_length()
    fitted = padded(fitted, room)
    columns = jax.tree.map(lambda a: a[..., fitted], careful.gene)
    return block._replace(gene=PROGRAMS["put"](block.gene, columns, places[fitted]))


def own_products(s: Structure, found: Sums, nodes: int) -> PerGene:
    """Products of any number of genes, on a CPU and back from it."""
    genes = len(found.n)
    chunk = chunk_of(s, found, nodes, 1 << (genes - 1).bit_length())
    with jax.enable_x64(True):
        cpu = Devices(jax.local_devices(backend="cpu")[:1])
        products = form_products(cpu, nodes, s.plan, chunk, genes)
        return jax.tree.map(lambda a: np.asarray(a)[..., :genes], products)
