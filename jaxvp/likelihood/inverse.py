r"""Inverses of many small positive definite matrices at once, in elementwise and matrix products.

With ``A = [[P, C'], [C, D]]`` and the Schur complement ``S = D - C P^-1 C'``,

    A^-1 = [[P^-1 + W'S^-1 W, -W'S^-1], [-S^-1 W, S^-1]],     W = C P^-1,

by halves, down to blocks that are swept column by column. LAPACK is not called: for many matrices
it takes threads that it may have to wait for itself.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxvp.statistics import Array

_SWEPT = 16  # columns of the blocks that are not halved any more


def inverse(
    a: Float[Array, "m m genes"],
) -> tuple[Float[Array, "m m genes"], Float[Array, "m genes"]]:
    """Inverses, and the pivots: what of every diagonal element is left by those before it."""
    inverted, pivots = _inverse(jnp.moveaxis(jnp.asarray(a), -1, 0))
    return jnp.moveaxis(inverted, 0, -1), pivots


def _inverse(a: Float[Array, "genes m m"]) -> tuple[Array, Array]:
    m = a.shape[1]
    if m <= _SWEPT:
        return _swept(a)
    half = m // 2
    first, low = _inverse(a[:, :half, :half])
    couple = a[:, half:, :half]
    w = couple @ first
    last, high = _inverse(a[:, half:, half:] - w @ couple.swapaxes(1, 2))
    corner = last @ w
    top = jnp.concatenate([first + w.swapaxes(1, 2) @ corner, -corner.swapaxes(1, 2)], axis=2)
    return (
        jnp.concatenate([top, jnp.concatenate([-corner, last], axis=2)], axis=1),
        jnp.concatenate([low, high]),
    )


def _swept(a: Float[Array, "genes m m"]) -> tuple[Array, Array]:
    a = jnp.moveaxis(a, 0, -1)

    def sweep(i, carry):
        a, pivots = carry
        row, pivot = a[i], a[i, i]
        here = (jnp.arange(len(a)) == i)[:, None]
        scaled = row / pivot
        swept = a - row[:, None] * scaled[None]
        swept = jnp.where(here[:, None], scaled[None], swept)
        swept = jnp.where(here[None], jnp.where(here[:, None], -1 / pivot, scaled[:, None]), swept)
        return swept, pivots.at[i].set(pivot)

    swept, pivots = jax.lax.fori_loop(0, len(a), sweep, (a, jnp.ones(a.shape[1:], a.dtype)))
    return -jnp.moveaxis(swept, -1, 0), pivots
