"""The sweep over a system's random columns, in pieces as a CPU and as an accelerator want them."""

from __future__ import annotations

from functools import reduce
from operator import mul

import jax
import jax.numpy as jnp

from jaxvp.likelihood.elementary import log
from jaxvp.likelihood.lanes import diagonal, largest, lift
from jaxvp.likelihood.system import Scalar
from jaxvp.statistics import Array
from jaxvp.target import accelerated, fence

_TOGETHER = 5  # columns in one round of an accelerator's loop


def sweep_columns(gammas: Array, m: Array) -> tuple[Array, Scalar, Scalar]:
    """Sweep the leading columns of a symmetric matrix; log|.| of the pivots, and what was lost.

    A swept row is its old self over the pivot. Written so, not as the difference that the update
    would be, the predicted effects keep their digits where a term explains all but a millionth.
    Only rows are written so: of the swept part the lower triangle holds.
    """
    if not gammas.shape[0]:
        return m, jnp.zeros_like(m[0, 0]), jnp.zeros_like(m[0, 0])
    squares = diagonal(m)[: gammas.shape[0]]
    m, pivots = (_on_accelerator if accelerated() else _on_cpu)(gammas, m)

    def ends(gammas, squares, pivots):
        # Few logarithms: a pivot is below 2^128, of that many the product is finite, eight in
        # float64 and one in float32.
        some = jnp.finfo(pivots.dtype).maxexp // 128
        products = [reduce(mul, pivots[i : i + some]) for i in range(0, len(pivots), some)]
        return sum(log(p) for p in products), largest(gammas * squares / pivots)

    return m, *fence(ends, gammas, squares, pivots)


def _on_cpu(gammas: Array, m: Array) -> tuple[Array, Array]:
    """The swept matrix, and its pivots."""
    number = lift(jnp.arange(m.shape[0]), m[0, 0])

    def column(m, gammas, j):
        # Where rows have been swept, they hold what the column does not.
        c = jnp.where(number < j, m[:, j], m[j])
        pivot = 1 + gammas[j] * m[j, j]
        return jnp.concatenate([c, (gammas[j] / pivot)[None]]), c / pivot, pivot

    def update(m, scaled):
        c = scaled[:-1]
        return m - (scaled[-1] * c)[:, None] * c[None]

    def sweep(j, carry):
        m, pivots = carry
        scaled, row, pivot = fence(column, m, gammas, j)
        return _put(fence(update, m, scaled), row, j), _put(pivots, pivot, j)

    return jax.lax.fori_loop(0, gammas.shape[0], sweep, (m, jnp.ones_like(gammas)))


def _put(array: Array, row: Array, j: Array) -> Array:
    """The array with a row in its place: ``.at[j].set`` would ask whether that is inside."""
    return jax.lax.dynamic_update_index_in_dim(array, row, j, 0)


def _on_accelerator(gammas: Array, m: Array) -> tuple[Array, Array]:
    """The same some columns at a time: a kernel for each of them, and one for the whole matrix.

    Pivots are kept as one more row: an array of their own would be one more kernel.
    """
    q, size = gammas.shape[0], m.shape[0]
    row = lift(jnp.arange(size + 1), m[0, 0])

    def columns(m, first, some):
        """As `_on_cpu` takes them of the matrix."""
        number = lift(first + jnp.arange(some), m[0, 0])
        above = jax.lax.dynamic_slice_in_dim(m[:-1], first, some, 1).swapaxes(0, 1)
        rows = jax.lax.dynamic_slice_in_dim(m, first, some, 0)
        return jnp.where(row[:-1][None] < number[:, None], above, rows)

    def sweep_one(some, gammas, j):
        """The columns after the first of some; by how much of that every row changes; its pivot."""
        c = some[0]
        pivot = 1 + gammas[j] * c[j]
        factor = jnp.where(row[:-1] == j, 1.0, -gammas[j] * c) / pivot
        here = jax.lax.dynamic_slice_in_dim(c, j + 1, len(some) - 1, 0)
        later = jnp.where(row[:-1] == j, 0.0, some[1:]) + factor[None] * here[:, None]
        return jnp.concatenate([later, factor[None], jnp.broadcast_to(pivot, c.shape)[None]])

    def update(m, taken, first):
        for s, (c, factor, pivot) in enumerate(taken):
            j = first + s
            factor = jnp.concatenate([factor, jnp.zeros_like(factor[:1])])
            m = jnp.where((row == j)[:, None], 0.0, m) + factor[:, None] * c[None]
            m = jnp.where((row == size)[:, None] & (row[:-1] == j)[None], pivot[None], m)
        return m

    def sweep(first, some, m):
        left, taken = fence(lambda m: columns(m, first, some), m), []
        for s in range(some):
            found = fence(sweep_one, left, gammas, first + s)
            taken.append((left[0], found[-2], found[-1]))
            left = found[:-2]
        return fence(lambda m, taken: update(m, taken, first), m, taken)

    m = jnp.concatenate([m, jnp.ones_like(m[:1])])
    whole, rest = divmod(q, _TOGETHER)
    if whole:
        m = jax.lax.fori_loop(0, whole, lambda i, m: sweep(i * _TOGETHER, _TOGETHER, m), m)
    if rest:
        m = sweep(whole * _TOGETHER, rest, m)
    return m[:-1], m[-1, :q]
