"""Products of genes by compiled programs: of those that share the design, or a gene's own."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import jax
import numpy as np
from jaxtyping import Int, Num

from jaxvp import threads
from jaxvp.batch.compiled import PROGRAMS, run_compiled
from jaxvp.batch.devices import Devices
from jaxvp.batch.program import Program
from jaxvp.memory import aligned
from jaxvp.statistics import (
    Block,
    Compression,
    Formed,
    Genes,
    PerGene,
    Plan,
    Records,
    Room,
    Structure,
    Sums,
    careful_statistics,
    chunk_of,
    padded,
)


def form_products(devices: Devices, nodes: int, plan: Plan, genes: Genes, count: int) -> PerGene:
    """Products of genes with weights of their own, on the device that they are solved on.

    Of several the first one forms them.
    """
    leaves, structure = jax.tree.flatten((plan, genes))
    key = (nodes, devices.all[0], structure, *((leaf.shape, leaf.dtype) for leaf in leaves))
    arguments = (nodes, devices.platform, plan, genes, np.int32(count))
    return run_compiled(key, lambda: PROGRAMS["products"](*arguments))


def own_products(s: Structure, found: Sums, nodes: int) -> PerGene:
    """Products of any number of genes, on a CPU and back from it."""
    genes = len(found.n)
    chunk = chunk_of(s, found, nodes, 1 << (genes - 1).bit_length())
    with jax.enable_x64(True):
        cpu = Devices(jax.local_devices(backend="cpu")[:1])
        products = form_products(cpu, nodes, s.plan, chunk, genes)
        return jax.tree.map(lambda a: np.asarray(a)[..., :genes], products)


def form_block(
    program: Program, compression: Compression, y: Num[np.ndarray, "n genes"], helpers: int
) -> Block:
    """Statistics of a block whose genes share the design, on the device that they are solved on.

    A CPU's are formed in parts, by so many threads. Genes that want care are formed by NumPy, and
    put in their places.
    """
    genes = y.shape[1]
    if program.devices.platform == "cpu":
        gene, scale, ols, plain = _form_here(program, compression, y, helpers)
    else:
        gene, scale, ols, plain = _form_there(program, y)
    scale, ols = np.array(scale)[:genes], np.array(ols)[:, :genes]
    flags = (np.zeros(genes, dtype=bool) for _ in range(3))
    block = Block(gene, scale, ols, *flags)
    again = np.flatnonzero(~np.asarray(plain)[:genes])
    if not len(again):
        return block
    careful = careful_statistics(compression, y[:, again], program.records)
    return _with_care(program, block, again, careful)


def _form_there(program: Program, y: Num[np.ndarray, "n genes"]) -> Formed:
    """Products that an accelerator forms."""
    turned = y.T.flags.c_contiguous
    # Nobody keeps the pieces: they are freed once they are put together.
    sent = PROGRAMS["put together"](
        program.capacity,
        turned,
        program.devices.send(y.T if turned else np.ascontiguousarray(y)),
    )
    return _formed(program, "shared products", (program.devices.platform, turned), sent)


def _form_here(
    program: Program, compression: Compression, y: Num[np.ndarray, "n genes"], helpers: int
) -> Formed:
    """Products that a CPU forms.

    In NumPy's arrays: a solver that takes JAX's as well as these would be compiled twice.
    """
    size = program.together(compression.shared, helpers)
    starts = range(0, y.shape[1], size)
    found: dict[int, Formed] = {}

    def form(start: int) -> None:
        # One thread's parts are copied to one place, if they are: each is done before the next.
        room = program.room if helpers == 1 else Room(program.genes)
        with jax.enable_x64(True):  # by every thread
            block = room.block(y[:, start : start + size], size)
            part = _formed(program, "products of tiles", (program.records,), block)
            found[start] = jax.tree.map(np.asarray, part)

    threads.each(form, starts, helpers)
    if size == program.capacity:
        return found[0]
    return _joined(program.capacity, [found[start] for start in starts])


def _joined(capacity: int, parts: list[Formed]) -> Formed:
    """Parts of a block, whose products get the room that it has: ones."""
    axis = _axis_of(parts[0].gene)

    def one(*arrays: np.ndarray) -> np.ndarray:
        shape = np.array(arrays[0].shape)
        shape[axis] = capacity
        room = aligned(*shape.tolist())
        places, end = np.moveaxis(room, axis, 0), 0
        for array in arrays:
            begin, end = end, end + array.shape[axis]
            places[begin:end] = np.moveaxis(array, axis, 0)
        places[end:] = 1.0
        return room

    gene = jax.tree.map(one, *(part.gene for part in parts))
    beside = zip(*(part[1:] for part in parts), strict=True)
    return Formed(gene, *(np.concatenate(arrays, axis=-1) for arrays in beside))


def _axis_of(gene: PerGene | Records) -> int:
    """Along which genes are beside each other."""
    return 0 if isinstance(gene, Records) else -1


def _formed(program: Program, kind: str, settings: tuple[Hashable, ...], sent: Any) -> Formed:
    """What one of the programs makes of measurements."""
    leaves, structure = jax.tree.flatten((program.plan, sent))
    shapes = tuple((leaf.shape, leaf.dtype) for leaf in leaves)
    key = (kind, settings, program.devices.all[0], structure, shapes)
    return run_compiled(key, lambda: PROGRAMS[kind](*settings, program.plan, sent))


def _with_care(
    program: Program, block: Block, places: Int[np.ndarray, " some"], careful: Block
) -> Block:
    """The block with some genes of another."""
    for mine, its in zip(block[1:], careful[1:], strict=True):
        mine[..., places] = its
    fitted = np.flatnonzero(~(careful.non_finite | careful.constant | careful.explained))
    if not len(fitted):
        return block
    put = _put_here
    if program.devices.platform != "cpu":
        # As many as a power of two, for few programs.
        put, fitted = PROGRAMS["put"], padded(fitted, 1 << (len(fitted) - 1).bit_length())
    axis = _axis_of(careful.gene)
    some = jax.tree.map(lambda a: a.take(fitted, axis), careful.gene)
    return block._replace(gene=put(block.gene, some, places[fitted]))


def _put_here(
    gene: PerGene | Records, some: PerGene | Records, places: Int[np.ndarray, " some"]
) -> PerGene | Records:
    """What `PROGRAMS` do on an accelerator, in NumPy's arrays: JAX's may not be written to."""
    axis = _axis_of(gene)

    def one(old: np.ndarray, new: np.ndarray) -> np.ndarray:
        room = old
        if not room.flags.writeable:
            room = aligned(*old.shape)
            room[...] = old
        np.moveaxis(room, axis, 0)[places] = np.moveaxis(new, axis, 0)
        return room

    return jax.tree.map(one, gene, some)
