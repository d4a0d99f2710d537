r"""Newton on covariance matrices, zero variances and perfect correlations included.

The covariance of a correlated block, relative to sigma^2, is ``Gamma = X X`` with X symmetric:
smooth in X, and every X is allowed. In the eigenvectors E of the current X, with eigenvalues x, a
move ``Delta`` changes ``E'Gamma E`` by

    (x_i + x_j) Delta_ij   and, to second order,   (Delta Delta)_ij,

so that with S, the derivative of the deviance in ``E'Gamma E``, and H, the second one,

    gradient  (x_i + x_j) S_ij,       Hessian  (x_i + x_j)(x_k + x_l) H_ij,kl + that of tr(S Delta^2).

*Conditions of an optimum* on the cone of covariance matrices: ``S Gamma = 0``, and S positive
semidefinite on the null space of Gamma. A random intercept's ``gamma = 0`` with a positive score is
their simplest case; for two coefficients a correlation of +-1 is one with a null space of one
dimension. An eigenvalue that vanishes is set to exactly zero and judged by these conditions. They
are measured in the units of a random intercept's ``x = log(1 + m gamma)``: S is multiplied by
``(1/m + gamma)^(1/2)`` from both sides.

*A step* follows the eigenvectors of the Hessian downhill, by the inverse of the absolute
eigenvalue, cut to the trust radius: no saddle point holds it. An eigenvalue of Gamma for which the
quadratic model in Gamma itself is lowest below zero goes there at once. Where Gamma is singular and
S is negative along a null vector v, Gamma is moved along ``v v'``, where X is stationary.

As in `jaxvp.solver.newton` every iteration is one evaluation: accepted where the deviance falls,
and where it does not the radius shrinks.

Sources: Absil, Mahony and Sepulchre, Optimization Algorithms on Matrix Manifolds (2008), for
second-order geometry; Dauphin et al. (2014), Identifying and attacking the saddle point problem,
NeurIPS 27, for the absolute eigenvalues.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from jaxvp.likelihood import Estimates, Scalar, fence, lift, no_estimates
from jaxvp.likelihood.slopes import Basis, Entry, SlopeEvaluation, entries, offsets
from jaxvp.solver.eigen import eigen
from jaxvp.solver.newton import GRADIENT_TOLERANCE
from jaxvp.statistics import Array, SlopeShared

_TIGHT = 1e-9
_FIRST_RADIUS = 1.0
_NEAR = 1e-6
# An eigenvalue x with m x^2 below this is zero: it moves the deviance by less than rounding.
_ZERO = 1e-14
_LARGEST = 1e9
# Standard deviations, relative to sigma, that the searches of a gene start from.
STARTS = (0.5, 0.05, 2.0)


class State(NamedTuple):
    """One search between iterations: the accepted point, what is known there, the point to try."""

    x: Float[Array, "k *genes"]  # eigenvalues of X, all blocks
    basis: Basis  # eigenvectors, by block
    trial_x: Float[Array, "k *genes"]
    trial_basis: Basis
    deviance: Scalar
    score: Float[Array, "m *genes"]  # in the entries of E'Gamma E, at `x`
    hessian: Float[Array, "m m *genes"]
    promised: Scalar  # first-order decrease of the step to the trial point
    wrong: Scalar  # violation of the conditions at `x`
    tolerance: Scalar  # rounding error of the score at `x`
    radius: Scalar
    evaluations: Int[Array, "*genes"]
    done: Bool[Array, "*genes"]
    estimates: Estimates  # at `x`


def start(shared: SlopeShared, deviation: float) -> State:
    """Before the first evaluation: every coefficient has the same relative standard deviation."""
    dtype = jnp.asarray(shared.r_inverse).dtype
    k, m = sum(b.size for b in shared.blocks), len(entries(shared.blocks))
    zero = jnp.zeros((), dtype)
    basis = tuple(jnp.eye(b.size, dtype=dtype) for b in shared.blocks)
    x = jnp.full(k, deviation, dtype)
    return State(
        x=x,
        basis=basis,
        trial_x=x,
        trial_basis=basis,
        deviance=zero + jnp.inf,
        score=jnp.zeros(m, dtype),
        hessian=jnp.zeros((m, m), dtype),
        promised=zero,
        wrong=zero + jnp.inf,
        tolerance=zero,
        radius=zero + _FIRST_RADIUS,
        evaluations=jnp.zeros((), jnp.int32),
        done=jnp.zeros((), bool),
        estimates=no_estimates(shared),
    )


def step(
    deviance: Callable[[Float[Array, "k *genes"], Basis], SlopeEvaluation],
    shared: SlopeShared,
    state: State,
) -> State:
    """Evaluate the trial point, accept or refuse it, and propose the next one."""
    found = deviance(state.trial_x * state.trial_x, state.trial_basis)
    wrong, tolerance = _violation(shared, state.trial_x, found)
    moved, better, before = fence(_accept, state, found, wrong, tolerance)
    gradient, hessian, target = fence(lambda s: _model(shared, s), moved)
    values, vectors = eigen(hessian)
    direction = fence(lambda *a: _direction(*a), gradient, values, vectors, target)
    lift_off = _escape(shared, moved)
    moved, delta = fence(
        lambda *a: _cut(shared, *a), moved, better, before, gradient, direction, lift_off
    )
    trial_x, trial_basis = _move(shared, moved, delta)
    return moved._replace(trial_x=trial_x, trial_basis=trial_basis)


def _full(shared: SlopeShared, score: Array, number: int) -> Array:
    """S of a block: an off-diagonal score belongs to two entries."""
    size = shared.blocks[number].size
    rows: list[list] = [[None] * size for _ in range(size)]
    for place, e in enumerate(entries(shared.blocks)):
        if e.block == number:
            value = score[place] if e.i == e.j else 0.5 * score[place]
            rows[e.i][e.j] = rows[e.j][e.i] = value
    return jnp.stack([jnp.stack(row) for row in rows])


def _violation(
    shared: SlopeShared, x: Array, found: SlopeEvaluation
) -> tuple[Scalar, Scalar]:
    """How far the conditions of an optimum are from holding, and the rounding of that."""
    worst, rounding = jnp.zeros_like(x[0]), jnp.zeros_like(x[0])
    for number, (block, begin) in enumerate(zip(shared.blocks, offsets(shared.blocks), strict=True)):
        m = jnp.asarray(shared.samples_per_level)[number]

        def scaled(x, score, noise, number=number, m=m):
            root = jnp.sqrt(1 / m + x * x)
            both = root[:, None] * root[None]
            null = x == 0
            inside = null[:, None] & null[None]
            s = both * _full(shared, score, number)
            outer = jnp.where(inside, 0.0, abs(s)).max((0, 1))
            error = (both * _full(shared, noise, number)).max((0, 1))
            return jnp.where(inside, s, 0.0), outer, error

        part = slice(begin, begin + block.size)
        inner, outer, error = fence(scaled, x[part], found.score, found.rounding)
        lowest = eigen(inner)[0].min(0)
        worst = jnp.maximum(worst, jnp.maximum(outer, -lowest))
        rounding = jnp.maximum(rounding, error)
    return worst, rounding


def _accept(
    state: State, found: SlopeEvaluation, wrong: Scalar, tolerance: Scalar
) -> tuple[State, Bool[Array, "*genes"], Scalar]:
    slack = 64 * jnp.finfo(found.deviance.dtype).eps * (1 + abs(found.deviance))
    first = ~jnp.isfinite(state.deviance)
    promised = jnp.where(first, 0.0, jnp.maximum(state.promised, 0.0))
    # So close that the deviance may not tell, the score does: it has digits left there.
    near = (promised < _NEAR) & (wrong < state.wrong) & (found.deviance <= state.deviance + _NEAR)
    better = (found.deviance <= state.deviance - 1e-4 * promised + slack) | near
    accept = better & ~state.done

    def new(one, other):
        return jax.tree.map(lambda a, b: jnp.where(accept, a, b), one, other)

    moved = state._replace(
        x=new(state.trial_x, state.x),
        basis=new(state.trial_basis, state.basis),
        deviance=new(found.deviance, state.deviance),
        score=new(found.score, state.score),
        hessian=new(found.hessian, state.hessian),
        wrong=new(wrong, state.wrong),
        tolerance=new(tolerance, state.tolerance),
        estimates=new(found.estimates, state.estimates),
        evaluations=state.evaluations + jnp.where(state.done, 0, 1).astype(jnp.int32),
    )
    return moved, better, state.wrong


def _model(shared: SlopeShared, state: State) -> tuple[Array, Array, Array]:
    """Gradient and Hessian of the move, and the moves that are settled (NaN: free).

    Off-diagonal moves are scaled by sqrt(2): the norm is then that of the matrix, whatever basis.
    """
    each = entries(shared.blocks)
    begin = offsets(shared.blocks)
    x, score, h = state.x, state.score, state.hessian
    half = np.sqrt(0.5)
    scale = [1.0 if e.i == e.j else half for e in each]
    slope = jnp.stack([s * (x[begin[e.block] + e.i] + x[begin[e.block] + e.j]) for s, e in zip(scale, each, strict=True)])
    gradient = slope * score
    hessian = slope[:, None] * slope[None] * h
    full = [_full(shared, score, number) for number in range(len(shared.blocks))]
    bent: list[list] = []
    for one, e in zip(scale, each, strict=True):
        bent.append([])
        for two, f in zip(scale, each, strict=True):
            value = jnp.zeros_like(x[0])
            if e.block == f.block:
                for a, b in _places(e):
                    for c, d in _places(f):
                        if b == c:
                            value = value + one * two * full[e.block][a, d]
                        if d == a:
                            value = value + one * two * full[e.block][c, b]
            bent[-1].append(value)
    hessian = hessian + jnp.stack([jnp.stack(row) for row in bent])

    # Diagonal entries whose own quadratic model in Gamma is lowest below zero go to zero.
    target = []
    for place, e in enumerate(each):
        own = x[begin[e.block] + e.i]
        gone = (score[place] > 0) & (own * own * h[place, place] < score[place])
        gone = gone & (e.i == e.j) & (own > 0)
        target.append(jnp.where(gone, -own, jnp.nan))
    target = jnp.stack(target)
    held = ~jnp.isnan(target)
    move = jnp.where(held, target, 0.0)
    pull = jnp.zeros_like(gradient)
    for place in range(len(each)):
        pull = pull + hessian[:, place] * move[place]
    same = lift(jnp.eye(len(each), dtype=bool), x[0])
    free = ~(held[:, None] | held[None])
    hessian = jnp.where(free, hessian, jnp.where(same, 1.0, 0.0))
    return jnp.where(held, -move, gradient + pull), hessian, target


def _places(e: Entry) -> list[tuple[int, int]]:
    return [(e.i, e.j)] if e.i == e.j else [(e.i, e.j), (e.j, e.i)]


def _direction(gradient: Array, values: Array, vectors: Array, target: Array) -> Array:
    size = abs(values)
    floor = 1e-9 * size.max(0) + 1e-30
    along = jnp.zeros_like(gradient)
    for i in range(len(values)):
        slope = (vectors[:, i] * gradient).sum(0)
        along = along - vectors[:, i] * (slope / jnp.maximum(size[i], floor))
    return jnp.where(jnp.isnan(target), along, target)


def _escape(shared: SlopeShared, state: State) -> Array:
    """A move along ``v v'`` for the null vector v of Gamma along which S is most negative."""
    each = entries(shared.blocks)
    found = []
    for number, (block, begin) in enumerate(zip(shared.blocks, offsets(shared.blocks), strict=True)):
        part = slice(begin, begin + block.size)
        places = [i for i, e in enumerate(each) if e.block == number]

        def inner(x, score, number=number):
            null = x == 0
            s = _full(shared, score, number)
            return jnp.where(null[:, None] & null[None], s, 0.0)

        values, vectors = eigen(fence(inner, state.x[part], state.score))

        def move(values, vectors, hessian, number=number, places=places, block=block):
            lowest = values.min(0)
            v = jnp.zeros_like(vectors[:, 0])
            for i in range(block.size):
                v = jnp.where(values[i] == lowest, vectors[:, i], v)
            # Entries of v v', an off-diagonal one with its mirror image, and the curvature there.
            products = [v[each[p].i] * v[each[p].j] for p in places]
            curvature = jnp.zeros_like(lowest)
            for a, p in zip(products, places, strict=True):
                for b, q in zip(products, places, strict=True):
                    curvature = curvature + a * b * hessian[p, q]
            m = jnp.asarray(shared.samples_per_level)[number]
            gamma = jnp.where(curvature > 0, -lowest / jnp.where(curvature > 0, curvature, 1.0), 1.0)
            root = jnp.sqrt(jnp.clip(gamma, 1e-3 / m, 1.0))
            wanted = lowest < -GRADIENT_TOLERANCE * m
            return [
                jnp.where(wanted, root * a * (1.0 if each[p].i == each[p].j else np.sqrt(2.0)), 0.0)
                for a, p in zip(products, places, strict=True)
            ]

        found += fence(move, values, vectors, state.hessian)
    return jnp.stack(found)


def _cut(
    shared: SlopeShared,
    state: State,
    better: Bool[Array, "*genes"],
    before: Scalar,
    gradient: Array,
    direction: Array,
    lift_off: Array,
) -> tuple[State, Array]:
    radius = jnp.where(better, state.radius, 0.25 * state.radius)
    stuck = ~better & (radius < 1e-10)
    falling = better & jnp.isfinite(before) & (state.wrong < 0.25 * before)
    settled = (state.wrong <= GRADIENT_TOLERANCE) & ~falling
    done = state.done | (state.wrong <= jnp.maximum(_TIGHT, state.tolerance)) | stuck | settled
    step = direction + lift_off
    length = jnp.sqrt((step * step).sum(0))
    # A refused step was as long as the radius or shorter: the next one is shorter than it.
    radius = jnp.where(better, radius, 0.25 * jnp.minimum(state.radius, length))
    cut = jnp.minimum(1.0, radius / jnp.maximum(length, jnp.finfo(length.dtype).tiny))
    promised = -cut * (gradient * direction).sum(0)
    # A long step that was taken may be followed by a longer one.
    radius = jnp.where(better & (cut < 1), 2 * radius, radius)
    radius = jnp.where(state.done, state.radius, radius)
    return state._replace(radius=radius, promised=promised, done=done), cut * step


def _move(shared: SlopeShared, state: State, delta: Array) -> tuple[Array, Basis]:
    """The trial point: eigenvalues and eigenvectors of X moved by delta."""
    each = entries(shared.blocks)
    values_found, bases = [], []
    for number, (block, begin) in enumerate(zip(shared.blocks, offsets(shared.blocks), strict=True)):
        part = slice(begin, begin + block.size)
        m = jnp.asarray(shared.samples_per_level)[number]

        def moved(x, delta, number=number, block=block):
            rows: list[list] = [[None] * block.size for _ in range(block.size)]
            for place, e in enumerate(each):
                if e.block == number:
                    value = delta[place] * (1.0 if e.i == e.j else np.sqrt(0.5))
                    rows[e.i][e.j] = rows[e.j][e.i] = value + (x[e.i] if e.i == e.j else 0.0)
            return jnp.stack([jnp.stack(row) for row in rows])

        values, vectors = eigen(fence(moved, state.x[part], delta))

        def settle(values, vectors, old, basis, done, m=m):
            size = jnp.minimum(abs(values), _LARGEST)
            size = jnp.where(m * size * size < _ZERO, 0.0, size)
            turned = jnp.stack(
                [
                    jnp.stack([(basis[i] * vectors[:, j]).sum(0) for j in range(len(size))])
                    for i in range(len(size))
                ]
            )
            return jnp.where(done, old, size), jnp.where(done, basis, turned)

        one, basis = fence(settle, values, vectors, state.x[part], state.basis[number], state.done)
        values_found.append(one)
        bases.append(basis)
    return jnp.concatenate(values_found), tuple(bases)
