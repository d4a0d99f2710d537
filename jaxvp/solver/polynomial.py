r"""Polynomials in the variance ratios, for functions that a design or a gene tabulates.

Every determinant and quadratic form of ``V = I + sum_i gamma_i Z_i Z_i'`` is a rational function of
gamma whose poles and zeros in gamma_i, the others being positive, are real and at most ``-1 /
n_i``, where n_i is the largest number of samples in a level of term i (``-1 / gamma_i`` is an
eigenvalue of ``Z_i' V_-i^-1 Z_i``, which are at most n_i). So it is, and its logarithm, analytic in

    v_i = log(1 + n_i gamma_i),     |Im v_i| < pi,

and polynomials through N Chebyshev nodes on [0, T] converge like ``rho^-N`` with ``rho = a + sqrt(1
+ a^2)``, ``a = 2 pi / T``, however unequal the levels are. (In ``m gamma / (1 + m gamma)``, or with
the mean in place of the largest, poles come as close as levels are unequal: errors of 1e-2 in place
of 1e-8 for the same nodes.)

Newton's method has ``x_i = log(1 + m_i gamma_i)`` with the mean m_i.

Source: Trefethen, Approximation Theory and Approximation Practice (2013), ch. 8.
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxvp.likelihood import Scalar, lift
from jaxvp.statistics import Array


class Axes(eqx.Module):
    """The coordinates of every term, in elimination order."""

    largest: Float[Array, " k"]  # n_i
    mean: Float[Array, " k"]  # m_i
    top: Float[Array, " k"]  # T_i

    @classmethod
    def of(cls, sizes: tuple[np.ndarray, ...], mean: Array, gamma: float) -> Axes:
        """Of the numbers of samples in every level of every term, up to this gamma."""
        largest = np.array([n.max() for n in sizes])
        return cls(largest, mean, np.log1p(largest * gamma))

    def counts(self, error: float) -> tuple[int, ...]:
        """Nodes of every axis for polynomials of this relative error."""
        a = 2 * np.pi / np.asarray(self.top)
        counts = np.ceil(np.log(1 / error) / np.log(a + np.sqrt(1 + a * a))) + 1
        return tuple(map(int, counts))

    def gammas(self, counts: tuple[int, ...]) -> tuple[np.ndarray, ...]:
        """Nodes of every axis: Chebyshev's, with both ends."""
        return tuple(
            np.expm1(t * (_points(count) + 1) / 2) / n
            for t, n, count in zip(self.top, self.largest, counts, strict=True)
        )

    def inside(self, x: Float[Array, "k genes"]) -> Array:
        """Is a point where the nodes are?"""
        return jnp.all(self.place(x)[0] <= 1, axis=0)

    def place(self, x: Float[Array, "k genes"]) -> tuple[Array, Array]:
        """v of a point, on [-1, 1], and its derivative in x."""
        n, m, top = (lift(a, x[0]) for a in (self.largest, self.mean, self.top))
        below = m + n * jnp.expm1(x)
        return 2 * jnp.log(below / m) / top - 1, 2 / top * n * jnp.exp(x) / below

    def values(
        self, tables: Float[Array, "some *nodes"], x: Float[Array, "k genes"]
    ) -> Float[Array, "some genes"]:
        """Values alone, of several polynomials for all genes."""
        z, _ = self.place(x)
        shape = tables.shape[1:]
        table = jnp.tensordot(jnp.asarray(tables), cardinal(z[0], shape[0], 0)[0], (1, 0))
        for i, count in enumerate(shape[1:], 1):
            weights = cardinal(z[i], count, 0)[0]
            weights = weights.reshape(count, *[1] * (len(shape) - 1 - i), -1)
            table = (table * weights).sum(1)
        return table

    def score(
        self, values: Float[Array, "*nodes some"], x: Float[Array, "k genes"]
    ) -> tuple[Scalar, Array]:
        """Value and gradient in x of the polynomial through values at the nodes.

        Of each gene, or of one polynomial for all (a last axis of length one).
        """
        z, slope = self.place(x)
        value, first = derivatives(values, z, 1)
        return value, first * slope

    def curvature(
        self, values: Float[Array, "*nodes some"], x: Float[Array, "k genes"]
    ) -> tuple[Scalar, Array, Array]:
        """Value, gradient and Hessian in x."""
        z, slope = self.place(x)
        value, first, second = derivatives(values, z, 2)
        same = lift(jnp.eye(len(x), dtype=bool), x[0])
        # In x the slope of log(1 + n gamma), s, has the derivative s (1 - s).
        bent = first * slope * (1 - slope * lift(self.top, x[0]) / 2)
        hessian = second * slope[:, None] * slope[None] + jnp.where(same, bent[None], 0.0)
        return value, first * slope, hessian


def _points(count: int) -> Float[np.ndarray, " N"]:
    return -np.cos(np.pi * np.arange(count) / (count - 1))


def to_coefficients(count: int) -> Float[np.ndarray, "N N"]:
    """The matrix that takes values at the nodes to coefficients of Chebyshev polynomials."""
    return np.linalg.inv(np.polynomial.chebyshev.chebvander(_points(count), count - 1))


def cardinal(z: Float[Array, " genes"], count: int, order: int) -> Float[Array, "orders N genes"]:
    """What values at the nodes are multiplied by, for the value and derivatives up to ``order``.

    In closed form and by matrices: recurrences would be a program as long as ``count``.
    """
    degrees = jnp.arange(count, dtype=z.dtype)
    chebyshev = jnp.cos(degrees[:, None] * jnp.arccos(jnp.clip(z, -1.0, 1.0)))
    inverse = to_coefficients(count)
    slopes = [inverse, *(np.polynomial.chebyshev.chebder(inverse, i) for i in range(1, order + 1))]
    return jnp.stack([jnp.asarray(c.T, z.dtype) @ chebyshev[: len(c)] for c in slopes])


def derivatives(
    values: Float[Array, "*nodes some"], z: Float[Array, "k genes"], order: int
) -> tuple[Array, ...]:
    """Value and gradient in z, and the Hessian where ``order`` is 2."""
    k, genes = z.shape
    shape, orders = values.shape, order + 1
    # Orders of the axes that are done, the axis that is next, the others; few and large operations,
    # for every one of them costs time to compile.
    table = values.reshape(1, shape[0], -1, shape[-1])
    for i in range(k):
        weights = cardinal(z[i], shape[i], order)
        if i == 0 and shape[-1] == 1:  # one polynomial for all genes: a matrix product
            table = jnp.tensordot(table[0, ..., 0], weights, (0, 1)).swapaxes(0, 1)
        else:
            table = _contract(weights, table)
        rest = (shape[i + 1], -1) if i + 1 < k else ()
        table = table.reshape(orders ** (i + 1), *rest, genes)

    def at(*places):
        return table[sum(places.count(i) * orders ** (k - 1 - i) for i in range(k))]

    gradient = jnp.stack([at(i) for i in range(k)])
    if order == 1:
        return at(), gradient
    return at(), gradient, jnp.stack([jnp.stack([at(i, j) for j in range(k)]) for i in range(k)])


def _contract(weights: Float[Array, "new N genes"], table: Float[Array, "old N rest genes"]):
    def term(i):
        return weights[None, :, i, None] * table[:, None, i]

    return jax.lax.fori_loop(1, weights.shape[1], lambda i, total: total + term(i), term(0))
