"""Solvers: from a gene's deviance to its certified optimum.

A solver is a module of functions over one gene, mapped over genes here (by `jax.vmap`, or as they
are where they act on leading axes and take a tile of genes on a trailing one):

- ``start(shared)``: the state before the first evaluation;
- ``step(deviance, samples_per_level, state)``: the state after one more evaluation, frozen once
  ``state.done``;
- ``RESTARTS``: is there, for several local optima, ``restart(shared, start, best)``, where another
  attempt begins and for whom none is worth it, and ``better(one, other)``: is the other end of two
  the better one?
- ``state.x``, ``.score``, ``.tolerance``, ``.evaluations``, ``.done``, ``.estimates``;
- ``GENES_LAST``: does ``step`` take the genes of a tile on a trailing axis?

``newton`` is the default; ``optax`` runs the same deviance through optax's L-BFGS, as an
independent check. `solve` runs them in the one bounded loop over a block of genes (`loop`);
`jaxvp.solver.slopes` does it for models with random slopes.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple, overload

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from jaxvp.likelihood import SWEEP_COLUMNS, Estimates, accelerated, evaluate, traced_for
from jaxvp.solver import lbfgs, newton, slope_table, surface
from jaxvp.solver import table as table_of_starts
from jaxvp.solver.large import solve_large
from jaxvp.solver.loop import BURSTS_OF_OWN, by_tiles, iterate
from jaxvp.solver.slope_table import SlopeTable
from jaxvp.solver.slopes import SlopeSolution, relative_factors, slope_lanes, solve_slopes
from jaxvp.solver.status import Status
from jaxvp.solver.surface import Surface
from jaxvp.solver.table import Table, starts
from jaxvp.statistics import Array, Compression, PerGene, Records, Shared, SlopeShared

__all__ = [
    "MAX_ITERATIONS",
    "SOLVERS",
    "SlopeSolution",
    "SlopeTable",
    "Solution",
    "Status",
    "Surface",
    "Table",
    "lanes",
    "newton",
    "prepare",
    "prepare_many",
    "relative_factors",
    "searches_surface",
    "solve",
    "solve_slopes",
]

SOLVERS: dict[str, ModuleType] = {"newton": newton, "optax": lbfgs}

# An iteration limit, not a target: three to six evaluations are the rule.
MAX_ITERATIONS = 200
# Columns up to which a tile is mostly calls of kernels (F: 512 genes take 14 % less than 128).
_TINY, _TINY_LANES = 2, 512


class Solution(NamedTuple):
    """Optima of a block of genes, random terms in elimination order, the gene axis last."""

    gamma: Float[Array, "k genes"]
    violation: Float[Array, " genes"]  # of the optimality conditions, in x
    tolerance: Float[Array, " genes"]  # rounding error of the score
    evaluations: Int[Array, " genes"]
    estimates: Estimates
    hessian: Float[Array, "k k genes"] | None  # in x; of Newton's method alone


@overload
def prepare(solver: str, shared: Shared, reml: bool) -> Table | None: ...


@overload
def prepare(solver: str, shared: Shared | SlopeShared, reml: bool) -> Table | SlopeTable | None: ...


def prepare(solver: str, shared: Shared | SlopeShared, reml: bool) -> Table | SlopeTable | None:
    """What all genes share beside their statistics."""
    if isinstance(shared, SlopeShared):
        return slope_table.build(shared, reml)
    return table_of_starts.build(shared, reml) if solver == "newton" else None


def searches_surface(solver: str, shared: Shared | SlopeShared, genes: int) -> bool:
    """Whether so many genes have a `Surface`, if its determinants turn out to be exact enough."""
    return (
        isinstance(shared, Shared)
        and solver == "newton"
        and shared.n_columns > SWEEP_COLUMNS
        and genes >= surface.ENOUGH_GENES
        and len(shared.levels) in surface.TERMS
    )


def prepare_many(
    solver: str, compression: Compression, reml: bool, genes: int, platform: str = "cpu"
) -> Surface | Table | SlopeTable | None:
    """The same for a whole study of so many genes.

    The shapes of a `Surface` follow from the samples that are there, and it leaves some genes to be
    solved without it.
    """
    if searches_surface(solver, compression.shared, genes):
        # On an accelerator genes are factored together: not measured there against the other way.
        found = surface.build(compression, reml, classes=platform == "cpu")
        return surface.for_cpu(found) if found is not None and platform == "cpu" else found
    return prepare(solver, compression.shared, reml)


def lanes(shared: Shared | SlopeShared, platform: str = "cpu") -> int:
    """Genes that are stepped together: a tile whose systems stay in a core's second-level cache."""
    if isinstance(shared, SlopeShared):
        return slope_lanes(shared, platform)
    if shared.n_columns > SWEEP_COLUMNS:
        # Two systems of every gene: not in the cache, but few passes over what they share.
        entries, most = (2.5e5, 16) if platform == "cpu" else (6.4e6, 512)
        return _that_fit(entries / shared.n_columns**2, 4, most)
    system = (shared.n_columns + 1) ** 2
    if platform != "cpu":
        # The larger their systems, the more a tile that is nearly done costs.
        return _that_fit(2e6 / system, 1024, 4096)
    # By measurement. Loops over fewer than 32 genes take as long as those over 32.
    return _TINY_LANES if shared.n_columns <= _TINY else _that_fit(5.1e4 / system, 32, 128)


def _that_fit(most: float, fewest: int, limit: int) -> int:
    """A power of two, ``most`` at most, between two others."""
    return int(np.clip(2 ** np.floor(np.log2(most)), fewest, limit))


def solve(
    solver: str,
    width: int,
    reml: bool,
    platform: str,
    shared: Shared,
    gene: PerGene | Records,
    wanted: Bool[Array, " genes"],
    limit: Int[Array, ""],
    table: Surface | Table | None = None,
) -> Solution:
    """Optima and estimates of a block of genes, of which there are a multiple of ``width``.

    All bursts are one loop (`loop`), so that the step is compiled once, for second starts too.
    Genes that are not ``wanted`` are never stepped. ``platform`` is what the program is for.
    Records of genes are for a `Surface`.
    """
    with traced_for(platform):
        return _solve(solver, width, reml, shared, gene, wanted, limit, table)


def _solve(
    solver: str,
    width: int,
    reml: bool,
    shared: Shared,
    gene: PerGene | Records,
    wanted: Bool[Array, " genes"],
    limit: Int[Array, ""],
    table: Surface | Table | None,
) -> Solution:
    if isinstance(table, Surface):
        found = solve_large(reml, shared, gene, wanted, limit, table)
        return _solution(found, shared)
    assert isinstance(gene, PerGene)
    method = SOLVERS[solver]
    large = shared.n_columns > SWEEP_COLUMNS
    if large and not accelerated():
        width = 1
    count = wanted.shape[0]
    m = shared.samples_per_level

    def one_step(gene, state):
        def deviance(gamma):
            return evaluate(gamma, shared, gene, reml=reml)

        return method.step(deviance, m, state)

    if width == 1:
        stepped = _single(one_step)
    elif method.GENES_LAST and not large:
        # What `jax.vmap` gives, without its transposes: it moves the genes to the front.
        stepped = one_step
    else:
        stepped = jax.vmap(one_step, in_axes=-1, out_axes=-1)

    # Here what is large, a gene's own or of a large system, is not copied once more. Nor is what is
    # small on a CPU, where most tiles are neighbours (B: 4 % of the time).
    copied = accelerated() and not large and gene.own is None
    known = Records.of(gene) if copied else gene
    bursts = None if gene.own is None else BURSTS_OF_OWN

    begin = method.start(shared)
    start = Records.repeated(begin, count).replaced(done=~wanted)
    trials = None
    if table is not None:
        size = shared.n - reml * shared.p
        empty = jnp.zeros((2, len(table.gammas), count), gene.within_yy.dtype)
        together = table_of_starts.genes_together(table, shared)
        trials = by_tiles(lambda g: starts(table, shared, g, size), gene, empty, together)
    tabled = 0 if trials is None else len(trials)

    def attempt(number, best):
        ended = best.tree()
        trial, done = method.restart(shared, begin, ended)
        if trials is not None:
            of_table = trials[jnp.minimum(number, tabled - 1)]
            given = (number < tabled) & jnp.isfinite(of_table).all(0)
            # Who has no other valley and is not at an optimum begins again elsewhere.
            over = jnp.where(number < tabled, newton.certified(ended), done)
            trial, done = jnp.where(given, of_table, trial), jnp.where(given, False, over)
        state = start.replaced(trial=trial, evaluations=ended.evaluations, done=done | ~wanted)
        found = iterate(stepped, width, known, state, limit, bursts=bursts)
        return best.chosen(found, method.better(ended, found.tree()), always="evaluations")

    if method.RESTARTS:
        found = jax.lax.fori_loop(0, max(tabled, 1) + 1, attempt, start)
    else:
        found = iterate(stepped, width, known, start, limit, bursts=bursts)
    return _solution(found.tree(), shared)


def _solution(found: Any, shared: Shared) -> Solution:
    return Solution(
        jnp.expm1(found.x) / shared.samples_per_level[:, None],
        newton.violation(found.x, found.score),
        found.tolerance,
        found.evaluations,
        found.estimates,
        getattr(found, "hessian", None),
    )


def _single(one_step: Callable[[PerGene, Any], Any]) -> Callable[[PerGene, Any], Any]:
    """A tile of one gene: no gene axis, so that a system is an ordinary matrix."""

    def stepped(gene, state):
        out = one_step(*jax.tree.map(lambda leaf: leaf[..., 0], (gene, state)))
        return jax.tree.map(lambda leaf: leaf[..., None], out)

    return stepped
