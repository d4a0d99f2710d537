r"""Polynomials in the variance ratios, for functions that a design or a gene tabulates.

Every determinant and quadratic form of ``V = I + sum_i gamma_i Z_i Z_i'`` is a rational function of
gamma whose poles and zeros in gamma_i, the others being positive, are real and at most ``-1 /
n_i``, where n_i is the largest number of samples in a level of term i (``-1 / gamma_i`` is an
eigenvalue of ``Z_i' V_-i^-1 Z_i``, which are at most n_i). So it is, and its logarithm, analytic in

    v_i = log(1 + n_i gamma_i),     |Im v_i| < pi,

or, with ``t = 2 v / T - 1`` on [-1, 1], in a strip of half-width ``c = 2 pi / T``. Polynomials in
t through N Chebyshev nodes converge like ``rho^-N`` with ``rho = c + sqrt(1 + c^2)``: an ellipse is
a poor fit to a strip. In ``z = sin(b t) / sin(b)`` the strip is wider about the middle: there

    rho = min(cot(b / 2), a + sqrt(1 + a^2)),     a = sinh(b c) / sin(b)

(the first where arcsin ends, the second where the strip does), and b makes the two equal: a
tenth to a fifth fewer nodes on every axis. This holds however unequal the levels are. (In ``m
gamma / (1 + m gamma)``, or with the mean in place of the largest, poles come as close as levels are
unequal: errors of 1e-2 in place of 1e-8 for the same nodes.)

Newton's method has ``x_i = log(1 + m_i gamma_i)`` with the mean m_i.

Sources: Trefethen, Approximation Theory and Approximation Practice (2013), ch. 8; Kosloff and
Tal-Ezer (1993), J. Comput. Phys. 104, for the map.
"""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxvp.likelihood import Scalar, fence, lift
from jaxvp.likelihood.elementary import cosine
from jaxvp.likelihood.lanes import dot
from jaxvp.statistics import Array


class Axes(eqx.Module):
    """The coordinates of every term, in elimination order."""

    largest: Float[Array, " k"]  # n_i
    mean: Float[Array, " k"]  # m_i
    top: Float[Array, " k"]  # T_i
    bend: Float[Array, " k"]  # b_i

    @classmethod
    def of(cls, sizes: tuple[np.ndarray, ...], mean: Array, gamma: float) -> Axes:
        """Of the numbers of samples in every level of every term, up to this gamma."""
        largest = np.array([n.max() for n in sizes])
        top = np.log1p(largest * gamma)
        return cls(largest, mean, top, _bends(2 * np.pi / top))

    def counts(self, error: float) -> tuple[int, ...]:
        """Nodes of every axis for polynomials of this relative error."""
        rate = -np.log(np.tan(np.asarray(self.bend) / 2))
        return tuple(map(int, np.ceil(np.log(1 / error) / rate) + 1))

    def gammas(self, counts: tuple[int, ...]) -> tuple[np.ndarray, ...]:
        """Nodes of every axis: Chebyshev's, with both ends."""
        found = []
        for top, n, b, count in zip(self.top, self.largest, self.bend, counts, strict=True):
            t = np.arcsin(np.sin(b) * _points(count)) / b
            t[[0, -1]] = -1, 1  # an end is zero, not nearly
            found.append(np.expm1(top * (t + 1) / 2) / n)
        return tuple(found)

    def inside(self, x: Float[Array, "k genes"]) -> Array:
        """Is a point where the nodes are?"""
        return jnp.all(self._unbent(x)[0] <= 1, axis=0)

    def _unbent(self, x: Float[Array, "k genes"]) -> tuple[Array, Array]:
        """t of a point, on [-1, 1], and the slope of v in x."""
        n, m, top = (lift(a, x[0]) for a in (self.largest, self.mean, self.top))
        below = m + n * jnp.expm1(x)
        return 2 * jnp.log(below / m) / top - 1, n * jnp.exp(x) / below

    def place(self, x: Float[Array, "k genes"]) -> tuple[Array, Array, Array]:
        """z of a point, on [-1, 1], and its two derivatives in x."""
        t, slope = self._unbent(x)
        bend, top = lift(jnp.asarray(self.bend), x[0]), lift(self.top, x[0])
        z = jnp.sin(bend * t) / jnp.sin(bend)
        tilt = 2 / top * bend * jnp.cos(bend * t) / jnp.sin(bend)  # of z in v
        # The slope of v in x, s, has the derivative s (1 - s).
        curve = tilt * slope * (1 - slope) - z * (2 * bend / top * slope) ** 2
        return z, tilt * slope, curve

    def values(
        self, tables: Float[Array, "..."], x: Float[Array, "k genes"]
    ) -> Float[Array, "some genes"]:
        """Values alone, of several polynomials (first axis) for all genes.

        The nodes of gamma_1 are on the last axis, as everywhere in what all genes share.
        """
        z, _, _ = self.place(x)
        some, *others, first = tables.shape
        table = jnp.asarray(tables).reshape(-1, first) @ cardinal(z[0], first, 0)[:, 0]
        for i, count in enumerate(others, 1):
            table = table.reshape(some, count, -1, x.shape[1])
            table = fence(_weighed, table, cardinal(z[i], count, 0))
        return table.reshape(some, -1)

    def score(
        self, values: Float[Array, "..."], x: Float[Array, "k genes"]
    ) -> tuple[Scalar, Array]:
        """Value and gradient in x of the polynomial through values at the nodes.

        Of each gene, on a last axis, or of one for all: then the nodes of gamma_1 are on the last.
        """
        z, slope, _ = self.place(x)
        value, first = derivatives(values, z, 1)
        return value, first * slope

    def curvature(
        self, values: Float[Array, "..."], x: Float[Array, "k genes"]
    ) -> tuple[Scalar, Array, Array]:
        """Value, gradient and Hessian in x of the same."""
        z, slope, curve = self.place(x)
        value, first, second = derivatives(values, z, 2)
        same = lift(jnp.eye(len(x), dtype=bool), x[0])
        own = jnp.where(same, (first * curve)[None], 0.0)
        hessian = second * slope[:, None] * slope[None] + own
        return value, first * slope, hessian


def _bends(strip: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
    """b for strips of half-width c, by bisection."""
    low, high = np.full_like(strip, 1e-3), np.full_like(strip, np.pi / 2)
    for _ in range(60):
        b = (low + high) / 2
        ends, stops = -np.log(np.tan(b / 2)), np.arcsinh(np.sinh(b * strip) / np.sin(b))
        low, high = np.where(ends > stops, b, low), np.where(ends > stops, high, b)
    return low


def _points(count: int) -> Float[np.ndarray, " N"]:
    return -np.cos(np.pi * np.arange(count) / (count - 1))


def to_coefficients(count: int) -> Float[np.ndarray, "N N"]:
    """The matrix that takes values at the nodes to coefficients of Chebyshev polynomials."""
    return np.linalg.inv(np.polynomial.chebyshev.chebvander(_points(count), count - 1))


def cardinal(z: Float[Array, " genes"], count: int, order: int) -> Float[Array, "N orders genes"]:
    """What values at the nodes are multiplied by, for the value and derivatives up to ``order``.

    In closed form and by a matrix: recurrences would be a program as long as ``count``.
    """
    degrees = jnp.arange(count, dtype=z.dtype)
    chebyshev = cosine(degrees[:, None] * jnp.arccos(jnp.clip(z, -1.0, 1.0)))
    inverse, slopes = to_coefficients(count), np.zeros((count, order + 1, count))
    for i in range(order + 1):
        of = np.polynomial.chebyshev.chebder(inverse, i).T
        slopes[:, i, : of.shape[1]] = of
    found = jnp.asarray(slopes.reshape(-1, count), z.dtype) @ chebyshev
    return found.reshape(count, order + 1, -1)


def derivatives(
    values: Float[Array, "..."], z: Float[Array, "k genes"], order: int
) -> tuple[Array, ...]:
    """Value and gradient in z, and the Hessian where ``order`` is 2.

    Values are of every gene, on a last axis, or the same for all: then the nodes of the first
    axis are on the last one.
    """
    k, genes = z.shape
    shape, orders = values.shape[:k], order + 1
    shared = values.ndim == k
    if shared:
        shape = (shape[-1], *shape[:-1])
    # The axis that is next, the others with the orders of axes that are done; every axis is few and
    # large operations, for each of them costs time to compile.
    table = values
    for i, count in enumerate(shape):
        weights = cardinal(z[i], count, order)
        if i == 0 and shared:  # a matrix product
            table = table.reshape(-1, count) @ weights.reshape(count, -1)
        else:
            table = fence(_contracted, table.reshape(count, -1, genes), weights)
    table = table.reshape(-1, genes)

    def at(*places):
        return table[sum(places.count(i) * orders ** (k - 1 - i) for i in range(k))]

    gradient = jnp.stack([at(i) for i in range(k)])
    if order == 1:
        return at(), gradient
    return at(), gradient, jnp.stack([jnp.stack([at(i, j) for j in range(k)]) for i in range(k)])


def _weighed(
    tables: Float[Array, "some N others genes"], weights: Float[Array, "N 1 genes"]
) -> Float[Array, "some others genes"]:
    # (Swapped in here: what a fence is given would be copied.)
    return dot(tables.swapaxes(0, 1), weights[:, None])


def _contracted(
    table: Float[Array, "N others genes"], weights: Float[Array, "N orders genes"]
) -> Float[Array, "others orders genes"]:
    # (Axes of one in what a fence is given would have it copied.)
    return dot(table[:, :, None], weights[:, None])
