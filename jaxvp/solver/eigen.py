r"""Eigenvalues and eigenvectors of many small symmetric matrices: Jacobi's rotations.

Plain arithmetic on leading axes, genes on a trailing one, for the reasons `jaxvp.likelihood` has:
batched LAPACK is slow for small matrices, and calls that may run at once can hang. A round rotates
disjoint pairs of rows and columns, (0, 1), (2, 3), ..., and then moves the indices on as a
tournament moves its players, so that every round is the same piece of code and ``n - 1`` rounds
meet every pair. Convergence is quadratic: four to seven sweeps.

Source: Golub and Van Loan, Matrix Computations (2013), section 8.5.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxvp.likelihood import fence, lift
from jaxvp.statistics import Array

_SWEEPS = 12


def eigen(
    matrix: Float[Array, "n n *genes"],
) -> tuple[Float[Array, "n *genes"], Float[Array, "n n *genes"]]:
    """Eigenvalues (unsorted) and eigenvectors, in columns."""
    n = matrix.shape[0]
    if n == 1:
        return matrix[0], jnp.ones_like(matrix)
    size = n + n % 2
    genes = matrix.shape[2:]
    a = jnp.zeros((size, size, *genes), matrix.dtype).at[:n, :n].set(matrix)
    v = jnp.broadcast_to(lift(jnp.eye(size, dtype=a.dtype), a[0, 0]), a.shape)
    if size == 2:
        a, v = _rotate(a, v)
        return jnp.stack([a[0, 0], a[1, 1]]), v
    order = _next(size)
    eps = jnp.finfo(a.dtype).eps

    def one_round(_, carry):
        a, v = fence(_rotate, *carry)
        return fence(lambda a, v: (a[order][:, order], v[:, order]), a, v)

    def apart(a):
        """Which matrices are not diagonal yet?"""
        off = jnp.zeros(genes, a.dtype)
        scale = off
        for i in range(size):
            scale = scale + a[i, i] ** 2
            for j in range(i):
                off = off + a[i, j] ** 2
        return off > (0.01 * eps) ** 2 * scale

    def sweep(carry):
        number, _, left, *old = carry
        new = jax.lax.fori_loop(0, size - 1, one_round, tuple(old))
        # What is done stays as it is, or a gene's last bits would depend on who is beside it.
        a, v = (jnp.where(left, one, other) for one, other in zip(new, old, strict=True))
        left &= fence(apart, a)
        return number + 1, jnp.any(left), left, a, v

    begin = (jnp.zeros((), jnp.int32), jnp.ones((), bool), jnp.ones(genes, bool), a, v)
    *_, a, v = jax.lax.while_loop(lambda c: c[1] & (c[0] < _SWEEPS), sweep, begin)
    # A spare row and column stay apart: their place is back where it was after every sweep.
    return jnp.stack([a[i, i] for i in range(n)]), v[:n, :n]


def _rotate(a: Array, v: Array) -> tuple[Array, Array]:
    """One rotation of every pair (2i, 2i+1): the entry between them becomes zero."""
    half = len(a) // 2
    p = jnp.stack([a[2 * i, 2 * i] for i in range(half)])
    q = jnp.stack([a[2 * i + 1, 2 * i + 1] for i in range(half)])
    between = jnp.stack([a[2 * i, 2 * i + 1] for i in range(half)])
    none = between == 0
    ratio = (q - p) / jnp.where(none, 1.0, 2 * between)
    t = jnp.where(ratio >= 0, 1.0, -1.0) / (abs(ratio) + jnp.sqrt(ratio * ratio + 1))
    t = jnp.where(none, 0.0, t)
    c = 1 / jnp.sqrt(t * t + 1)
    s = t * c

    def rows(x):
        pairs = x.reshape(half, 2, *x.shape[1:])
        one, two = pairs[:, 0], pairs[:, 1]
        turned = [c[:, None] * one - s[:, None] * two, s[:, None] * one + c[:, None] * two]
        return jnp.stack(turned, 1).reshape(x.shape)

    a = rows(rows(a).swapaxes(0, 1))
    return a, rows(v.swapaxes(0, 1)).swapaxes(0, 1)


def _next(size: int) -> np.ndarray:
    """Who comes where in the next round: index 0 stays, the others move round."""
    half = size // 2
    top, bottom = list(range(0, size, 2)), list(range(1, size, 2))
    new_top = [top[0], bottom[0], *top[1 : half - 1]]
    new_bottom = [*bottom[1:], top[-1]]
    return np.array([new_top, new_bottom]).T.ravel()
