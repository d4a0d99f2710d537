r"""The deviance of a gene of a large system as a polynomial.

``log|V| + N log y'Py``, without the determinant's main terms, at the nodes of a grid: the first
part is the same for all genes, the second is matrix products (`jaxvp.solver.table`). A polynomial
through the nodes is exact to a hundredth in the deviance (`jaxvp.solver.polynomial`). Its optimum
is where Newton's method starts, with the Hessian that the polynomial has there.

Cost a gene: the table's, one logarithm a node, and a few sums over the nodes.
"""

from __future__ import annotations

import operator
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxvp.likelihood import Scalar
from jaxvp.solver import newton
from jaxvp.solver import table as tables
from jaxvp.solver.determinant import PRECISE, Determinant, grid, tabulate
from jaxvp.solver.loop import for_each
from jaxvp.solver.table import Table, residual, valleys
from jaxvp.statistics import Array, PerGene, Shared

# More than this is not worth having: such systems are factored.
_MOST_BYTES = 2 << 30
# Eigenproblems at some fifty nodes are worth what they save of so many genes.
ENOUGH_GENES = 64
TERMS = (2, 3)  # for more a grid is too large
_ERROR = 1e-5  # of the polynomial, relative
_STEPS = 12  # of Newton's method on it, at most
_FOUND = 1e-4  # score at an optimum of it, at most


class Surface(eqx.Module):
    """What all genes share."""

    table: Table
    determinant: Determinant

    def at(
        self, smooth: Float[Array, "*nodes genes"], x: Float[Array, "k genes"]
    ) -> tuple[Scalar, Array, Array]:
        """Deviance, score and Hessian in x of the polynomials through values at the nodes."""
        value, score, hessian = self.determinant.axes.curvature(smooth, x)
        alone, alone1, alone2 = self.determinant.main(x)
        same = jnp.eye(len(x), dtype=bool)[..., None]
        return value + alone, score + alone1, hessian + jnp.where(same, alone2[None], 0.0)


def build(shared: Shared, reml: bool) -> Surface | None:
    """What is shared, host code; None where the determinants are not exact enough."""
    if _bytes(shared) > _MOST_BYTES:
        return None
    determinant = tabulate(shared, reml)
    if determinant.error > PRECISE:
        return None
    counts = determinant.axes.counts(_ERROR)
    table = tables.tabulate(shared, determinant.axes.gammas(counts), reml)
    return Surface(table, determinant)


def _bytes(shared: Shared) -> int:
    """What tabulating takes at its worst: systems at the nodes of one term, and of two."""
    counts = grid(shared)[1]
    first = 4 * counts[0] * shared.n_columns**2
    if len(counts) == 2:
        return 8 * first
    rest = shared.levels[2] + shared.p
    return 8 * (first + counts[0] * counts[1] * rest * (5 * rest + shared.levels[1]))


class Near(NamedTuple):
    """Where the polynomial of a gene is lowest: there Newton's method starts."""

    deviance: Scalar  # infinite where there is no such point inside of the nodes
    x: Float[Array, "k genes"]
    hessian: Float[Array, "k k genes"]  # in x


def near_optimum(surface: Surface, shared: Shared, gene: PerGene, size: Scalar) -> Near:
    """The polynomials' lowest points, of a tile of genes. ``size`` is N, the factor of log r."""
    table = surface.table
    rss = jnp.maximum(residual(table.eliminated, gene), 1e-300)
    smooth = table.eliminated.log_det[..., None] + size * jnp.log(rss)
    # Every other node tells valleys apart.
    height = smooth + table.main[..., None]
    seen = tuple(slice(None, None, 2) for _ in table.gammas)
    gammas = tuple(gamma[::2] for gamma in table.gammas)
    starts = valleys(gammas, shared.samples_per_level, height[seen])
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
    start = newton.start(shared)._replace(estimates=None)
    state = for_each(start, x.shape[-1])._replace(trial=x, done=jnp.isnan(x).any(0))
    zero = jnp.zeros_like(x[0])

    def evaluate(x):
        value, score, hessian = surface.at(smooth, x)
        # Any positive diagonal: it is asked only where the Hessian is not positive definite.
        fisher = jnp.eye(len(x))[..., None] * surface.determinant.main(x)[1].sum(0)
        inside = surface.determinant.axes.inside(x)
        return jnp.where(inside, value, jnp.nan), score, hessian, fisher, zero, None

    def unfinished(carry):
        number, state = carry
        return (number < _STEPS) & ~jnp.all(state.done)

    def step(carry):
        number, state = carry
        return number + 1, newton.step_in_x(evaluate, state)

    _, state = jax.lax.while_loop(unfinished, step, (0, state))
    found = newton.violation(state.x, state.score) < _FOUND
    return Near(jnp.where(found, state.deviance, jnp.inf), state.x, state.hessian)
