"""Arithmetic on leading axes, with the genes of a tile on a trailing one.

Written as additions of arrays: XLA's own reductions are not vectorised over the genes, and an index
for every entry would be a kernel for every entry.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Shaped

from jaxvp.likelihood.elementary import log
from jaxvp.statistics import Array
from jaxvp.target import accelerated, fence

# Steps of an elimination that are a formula, unless told otherwise; written out on an accelerator.
_FORMULA, WRITTEN_OUT = 2, 4
# Of larger products an accelerator would read every row of one factor for every column of the other
# (27 columns, 4,096 genes on an H200: 187 us; with a library's B takes a tenth less).
_WRITTEN_OUT_PRODUCT = 16


def lift(array: Shaped[Array, "..."], like: Array, axes: int | None = None) -> Shaped[Array, "..."]:
    """Give an array that all genes share the trailing axes of ``like``.

    ``axes`` is the number of axes without those of genes: an array that has them already, because
    every gene has its own, is left as it is.
    """
    if axes is not None and jnp.ndim(array) > axes:
        return jnp.asarray(array)
    return jnp.reshape(array, jnp.shape(array) + (1,) * jnp.ndim(like))


def dot(a: Array, b: Array) -> Array:
    """Sum over the leading axis of ``a b``."""
    if not a.shape[0]:
        return jnp.zeros(jnp.broadcast_shapes(a.shape[1:], b.shape[1:]), a.dtype)
    return _fold(jax.lax.add, [x * y for x, y in zip(_each(a), _each(b), strict=True)])[0]


def total(array: Array) -> Array:
    """Sum over the leading axis."""
    return _fold(jax.lax.add, _each(array))[0]


def largest(array: Array) -> Array:
    """Maximum over the leading axis."""
    return _fold(jax.lax.max, _each(array))[0]


def least(array: Array) -> Array:
    """Minimum over the leading axis."""
    return _fold(jax.lax.min, _each(array))[0]


def every(truths: Bool[Array, "..."]) -> Bool[Array, ""]:
    """Are all true, of at least one?

    ``jnp.all`` is a tree of reductions on a CPU, which takes a fifth of a second to compile.
    """
    flat = truths.reshape(-1)
    return jnp.all(flat) if accelerated() else flat[jnp.argmin(flat)]


def _each(array: Array, axis: int = 0) -> Sequence[Array]:
    """The parts of an axis, which they keep: one operation to trace, not one a part."""
    return jax.lax.split(array, (1,) * array.shape[axis], axis)


def _fold(operation: Callable[[Array, Array], Array], parts: Sequence[Array]) -> Array:
    return functools.reduce(operation, parts)


def diagonal(matrix: Array) -> Array:
    """Of the two leading axes."""
    rows, columns = matrix.shape[:2]
    flat = matrix.reshape(rows * columns, *matrix.shape[2:])
    return flat[:: columns + 1][: min(rows, columns)]


def product(a: Array, b: Array) -> Array:
    """Matrix product over the two leading axes, gene axis untouched."""
    if accelerated() and min(a.shape[0], b.shape[1]) > _WRITTEN_OUT_PRODUCT:
        return jnp.einsum("ij...,jk...->ik...", a, b, precision="highest")
    return _product(a, b)


@jax.jit
def _product(a: Array, b: Array) -> Array:
    if not a.shape[1]:
        return jnp.zeros((a.shape[0], *b.shape[1:]), a.dtype)
    return _fold(jax.lax.add, [x * y for x, y in zip(_each(a, 1), _each(b), strict=True)])


@jax.jit
def apply(a: Array, v: Array) -> Array:
    """Matrix times vector, gene axis untouched."""
    if not a.shape[1]:
        return jnp.zeros((a.shape[0], *v.shape[1:]), a.dtype)
    return _fold(jax.lax.add, [x * y for x, y in zip(_each(a, 1), _each(v), strict=True)])[:, 0]


def each_pivot(
    count: int, pivot: Callable[[Any, Any], Any], carry: Any, formula: int = _FORMULA
) -> Any:
    """``pivot(t, carry)`` for all columns t.

    Up to ``formula`` of them are compiled as one formula, of more the step is compiled once. An
    accelerator would wait for the host at every step of a loop: there few are written out.
    """
    if accelerated() and _FORMULA < count <= WRITTEN_OUT:
        for t in range(count):
            carry = fence(pivot, t, carry)
        return carry
    if count > formula:
        return jax.lax.fori_loop(0, count, lambda t, carry: fence(pivot, t, carry), carry)
    for t in range(count):
        carry = pivot(t, carry)
    return carry


def inverse(matrix: Array) -> tuple[Array, Array]:
    """Inverse and log determinant of a positive definite matrix, Gauss and Jordan in place."""
    size, like = matrix.shape[0], jnp.zeros(matrix.shape[2:], matrix.dtype)
    number = lift(jnp.arange(size), like)

    def pivot(t, carry):
        m, log_det = carry
        here = number == t
        p = m[t, t]
        row = jnp.where(here, 1 / p, m[t] / p)
        column = jnp.where(here, 0.0, m[:, t])
        rest = jnp.where(here[None], 0.0, m) - column[:, None] * row[None]
        return jnp.where(here[:, None], row[None], rest), log_det + log(p)

    return each_pivot(size, pivot, (matrix, like))
