r"""Newton on covariance matrices, zero variances and perfect correlations included.

The covariance of a correlated block, relative to sigma^2, is ``Gamma = X X`` with X symmetric:
smooth in X, and every X is allowed. In the eigenvectors E of the current X, with eigenvalues x, a
move ``Delta`` changes ``E'Gamma E`` by

    (x_i + x_j) Delta_ij   and, to second order,   (Delta Delta)_ij,

so that with S, the derivative of the deviance in ``E'Gamma E``, and H, the second one,

    gradient  (x_i + x_j) S_ij,      Hessian  (x_i + x_j)(x_k + x_l) H_ij,kl + tr(S Delta^2)''.

*Conditions of an optimum* on the cone of covariance matrices: ``S Gamma = 0``, and S positive
semidefinite on the null space of Gamma. A random intercept's ``gamma = 0`` with a positive score is
their simplest case; for two coefficients a correlation of +-1 is one with a null space of one
dimension. An eigenvalue that vanishes is set to exactly zero and judged by these conditions. They
are measured in the units of a random intercept's ``x = log(1 + m gamma)``: S is multiplied by
``(1/m + gamma)^(1/2)`` from both sides.

*A step* is Newton's, cut to the trust radius. Where the Hessian is not positive definite the Fisher
matrix stands for H, and the positive diagonal for S, which turning eigenvectors is punished by. An
eigenvalue of Gamma for which the quadratic model in Gamma itself is lowest below zero goes there at
once. Where Gamma is singular and S is negative along a null vector v, Gamma is moved along
``v v'``, where X is stationary; otherwise its rank stays. (Turning a null vector by an angle moves
X's smallest eigenvalue by the angle's square. Left there it would be a variance of its own, which
the model does not see and S may punish, so that steps would be refused.)

As in `jaxvp.solver.newton` every iteration is one evaluation: accepted where the deviance falls,
and where it does not the radius shrinks.

Sources: Burer and Monteiro (2003), Mathematical Programming 95, for Gamma as a square and its
conditions; Nocedal and Wright, Numerical Optimization (2006), ch. 4, for the trust region.

More than 300 lines: conditions, model and step of one method, none of use without the others.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from jaxvp.likelihood import Estimates, Scalar, fence, lift, no_estimates
from jaxvp.likelihood.lanes import dot, largest, least
from jaxvp.likelihood.slope_terms import Basis, Entry, entries, offsets
from jaxvp.likelihood.slopes import SlopeEvaluation
from jaxvp.solver.eigen import eigen
from jaxvp.solver.newton import GRADIENT_TOLERANCE
from jaxvp.statistics import Array, SlopeShared

_TIGHT = 1e-9
_FIRST_RADIUS = 1.0
_NEAR = 1e-6
# An eigenvalue x with m x^2 below this is zero: it moves the deviance by less than rounding.
_ZERO = 1e-14
_LARGEST = 1e9
# What the Fisher matrix's diagonal is raised by, relative and absolute.
_RIDGE = 1e-6
_UNROLLED = 6
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
    fisher: Float[Array, "m m *genes"]
    lift_off: Float[Array, "m *genes"]  # move that leaves a zero eigenvalue which is no optimum
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
        fisher=jnp.zeros((m, m), dtype),
        lift_off=jnp.zeros(m, dtype),
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
    wrong, tolerance, lift_off = _conditions(shared, state.trial_x, found)
    moved, better, before = fence(_accept, state, found, wrong, tolerance, lift_off)
    gradient, hessian, fisher, target = fence(lambda s: _model(shared, s), moved)
    direction, positive = _solution(hessian, -gradient)

    def by_fisher():
        return jnp.where(positive, direction, _solution(fisher, -gradient)[0])

    # The genes of a tile are asked together: near their optima nobody needs it.
    direction = jax.lax.cond(jnp.all(positive | moved.done), lambda: direction, by_fisher)
    direction = jnp.where(jnp.isnan(target), direction, target)
    moved, delta = fence(_cut, moved, better, before, gradient, direction)
    trial_x, trial_basis = _move(shared, moved, delta)
    return moved._replace(trial_x=trial_x, trial_basis=trial_basis)


def _solution(matrix: Array, right: Array) -> tuple[Array, Bool[Array, "*genes"]]:
    """Solution of a symmetric system, and whether its matrix is positive definite."""
    m = len(right)
    size = jnp.stack([abs(matrix[t, t]) for t in range(m)])

    def pivot(t, rows, positive):
        p = rows[t, t]
        # A pivot far below its diagonal is rounding.
        healthy = p > 1e-10 * size[t]
        row = rows[t] / jnp.where(healthy, p, size[t] + 1e-6)
        column = rows[:, t].at[t].set(0)
        return (rows - column[:, None] * row[None]).at[t].set(row), positive & healthy

    rows = jnp.concatenate([matrix, right[:, None]], 1)
    carry = (rows, jnp.ones(right.shape[1:], bool))
    if m <= _UNROLLED:
        for t in range(m):
            carry = fence(lambda *c, t=t: pivot(t, *c), *carry)
    else:
        carry = jax.lax.fori_loop(0, m, lambda t, c: fence(pivot, t, *c), carry)
    return carry[0][:, -1], carry[1]


def _full(shared: SlopeShared, score: Array, number: int) -> Array:
    """S of a block: an off-diagonal score belongs to two entries."""
    size = shared.blocks[number].size
    rows: list[list] = [[None] * size for _ in range(size)]
    for place, e in enumerate(entries(shared.blocks)):
        if e.block == number:
            value = score[place] if e.i == e.j else 0.5 * score[place]
            rows[e.i][e.j] = rows[e.j][e.i] = value
    return jnp.stack([jnp.stack(row) for row in rows])


def _conditions(
    shared: SlopeShared, x: Array, found: SlopeEvaluation
) -> tuple[Scalar, Scalar, Array]:
    """How far the conditions of an optimum are from holding, the rounding of that, and `_escape`.

    The latter is zero where they hold on the null space of Gamma.
    """
    worst, rounding = jnp.zeros_like(x[0]), jnp.zeros_like(x[0])
    moves = []
    for number, (block, begin) in enumerate(
        zip(shared.blocks, offsets(shared.blocks), strict=True)
    ):
        m = jnp.asarray(shared.samples_per_level)[number]

        def scaled(x, score, noise, number=number, m=m):
            root = jnp.sqrt(1 / m + x * x)
            both = root[:, None] * root[None]
            inside = (x == 0)[:, None] & (x == 0)[None]
            s = both * _full(shared, score, number)
            outer = largest(largest(jnp.where(inside, 0.0, abs(s))))
            error = largest(largest(both * _full(shared, noise, number)))
            return jnp.where(inside, s, 0.0), outer, error

        part = slice(begin, begin + block.size)
        inner, outer, error = fence(scaled, x[part], found.score, found.rounding)
        values, vectors = _if_any(inner, block.size)
        worst = jnp.maximum(worst, jnp.maximum(outer, -least(values)))
        rounding = jnp.maximum(rounding, error)
        moves += fence(
            lambda *a, number=number: _escape(shared, number, *a), values, vectors, found.hessian
        )
    return worst, rounding, jnp.stack(moves)


def _if_any(matrix: Array, size: int) -> tuple[Array, Array]:
    """Eigenvalues and eigenvectors; not computed where all matrices are zero."""
    if size == 1:
        return eigen(matrix)
    identity = jnp.broadcast_to(lift(jnp.eye(size, dtype=matrix.dtype), matrix[0, 0]), matrix.shape)
    return jax.lax.cond(
        jnp.any(matrix != 0), lambda: eigen(matrix), lambda: (jnp.zeros_like(matrix[0]), identity)
    )


def _escape(
    shared: SlopeShared, number: int, values: Array, vectors: Array, hessian: Array
) -> list[Scalar]:
    """A move along ``v v'`` for the null vector v of Gamma along which S is most negative."""
    each = entries(shared.blocks)
    places = [i for i, e in enumerate(each) if e.block == number]
    m = jnp.asarray(shared.samples_per_level)[number]
    lowest = least(values)
    v = jnp.zeros_like(vectors[:, 0])
    for i in range(shared.blocks[number].size):
        v = jnp.where(values[i] == lowest, vectors[:, i], v)
    # Entries of v v', an off-diagonal one with its mirror image, and the curvature there.
    products = [v[each[p].i] * v[each[p].j] for p in places]
    curvature = jnp.zeros_like(lowest)
    for a, p in zip(products, places, strict=True):
        for b, q in zip(products, places, strict=True):
            curvature = curvature + a * b * hessian[p, q]
    slope = m * lowest  # S was scaled by 1/m there
    bent = curvature > 0
    gamma = jnp.where(bent, -slope / jnp.where(bent, curvature, 1.0), 1.0)
    root = jnp.sqrt(jnp.clip(gamma, 1e-3 / m, 1.0))
    wanted = lowest < -GRADIENT_TOLERANCE
    return [
        jnp.where(wanted, root * a * (1.0 if each[p].i == each[p].j else math.sqrt(2.0)), 0.0)
        for a, p in zip(products, places, strict=True)
    ]


def _accept(
    state: State, found: SlopeEvaluation, wrong: Scalar, tolerance: Scalar, lift_off: Array
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
        fisher=new(found.fisher, state.fisher),
        lift_off=new(lift_off, state.lift_off),
        wrong=new(wrong, state.wrong),
        tolerance=new(tolerance, state.tolerance),
        estimates=new(found.estimates, state.estimates),
        evaluations=state.evaluations + jnp.where(state.done, 0, 1).astype(jnp.int32),
    )
    return moved, better, state.wrong


def _model(shared: SlopeShared, state: State) -> tuple[Array, Array, Array, Array]:
    """Gradient, Hessian and Fisher matrix of the move, and the moves that are settled (NaN: free).

    Off-diagonal moves are scaled by sqrt(2): the norm is then that of the matrix, whatever basis.
    """
    each = entries(shared.blocks)
    begin = offsets(shared.blocks)
    x, score, h = state.x, state.score, state.hessian
    half = math.sqrt(0.5)
    scale = [1.0 if e.i == e.j else half for e in each]
    ends = [x[begin[e.block] + e.i] + x[begin[e.block] + e.j] for e in each]
    slope = jnp.stack([one * end for one, end in zip(scale, ends, strict=True)])
    gradient = slope * score
    both = slope[:, None] * slope[None]
    hessian, fisher = both * h, both * state.fisher
    full = [_full(shared, score, number) for number in range(len(shared.blocks))]
    hessian = hessian + _bent(each, scale, lambda block, i, j: full[block][i, j], x[0])

    def diagonal(block, i, j):
        return jnp.maximum(full[block][i, i], 0.0) if i == j else 0.0

    fisher = fisher + _bent(each, scale, diagonal, x[0])

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
    fisher = jnp.where(same, fisher + _RIDGE * (1 + fisher), fisher)
    fisher = jnp.where(free, fisher, jnp.where(same, 1.0, 0.0))
    return jnp.where(held, 0.0, gradient + pull), hessian, fisher, target


def _bent(
    each: list[Entry], scale: list[float], s: Callable[[int, int, int], Array | float], like: Array
) -> Float[Array, "m m *genes"]:
    """The second derivatives of ``tr(S Delta^2)``; ``s(block, i, j)`` are the entries of S."""
    found: list[list] = []
    for one, e in zip(scale, each, strict=True):
        found.append([])
        for two, f in zip(scale, each, strict=True):
            value = jnp.zeros_like(like)
            if e.block == f.block:
                for a, b in _places(e):
                    for c, d in _places(f):
                        if b == c:
                            value = value + one * two * s(e.block, a, d)
                        if d == a:
                            value = value + one * two * s(e.block, c, b)
            found[-1].append(value)
    return jnp.stack([jnp.stack(row) for row in found])


def _places(e: Entry) -> list[tuple[int, int]]:
    return [(e.i, e.j)] if e.i == e.j else [(e.i, e.j), (e.j, e.i)]


def _cut(
    state: State,
    better: Bool[Array, "*genes"],
    before: Scalar,
    gradient: Array,
    direction: Array,
) -> tuple[State, Array]:
    radius = jnp.where(better, state.radius, 0.25 * state.radius)
    stuck = ~better & (radius < 1e-10)
    falling = better & jnp.isfinite(before) & (state.wrong < 0.25 * before)
    settled = (state.wrong <= GRADIENT_TOLERANCE) & ~falling
    done = state.done | (state.wrong <= jnp.maximum(_TIGHT, state.tolerance)) | stuck | settled
    step = direction + state.lift_off
    length = jnp.sqrt(dot(step, step))
    # A refused step was as long as the radius or shorter: the next one is shorter than it.
    radius = jnp.where(better, radius, 0.25 * jnp.minimum(state.radius, length))
    cut = jnp.minimum(1.0, radius / jnp.maximum(length, jnp.finfo(length.dtype).tiny))
    promised = -cut * dot(gradient, direction)
    # A long step that was taken may be followed by a longer one.
    radius = jnp.where(better & (cut < 1), 2 * radius, radius)
    radius = jnp.where(state.done, state.radius, radius)
    return state._replace(radius=radius, promised=promised, done=done), cut * step


def _ranks(values: Float[Array, "c *genes"]) -> Int[Array, "c *genes"]:
    """How many are smaller, or as large and before."""
    found = []
    for i, one in enumerate(values):
        smaller = [other < one for other in values[i + 1 :]]
        smaller += [other <= one for other in values[:i]]
        found.append(sum(smaller, jnp.zeros(one.shape, jnp.int32)))
    return jnp.stack(found)


def _move(shared: SlopeShared, state: State, delta: Array) -> tuple[Array, Basis]:
    """The trial point: eigenvalues and eigenvectors of X moved by delta."""
    each = entries(shared.blocks)
    values_found, bases = [], []
    for number, (block, begin) in enumerate(
        zip(shared.blocks, offsets(shared.blocks), strict=True)
    ):
        part = slice(begin, begin + block.size)
        m = jnp.asarray(shared.samples_per_level)[number]

        def moved(x, delta, number=number, block=block):
            rows: list[list] = [[None] * block.size for _ in range(block.size)]
            for place, e in enumerate(each):
                if e.block == number:
                    value = delta[place] * (1.0 if e.i == e.j else math.sqrt(0.5))
                    rows[e.i][e.j] = rows[e.j][e.i] = value + (x[e.i] if e.i == e.j else 0.0)
            return jnp.stack([jnp.stack(row) for row in rows])

        values, vectors = eigen(fence(moved, state.x[part], delta))
        lifted = [state.lift_off[p] != 0 for p, e in enumerate(each) if e.block == number]

        def settle(values, vectors, old, basis, done, lifted, m=m):
            size = jnp.minimum(abs(values), _LARGEST)
            size = jnp.where(m * size * size < _ZERO, 0.0, size)
            null = (old == 0).sum(0) - jnp.stack(lifted).any(0)
            size = jnp.where(_ranks(size) < null, 0.0, size)
            turned = jnp.stack(
                [
                    jnp.stack([dot(basis[i], vectors[:, j]) for j in range(len(size))])
                    for i in range(len(size))
                ]
            )
            return jnp.where(done, old, size), jnp.where(done, basis, turned)

        old = state.x[part], state.basis[number]
        one, basis = fence(settle, values, vectors, *old, state.done, lifted)
        values_found.append(one)
        bases.append(basis)
    return jnp.concatenate(values_found), tuple(bases)
