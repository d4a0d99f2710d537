r"""Statistics of genes that have weights, or observations, of their own.

With ``V = W^-1 + sum_i gamma_i Z_i Z_i'`` every product of `jaxvp.statistics` becomes one with W
between its factors: sizes ``n_j = z_1j'W z_1j``, ``F_j = U'W z_1j``, ``a_j = z_1j'W y``,

    U'V_1^-1 U = S + sum_j F_j F_j' / (n_j (1 + gamma_1 n_j)),    S = U'W U - sum_j F_j F_j' / n_j,

and ``log|V|`` gains ``-sum log w``. Weights are divided by their mean over the observations that
count, those with ``w > 0``; a missing one has weight zero. A level that a gene has lost has ``n_j =
0`` and ``F_j = 0``: it says nothing and needs no other numbering.

Here is what follows from weights alone, and the gene residualised, twice: the second time for the
digits that a large mean took from the first. The products are those of `own_products`.

Source: Bates, Maechler, Bolker and Walker (2015), J. Stat. Softw. 67(1), section 2 (prior weights).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from .nodes import class_counts
from .slope_structure import SlopeStructure
from .structure import Structure
from .types import EPS

# What is left of a fixed column beside the ones before it: R's 1e-7, of lengths.
_RANK = 1e-14


class Sums(NamedTuple):
    """What the weights alone say of each gene, and the gene residualised."""

    w: Float[np.ndarray, "n genes"]  # mean 1 where above zero
    y: Float[np.ndarray, "n genes"]  # residual, scaled
    level_size: Float[np.ndarray, "J genes"]
    mean_weight: Float[np.ndarray, " genes"]  # what w was divided by
    half_log: Float[np.ndarray, " genes"]  # half the sum of log w
    n: Float[np.ndarray, " genes"]  # observations that count
    levels: Int[np.ndarray, "k genes"]  # that are left, elimination order
    scale: Float[np.ndarray, " genes"]
    ols: Float[np.ndarray, "p genes"]  # weighted least squares on Q
    inverse: Float[np.ndarray, "p p genes"]  # (Q'WQ)^-1
    covariance: Float[np.ndarray, "genes p p"]  # weighted, of the columns of X
    constant: Bool[np.ndarray, " genes"]
    explained: Bool[np.ndarray, " genes"]
    deficient: Bool[np.ndarray, " genes"]

    def take(self, genes: Int[np.ndarray, " some"]) -> Sums:
        """Some of the genes, in their order; of neighbours views."""
        if len(genes) and genes[-1] - genes[0] == len(genes) - 1:
            part = slice(int(genes[0]), int(genes[-1]) + 1)
            some = Sums(*(array[..., part] for array in self))
            return some._replace(covariance=self.covariance[part])
        first = self._replace(covariance=np.moveaxis(self.covariance, 0, -1))
        some = Sums(*(np.ascontiguousarray(array[..., genes]) for array in first))
        return some._replace(covariance=np.moveaxis(some.covariance, -1, 0))


def sums(
    s: Structure | SlopeStructure,
    y: Float[np.ndarray, "n genes"],
    w: Float[np.ndarray, "n genes"],
) -> Sums:
    """Everything but the products of `own_products`.

    Parameters
    ----------
    s
        Of the design.
    y
        Measurements, finite where the weight is above zero.
    w
        Weights, none negative; each gene has one above zero at least.
    """
    # A gene's bits depend neither on the layout nor on who is beside it: NumPy adds the rows of an
    # array one after the other where they are contiguous and there are several columns.
    if w.shape[1] == 1:
        return sums(s, np.repeat(y, 2, axis=1), np.repeat(w, 2, axis=1)).take(np.arange(1))
    y, w = np.ascontiguousarray(y), np.ascontiguousarray(w)
    counts = w > 0
    n = counts.sum(axis=0).astype(np.float64)
    mean_weight = w.sum(axis=0) / n
    w = w / mean_weight
    y = np.where(counts, y, 0.0)
    half_log = 0.5 * np.log(np.where(counts, w, 1.0)).sum(axis=0)
    level_size = s.sum_levels @ w
    there = s.sum_others @ w > 0
    left = [(level_size > 0).sum(axis=0)] if s.levels else []
    left += [there[s.term_of_other == t].sum(axis=0) for t in np.unique(s.term_of_other)]
    levels = np.array(left, dtype=np.int64).reshape(len(left), len(n))

    largest = np.abs(y).max(axis=0)
    with np.errstate(all="ignore"):
        y = np.where(counts, y / largest, 0.0)
        spread = np.where(counts, np.abs(y - y.sum(axis=0) / n), 0.0).max(axis=0)
    constant = ~(spread > 8 * EPS)
    y[:, constant] = 0.0
    p = s.Q.shape[1]
    inverse, deficient = _inverse(_pairs(s.Q, w))
    inverse[..., deficient] = 0.0
    ols = np.zeros((p, y.shape[1]))
    for _ in range(2):
        b = np.einsum("pqg,qg->pg", inverse, over_samples(s.Q, w * y))
        y = np.where(counts, y - np.einsum("np,pg->ng", s.Q, b), 0.0)
        ols += b
    scale = np.sqrt((w * y * y).sum(axis=0) / n)
    explained = ~constant & ~(scale > 8 * EPS)
    fine = ~(constant | explained)
    scale = np.where(fine, scale, 1.0)
    y /= scale
    mean = over_samples(s.X, w) / n
    covariance = _pairs(s.X, w) / n - mean[:, None] * mean[None]
    return Sums(
        w,
        y,
        level_size,
        mean_weight,
        half_log,
        n,
        levels,
        scale * np.where(fine, largest, 1.0),
        ols * largest,
        inverse,
        np.ascontiguousarray(np.moveaxis(covariance, -1, 0)),
        constant,
        explained,
        deficient,
    )


def _pairs(columns: Float[np.ndarray, "n p"], w: Float[np.ndarray, "n genes"]) -> np.ndarray:
    """Products of columns, weighted: p x p x genes."""
    n, p = columns.shape
    both = (columns[:, :, None] * columns[:, None, :]).reshape(n, p * p)
    return over_samples(both, w).reshape(p, p, w.shape[1])


def over_samples(
    columns: Float[np.ndarray, "n p"], values: Float[np.ndarray, "n genes"]
) -> Float[np.ndarray, "p genes"]:
    """``columns' values``, without BLAS.

    Its threads wait for each other by spinning, on the cores that other genes are fitted on.
    """
    return np.einsum("np,ng->pg", columns, values)


def _inverse(
    matrix: Float[np.ndarray, "p p genes"],
) -> tuple[Float[np.ndarray, "p p genes"], Bool[np.ndarray, " genes"]]:
    """Inverses by Gauss and Jordan, and which matrices have none."""
    p = len(matrix)
    m = matrix.copy()
    size = np.einsum("ppg->pg", matrix).copy()
    singular = np.zeros(matrix.shape[-1], dtype=bool)
    with np.errstate(all="ignore"):
        for t in range(p):
            pivot = m[t, t].copy()
            singular |= ~(pivot > _RANK * np.maximum(size[t], 1e-12 * size.max(axis=0)))
            row = m[t] / pivot
            row[t] = 1 / pivot
            column = m[:, t].copy()
            column[t] = 0
            m[:, t] = 0
            m -= column[:, None] * row[None]
            m[t] = row
    return m, singular


def needed_nodes(s: Structure, found: Sums) -> Int[np.ndarray, " genes"]:
    """Nodes that each gene's class sums need: genes of one count make a block of `own`."""
    return class_counts(found.level_size, len(s.Q))
