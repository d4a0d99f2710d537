r"""Projected Newton in ``x_i = log(1 + m_i gamma_i)``, one evaluation of the deviance an iteration.

``m_i`` is the mean number of samples a level, so that x is of order one whatever the design, and
``x = 0`` is a plain bound: nothing is stationary there by itself (in theta = sqrt(gamma) the
deviance is even, and zero would look like an optimum for every gene). With ``J_i = d gamma_i / d
x_i = (1 + m_i gamma_i) / m_i``, which is also the second derivative,

    g_x = J g_gamma,      H_x = J H_gamma J + diag(J g_gamma).

A step: components at zero with positive score are held; the others take ``-H^-1 g`` with the exact
Hessian, or the Fisher matrix where the Hessian is not positive definite; on the way to the
minimiser of that quadratic, a component that reaches zero stays there and the others are solved for
again; the step is cut to the trust radius. The deviance at the new point decides: lower, and it is
accepted; higher, and the radius shrinks and the next iteration tries again from the old point. No
inner loop, no line search: every iteration of every gene costs the same, which is what lets
thousands of genes share one loop.

The Hessian of a step is that half-way along it, as far as the last step s tells: ``H + (t / 2) (H -
H_last)``, where ``t s``, ``t = -s'g / s'H s``, is how far the new step goes the way of the last. On
a line errors then fall with the order ``1 + sqrt(2)`` in place of 2, for a few additions (measured:
7 to 10 % fewer evaluations).

Like the likelihood, everything acts on leading axes and takes the genes of a tile on a trailing
one.

Sources: Bertsekas (1982), Projected Newton methods for optimization problems with simple
constraints, SIAM J. Control Optim. 20(2); Traub, Iterative Methods for the Solution of Equations
(1964), for methods that remember the point before.

More than 300 lines: the states, one step and the rules of starting again, which share their
constants.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from jaxvp.likelihood import Estimates, Evaluation, Scalar, Vector, fence, lift, no_estimates
from jaxvp.likelihood.lanes import diagonal, largest, least, total
from jaxvp.solver.direction import direction, pressed
from jaxvp.statistics import Array, Shared

# Optimality conditions hold when no score (deviance in x) violates them by more than this.
GRADIENT_TOLERANCE = 1e-6
# The loop goes on to here, or to rounding: Newton's last step is nearly free and makes theta exact
# to 1e-9.
_TIGHT = 1e-9
# Of 0.1 to 1 the one that takes the fewest evaluations, by a few per cent.
_FIRST_GAMMA = 0.3
_FIRST_RADIUS = 3.0
# A step that promises less than this is within reach of the deviance's rounding, or less than so
# many units of it, or of the score's rounding, where these are larger: in float32, and where terms
# explain nearly everything.
_NEAR = 1e-6
_NEAR_UNITS, _NEAR_SCORES = 2.0**16, 8.0
# What the Fisher matrix's diagonal is raised by, relative and absolute.
_RIDGE = 1e-6
# Of the last step, how much of its change of the Hessian the next one may have: steps that converge
# are shorter.
_AHEAD = 0.5
# The share of the curvature along the last step that must be left of it.
_LEFT = 0.8
_LARGEST_X = 45.0  # m gamma of 3e19: beyond the reach of float64

# Deviance or score below which a component is in doubt.
_DOUBT = 0.5
_FEW_SAMPLES = 80
# Squared correlation, in the information, of two terms that can stand in for each other.
_ALIKE = 0.8

GENES_LAST = True
RESTARTS = True


class Point(NamedTuple):
    """What is known at a point.

    Its rows are one array: what is accepted together is one selection, not six.
    """

    x: Float[Array, "k *genes"]
    deviance: Scalar
    score: Float[Array, "k *genes"]  # in x
    hessian: Float[Array, "k k *genes"]
    fisher: Float[Array, "k k *genes"]
    tolerance: Scalar  # rounding error of the score

    def rows(self) -> Float[Array, "rows *genes"]:
        x, deviance, score, hessian, fisher, tolerance = self
        square = (-1, *x.shape[1:])
        matrices = hessian.reshape(square), fisher.reshape(square)
        return jnp.concatenate([x, score, *matrices, jnp.stack([deviance, tolerance])])

    @classmethod
    def of(cls, rows: Float[Array, "rows *genes"], k: int) -> Point:
        """What `rows` made, with k components."""
        ends = np.cumsum([k, k, k * k, k * k])
        x, score, hessian, fisher = (
            rows[end - size : end] for end, size in zip(ends, (k, k, k * k, k * k), strict=True)
        )
        square = (k, k, *rows.shape[1:])
        return cls(x, rows[-2], score, hessian.reshape(square), fisher.reshape(square), rows[-1])


class State(NamedTuple):
    """One gene between iterations: the accepted point, what is known there, the point to try."""

    accepted: Float[Array, "rows *genes"]  # a `Point`
    trial: Float[Array, "k *genes"]
    radius: Scalar
    evaluations: Int[Array, "*genes"]
    done: Bool[Array, "*genes"]
    beside: Any  # what else is known at the accepted point; of `step`, the rows of `Estimates`

    @property
    def point(self) -> Point:
        return Point.of(self.accepted, self.trial.shape[0])

    @property
    def x(self) -> Float[Array, "k *genes"]:
        return self.point.x

    @property
    def deviance(self) -> Scalar:
        return self.point.deviance

    @property
    def score(self) -> Float[Array, "k *genes"]:
        return self.point.score

    @property
    def hessian(self) -> Float[Array, "k k *genes"]:
        return self.point.hessian

    @property
    def tolerance(self) -> Scalar:
        return self.point.tolerance

    @property
    def estimates(self) -> Estimates:
        return Estimates.of(self.beside)


def violation(x: Float[Array, "k *genes"], score: Float[Array, "k *genes"]) -> Scalar:
    """Largest violation of the optimality conditions.

    It is ``|score|`` where ``x > 0``, and the score's negative part at ``x = 0``.
    """
    return largest(jnp.where(x > 0, abs(score), jnp.maximum(-score, 0)))


def certified(state: State) -> Bool[Array, "*genes"]:
    """Is `x` an optimum, to the tolerance or to the score's rounding?"""
    wrong = violation(state.x, state.score)
    return wrong <= jnp.maximum(GRADIENT_TOLERANCE, state.tolerance)


def restart(
    shared: Shared, start: State, best: State
) -> tuple[Float[Array, "k *genes"], Bool[Array, "*genes"]]:
    """Where another attempt begins, and for whom none is worth it.

    It is for who is in doubt, and from the start for who is at no optimum; ``start`` is the state
    of one search, without the axis that ``best`` has.

    A component in doubt is one that is barely zero (a small score there) or barely not (little
    would be lost at zero): the deviance may have a second minimum on the other side. That is the
    rule where samples are few, and everywhere where a second term could stand in for it, as their
    information tells: then the two change places.
    """
    x, _, score, hessian, fisher, _ = best.point
    k = x.shape[0]
    margin = jnp.where(x > 0, 0.5 * diagonal(hessian) * x**2, score)
    smallest = least(margin)
    number = lift(jnp.arange(k), smallest)
    doubted = _first(margin <= smallest, number)
    information = total(jnp.where(doubted[:, None], fisher, 0.0))
    scale = diagonal(fisher)
    alike = information**2 / (scale * total(jnp.where(doubted, scale, 0.0)))
    alike = jnp.where(doubted, 0.0, alike)
    most = largest(alike)
    partner = _first(alike >= most, number) & (alike > _ALIKE)
    twins = most > _ALIKE
    other_side = jnp.where(x > 0, 0.0, 1.0)
    exchanged = jnp.where(twins, total(jnp.where(partner, x, 0.0)), other_side)
    mine = total(jnp.where(doubted, x, 0.0))
    trial = jnp.where(doubted, exchanged, jnp.where(partner, mine, x))
    ended = certified(best)
    few = shared.n <= _FEW_SAMPLES
    worth = (smallest <= _DOUBT) & (few | twins)
    return jnp.where(ended, trial, lift(start.trial, smallest)), ended & ~worth


def _first(true: Bool[Array, "k *genes"], number: Int[Array, "k *_"]) -> Bool[Array, "k *genes"]:
    """The first of those that are true: `jnp.argmin` would be a kernel, this is fused."""
    return number == least(jnp.where(true, number, len(number)))


def better(one: State, other: State) -> Bool[Array, "*genes"]:
    """Is the other end of the same genes lower, or equal and certified where this one is not?"""
    slack = 1e-10 * (1 + abs(other.deviance))
    equal = abs(other.deviance - one.deviance) <= slack
    lower = other.deviance < one.deviance
    return jnp.where(equal, certified(other) & ~certified(one), lower)


def start(shared: Shared) -> State:
    """Before the first evaluation: the point to try is a gamma of `_FIRST_GAMMA`."""
    m = jnp.asarray(shared.samples_per_level)
    k = m.shape[0]
    zero, vector, matrix = jnp.zeros((), m.dtype), jnp.zeros(k, m.dtype), jnp.zeros((k, k), m.dtype)
    # Nothing is certified before the first evaluation.
    nowhere = Point(vector, zero + jnp.inf, vector - jnp.inf, matrix, matrix, zero)
    return State(
        accepted=nowhere.rows(),
        trial=jnp.log1p(_FIRST_GAMMA * m),
        radius=zero + _FIRST_RADIUS,
        evaluations=jnp.zeros((), jnp.int32),
        done=jnp.zeros((), bool),
        beside=no_estimates(shared).rows(),
    )


def gammas(x: Float[Array, "k *genes"], samples_per_level: Float[Array, " k"]) -> Vector:
    return jnp.expm1(x) / lift(samples_per_level, x[0])


def step(
    deviance: Callable[[Vector], Evaluation], samples_per_level: Float[Array, " k"], state: State
) -> State:
    """Evaluate the trial point, accept or refuse it, and propose the next one."""
    m = jnp.asarray(samples_per_level)

    def in_x(trial):
        found = deviance(gammas(trial, m))
        jacobian = jnp.exp(trial) / lift(m, trial[0])
        both = jacobian[:, None] * jacobian[None]
        score = jacobian * found.score
        fisher = both * found.fisher
        own = lift(jnp.eye(len(m), dtype=bool), trial[0])
        return (
            found.deviance,
            score,
            both * found.hessian + jnp.where(own, score[None], 0.0),
            # Terms that group the samples alike make it singular: no step would be left.
            jnp.where(own, fisher + _RIDGE * (1 + fisher), fisher),
            largest(jacobian * found.rounding),
            found.estimates.rows(),
        )

    return step_in_x(in_x, state, exact=True)


def step_in_x(
    evaluate: Callable[[Array], tuple[Any, ...]],
    state: State,
    tight: float = _TIGHT,
    exact: bool = False,
) -> State:
    """The same for any function of x.

    ``evaluate(x)`` gives the deviance, its score, Hessian, Fisher matrix, rounding and what else is
    known there; ``tight`` is the score at which a search ends. Only an ``exact`` Hessian says by
    its change what it will be.
    """

    def at(trial):
        *known, beside = evaluate(trial)
        return Point(trial, *known).rows(), beside

    found = fence(at, state.trial)
    moved, better, before = fence(_accept, state, *found)
    x, _, score, hessian, fisher, _ = moved.point
    if exact:
        hessian = fence(_halfway, state.point, moved.point, better)
    way = direction(x, score, hessian, fisher)
    return fence(partial(_propose, tight), moved, better, before, way)


def _accept(
    state: State, rows: Float[Array, "rows *genes"], beside: Any
) -> tuple[State, Bool[Array, "*genes"], Scalar]:
    old, new = state.point, Point.of(rows, state.trial.shape[0])
    # A hundredth of a per cent of what the slope promises is enough, but not nothing: points of
    # equal deviance on both sides of a valley must not be exchanged for ever. Near the optimum
    # deviances agree to their last digits, and a refusal must not come from rounding.
    promised = total(-old.score * (new.x - old.x))
    promised = jnp.where(jnp.isfinite(old.deviance), promised, 0.0)
    slack = 64 * jnp.finfo(rows.dtype).eps * (1 + abs(new.deviance))
    enough = old.deviance - 1e-4 * jnp.maximum(promised, 0) + slack
    # So close that the deviance may not tell, the score does: it has digits left there.
    before = violation(old.x, old.score)
    nearer = violation(new.x, new.score) < before
    reach = _reach(old)
    near = (promised < reach) & nearer & (new.deviance <= old.deviance + reach)
    better = (new.deviance <= enough) | near  # False for NaN
    accept = better & ~state.done

    def take(new, old):
        return jnp.where(accept, new, old)

    moved = state._replace(
        accepted=take(rows, state.accepted),
        beside=jax.tree.map(take, beside, state.beside),
        evaluations=state.evaluations + jnp.where(state.done, 0, 1).astype(jnp.int32),
    )
    return moved, better, before


def _halfway(old: Point, new: Point, better: Bool[Array, "*genes"]) -> Float[Array, "k k *genes"]:
    """The Hessian half-way along the step to come, by its change over the last one.

    It is the Hessian at the new point where the last step was refused, or is the first, and where
    much of the curvature would be lost. Components that stay at zero are no part of a step.
    """
    last = jnp.where(pressed(new.x, new.score), 0.0, new.x - old.x)
    change = new.hessian - old.hessian
    bend, more = (total(last * total(h * last[:, None])) for h in (new.hessian, change))
    ahead = -total(last * new.score) / jnp.where(bend > 0, bend, 1.0)
    share = 0.5 * jnp.clip(ahead, -_AHEAD, _AHEAD)
    known = better & (bend > 0) & jnp.isfinite(old.deviance) & (bend + share * more > _LEFT * bend)
    return new.hessian + jnp.where(known, share * change, 0.0)


def _reach(point: Point) -> Scalar:
    """Deviances that differ by less may be the same."""
    units = _NEAR_UNITS * float(jnp.finfo(point.deviance.dtype).eps)
    return jnp.maximum(max(units, _NEAR), _NEAR_SCORES * point.tolerance)


def _propose(
    tight: float,
    state: State,
    better: Bool[Array, "*genes"],
    before: Scalar,
    way: Float[Array, "k *genes"],
) -> State:
    x, _, score, _, _, tolerance = state.point
    length = largest(abs(state.trial - x))
    radius = jnp.where(
        better,
        jnp.minimum(2 * state.radius, _FIRST_RADIUS),
        0.25 * jnp.minimum(state.radius, length),
    )
    wrong = violation(x, score)
    # A radius at rounding level: no lower point was found along the way down.
    stuck = ~better & (radius < 1e-10)
    # Certified, and no step of Newton's any more: what is left is rounding.
    falling = better & jnp.isfinite(before) & (wrong < 0.25 * before)
    settled = (wrong <= jnp.maximum(GRADIENT_TOLERANCE, tolerance)) & ~falling
    done = state.done | (wrong <= tight) | stuck | settled
    longest = largest(abs(way))
    cut = jnp.minimum(1.0, radius / jnp.maximum(longest, jnp.finfo(longest.dtype).tiny))
    trial = jnp.where(done, x, jnp.clip(x + cut * way, 0.0, _LARGEST_X))
    return state._replace(
        trial=trial, radius=jnp.where(state.done, state.radius, radius), done=done
    )
