"""Genes with weights, or missing values, of their own: statistics that nobody shares.

What disqualifies a gene is found here, gene by gene: weights that are none, too few observations,
levels or columns lost. The others are sorted by the number of nodes that their class sums need
(`jaxvp.statistics.nodes`) and solved in chunks whose products fit into the memory of a block.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import jax
import numpy as np
from jaxtyping import Bool, Float, Int, Num

from jaxvp.batch.fitted import Fitted, Undo, write
from jaxvp.batch.program import Program, capacity_for, solve_block
from jaxvp.design import Design, explain_anything
from jaxvp.likelihood import SWEEP_COLUMNS, Estimates
from jaxvp.solver import Solution, Status
from jaxvp.statistics import (
    Compression,
    PerGene,
    Structure,
    Sums,
    needed_nodes,
    own,
    room_for,
    structure,
    sums,
)

if TYPE_CHECKING:
    from jaxvp.batch.work import Work

# Measurements that are looked at together; products of one chunk that is solved.
_SAMPLES_BYTES = 16 << 20
_CHUNK_BYTES = 32 << 20
_LARGEST_CHUNK = 256
_WIDTH = 16
# Observations up to which a gene's own model is asked whether it has an optimum: a dense rank.
_FEW = 300


class Own:
    """The design's side of such genes: made when the first of them comes."""

    def __init__(self, design: Design, compression: Compression, genes: int) -> None:
        self.design, self.shared, self.genes = design, compression.shared, genes
        weighting = compression.weighting
        self.base = np.ones(design.n)  # weights of a gene that has none of its own
        if weighting is not None:
            self.base[:] = 0.0
            self.base[weighting.rows] = weighting.root[:, 0] ** 2 * weighting.mean
        self._structure: Structure | None = None
        self._lock = threading.Lock()
        self._rooms = threading.local()

    @property
    def structure(self) -> Structure:
        """Where the products go; one thread makes it."""
        with self._lock:
            if self._structure is None:
                self._structure = structure(self.design, self.shared)
            return self._structure

    def room(self, nodes: int) -> PerGene:
        """Arrays of this thread for a chunk."""
        rooms: dict[int, PerGene] = vars(self._rooms).setdefault("of", {})
        if nodes not in rooms:
            rooms[nodes] = room_for(self.structure, nodes, self.chunk(nodes))
        return rooms[nodes]

    def chunk(self, nodes: int) -> int:
        """Genes that are solved at a time: by the bytes of their products."""
        columns = self.shared.n_columns
        if columns > SWEEP_COLUMNS:
            return 1
        fits = _CHUNK_BYTES // (8 * (nodes + 2) * (columns + 1) ** 2)
        most = int(np.clip(fits // _WIDTH * _WIDTH, _WIDTH, _LARGEST_CHUNK))
        return min(most, capacity_for(self.genes, _WIDTH))


def fit_own(
    program: Program,
    work: Work,
    y: Num[np.ndarray, "n genes"],
    weights: Num[np.ndarray, "n genes"],
    out: Fitted,
) -> None:
    """Fit genes by their own weights; a missing value has weight zero."""
    size = max(_WIDTH, _SAMPLES_BYTES // (8 * len(y)))
    for start in range(0, y.shape[1], size):
        part = slice(start, start + size)
        here = out.take(part)  # views
        _fit_some(program, work, y[:, part], weights[:, part], here)


def _fit_some(
    program: Program,
    work: Work,
    y: Num[np.ndarray, "n genes"],
    weights: Num[np.ndarray, "n genes"],
    out: Fitted,
) -> None:
    y = np.array(y, dtype=np.float64, order="C")
    w = np.where(np.isnan(y), 0.0, weights)
    counts = w > 0
    out.n_obs[:] = counts.sum(axis=0)
    finite = np.isfinite(np.where(counts, y, 0.0)).all(axis=0)
    out.status[~finite] = Status.NON_FINITE
    out.status[out.n_obs <= work.compression.shared.p] = Status.TOO_FEW_OBSERVATIONS
    none = ~(weights > 0).any(axis=0)
    out.status[~(np.isfinite(w) & (w >= 0)).all(axis=0) | none] = Status.BAD_WEIGHTS
    good = np.flatnonzero(out.status == Status.CONVERGED)
    if len(good):
        part = out.take(good)
        _fit_good(program, work, y[:, good], w[:, good], part)
        out.put(good, part)
    out.blank()


def _fit_good(
    program: Program,
    work: Work,
    y: Float[np.ndarray, "n genes"],
    w: Float[np.ndarray, "n genes"],
    out: Fitted,
) -> None:
    s = work.own.structure
    found = sums(s, y, w)
    out.status[found.explained] = Status.ZERO_RESIDUAL
    out.status[found.constant] = Status.ZERO_VARIANCE
    out.status[found.deficient] = Status.RANK_DEFICIENT
    out.status[(found.levels == 1).any(axis=0)] = Status.SINGLE_LEVEL
    out.status[(found.levels >= found.n).any(axis=0)] = Status.TOO_FEW_OBSERVATIONS
    if not program.reml:
        out.status[unbounded(work.own.design, found, w)] = Status.TOO_FEW_OBSERVATIONS
    good = out.status == Status.CONVERGED
    if not s.levels:
        _write(out, work, found, np.zeros((0, len(good))), _least_squares(work, found), False)
        out.gradient[:] = 0.0
        return
    needed = needed_nodes(s, found)
    for nodes in np.unique(needed[good]).tolist():
        genes = np.flatnonzero(good & (needed == nodes))
        size = work.own.chunk(nodes)
        for start in range(0, len(genes), size):
            _fit_chunk(program, work, found, genes[start : start + size], nodes, out)


def unbounded(
    design: Design, found: Sums, w: Float[np.ndarray, "n genes"]
) -> Bool[np.ndarray, " genes"]:
    """Genes whose few observations the model explains whatever they are: ML has no maximum.

    (The same of all samples is refused with the design.)
    """
    p = design.p
    few = (found.levels.sum(axis=0) + p >= found.n) & (found.n <= _FEW) & (len(design.codes) > 0)
    known: dict[bytes, bool] = {}
    for gene in np.flatnonzero(few):
        there = w[:, gene] > 0
        key = there.tobytes()
        if key not in known:
            codes = tuple(np.asarray(codes)[there] for codes in design.codes)
            known[key] = explain_anything(design.X[there], codes, (None,) * len(codes))
        few[gene] = known[key]
    return few


def _fit_chunk(
    program: Program,
    work: Work,
    found: Sums,
    genes: Int[np.ndarray, " some"],
    nodes: int,
    out: Fitted,
) -> None:
    """Fit genes of one number of nodes."""
    here = take(found, genes)
    shared, _ = program.shared
    program = program._replace(
        # The gene's own products stand in for these: none need be there.
        shared=(shared, None),
        capacity=work.own.chunk(nodes),
        width=min(_WIDTH, work.own.chunk(nodes)),
    )
    gene = own(work.own.structure, here, nodes, work.own.room(nodes))
    solved = solve_block(program, gene, np.ones(len(genes), dtype=bool))
    part = out.take(genes)
    assert isinstance(solved, Solution)
    gamma = np.asarray(solved.gamma, np.float64)
    _write(part, work, here, gamma, solved.estimates, program.reml)
    part.certify(solved)
    out.put(genes, part)


def take(found: Sums, genes: Int[np.ndarray, " some"]) -> Sums:
    """Some of the genes."""
    first = found._replace(covariance=np.moveaxis(found.covariance, 0, -1))
    some = Sums(*(np.ascontiguousarray(array[..., genes]) for array in first))
    return some._replace(covariance=np.moveaxis(some.covariance, -1, 0))


def _least_squares(work: Work, found: Sums) -> Estimates:
    """The fixed model, in closed form, in the units of the scaled residuals."""
    n, p = found.n, found.inverse.shape[0]
    r_inverse = np.asarray(work.compression.shared.r_inverse)
    half = np.einsum("ij,jkg->ikg", r_inverse, found.inverse)
    with np.errstate(all="ignore"):
        return Estimates(
            np.zeros((p, len(n))),
            np.einsum("ikg,ik->ig", half, r_inverse),
            np.sqrt(n / (n - p)),
            -0.5 * n * (1 + np.log(2 * np.pi)),
        )


def _write(
    out: Fitted, work: Work, found: Sums, gamma: np.ndarray, estimates: Estimates, reml: bool
) -> None:
    mean = np.ones_like(found.mean_weight) if work.rescale else found.mean_weight
    undo = Undo(found.scale, found.ols, found.n, found.half_log, mean, found.covariance)
    estimates = jax.tree.map(np.asarray, estimates)
    write(
        out,
        work.compression.shared,
        undo,
        gamma,
        gamma.sum(axis=0),
        estimates,
        reml,
        work.fixed_part,
    )
    out.theta[:] = np.sqrt(out.gamma)
