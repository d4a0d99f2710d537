"""The way down a quadratic model inside the box ``x >= 0``.

Each round heads from where it stands for the minimiser over the components that are free, as far as
the first face of the box; the component that meets it stays there. The model falls in every round.
The first round also finds whether the Hessian is positive definite; where it is not the Fisher
matrix takes its place.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from jaxvp.likelihood import accelerated, every, fence, lift
from jaxvp.likelihood.lanes import WRITTEN_OUT, diagonal, each_pivot, largest, least, total
from jaxvp.statistics import Array

# Terms up to which a minimiser is one formula (a CPU; of three it takes a quarter less time).
_FORMULA = 4


def direction(
    x: Float[Array, "k *genes"],
    score: Float[Array, "k *genes"],
    hessian: Float[Array, "k k *genes"],
    fisher: Float[Array, "k k *genes"],
) -> Float[Array, "k *genes"]:
    """From x to where the model is lowest; components at zero stay there if they push."""
    k = x.shape[0]

    def one_round(carry):
        number, _, curvature, held, d = carry
        moved = fence(_round, x, score, fisher, curvature, held, d)
        return number + 1, *moved

    begin = (
        jnp.zeros((), jnp.int32),
        jnp.ones((), bool),
        hessian,
        pressed(x, score),
        jnp.zeros_like(x),
    )
    if accelerated() and k <= WRITTEN_OUT:
        # A loop would wait for the host in every round; one more changes nothing.
        carry = begin
        for _ in range(k + 1):
            carry = one_round(carry)
        return carry[-1]
    return jax.lax.while_loop(lambda c: c[1] & (c[0] <= k), one_round, begin)[-1]


def pressed(
    x: Float[Array, "k *genes"], score: Float[Array, "k *genes"]
) -> Bool[Array, "k *genes"]:
    """The components at zero that the deviance keeps there."""
    return (x <= 0) & (score >= 0)


def _round(
    x: Float[Array, "k *genes"],
    score: Float[Array, "k *genes"],
    fisher: Float[Array, "k k *genes"],
    curvature: Float[Array, "k k *genes"],
    held: Bool[Array, "k *genes"],
    d: Float[Array, "k *genes"],
) -> tuple[Bool[Array, ""], Array, Bool[Array, "k *genes"], Array]:
    """Is there another one, and its curvature, what is held then, and the way so far."""
    target, positive = fence(_minimiser, score, curvature, held, d)
    crossing = ~held & (x + target < 0)
    reach = jnp.where(crossing, (x + d) / jnp.where(crossing, d - target, 1.0), 1.0)
    first = least(reach)
    hit = crossing & (reach <= first)
    # Exactly the target where it is reached: one more round, for others, then changes nothing.
    moved = target - (1 - first) * (target - d)
    moved = jnp.where(hit, -x, jnp.where(held, d, moved))
    return (
        ~every(~largest(hit) & positive),
        jnp.where(positive, curvature, fisher),
        jnp.where(positive, held | hit, held),
        jnp.where(positive, moved, d),
    )


def _minimiser(
    score: Float[Array, "k *genes"],
    curvature: Float[Array, "k k *genes"],
    held: Bool[Array, "k *genes"],
    d: Float[Array, "k *genes"],
) -> tuple[Float[Array, "k *genes"], Bool[Array, "*genes"]]:
    """Of the model, with held components as they are; is the curvature positive definite there?"""
    k = score.shape[0]
    same = lift(jnp.eye(k, dtype=bool), score[0])
    number = lift(jnp.arange(k), score[0])
    pull = total(jnp.where(held[:, None], curvature * d[:, None], 0.0))
    matrix = jnp.where(held[:, None] | held[None], same, curvature)
    right = jnp.where(held, d, -score - pull)
    size = abs(diagonal(matrix))

    def pivot(t, carry):
        rows, right, positive = carry
        p, scale = rows[t, t], size[t]
        # A pivot far below its diagonal is rounding: two terms that cannot be told apart here.
        healthy = p > 1e-10 * scale
        over = 1 / jnp.where(healthy, p, scale + 1e-6)
        row, last, column, here = rows[t] * over, right[t] * over, rows[:, t], number == t
        others = rows - column[:, None] * row[None]
        return (
            jnp.where(here[:, None], row[None], others),
            jnp.where(here, last, right - column * last),
            positive & healthy,
        )

    ones = jnp.ones(score.shape[1:], bool)
    _, solution, positive = each_pivot(k, pivot, (matrix, right, ones), formula=_FORMULA)
    return solution, positive
