"""Genes that lack measurements, sorted by which they lack.

Where many genes of a block lack the same samples they share statistics again, those of the design
without these samples. The columns of levels that are lost stay, empty, and the arrays have room for
any class sizes, so that all patterns run the same compiled program. Rare patterns go through `own`.
"""

from __future__ import annotations

import dataclasses
import threading
from typing import TYPE_CHECKING, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Int, Num

from jaxvp.batch.fitted import Fitted
from jaxvp.batch.own import fit_own, losses, unbounded
from jaxvp.batch.program import Program
from jaxvp.batch.shared import column_covariance, fit_shared
from jaxvp.solver import SlopeTable, Status, Surface, Table, prepare
from jaxvp.statistics import (
    Compression,
    Shared,
    SlopeShared,
    compress,
    compress_slopes,
    room_for_losses,
    sums,
)

if TYPE_CHECKING:
    from jaxvp.batch.work import Work

# Genes of a block for which it pays to compress the design again.
_ENOUGH = 64
# Compressed designs that are kept from block to block.
_KEPT = 32


class Pattern(NamedTuple):
    """The design without some samples."""

    status: Status  # other than CONVERGED: no gene with this pattern can be fitted
    n_obs: int
    compression: Compression
    covariance: Float[np.ndarray, "p p"]
    # on the devices
    placed: tuple[Shared | SlopeShared, Surface | Table | SlopeTable | None] | None


class Patterns:
    """Those that were met, the latest ones."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[tuple[bytes, object], Pattern] = {}

    def get(self, program: Program, work: Work, mask: Bool[np.ndarray, " n"]) -> Pattern:
        """A pattern, compressed now or before."""
        key = (np.packbits(mask).tobytes(), program.devices)
        with self._lock:
            if key not in self._known:
                while len(self._known) >= _KEPT:
                    self._known.pop(next(iter(self._known)))
                self._known[key] = _compress(program, work, mask)
            return self._known[key]


def _compress(program: Program, work: Work, mask: Bool[np.ndarray, " n"]) -> Pattern:
    design, base = work.own.design, work.compression.shared
    n = int(mask.sum())
    status = Status.CONVERGED
    if n <= base.p:
        status = Status.TOO_FEW_OBSERVATIONS
    else:
        w = mask[:, None].astype(np.float64)
        s = work.own.structure
        found = sums(s, np.zeros_like(w), w)
        status = Status(losses(s, found)[0])
        if not program.reml and unbounded(design, found, w).any():
            status = Status.TOO_FEW_OBSERVATIONS
    if status != Status.CONVERGED:
        return Pattern(status, n, work.compression, work.covariance, None)
    weights = mask.astype(np.float64)
    if design.slopes:
        compression = compress_slopes(design, weights, few_shapes=True)
    else:
        room = room_for_losses(design, base.levels[0]) if base.levels else None
        compression = compress(design, weights, room)
    shared, ours = compression.shared, program.shared[1]
    table = prepare(program.solver, shared, program.reml)
    kinds = (Table, SlopeTable)
    if isinstance(table, kinds) and isinstance(ours, kinds):
        # Or patterns on both sides of the number of samples would be two programs.
        table = dataclasses.replace(table, single=ours.single)
    host = jax.tree.map(lambda a: np.asarray(a, program.dtype), (shared, table))
    placed = jax.device_put(host, program.devices.everywhere)
    return Pattern(status, n, compression, column_covariance(design.X, compression), placed)


def fit_common(
    program: Program,
    work: Work,
    y: Num[np.ndarray, "samples genes"],
    missing: Int[np.ndarray, " some"],
    out: Fitted,
) -> Int[np.ndarray, " rare"]:
    """Fit the genes ``missing`` of a block, none of them complete, that share a pattern with many.

    The places of the others are the result.
    """
    # With weights of the samples every size differs: there each gene has its own products.
    if work.compression.weighting is not None or len(missing) < _ENOUGH:
        return missing
    y = y[:, missing]
    part = out.take(missing)
    mask = ~np.isnan(y)
    packed = np.ascontiguousarray(np.packbits(mask, axis=0).T)
    _, kind, count = np.unique(packed, axis=0, return_inverse=True, return_counts=True)
    kind = kind.reshape(-1)
    for common in np.flatnonzero(count >= _ENOUGH):
        genes = np.flatnonzero(kind == common)
        _fit_common(program, work, y, mask[:, genes[0]], genes, part)
    out.put(missing, part)
    return missing[count[kind] < _ENOUGH]


def fit_rare(
    program: Program, work: Work, y: Num[np.ndarray, "samples genes"], out: Fitted
) -> None:
    """Fit genes that lack measurements, each by the weights that it has left."""
    fit_own(program, work, y, np.broadcast_to(work.own.base[:, None], y.shape), out)


def _fit_common(
    program: Program,
    work: Work,
    y: Num[np.ndarray, "samples genes"],
    mask: Bool[np.ndarray, " samples"],
    genes: Int[np.ndarray, " some"],
    out: Fitted,
) -> None:
    pattern = work.patterns.get(program, work, mask)
    part = out.take(genes)
    part.n_obs[:] = pattern.n_obs
    if pattern.placed is None:
        part.status[:] = pattern.status
        part.blank()
    else:
        work = work._replace(compression=pattern.compression, covariance=pattern.covariance)
        # The host forms the products: for every pattern they would be another program.
        program = program.of(pattern.placed, plan=None)
        fit_shared(program, work, y[:, genes], part)
    out.put(genes, part)
