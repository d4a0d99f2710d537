r"""``Q'V^-1 Q`` of a gene, X = Q R: what elimination of the random terms leaves of the fixed part.

From the cross-products of `jaxvp.statistics`, its first grouping factor eliminated level by level,
``A = U'V_1^-1 U`` for ``U = [Z_2, Q]``; with ``Lambda`` the relative factor of the other terms once
a level (their theta, for random intercepts),

    Q'V^-1 Q = A_QQ - A_QZ Lambda (I + Lambda' A_ZZ Lambda)^-1 Lambda' A_ZQ.

For random intercepts ``A = S + sum_c C_c / (1 + gamma_1 n_c)``, with random slopes ``A = S + sum_c
sum_ab (W_c)_ab C_cab``, ``W_c = (I + R_c L L'R_c')^-1``, L the factor of the eliminated terms in
the coordinates in which their columns are orthonormal.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from jaxvp import fractions
from jaxvp.batch import own_products
from jaxvp.design import Design
from jaxvp.statistics import (
    Compression,
    PerGene,
    Shared,
    SlopeShared,
    SlopeStructure,
    Structure,
    Sums,
    compress,
    compress_slopes,
    own_slopes,
    room_for_slopes,
    slope_structure,
    structure,
    sums,
)

# A residual share of 1e-14: `jaxvp.fit` calls a gene with less than 1e-12 explained exactly. Beyond
# it the subtraction above would have no digits left.
_LARGEST_THETA = 1e7


class Model:
    """A design, and the information of genes at their theta."""

    def __init__(self, design: Design) -> None:
        self.design = design
        self.compression: Compression = (compress_slopes if design.slopes else compress)(design)
        self.shared = self.compression.shared
        self._structure: Structure | SlopeStructure | None = None

    @property
    def bytes(self) -> int:
        """Of the products of a gene of its own."""
        levels, columns = max((1, *self.shared.levels[:1])), self.shared.n_columns + 1
        if isinstance(self.shared, SlopeShared):
            return 8 * columns * (levels * self.shared.roots.shape[1] + columns)
        return 8 * levels * columns**2

    def information(
        self, theta: Float[np.ndarray, "genes m"], shared: Shared | SlopeShared | None = None
    ) -> Float[np.ndarray, "genes p p"]:
        """Of genes that share their products: those of the design, or of one gene."""
        products = self.shared if shared is None else shared
        if isinstance(products, SlopeShared):
            return self._with_slopes(products, theta)
        return _with_intercepts(products, np.minimum(theta, _LARGEST_THETA))

    def own_information(
        self, theta: Float[np.ndarray, "genes m"], weights: Float[np.ndarray, "n genes"]
    ) -> Float[np.ndarray, "genes p p"]:
        """Of genes with weights of their own; theta is relative to the sigma of weight 1."""
        s = self._structure
        if s is None:
            make: Any = slope_structure if self.design.slopes else structure
            s = self._structure = make(self.design, self.shared)
        found = sums(s, np.zeros_like(weights), weights)
        if not self.design.codes:
            return np.linalg.inv(np.moveaxis(found.inverse, -1, 0))
        # The products are of weights with mean 1: the same model for gamma times the mean.
        theta = theta * np.sqrt(found.mean_weight)[:, None]
        products = _products(s, found).own
        each = []
        for j in range(len(theta)):
            one = self.shared.of(jax.tree.map(lambda leaf, j=j: leaf[..., j], products))
            each.append(self.information(theta[[j]], one))
        return np.concatenate(each)

    def _with_slopes(
        self, shared: SlopeShared, theta: Float[np.ndarray, "genes m"]
    ) -> Float[np.ndarray, "genes p p"]:
        slopes = self.compression.slopes
        assert slopes is not None
        raw = fractions.factors(self.design, theta)
        factors = [
            np.linalg.solve(transform, raw[place])
            for transform, place in zip(slopes.transforms, slopes.order, strict=True)
        ]
        first = [f for f, block in zip(factors, shared.blocks, strict=True) if block.eliminated]
        half = np.asarray(shared.roots) @ _diagonal(first, [1] * len(first))[:, None]
        c = half.shape[-1]
        w = np.linalg.inv(half @ half.swapaxes(2, 3) + np.eye(c))
        system = shared.systems(w)
        others = [(f, b) for f, b in zip(factors, shared.blocks, strict=True) if not b.eliminated]
        root = _diagonal([f for f, _ in others], [b.levels for _, b in others], len(theta))
        return _eliminate(system, root.swapaxes(1, 2) @ system[:, : root.shape[1]], root)


def _products(s: Structure | SlopeStructure, found: Sums) -> PerGene:
    if isinstance(s, SlopeStructure):
        return own_slopes(s, found, room_for_slopes(s, len(found.n)))
    return own_products(s, found, s.levels)


def _with_intercepts(
    shared: Shared, theta: Float[np.ndarray, "genes k"]
) -> Float[np.ndarray, "genes p p"]:
    p, genes = shared.p, len(theta)
    if not shared.order:
        return np.broadcast_to(np.eye(p), (genes, p, p))
    theta = theta[:, list(shared.order)]
    weights = 1 / (1 + theta[:, :1] ** 2 * np.asarray(shared.sizes))
    class_sums = np.asarray(shared.class_sums)
    system = np.asarray(shared.within) + np.tensordot(weights, class_sums, axes=1)
    root = np.repeat(theta[:, 1:], shared.levels[1:], axis=1)[:, None]
    return _eliminate(system, root.swapaxes(1, 2) * system[:, : root.shape[2]], root)


def _eliminate(
    system: Float[np.ndarray, "genes K K"],
    half: Float[np.ndarray, "genes q K"],
    root: Float[np.ndarray, "genes _ q"],
) -> Float[np.ndarray, "genes p p"]:
    """See the module; ``half`` is ``Lambda' A``, ``root`` Lambda or, as a row, its diagonal."""
    q = half.shape[1]
    random = half[:, :, :q] * root if root.shape[1] == 1 else half[:, :, :q] @ root
    cross = half[:, :, q:]
    solved = np.linalg.solve(random + np.eye(q), cross)
    return system[:, q:, q:] - np.swapaxes(cross, 1, 2) @ solved


def _diagonal(
    factors: list[Float[np.ndarray, "genes _ _"]], levels: list[int], genes: int = 0
) -> Float[np.ndarray, "genes q q"]:
    """Factors along a diagonal, each once a level, coefficient by coefficient."""
    genes = len(factors[0]) if factors else genes
    sizes = [f.shape[1] * count for f, count in zip(factors, levels, strict=True)]
    out = np.zeros((genes, sum(sizes), sum(sizes)))
    start = 0
    for factor, count, size in zip(factors, levels, sizes, strict=True):
        part = slice(start, start + size)
        out[:, part, part] = np.kron(factor, np.eye(count))
        start += size
    return out
