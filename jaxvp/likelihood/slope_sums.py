r"""What the eliminated factor adds to the system: sums over its levels, weighted by W.

By class, where levels share their R, or level by level (`jaxvp.statistics.slopes`). For all, with
``e = (-u, 1)`` and symmetric weights ``W_c`` (c x c),

    value    sum_c W_c . (U'U, U'y, y'y) of the class,
    moved    for the weights ``dW = -Y dG Y'`` of every direction dG the system ``M_s`` and
             ``(M_s e)_U = sum_j F_j' dW_j h_j``, ``h_j = a_j - F_j u``; and of every class
             ``X = Y'H Y``, H the sums over its levels of ``F_j T F_j'`` and ``h_j h_j'``: what
             dG is multiplied by in a trace, and in r.

What all genes share is a matrix product on the left of all genes' weights, upper triangles only. Of
a gene's own products everything is in ``Y_j'(F_j, h_j)``: systems are the blocks of its Gram
matrix, one product a gene by a library. Multiply-adds of a gene for one weight of every class, P =
c (c + 1) / 2 pairs of c coefficients:

    by class        C P (K (K + 1) / 2 + K + 1),
    level by level  J P K (K + 1) / 2 + J c (c + K),
    of a gene's own products, or where class sums are not kept,  J c (c + K) K: the derivatives for
    all directions together  J c (c (K + 1)^2 + K^2).
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


class Moved(NamedTuple):
    """The derivatives in the m directions, and the symmetric matrices X of every class."""

    systems: Float[Array, "m K K *genes"]
    in_u: Float[Array, "m K *genes"]
    trace: Float[Array, "c c classes *genes"]
    rest: Float[Array, "c c classes *genes"]


Directions = list[tuple[int, int]]


class ByClass(NamedTuple):
    """Class sums of the products of two coefficients, twice that of two different ones."""

    uu: Float[Array, "pairs classes T"]
    uy: Float[Array, "pairs classes K *genes"]
    yy: Float[Array, "pairs classes *genes"]

    def value(self, w: Float[Array, "c c classes *genes"]) -> Value:
        flat = by_pair(w)
        uu = _systems(self.uu, flat[:, :, None])[0]
        return Value(uu, inner(flat[:, :, None], self.uy, 2), inner(flat, self.yy, 2))

    def moved(
        self, y: Float[Array, "c c classes *genes"], directions: Directions, T: Array, u: Array
    ) -> Moved:
        flat = by_pair(fence(lambda y: _weights(y, directions), y))
        systems = _systems(self.uu, flat)
        uy = inner(flat[:, :, :, None], self.uy[:, :, None], 2)
        in_u = uy - inner(u[:, None, None], jnp.moveaxis(systems, 2, 0), 1)
        both = jnp.stack([T, u[:, None] * u[None]], 2)
        trace, square = jnp.moveaxis(_traces(self.uu, both), 2, 0)
        rest = square + self.yy - 2 * inner(u[:, None, None], jnp.moveaxis(self.uy, 2, 0), 1)
        trace, rest = (fence(lambda y, h: _turned(y, _matrices(h)), y, h) for h in (trace, rest))
        return Moved(systems, in_u, trace, rest)


class ByLevel(NamedTuple):
    """Of all genes the sums ``U'U`` of every level; of y what each level has."""

    uu: Float[Array, "pairs levels T"]
    cross: Float[Array, "levels c K"]
    sums: Float[Array, "levels c *genes"]

    def value(self, w: Float[Array, "c c levels *genes"]) -> Value:
        v = _times(w, self.sums)
        uu = _systems(self.uu, by_pair(w)[:, :, None])[0]
        return Value(uu, self._pulled(v[:, :, None])[:, 0], inner(self.sums, v, 2))

    def moved(
        self, y: Float[Array, "c c levels *genes"], directions: Directions, T: Array, u: Array
    ) -> Moved:
        weights = fence(lambda y: _weights(y, directions), y)
        h = self.sums - jnp.tensordot(self.cross, u, 1, precision="highest")
        in_u = jnp.moveaxis(self._pulled(_times(weights, h[:, :, None])), 1, 0)
        trace = _traces(self.uu, T[:, :, None])[:, :, 0]
        trace = fence(lambda y, h: _turned(y, _matrices(h)), y, trace)
        left = _times(y.swapaxes(0, 1), h)
        return Moved(_systems(self.uu, by_pair(weights)), in_u, trace, _squares(left))

    def _pulled(self, v: Float[Array, "levels c m *genes"]) -> Float[Array, "K m *genes"]:
        """``F'v``."""
        rows, v = _flat(self.cross, 2), _flat(v, 2)
        return jnp.tensordot(rows, v, ((0,), (0,)), precision="highest")


class Unsummed(NamedTuple):
    """No sums that genes share: of every level its F and a."""

    cross: Float[Array, "levels c K *genes"]
    sums: Float[Array, "levels c *genes"]

    def _beside_cross(
        self, v: Float[Array, "levels c *genes"]
    ) -> Float[Array, "levels c K1 *genes"]:
        """``(F, v)``."""
        cross = lift(self.cross, v[0, 0], 3)
        cross = jnp.broadcast_to(cross, (*cross.shape[:3], *v.shape[2:]))
        return jnp.concatenate([cross, v[:, :, None]], 2)

    def value(self, w: Float[Array, "c c levels *genes"]) -> Value:
        whole = fence(Unsummed._beside_cross, self, self.sums)
        weighed = fence(lambda w, f: _times(w[:, :, :, None], f), w, whole)
        found = contracted(_flat(whole, 2), _flat(weighed, 2))
        return Value(found[:-1, :-1], found[:-1, -1], found[-1, -1])

    def moved(
        self, y: Float[Array, "c c levels *genes"], directions: Directions, T: Array, u: Array
    ) -> Moved:
        levels, c, K = self.cross.shape[:3]

        def image(left, T):
            found = product(_flat(left[:, :, :-1], 2), T)
            return found.reshape(levels, c, K, *T.shape[2:])

        def traces(left, image):
            one, two = (jnp.moveaxis(a, 2, 0) for a in (left[:, :, :-1], image))
            each = range(c)
            rows = [jnp.stack([inner(one[:, :, a], two[:, :, b], 1) for b in each]) for a in each]
            return jnp.stack(rows)

        def assembled(gram):
            found = []
            for i, j in directions:
                one = gram[i, :-1, j]
                found.append(-one if i == j else -(one + gram[j, :-1, i]))
            whole = jnp.stack(found)
            return whole[:, :, :-1], whole[:, :, -1]

        left = fence(Unsummed._left, self, y, u)
        flat = left.reshape(levels, c * (K + 1), *left.shape[3:])
        gram = jnp.reshape(contracted(flat, flat), (*(c, K + 1) * 2, *left.shape[3:]))
        trace = fence(traces, left, fence(image, left, T))
        systems, in_u = fence(assembled, gram)
        return Moved(systems, in_u, trace, _squares(left[:, :, -1]))

    def _left(self, y: Array, u: Array) -> Float[Array, "levels c K1 *genes"]:
        """``Y'(F, h)``."""
        cross = lift(self.cross, self.sums[0, 0], 3)
        h = self.sums - dot(jnp.moveaxis(cross, 2, 0), u[:, None, None])
        return _times(y.swapaxes(0, 1)[:, :, :, None], self._beside_cross(h))


def _weights(
    y: Float[Array, "c c classes *genes"], directions: Directions
) -> Float[Array, "c c classes m *genes"]:
    """``dW = -Y dG Y'``."""
    found = []
    for i, j in directions:
        one = -y[:, None, i] * y[None, :, j]
        found.append(one if i == j else one + one.swapaxes(0, 1))
    return jnp.stack(found, 3)


def _turned(y: Float[Array, "c c ..."], h: Float[Array, "c c ..."]) -> Float[Array, "c c ..."]:
    """``Y'H Y``."""
    return product(y.swapaxes(0, 1), product(h, y))


def _squares(v: Float[Array, "levels c *genes"]) -> Float[Array, "c c levels *genes"]:
    """``v v'``."""
    return jnp.moveaxis(v[:, :, None] * v[:, None], 0, 2)


def contracted(
    a: Float[Array, "rows p *genes"], b: Float[Array, "rows q *genes"]
) -> Float[Array, "p q *genes"]:
    """``a'b``, of every gene: by a library, beside which sums of many terms are slow."""
    return jnp.einsum("ri...,rj...->ij...", a, b, precision="highest")


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
