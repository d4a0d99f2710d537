r"""Large systems of two or three random terms: what all genes share is computed once.

The determinants are tabulated (`jaxvp.solver.determinant`). A polynomial through a gene's deviance
at the nodes of a table gives a starting point and the Hessian there (`jaxvp.solver.surface`).
What is computed for a gene and a point is ``y'Py`` and its gradient alone
(`jaxvp.likelihood.own_part`, where it costs less `jaxvp.likelihood.iterated_part`, to as many
digits as the step after it needs). The score, which the certificate is about, is that of the
gene's own system and of determinants whose error is known. The Hessian is corrected by what every
step tells of it, so that three evaluations are the rule, and a search that begins at the end of the
table ends beyond it.

A gene that ends without a certificate, or whose optimum lies outside of the determinants' tables,
is left to the way that needs none.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from jaxvp.likelihood import Estimates, Scalar, accelerated, no_estimates
from jaxvp.likelihood.differences import Classes, Levels
from jaxvp.likelihood.estimates import coefficient_variances, estimates
from jaxvp.likelihood.iterated_part import (
    CERTIFIED,
    Complement,
    Node,
    Preconditioner,
    iterated_part,
)
from jaxvp.likelihood.lanes import largest
from jaxvp.likelihood.own_part import own_part
from jaxvp.likelihood.system import FixedSystem
from jaxvp.solver import newton
from jaxvp.solver.loop import by_tiles, iterate
from jaxvp.solver.surface import Near, Surface, near_optimum
from jaxvp.statistics import Array, PerGene, Records, Shared

# Score at which the loop ends. Curvature is of the order of the number of levels: theta is then
# exact to 1e-8.
_TIGHT = 1e-7
_RIDGE = 1e-3
_TELLS = 1e-3  # cosine of step and what is missing from which on a step tells of curvature
# Relative error of v: of the first evaluation; and, of the score that is to fall, for an evaluation
# after it: a step divides that by a thousand.
_FIRST_ERROR, _AHEAD = 1e-6, 1e-8
_REFUSED = 1.0  # radius of who was refused, and has not come far since
_MOST = 24  # evaluations: who needs more is at the table's end, and better off without it
_BURSTS = (2, 1, 1, 2, 4, 8)  # an evaluation is dear, gathering is not
# The fewer genes, the emptier a node's tiles: by measurement.
_BURSTS_ITERATED = {Levels: (4, 2, 8), Classes: (3, 2, 4, 8)}
_KEPT = 0.25  # of a gene's statistics, the largest complement that is kept from burst to burst
# Genes of a tile: as many columns have the matrix products, as many share a node.
_TILE = 16
_TABULATED = 32  # whose values at nodes are in the cache, by measurement: 16 or 64 are no better
# On an accelerator: entries of their systems, and genes.
_FACTORED_ENTRIES, _FACTORED_MOST, _ITERATED_ACCELERATED = 1 << 26, 1024, 256


class _Known(NamedTuple):
    """What is known at a gene's point beside its deviance."""

    estimates: Estimates  # without the variances
    solved: Float[Array, "K genes"]  # where conjugate gradients begin next time
    error: Scalar  # of v, relative, beyond rounding
    complement: Complement | None  # of the preconditioner, once it is known


def solve_large(
    reml: bool,
    shared: Shared,
    gene: PerGene | Records,
    wanted: Bool[Array, " genes"],
    limit: Int[Array, ""],
    surface: Surface,
) -> newton.State:
    """Where the searches of a block of genes end.

    On a CPU statistics are wanted as records: tiles of genes are gathered from them in every burst.
    """
    determinant = surface.determinant
    size = shared.n - shared.p if reml else shared.n
    m = shared.samples_per_level[:, None]
    k, count = len(shared.levels), wanted.shape[0]
    if not accelerated() and isinstance(gene, PerGene):
        gene = Records.of(gene)
    dtype = jax.tree.leaves(gene)[0].dtype
    nowhere = Near(*(jnp.zeros((*axes, count), dtype) for axes in ((), (k,), (k, k))))
    near = by_tiles(lambda g: near_optimum(surface, shared, g, size), gene, nowhere, _TABULATED)
    known = (gene, near if accelerated() else Records.of(near))
    nodes = surface.nodes
    solved = jnp.zeros(0 if nodes is None else shared.n_columns, near.x.dtype)
    zero = _Known(
        no_estimates(shared),
        solved,
        jnp.full((), jnp.inf, near.x.dtype),
        _room_for_complement(nodes, shared, near.x.dtype),
    )
    somewhere = jnp.isfinite(near.deviance)
    begin = Records.repeated(newton.start(shared)._replace(beside=zero), count)
    start = begin.replaced(trial=jnp.where(somewhere, near.x, 0.0), done=~(wanted & somewhere))
    diagonal = jnp.eye(k, dtype=bool)[..., None]

    def common(node):
        return jax.tree.map(lambda leaf: jnp.asarray(leaf)[node], nodes)

    def enter(here, state, node):
        gene, near = here
        if node is None:
            return (gene, near.hessian, None), state
        gamma, known = jnp.expm1(near.x) / m, state.beside.complement

        def fresh():
            return Preconditioner.of(node, gamma, shared).complement

        if known is not None:
            new = (state.evaluations == 0) & ~state.done
            known = jax.lax.cond(jnp.any(new), fresh, lambda: known)
            state = state._replace(beside=state.beside._replace(complement=known))
        return (gene, near.hessian, Preconditioner.of(node, gamma, shared, known)), state

    def stepped(here, state):
        gene, hessian, preconditioner = here
        before = newton.violation(state.x, state.score)
        goal = jnp.clip(_AHEAD * before, CERTIFIED, _FIRST_ERROR)

        def evaluate(x):
            """The deviance at x, with a Hessian that has learned from the score's change."""
            jacobian = jnp.exp(x) / m
            gamma, solved = jnp.expm1(x) / m, state.beside.solved
            if preconditioner is None:
                found = own_part(gamma, shared, gene)
            else:
                found, solved = iterated_part(
                    gamma, shared, preconditioner, gene, solved, goal, ~state.done
                )
            log_det, log_det1 = determinant(x)
            rss1 = found.first * jacobian / found.rss
            taken = (gene.between_yy.sum(0) + gene.within_yy) / found.rss
            noise = 8 * jnp.finfo(x.dtype).eps * (1 + taken + found.lost)
            noise += 2 * found.error * jnp.sqrt(1 + taken)  # of v, beside y'V_1^-1 y
            rounding = (noise * (abs(log_det1) + size * abs(rss1))).max(0) + determinant.error
            deviance = log_det + size * jnp.log(found.rss)
            score = log_det1 + size * rss1
            learned = _learned(hessian, state, x, score, rounding)
            # The determinant has that of the fixed part in it.
            none = jnp.zeros_like(deviance)
            covariance = jnp.zeros((shared.p, shared.p, len(none)), none.dtype)
            system = FixedSystem(covariance, found.beta, found.rss, log_det, none)
            return (
                # Outside there is no determinant.
                jnp.where(determinant.axes.inside(x), deviance, jnp.nan),
                score,
                learned,
                # Where that is singular: terms that cannot be told apart.
                k * jnp.where(diagonal, abs(learned) + _RIDGE, 0.0),
                rounding,
                _Known(estimates(system, shared, reml), solved, found.error, None),
            )

        begin = state._replace(beside=state.beside._replace(complement=None))
        moved = newton.step_in_x(evaluate, begin, _TIGHT)
        moved = moved._replace(beside=moved.beside._replace(complement=state.beside.complement))
        # Certified is a point that was solved to the end: otherwise once more there.
        # (The error is the root of what the goal's square was compared with: digits less.)
        solved = moved.beside.error <= CERTIFIED * (1 + 1e-6)
        # Refused outside of the determinants once more: the optimum is there.
        outside = ~determinant.axes.inside(state.trial) & (state.radius < _REFUSED)
        return moved._replace(done=moved.done & solved | outside | state.done)

    of_nodes = {}
    if nodes is not None:
        gamma = jnp.expm1(near.x[0]) / m[0]
        group, far = _nearest(gamma, jnp.asarray(nodes.gamma), determinant.axes.largest[0])
        of_nodes = {
            "group": group,
            "groups": len(nodes.gamma),
            "order": jnp.argsort(far),  # those on a node, and what takes as long, together
            "bursts": _BURSTS_ITERATED[type(nodes.difference)],
        }
    tile = math.gcd(count, _tile(shared.n_columns, nodes is not None))
    settings = {"bursts": _BURSTS, "common": common, "enter": enter, **of_nodes}
    most = jnp.minimum(limit, _MOST)
    found = iterate(stepped, tile, known, start, most, **settings).tree()

    def variances(x):
        covariance = determinant.covariance(x, shared.p)
        return coefficient_variances(covariance, shared)

    p = jnp.zeros((shared.p, count), near.x.dtype)
    ended = found.beside.estimates._replace(variances=by_tiles(variances, found.x, p, _TABULATED))
    return found._replace(beside=ended.rows())


def _room_for_complement(nodes: Node | None, shared: Shared, dtype: Any) -> Complement | None:
    """Room for it where it is kept: where it is small beside what there is of a gene.

    An accelerator, which would wait for the host to ask, forms it in every burst.
    """
    if nodes is None or accelerated():
        return None
    rest = nodes.rest.shape[-1]
    if rest**2 > _KEPT * shared.numbers_of_gene:
        return None
    return Complement(jnp.zeros((rest, rest), dtype), jnp.zeros((), dtype))


def _tile(columns: int, iterated: bool) -> int:
    """Genes that are stepped together: a power of two."""
    if not accelerated():
        return _TILE
    if iterated:
        return _ITERATED_ACCELERATED
    return 1 << min(_FACTORED_MOST, max(1, _FACTORED_ENTRIES // columns**2)).bit_length() - 1


def _learned(
    hessian: Array, state: newton.State, x: Array, score: Array, rounding: Scalar
) -> Array:
    """The Hessian after a step: symmetric, of rank one, such that it explains the change of score.

    It stays what it was where the scores' rounding could be all that is missing.

    Source: Nocedal and Wright, Numerical Optimization (2006), sec. 6.2.
    """
    first = state.evaluations == 0
    hessian = jnp.where(first, hessian, state.hessian)
    step = jnp.where(first, 0.0, x - state.x)
    change = jnp.where(first, 0.0, score - state.score)
    missing = change - (hessian * step[None]).sum(1)
    along = (missing * step).sum(0)
    enough = jnp.sqrt((missing**2).sum(0) * (step**2).sum(0))
    told = (abs(along) > _TELLS * enough) & (largest(abs(missing)) > rounding + state.tolerance)
    scale = jnp.where(told, 1 / jnp.where(told, along, 1.0), 0.0)
    return hessian + scale * missing[:, None] * missing[None]


def _nearest(gamma: Scalar, nodes: Array, largest: Array) -> tuple[Int[Array, " genes"], Scalar]:
    """Which node of gamma_1 is next, by the ratio of ``1 + n gamma``, and how far it is."""
    far = abs(jnp.log1p(largest * gamma) - jnp.log1p(largest * nodes)[:, None])
    return jnp.argmin(far, axis=0), far.min(0)
