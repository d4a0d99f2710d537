"""What genes with weights, or samples, of their own need of a design with random slopes.

A gene that has lost samples may have lost what told a coefficient from others: the only samples of
a level of a slope's factor, or all but one time of every person. A block of coefficients counts as
determined by a gene's samples if its columns have full rank there, and their deviations from the
means of the grouping factor's levels the rank that they have in the whole design: the conditions
that `jaxvp.design` puts to the samples of the study.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float, Int

from jaxvp.design import Design

from .compression import indicator
from .slopes import SlopeShared, elimination_order, levels_of, orthonormal

# Smallest eigenvalue of products of columns of length 1 that is not rounding: R's 1e-7, of lengths.
_RANK = 1e-14
# Smallest deviation from the means of levels, as `jaxvp.design` has it.
_CONSTANT = 1e-12


class Columns(NamedTuple):
    """A correlated block over the samples."""

    z: Float[np.ndarray, "n c"]  # orthonormal over all samples, times sqrt(n)
    sum_levels: sp.csr_array  # levels of its factor x n
    level_of: Int[np.ndarray, " n"]
    spread: Float[np.ndarray, " c"]  # root mean square of the deviations from the level means
    rank: int  # of these deviations

    @classmethod
    def of(cls, z: Float[np.ndarray, "n c"], codes: Int[np.ndarray, " n"], levels: int) -> Columns:
        plain = cls(z, indicator(codes, levels), codes, np.ones(z.shape[1]), 0)
        whole = np.ones((len(z), 1))
        spread = np.sqrt(np.diagonal(_products(plain.deviations(whole))[0]) / len(z))
        spread = np.where(spread > _CONSTANT * np.abs(z).max(axis=0), spread, np.inf)
        found = plain._replace(spread=spread)
        return found._replace(rank=int(found.rank_within(whole)[0]))

    def deviations(self, there: Float[np.ndarray, "n genes"]) -> Float[np.ndarray, "c n genes"]:
        """From the means of levels over the samples that are there, in units of `spread`."""
        count = np.maximum(self.sum_levels @ there, 1.0)
        found = np.empty((self.z.shape[1], *there.shape))
        for i, (z, unit) in enumerate(zip(self.z.T, self.spread, strict=True)):
            mean = (self.sum_levels @ (z[:, None] * there)) / count
            found[i] = (z[:, None] - mean[self.level_of]) * there / unit
        return found

    def rank_within(self, there: Float[np.ndarray, "n genes"]) -> Int[np.ndarray, " genes"]:
        """Rank of the deviations."""
        return _rank(_products(self.deviations(there)) / len(self.z))

    def determined(self, there: Float[np.ndarray, "n genes"]) -> Bool[np.ndarray, " genes"]:
        """See the module."""
        products = _products(self.z.T[:, :, None] * there)
        size = np.sqrt(np.diagonal(products, axis1=1, axis2=2))
        size = np.where(size > 0, size, 1.0)
        full = _rank(products / size[:, :, None] / size[:, None, :]) == self.z.shape[1]
        return full & (self.rank_within(there) == self.rank)


def _products(columns: Float[np.ndarray, "c n genes"]) -> Float[np.ndarray, "genes c c"]:
    return np.einsum("ing,jng->gij", columns, columns)


def _rank(products: Float[np.ndarray, "genes c c"]) -> Int[np.ndarray, " genes"]:
    return (np.linalg.eigvalsh(products) > _RANK * products.shape[1]).sum(axis=1)


class SlopeStructure(NamedTuple):
    """Of a design: K columns U = [the other blocks, Q]; J levels of the eliminated factor."""

    Q: Float[np.ndarray, "n p"]
    X: Float[np.ndarray, "n p"]  # centred, for variances of the fixed part
    z: Float[np.ndarray, "n c"]  # of the eliminated factor
    others: Float[np.ndarray, "n q"]
    level_of: Int[np.ndarray, " n"]
    sum_levels: sp.csr_array  # J x n
    sum_others: sp.csr_array  # levels of the other blocks' factors x n
    term_of_other: Int[np.ndarray, " levels"]
    blocks: tuple[Columns, ...]
    term_of_block: Int[np.ndarray, " blocks"]  # which of the factors, the eliminated one is 0

    @property
    def levels(self) -> int:
        """J."""
        return len(self.sum_levels.indptr) - 1

    def determined(self, w: Float[np.ndarray, "n genes"]) -> Bool[np.ndarray, " genes"]:
        """Whether a gene's samples tell all coefficients apart."""
        there = (w > 0).astype(np.float64)
        return np.all([block.determined(there) for block in self.blocks], axis=0)


def slope_structure(design: Design, shared: SlopeShared) -> SlopeStructure:
    """What a gene's own products are formed with; `shared` says in which basis X is."""
    first, others = elimination_order(design)
    n = design.n
    blocks, columns = [], []
    for number in (*first, *others):
        codes = np.asarray(design.codes[design.blocks[number][0]])
        z, levels = orthonormal(design, number)[0], levels_of(design, number)
        blocks.append(Columns.of(z, codes, levels))
        if number in others:
            for one in z.T:
                swept = np.zeros((n, levels))
                swept[np.arange(n), codes] = one
                columns.append(swept)
    indicators = [block.sum_levels for block in blocks[len(first) :]]
    counts = [matrix.shape[0] for matrix in indicators]
    return SlopeStructure(
        design.X @ np.asarray(shared.r_inverse),
        design.X - design.X.mean(axis=0),
        np.hstack([block.z for block in blocks[: len(first)]]),
        np.hstack([np.zeros((n, 0)), *columns]),
        blocks[0].level_of,
        blocks[0].sum_levels,
        sp.csr_array(sp.vstack(indicators)) if indicators else sp.csr_array((0, n)),
        np.repeat(np.arange(1, len(counts) + 1), counts),
        tuple(blocks),
        np.array([0] * len(first) + list(range(1, len(others) + 1))),
    )
