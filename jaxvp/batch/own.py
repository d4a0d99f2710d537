"""Genes with weights, or missing values, of their own: statistics that nobody shares.

What disqualifies a gene is found here, gene by gene: weights that are none, too few observations,
levels or columns lost. The others are sorted by the number of nodes that their class sums need
(`jaxvp.statistics.nodes`; with random slopes every level is a class) and solved in chunks whose
products fit into the memory of a block.

More than 300 lines: one way from measurements to results, in the order in which a gene goes it.
"""

from __future__ import annotations

import dataclasses
import threading
from typing import TYPE_CHECKING

import jax
import numpy as np
from jaxtyping import Bool, Float, Int, Num

from jaxvp import threads
from jaxvp.batch.devices import Devices
from jaxvp.batch.fitted import Fitted, Undo, at_optimum, write
from jaxvp.batch.products import form_products
from jaxvp.batch.program import Program, capacity_for, solve_block
from jaxvp.design import Design, explain_anything
from jaxvp.likelihood import SWEEP_COLUMNS, Estimates
from jaxvp.solver import SlopeSolution, SlopeTable, Status, relative_factors, slope_lanes
from jaxvp.statistics import (
    Array,
    Compression,
    PerGene,
    Plan,
    Shared,
    SlopeShared,
    SlopeStructure,
    Structure,
    Sums,
    chunk_of,
    needed_nodes,
    own_slopes,
    room_for_slopes,
    slope_structure,
    statistics,
    structure,
    sums,
)

if TYPE_CHECKING:
    from jaxvp.batch.work import Work

# Measurements that are looked at together; products of one chunk that is solved.
_SAMPLES_BYTES = 16 << 20
_CHUNK_BYTES = 32 << 20
_LARGEST_CHUNK = 256
_WIDTH = 32
# Products, with random slopes, of the genes that are stepped together.
_TILE_BYTES = 1 << 20
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
        self._structure: Structure | SlopeStructure | None = None
        self._lock = threading.Lock()
        self._plans: dict[Devices, Plan] = {}
        self._rooms = threading.local()

    @property
    def structure(self) -> Structure | SlopeStructure:
        """Where the products go; one thread makes it."""
        with self._lock:
            if self._structure is None:
                make = slope_structure if self.design.slopes else structure
                self._structure = make(self.design, self.shared)
            return self._structure

    def prepare(self, devices: Devices) -> None:
        """Make what the first of such genes would wait for."""
        if isinstance(self.structure, Structure):
            self._plan(devices)

    def products(self, found: Sums, nodes: int, devices: Devices) -> PerGene:
        """Of a chunk of genes."""
        s, genes = self.structure, self.chunk(nodes)
        if isinstance(s, SlopeStructure):
            rooms: dict[int, PerGene] = vars(self._rooms).setdefault("of", {})
            if nodes not in rooms:
                rooms[nodes] = room_for_slopes(s, genes)
            return own_slopes(s, found, rooms[nodes])
        return form_products(
            devices, nodes, self._plan(devices), chunk_of(s, found, nodes, genes), len(found.n)
        )

    def _plan(self, devices: Devices) -> Plan:
        """On the device that forms the products."""
        s = self.structure
        assert isinstance(s, Structure)
        with self._lock:
            if devices not in self._plans:
                self._plans[devices] = jax.device_put(s.plan, devices.all[0])
            return self._plans[devices]

    def needed_nodes(self, found: Sums) -> Int[np.ndarray, " genes"]:
        """Genes of one number of nodes are solved together."""
        s = self.structure
        if isinstance(s, SlopeStructure):
            return np.full(len(found.n), s.levels)
        return needed_nodes(s, found)

    def _bytes(self, nodes: int) -> int:
        """Products of a gene."""
        s, columns = self.structure, self.shared.n_columns + 1
        if isinstance(s, SlopeStructure):
            return 8 * columns * (s.z.shape[1] * nodes + columns)
        return 8 * (nodes + 2) * columns**2

    def width(self, nodes: int) -> int:
        """Genes that are stepped together."""
        if self.shared.n_columns > SWEEP_COLUMNS:
            return 1
        if not self.design.slopes:
            return _WIDTH
        fits = max(1, _TILE_BYTES // self._bytes(nodes))
        return int(np.clip(1 << (fits.bit_length() - 1), _WIDTH, slope_lanes(self.shared)))

    def chunk(self, nodes: int) -> int:
        """Genes that are solved at a time: by the bytes of their products."""
        width = self.width(nodes)
        if width == 1:
            return 1
        fits = max(1, _CHUNK_BYTES // self._bytes(nodes))
        most = int(np.clip(1 << (fits.bit_length() - 1), width, _LARGEST_CHUNK))
        return min(most, capacity_for(self.genes, width))


def fit_own(
    program: Program,
    work: Work,
    y: Num[np.ndarray, "n genes"],
    weights: Num[np.ndarray, "n genes"],
    out: Fitted,
) -> None:
    """Fit genes by their own weights; a missing value has weight zero."""
    size = int(np.clip(_SAMPLES_BYTES // (8 * len(y)), _WIDTH, _LARGEST_CHUNK))

    def some(start: int) -> None:
        part = slice(start, start + size)
        with jax.enable_x64(True):  # threads do not inherit it
            here = out.take(part)  # views
            _fit_some(program, work, y[:, part], weights[:, part], here)

    threads.each(some, range(0, y.shape[1], size), work.helpers)


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
    if len(good) == len(out.status):
        _fit_good(program, work, y, w, out)
    elif len(good):
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
    lost = losses(s, found)
    out.status[lost != Status.CONVERGED] = lost[lost != Status.CONVERGED]
    if not program.reml:
        out.status[unbounded(work.own.design, found, w)] = Status.TOO_FEW_OBSERVATIONS
    good = out.status == Status.CONVERGED
    if not s.levels:
        genes = _not_alone(np.arange(len(good)))
        here, part = found.take(genes), out.take(genes)
        _write(part, work, here, np.zeros((0, len(genes))), _least_squares(work, here), False)
        part.gradient[:] = 0.0
        out.put(genes, part)
        return
    needed = work.own.needed_nodes(found)
    for nodes in np.unique(needed[good]).tolist():
        genes = np.flatnonzero(good & (needed == nodes))
        size = work.own.chunk(nodes)
        for start in range(0, len(genes), size):
            _fit_chunk(program, work, found, genes[start : start + size], nodes, out)


def losses(s: Structure | SlopeStructure, found: Sums) -> Int[np.ndarray, " genes"]:
    """The status of genes whose samples do not determine the model; `CONVERGED`: they do."""
    status = np.full(len(found.n), Status.CONVERGED)
    status[found.deficient] = Status.RANK_DEFICIENT
    levels = found.levels
    if isinstance(s, SlopeStructure):
        some = np.flatnonzero(found.n < len(s.Q))
        undetermined = some[~s.determined(found.w[:, some])]
        status[undetermined] = Status.RANK_DEFICIENT
        coefficients = np.array([block.z.shape[1] for block in s.blocks])
        effects = levels[s.term_of_block] * coefficients[:, None]
    else:
        effects = levels
    status[(levels == 1).any(axis=0)] = Status.SINGLE_LEVEL
    status[(effects >= found.n).any(axis=0)] = Status.TOO_FEW_OBSERVATIONS
    return status


def unbounded(
    design: Design, found: Sums, w: Float[np.ndarray, "n genes"]
) -> Bool[np.ndarray, " genes"]:
    """Genes whose few observations the model explains whatever they are: ML has no maximum.

    (The same of all samples is refused with the design.)
    """
    p = design.p
    columns = found.levels.sum(axis=0)
    if design.slopes:  # no fewer than there are
        columns = len(design.codes) * found.levels.max(axis=0)
    few = (columns + p >= found.n) & (found.n <= _FEW) & (len(design.codes) > 0)
    known: dict[bytes, bool] = {}
    for gene in np.flatnonzero(few):
        there = w[:, gene] > 0
        key = there.tobytes()
        if key not in known:
            codes = tuple(np.asarray(codes)[there] for codes in design.codes)
            multipliers = tuple(None if m is None else m[there] for m in design.multipliers)
            multipliers = multipliers or (None,) * len(codes)
            known[key] = explain_anything(design.X[there], codes, multipliers)
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
    if work.own.chunk(nodes) > 1:
        genes = _not_alone(genes)
    here = found.take(genes)
    shared, table = program.shared
    # There is none of the gene's own products. Searches of slopes begin by the design's.
    table = table if isinstance(table, SlopeTable) else None
    program = program.of(
        # The gene's own products stand in for these: one program, whatever the weights of samples.
        (_without_classes(shared), table),
        capacity=work.own.chunk(nodes),
        width=min(work.own.width(nodes), work.own.chunk(nodes)),
    )
    gene = work.own.products(here, nodes, program.devices)
    if table is not None:
        gene = dataclasses.replace(gene, plain=_plain(work.compression, here))
    solved = solve_block(program, gene, np.ones(len(genes), dtype=bool))
    part = out.take(genes)
    if isinstance(solved, SlopeSolution):
        slopes = work.compression.slopes
        assert isinstance(shared, SlopeShared)
        gamma, factors = relative_factors(solved, shared, slopes)
        _write(part, work, here, gamma, solved.estimates, program.reml, at_optimum(solved))
        root = np.sqrt(_mean_weight(work, here))
        part.theta[:] = slopes.in_formula_order(factors) / root[:, None]
    else:
        gamma = np.asarray(solved.gamma, np.float64)
        _write(part, work, here, gamma, solved.estimates, program.reml, at_optimum(solved))
        part.theta[:] = np.sqrt(part.gamma)
    part.certify(solved)
    out.put(genes, part)


def _plain(compression: Compression, found: Sums) -> PerGene:
    """What the genes' statistics were without weights of their own; what is lost is zero."""
    y = found.y if compression.weighting is None else found.y[compression.weighting.rows]
    return statistics(compression, y).gene


def _not_alone(genes: Int[np.ndarray, " some"]) -> Int[np.ndarray, " two_or_more"]:
    """One gene is its own neighbour, or its last bits would not be those that it has beside others.

    NumPy and BLAS add a single column in another order. (Genes of larger systems are always alone.)
    """
    return np.repeat(genes, 2) if len(genes) == 1 else genes


def _without_classes(shared: Shared | SlopeShared) -> Shared | SlopeShared:
    if isinstance(shared, SlopeShared):
        return shared
    none = np.zeros(0, shared.sizes.dtype)
    between = np.zeros((0, *shared.between.shape[1:]), none.dtype)
    return dataclasses.replace(
        shared, between=between, sizes=none, level_sizes=none, level_counts=none
    )


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


def _mean_weight(work: Work, found: Sums) -> Float[np.ndarray, " genes"]:
    """What sigma^2 is multiplied by: 1 where weights stay divided by their mean."""
    return np.ones_like(found.mean_weight) if work.rescale else found.mean_weight


def _write(
    out: Fitted,
    work: Work,
    found: Sums,
    gamma: np.ndarray,
    estimates: Estimates,
    reml: bool,
    certified: Bool[Array, " genes"] | bool = True,
) -> None:
    undo = Undo(
        found.scale,
        found.ols,
        found.n,
        found.half_log,
        _mean_weight(work, found),
        found.covariance,
    )
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
        certified,
    )
