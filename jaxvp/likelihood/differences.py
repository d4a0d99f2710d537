r"""How the system of a large design changes with gamma_1, from a node gamma_0 on.

In the node's coordinates, with ``w_c(gamma) = 1 / (1 + gamma n_c)``,

    M(gamma_1) - M(gamma_0) = sum_c (w_c(gamma_1) - w_c(gamma_0)) C_c,

applied to the vectors of many genes at once in one of two ways.

*Levels.* With the rows ``B_j = F_j / sqrt(n_j)`` of the levels of term 1 it is ``B' diag(w_j
(gamma_1) - w_j(gamma_0)) B``: two products with a matrix that all genes share, ``2 q_1 K``
multiply-adds a gene.

*Classes.* About a node the functions w_c span a space of few dimensions, to rounding. With an
orthonormal basis ``Phi`` of R of them the difference is ``sum_r (Phi'(w(gamma_1) - w(gamma_0)))_r
D_r``, ``D_r = sum_c Phi_cr C_c``: ``R K^2`` multiply-adds, where columns are few and levels many.
"""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Bool, Float

from jaxvp.likelihood.lanes import dot
from jaxvp.likelihood.system import Scalar
from jaxvp.statistics import Array

# Largest part of a class weight that the directions of a node may miss, relative.
_MISSED = 1e-11


def class_changes(
    sizes: Float[Array, "C 1"], near: Array | float, gamma: Float[Array, " genes"]
) -> tuple[Array, Array, Array]:
    """Weights at gamma, what they are more than at a node, and their derivative."""
    weight = 1 / (1 + gamma * sizes)
    return weight, (near - gamma) * sizes * weight / (1 + near * sizes), -sizes * weight**2


class Levels(eqx.Module):
    """By the levels of term 1. Several nodes have one more axis in front."""

    rows: Float[Array, "*nodes levels K"]  # B, term 2 rotated
    columns: Float[Array, "*nodes K levels"]  # B', as products of a turned one are slow
    sizes: Float[Array, "*nodes levels"]  # n_j

    def weights(self, near: Array, gamma: Scalar) -> tuple[Array, Array, Bool[Array, " genes"]]:
        """Of the difference, of its derivative, and for which genes they are exact."""
        _, change, bent = class_changes(self.sizes[:, None], near, gamma)
        return change, bent, jnp.ones_like(gamma, bool)

    def parts(self, v: Float[Array, "K genes"]) -> Float[Array, "levels genes"]:
        """What is weighed of a matrix times v."""
        return times(self.rows, v)

    def image(self, weights: Array, parts: Array) -> Float[Array, "K genes"]:
        """A matrix with these weights times v."""
        return times(self.columns, weights * parts)

    def quadratic(self, weights: Array, parts: Array, v: Float[Array, "K genes"]) -> Scalar:
        """The quadratic form of such a matrix."""
        del v
        return (weights * parts**2).sum(0)


class Classes(eqx.Module):
    """By combinations of class sums, with the methods of `Levels`."""

    sums: Float[Array, "*nodes R K K"]  # D, term 2 rotated
    basis: Float[Array, "*nodes R C"]  # Phi'
    sizes: Float[Array, "*nodes C"]  # n_c

    def weights(self, near: Array, gamma: Scalar) -> tuple[Array, Array, Bool[Array, " genes"]]:
        """Exact where gamma is in the node's reach."""
        weight, change, bent = class_changes(self.sizes[:, None], near, gamma)
        taken = self.basis @ change
        missed = abs(change - self.basis.T @ taken).max(0)
        return taken, self.basis @ bent, missed <= _MISSED * weight.max(0)

    def parts(self, v: Float[Array, "K genes"]) -> Float[Array, "R K genes"]:
        count, columns, _ = self.sums.shape
        return (self.sums.reshape(-1, columns) @ v).reshape(count, columns, -1)

    def image(self, weights: Array, parts: Array) -> Float[Array, "K genes"]:
        return dot(weights[:, None], parts)

    def quadratic(self, weights: Array, parts: Array, v: Float[Array, "K genes"]) -> Scalar:
        return (self.image(weights, parts) * v).sum(0)


def times(matrix: Array, v: Float[Array, "K genes"]) -> Float[Array, "rows genes"]:
    """The product, in the matrix's type."""
    return (matrix @ v.astype(matrix.dtype)).astype(v.dtype)
