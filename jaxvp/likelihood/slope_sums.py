r"""What the eliminated factor adds to the system: sums over its levels, weighted by W.

By class, where levels share their R, or level by level (`jaxvp.statistics.slopes`). For both, with
``e = (-u, 1)`` and symmetric weights ``W_c`` (c x c),

    value    sum_c W_c . (U'U, U'y, y'y) of the class,
    forms    of every class the matrices ``(F_ja T F_jb')_ab`` and ``h_j h_j'``, ``h_j = a_j - F_j
             u``, summed over its levels: what weights are multiplied by in a trace, and in r,
    moved    for other weights the system ``M_s`` and ``(M_s e)_U = sum_j F_j' W_j h_j``.

What all genes share is a matrix product on the left of all genes' weights, upper triangles only.
Multiply-adds of a gene for one weight of every class, P = c (c + 1) / 2 pairs of c coefficients:

    by class        C P (K (K + 1) / 2 + K + 1),
    level by level  J P K (K + 1) / 2 + J c (c + K),
    of a gene's own products, or where class sums are not kept,  J c (c + K) K.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxvp.likelihood.lanes import dot, lift, total
from jaxvp.likelihood.slope_system import product
from jaxvp.likelihood.system import Scalar
from jaxvp.statistics import Array, triangle, upper
from jaxvp.target import fence

# Terms of a sum that are written out, where there are more than so many.
_TERMS, _MOST_TERMS = 8, 32


class Value(NamedTuple):
    """Of the system ``M``, the eliminated factor's part."""

    uu: Float[Array, "K K *genes"]
    uy: Float[Array, "K *genes"]
    yy: Scalar


class Forms(NamedTuple):
    """Symmetric matrices of every class."""

    trace: Float[Array, "c c classes *genes"]
    rest: Float[Array, "c c classes *genes"]


class ByClass(NamedTuple):
    """Class sums of the products of two coefficients, twice that of two different ones."""

    uu: Float[Array, "pairs classes T"]
    uy: Float[Array, "pairs classes K *genes"]
    yy: Float[Array, "pairs classes *genes"]

    def value(self, w: Float[Array, "c c classes *genes"]) -> Value:
        flat = by_pair(w)
        uu = _systems(self.uu, flat[:, :, None])[0]
        return Value(uu, inner(flat[:, :, None], self.uy, 2), inner(flat, self.yy, 2))

    def forms(self, T: Array, u: Array) -> Forms:
        both = jnp.stack([T, u[:, None] * u[None]], 2)
        trace, square = jnp.moveaxis(_traces(self.uu, both), 2, 0)
        rest = square + self.yy - 2 * inner(u[:, None, None], jnp.moveaxis(self.uy, 2, 0), 1)
        return Forms(_matrices(trace), _matrices(rest))

    def moved(
        self, weights: Float[Array, "c c classes m *genes"], u: Array
    ) -> tuple[Float[Array, "m K K *genes"], Float[Array, "m K *genes"]]:
        flat = by_pair(weights)
        systems = _systems(self.uu, flat)
        uy = inner(flat[:, :, :, None], self.uy[:, :, None], 2)
        return systems, uy - inner(u[:, None, None], jnp.moveaxis(systems, 2, 0), 1)


class ByLevel(NamedTuple):
    """Every level on its own; ``uu`` of all genes, where it is a gain."""

    cross: Float[Array, "levels c K *genes"]
    sums: Float[Array, "levels c *genes"]
    uu: Float[Array, "pairs levels T"] | None

    def value(self, w: Float[Array, "c c levels *genes"]) -> Value:
        v = _times(w, self.sums)
        uu = self._systems(w[:, :, :, None])[0]
        return Value(uu, self._pulled(v[:, :, None])[:, 0], inner(self.sums, v, 2))

    def forms(self, T: Array, u: Array) -> Forms:
        h = self._left(u)
        rest = jnp.moveaxis(h[:, :, None] * h[:, None], 0, 2)
        if self.uu is not None:
            return Forms(_matrices(_traces(self.uu, T[:, :, None])[:, :, 0]), rest)
        levels, c, K = self.cross.shape[:3]
        image = self._image(T).reshape(levels, c, K, *T.shape[2:])
        cross = jnp.moveaxis(lift(self.cross, self.sums[0, 0], 3), 2, 0)
        image = jnp.moveaxis(image, 2, 0)

        def row(a):
            return jnp.stack([inner(image[:, :, a], cross[:, :, b], 1) for b in range(c)])

        return Forms(jnp.stack([row(a) for a in range(c)]), rest)

    def moved(
        self, weights: Float[Array, "c c levels m *genes"], u: Array
    ) -> tuple[Float[Array, "m K K *genes"], Float[Array, "m K *genes"]]:
        v = _times(weights, self._left(u)[:, :, None])
        return self._systems(weights), jnp.moveaxis(self._pulled(v), 1, 0)

    def _left(self, u: Array) -> Float[Array, "levels c *genes"]:
        """``a - F u``."""
        if self.cross.ndim == 3:
            return self.sums - jnp.tensordot(self.cross, u, 1, precision="highest")
        return self.sums - dot(jnp.moveaxis(self.cross, 2, 0), u[:, None, None])

    def _image(self, T: Array) -> Float[Array, "levels_c K *genes"]:
        """``F T``."""
        rows = _flat(self.cross, 2)
        if self.cross.ndim == 3:
            return jnp.tensordot(rows, T, 1, precision="highest")
        return product(rows, T)

    def _pulled(self, v: Float[Array, "levels c m *genes"]) -> Float[Array, "K m *genes"]:
        """``F'v``."""
        rows, v = _flat(self.cross, 2), _flat(v, 2)
        if self.cross.ndim == 3:
            return jnp.tensordot(rows, v, ((0,), (0,)), precision="highest")
        return product(rows.swapaxes(0, 1), v)

    def _systems(
        self, weights: Float[Array, "c c levels m *genes"]
    ) -> Float[Array, "m K K *genes"]:
        """``F'W F``."""
        if self.uu is not None:
            return _systems(self.uu, by_pair(weights))
        levels, c, K = self.cross.shape[:3]
        m, genes = weights.shape[3], weights.shape[4:]
        cross = lift(self.cross, weights[0, 0, 0, 0], 3)
        image = fence(lambda w, f: _times(w[:, :, :, :, None], f[:, :, None]), weights, cross)
        found = self._pulled(image.reshape(levels, c, m * K, *genes))
        return jnp.moveaxis(found.reshape(K, m, K, *genes), 1, 0)


def _flat(array: Array, axes: int) -> Array:
    """The leading axes as one."""
    return array.reshape(math.prod(array.shape[:axes]), *array.shape[axes:])


def _times(w: Array, vectors: Array) -> Array:
    """Of every level its matrix (c, c, levels, ...) times its vector (levels, c, ...)."""
    c = vectors.shape[1]
    rows = [dot(w[a], jnp.moveaxis(vectors, 1, 0)) for a in range(c)]
    return jnp.stack(rows, 1)


def by_pair(w: Float[Array, "c c ..."]) -> Float[Array, "pairs ..."]:
    """The entries of the upper triangle, row by row."""
    return jnp.stack([w[a, b] for a, b in upper(len(w))])


def _matrices(pairs: Float[Array, "pairs ..."]) -> Float[Array, "c c ..."]:
    """Of the sums by pair the matrices; those of two different coefficients were twice them."""
    c = int(np.sqrt(2 * len(pairs)))
    place = triangle(c)
    return jnp.stack(
        [
            jnp.stack([pairs[place[a, b]] * (1.0 if a == b else 0.5) for b in range(c)])
            for a in range(c)
        ]
    )


def _systems(
    uu: Float[Array, "pairs classes T"], weights: Float[Array, "pairs classes m *genes"]
) -> Float[Array, "m K K *genes"]:
    T, m = uu.shape[2], weights.shape[2]
    sums, flat = _flat(uu, 2), _flat(weights, 2)
    found = jnp.tensordot(sums, flat, ((0,), (0,)), precision="highest")
    place = triangle(int(np.sqrt(2 * T)))
    return jnp.stack([fence(lambda found, s=s: found[:, s][place], found) for s in range(m)])


def _traces(
    uu: Float[Array, "pairs classes T"], matrices: Float[Array, "K K m *genes"]
) -> Float[Array, "pairs classes m *genes"]:
    """``tr(C matrix)`` of every sum C."""
    rows, columns = np.triu_indices(len(matrices))
    twice = np.where(rows == columns, 1, 2).astype(matrices.dtype)
    twice = twice.reshape(len(rows), *[1] * (matrices.ndim - 2))
    return jnp.tensordot(uu, matrices[rows, columns] * twice, 1, precision="highest")


def inner(a: Float[Array, "..."], b: Float[Array, "..."], axes: int) -> Array:
    """Sum over the leading axes of ``a b``, a few terms at a time.

    A loop over all would not be vectorised over genes, and all written out take long to compile.
    """
    a, b = _flat(a, axes), _flat(b, axes)
    if len(a) <= _MOST_TERMS:
        return fence(dot, a, b)
    return summed(fence(dot, _folded(a), _folded(b)))


def summed(terms: Float[Array, "terms ..."]) -> Array:
    """Sum over the leading axis, in the same way."""
    while len(terms) > _MOST_TERMS:
        terms = fence(total, _folded(terms))
    return fence(total, terms)


def _folded(terms: Array) -> Array:
    """In rows of so many terms, filled up with zeros."""
    spare = -len(terms) % _TERMS
    if spare:
        terms = jnp.pad(terms, [(0, spare), *[(0, 0)] * (terms.ndim - 1)])
    return terms.reshape(_TERMS, len(terms) // _TERMS, *terms.shape[1:])
