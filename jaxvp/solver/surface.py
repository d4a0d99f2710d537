r"""The deviance of a gene of a large system as a polynomial.

``log|V| + N log y'Py``, without the determinant's main terms, at the nodes of a grid: the first
part is the same for all genes, the second is matrix products (`jaxvp.solver.table`). A polynomial
through the nodes is exact to a hundredth in the deviance (`jaxvp.solver.polynomial`). Its optimum
is where Newton's method starts, with the Hessian that the polynomial has there.

Cost a gene: the table's, one logarithm a node, and a few sums over the nodes.
"""

from __future__ import annotations

import dataclasses
import operator
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxvp.likelihood import Scalar
from jaxvp.likelihood.elementary import log
from jaxvp.likelihood.iterated_part import Node
from jaxvp.solver import newton, polynomial
from jaxvp.solver import table as tables
from jaxvp.solver.determinant import PRECISE, Determinant, grid, held, tabulate
from jaxvp.solver.elimination import level_sizes, rotated
from jaxvp.solver.loop import for_each
from jaxvp.solver.nodes import nodes, way_of, with_single
from jaxvp.solver.table import Table, in_x, residual
from jaxvp.solver.valleys import valleys
from jaxvp.statistics import Array, Compression, LevelRows, PerGene, Shared

# More than this is not worth having: such systems are factored.
_MOST_BYTES = 2 << 30
# Eigenproblems at some fifty nodes are worth what they save of so many genes.
ENOUGH_GENES = 8
TERMS = (2, 3)  # for more a grid is too large
_ERROR = 2e-5  # of the polynomial, relative
_STEPS = 12  # of Newton's method on it, at most
_TIGHT = 1e-3  # score at which they end: the polynomial's own is no better
_REFUSED = 1.0  # radius of who was refused
_LARGEST_GAMMA = 200.0  # of its nodes
_LEAST = 8  # times the rounding of y'y, which is n (genes are scaled): less of y'Py is noise


class Surface(eqx.Module):
    """What all genes share."""

    table: Table
    axes: polynomial.Axes  # of the table
    determinant: Determinant
    nodes: Node | None  # of gamma_1, some of the table's; None where every gene is factored

    def at(
        self, smooth: Float[Array, "*nodes genes"], x: Float[Array, "k genes"]
    ) -> tuple[Scalar, Array, Array, Array]:
        """Deviance, score and Hessian in x of the polynomials through values at the nodes.

        The fourth are the scores of the determinant's main terms, positive.
        """
        value, score, hessian = self.axes.curvature(smooth, x)
        alone, alone1, alone2 = self.determinant.main(x)
        same = jnp.eye(len(x), dtype=bool)[..., None]
        return value + alone, score + alone1, hessian + jnp.where(same, alone2[None], 0.0), alone1


def build(compression: Compression, reml: bool, classes: bool) -> Surface | None:
    """What is shared, host code; None where the determinants are not exact enough.

    ``classes``: may conjugate gradients take levels together (`jaxvp.likelihood.differences`)?
    """
    shared, grouping = compression.shared, compression.grouping
    assert grouping is not None
    axes, counts = _grid(shared)
    room = (_MOST_BYTES - _bytes(shared)) // 8
    if room < 0:
        return None
    determinant = tabulate(compression, reml)
    if not determinant.error <= PRECISE:  # NaN, too
        return None
    way = way_of(shared, len(grouping.level_size), counts[0], room, classes)
    gammas = axes.gammas(counts)
    middle = len(gammas) > 2  # a term that the table eliminates in the same way
    known = rotated(shared, gammas[0]) if way or middle else None
    table = tables.tabulate(shared, gammas, reml, known if middle else None)
    start = None
    if way is not None:
        assert known is not None
        top = float(determinant.axes.top[0])
        start = nodes(gammas[0], known, shared, LevelRows.of(grouping), top, way, room)
    return Surface(table, axes, determinant, start)


def for_cpu(surface: Surface) -> Surface:
    """The same with large matrices in float32: a CPU multiplies by them in half the time.

    (An accelerator would multiply in fewer digits.)
    """
    table = surface.table
    table = dataclasses.replace(table, eliminated=tables.coarse(table.eliminated))
    start = None if surface.nodes is None else with_single(surface.nodes)
    return dataclasses.replace(surface, table=table, nodes=start)


def _grid(shared: Shared) -> tuple[polynomial.Axes, tuple[int, ...]]:
    axes = polynomial.Axes.of(level_sizes(shared), shared.samples_per_level, _LARGEST_GAMMA)
    return axes, axes.counts(_ERROR)


def _bytes(shared: Shared) -> int:
    """What there is at once: nodes of all terms, systems at nodes of one and of two.

    The same on every machine, as what follows from it must be: of what threads hold, that of one.
    """
    fine, counts, columns = grid(shared)[1], _grid(shared)[1], shared.n_columns
    tabulated = (2 + shared.p + shared.p**2) * int(np.prod(fine))
    systems = 3 * counts[0] * columns**2
    if len(counts) == 3:
        rest = shared.levels[2] + shared.p
        systems += counts[0] * counts[1] * rest * (2 * rest + 2 * shared.levels[1])
    return 8 * (tabulated + systems + held(shared, fine))


class Near(NamedTuple):
    """Where the polynomial of a gene is lowest: there Newton's method starts."""

    deviance: Scalar  # infinite where there is no such point inside of the nodes
    x: Float[Array, "k genes"]
    hessian: Float[Array, "k k genes"]  # in x


def near_optimum(surface: Surface, shared: Shared, gene: PerGene, size: Scalar) -> Near:
    """The polynomials' lowest points, of a tile of genes. ``size`` is N, the factor of log r."""
    table = surface.table
    rounding = jnp.finfo(table.eliminated.levels[0].rotate.dtype).eps
    rss = jnp.maximum(residual(table.eliminated, gene), _LEAST * rounding * shared.n)
    smooth = table.eliminated.log_det[..., None] + size * log(rss)
    # Every other node tells valleys apart.
    height = smooth + table.main[..., None]
    seen = tuple(slice(None, None, 2) for _ in table.gammas)
    gammas = tuple(gamma[::2] for gamma in table.gammas)
    starts = valleys(in_x(gammas, shared.samples_per_level), height[seen])
    # One after the other, compiled once; few genes have a second valley.
    found = jax.lax.map(lambda x: _refine(surface, shared, smooth, x), starts)
    first, second = (jax.tree.map(operator.itemgetter(i), found) for i in range(2))
    # The polynomial is exact enough to say which is deeper; what is lost of the deepest node's
    # valley is left to the others' way.
    deeper = (second.deviance < first.deviance) & jnp.isfinite(first.deviance)
    return jax.tree.map(lambda a, b: jnp.where(deeper, b, a), first, second)


def _refine(
    surface: Surface, shared: Shared, smooth: Float[Array, "*nodes genes"], x: Array
) -> Near:
    """Newton's method on the polynomial."""
    start = newton.start(shared)._replace(beside=None)
    state = for_each(start, x.shape[-1])._replace(trial=x, done=jnp.isnan(x).any(0))
    zero = jnp.zeros_like(x[0])

    def evaluate(x):
        value, score, hessian, main = surface.at(smooth, x)
        # Any positive diagonal: it is asked only where the Hessian is not positive definite.
        fisher = jnp.eye(len(x))[..., None] * main.sum(0)
        inside = surface.axes.inside(x)
        return jnp.where(inside, value, jnp.nan), score, hessian, fisher, zero, None

    def unfinished(carry):
        number, state = carry
        return (number < _STEPS) & ~jnp.all(state.done)

    def step(carry):
        number, state = carry
        moved = newton.step_in_x(evaluate, state, _TIGHT)
        # Refused outside of the nodes once more: it is lowest at their end, or beyond.
        outside = ~surface.axes.inside(state.trial) & (state.radius < _REFUSED)
        return number + 1, moved._replace(done=moved.done | outside)

    _, state = jax.lax.while_loop(unfinished, step, (0, state))
    # Where it is lowest at the end of the nodes the search goes on from there.
    return Near(state.deviance, state.x, state.hessian)
