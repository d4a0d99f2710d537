"""The same deviance through optax's L-BFGS, as an independent check of the default solver.

It shares nothing with `jaxvp.solver.newton` but the value of the deviance: the gradient comes from
reverse-mode differentiation, the variable is theta = sqrt(gamma) without bounds (the deviance is
even in theta), the step from optax's zoom line search. A component that ends within rounding of
zero is put on zero if its score says so. Many times slower than Newton.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from jaxvp.likelihood import Estimates, Evaluation, Scalar, Vector, no_estimates
from jaxvp.solver import newton
from jaxvp.statistics import Array, Shared

# Starting at theta = 0 would be starting at a stationary point.
_FIRST_THETA = 0.7
GENES_LAST = False
RESTARTS = False


class State(NamedTuple):
    """One gene between iterations."""

    x: Float[Array, " k"]  # log(1 + m gamma), snapped to zero where the score allows it
    score: Float[Array, " k"]
    tolerance: Scalar
    theta: Float[Array, " k"]
    optimiser: Any
    evaluations: Int[Array, ""]
    done: Bool[Array, ""]
    estimates: Estimates


def _optimiser() -> Any:
    import optax  # a third of a second that a Newton fit does not need

    return optax.lbfgs(
        memory_size=8, linesearch=optax.scale_by_zoom_linesearch(max_linesearch_steps=30)
    )


def start(shared: Shared) -> State:
    m = jnp.asarray(shared.samples_per_level)
    theta = jnp.full_like(m, _FIRST_THETA)
    zeros = jnp.zeros_like(m)
    return State(
        x=zeros,
        score=zeros - jnp.inf,
        tolerance=zeros[0],
        theta=theta,
        optimiser=_optimiser().init(theta),
        evaluations=jnp.zeros((), jnp.int32),
        done=jnp.zeros((), bool),
        estimates=no_estimates(shared),
    )


def step(
    deviance: Callable[[Vector], Evaluation], samples_per_level: Float[Array, " k"], state: State
) -> State:
    """One iteration of L-BFGS with its line search (`evaluations` counts iterations)."""
    import optax

    m = jnp.asarray(samples_per_level)

    def value(theta):
        return deviance(theta**2).deviance

    def score(x):
        found = deviance(newton.gammas(x, m))
        jacobian = jnp.exp(x) / m
        rounding = (jacobian * found.rounding).max()
        return jacobian * found.score, rounding, found.estimates

    loss, gradient = optax.value_and_grad_from_state(value)(state.theta, state=state.optimiser)
    updates, optimiser = _optimiser().update(
        gradient, state.optimiser, state.theta, value=loss, grad=gradient, value_fn=value
    )
    theta = jnp.asarray(optax.apply_updates(state.theta, updates))
    x = jnp.log1p(m * theta**2)
    x = jnp.where((x < _NEAR_ZERO) & (score(x)[0] >= 0), 0.0, x)
    at_x, tolerance, estimates = score(x)
    done = newton.violation(x, at_x) <= jnp.maximum(newton.GRADIENT_TOLERANCE, tolerance)
    stepped = State(
        x, at_x, tolerance, theta, optimiser, state.evaluations + 1, state.done | done, estimates
    )
    return jax.tree.map(lambda new, old: jnp.where(state.done, old, new), stepped, state)


_NEAR_ZERO = 1e-7
