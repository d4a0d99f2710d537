"""What all genes of a design share: orthonormal fixed part, factors of the products, class sums."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float, Int

from jaxvp.design import Design

from .class_sums import Room, class_sums
from .types import EPS, Array, Shared

# What is left of a column of Q, which is of length one, that is the same in all samples of a level:
# rounding, of its own numbers and of their sums.
_CONSTANT = 64 * EPS


class ConstantColumns(NamedTuple):
    """Columns of Q that need no pass over the measurements: sums of levels have what they make."""

    mine: Bool[np.ndarray, " p"]
    of_levels: Float[np.ndarray, "some levels"]
    others: Float[np.ndarray, "n others"]  # of Q, that vary within levels

    @classmethod
    def of(
        cls,
        q: Float[np.ndarray, "n p"],
        within: Float[np.ndarray, "n p"],
        means: Float[np.ndarray, "levels p"],
    ) -> ConstantColumns | None:
        """Of what Q has within levels, and of its means; None where there are no such columns."""
        mine = np.linalg.norm(within, axis=0) <= _CONSTANT
        return cls(mine, means.T[mine], q[:, ~mine]) if mine.any() else None

    def projected(
        self, others: Float[np.ndarray, "others g"], levels: Float[np.ndarray, "levels g"]
    ) -> Float[np.ndarray, "p g"]:
        """``Q'y`` from that of the other columns and from the sums of levels."""
        found = np.empty((len(self.mine), levels.shape[1]))
        found[~self.mine], found[self.mine] = others, self.of_levels @ levels
        return found


class Grouping(NamedTuple):
    """The random terms' factors of the products."""

    level_of: Int[np.ndarray, " n"]  # level of term 1
    level_size: Float[np.ndarray, "levels 1"]  # one where a level has no sample left
    # By columns: measurements are then read once, in their order, and what is added to is small.
    sum_levels: sp.csc_array  # levels x n, indicator of term 1
    sum_others: sp.csc_array  # q x n, indicators of the other terms
    others_of_levels: sp.csr_array  # q x levels, Z_o'Z_1 over the level sizes
    q_of_levels: Float[np.ndarray, "levels p"]  # Z_1'Q
    q_of_others: Float[np.ndarray, "q p"]  # Z_o'Q
    # None where genes keep the sums of levels (`slopes`)
    class_products: sp.csr_array | None  # (classes K) x levels: F_j / n_j at class of j
    class_indicator: sp.csr_array | None  # classes x levels: 1 / n_j at class of j
    squares: Float[np.ndarray, " classes"] | None  # with random slopes zero for what is no square
    nodes: (
        Float[np.ndarray, "C classes"] | None
    )  # interpolation weights, None where classes are few
    # With random slopes: Q of all levels, n x rows, and the rows whose products are summed.
    bases: sp.csr_array | None = None
    pairs: tuple[Any, Any] | None = (slice(None), slice(None))
    # Where columns of Q are the same in all samples of a level, an intercept first of all.
    constant: ConstantColumns | None = None


class Compression(NamedTuple):
    """A design prepared for taking blocks of genes: the factors of every product."""

    shared: Any  # Shared, or SlopeShared
    q: Float[np.ndarray, "n p"]
    q_of_ones: Float[np.ndarray, " p"]  # Q'1
    has_intercept: bool  # 1 is in the span of Q: a gene may be shifted
    grouping: Grouping | None  # None without random terms
    weighting: Weighting | None = None  # None: all samples count the same
    slopes: Any = None  # Slopes, of a design with random slopes


class LevelRows(eqx.Module):
    """Term 1 level by level: ``U'V_1^-1 U = S + sum_j B_j B_j' / (1 + gamma_1 n_j)``."""

    rows: Float[Array, "levels K"]  # B_j = F_j / sqrt(n_j)
    sizes: Float[Array, " levels"]  # n_j

    @classmethod
    def of(cls, grouping: Grouping) -> LevelRows:
        """Of a design with random terms; a level that has no sample left is a row of zeros."""
        size = grouping.level_size
        others = grouping.others_of_levels.T.toarray() * np.sqrt(size)
        rows = np.concatenate([others, grouping.q_of_levels / np.sqrt(size)], axis=1)
        return cls(rows, size[:, 0])


class Weighting(NamedTuple):
    """Weights that all genes share, divided by their mean; samples of weight zero are left out."""

    rows: Int[np.ndarray, " n"]  # samples that count, places in the design
    root: Float[np.ndarray, "n 1"]  # square roots of their weights: what rows are multiplied by
    mean: float  # what the weights were divided by
    half_log: float  # half the sum of their logarithms: part of the log-likelihood

    @classmethod
    def of(cls, weights: Float[np.ndarray, " samples"]) -> Weighting:
        rows = np.flatnonzero(weights > 0)
        mean = float(weights[rows].mean())
        relative = weights[rows] / mean
        return cls(rows, np.sqrt(relative)[:, None], mean, float(0.5 * np.log(relative).sum()))


def indicators(columns: Sequence[Int[np.ndarray, " n"]], rows: int, n: int) -> sp.csr_array:
    """Row i marks the samples that have the code i in one of the columns."""
    return _by_sample(columns, rows, n).tocsr()


def indicator(codes: Int[np.ndarray, " n"], levels: int) -> sp.csr_array:
    """Of one factor."""
    return indicators([codes], levels, len(codes))


def _by_sample(
    columns: Sequence[Int[np.ndarray, " n"]],
    rows: int,
    n: int,
    root: Float[np.ndarray, "n 1"] | None = None,
) -> sp.csc_array:
    """`indicators` by columns, the samples; ``root`` is what these were multiplied by."""
    many = len(columns)
    codes = np.stack(columns, axis=1) if many else np.zeros((n, 0), int)
    values = np.repeat(np.ones(n) if root is None else root[:, 0], many)
    return sp.csc_array((values, codes.ravel(), np.arange(n + 1) * many), shape=(rows, n))


def fixed_part(
    X: Float[np.ndarray, "n p"], root: Float[np.ndarray, "n 1"] | None = None
) -> tuple[Float[np.ndarray, "n p"], Float[np.ndarray, "p p"], np.ndarray, bool]:
    """Q and R^-1 of ``X = Q R``, log|det R|, and whether 1 is in the span of Q.

    ``root`` is what the rows of X were multiplied by, and 1 with them.
    """
    norms = np.maximum(np.sqrt((X**2).sum(axis=0)), np.finfo(float).tiny)
    q, r = np.linalg.qr(X / norms)
    r = r * norms
    r_inverse = np.linalg.inv(r) if X.shape[1] else np.zeros((0, 0))
    log_det_r = np.asarray(np.log(np.abs(np.diag(r))).sum())
    ones = 1.0 if root is None else root[:, 0]
    return q, r_inverse, log_det_r, bool(np.abs(q @ ones_in(q, root) - ones).max() < 1e-9)


def ones_in(
    q: Float[np.ndarray, "n p"], root: Float[np.ndarray, "n 1"] | None
) -> Float[np.ndarray, " p"]:
    """Q'1, or Q' times the roots of the weights."""
    # Of rows NumPy adds numbers pairwise: one after the other they would lose three digits of many.
    return np.ascontiguousarray((q if root is None else root * q).T).sum(axis=1)


def room_for_losses(design: Design, levels: int) -> Room:
    """What suffices whatever samples a gene lacks.

    ``levels`` is the number of levels of term 1.
    """
    largest = max(
        int(np.bincount(codes).max()) for codes in design.codes if int(codes.max()) + 1 == levels
    )
    return Room.of(levels, largest)


def compress(
    design: Design,
    weights: Float[np.ndarray, " samples"] | None = None,
    room: Room | None = None,
) -> Compression:
    """Everything that does not depend on the genes.

    Without random terms only Q and R are needed.

    Parameters
    ----------
    design
        Fixed columns and codes.
    weights
        One a sample, zero or more, the same for all genes: every row of the model is multiplied by
        its square root. A sample of weight zero is left out; the columns of levels that are lost
        with it stay, empty.
    room
        What to make room for (`room_for_losses`), so that designs that lack different samples have
        arrays of one shape, and one compiled program.
    """
    X, all_codes = design.X, [np.asarray(codes) for codes in design.codes]
    counts = [int(codes.max()) + 1 for codes in all_codes]
    weighting = None if weights is None else Weighting.of(weights)
    root = None
    if weighting is not None:
        root = weighting.root
        X, all_codes = X[weighting.rows] * root, [codes[weighting.rows] for codes in all_codes]
    n, p = X.shape
    order = sorted(
        range(len(counts)), key=lambda i: -counts[i]
    )  # stable: formula order breaks ties
    q, r_inverse, log_det_r, has_intercept = fixed_part(X, root)
    q_of_ones = ones_in(q, root)
    if not counts:
        shared = _fixed_only(p, n, r_inverse, log_det_r)
        return Compression(shared, q, q_of_ones, has_intercept, None, weighting)

    level_of, levels = all_codes[order[0]], counts[order[0]]
    ends = np.cumsum([0, *(counts[i] for i in order[1:])])
    columns = [all_codes[i] + first for i, first in zip(order[1:], ends[:-1], strict=True)]
    sum_levels = _by_sample([level_of], levels, n, root)
    sum_others = _by_sample(columns, int(ends[-1]), n, root)
    by_weight = np.ones(n) if root is None else root[:, 0] ** 2
    true_size = np.bincount(level_of, by_weight, levels).astype(np.float64)
    level_size = np.where(true_size > 0, true_size, 1.0)

    # F_j (levels x K) and the products within levels: U minus its level means, squared up.
    q_of_levels, q_of_others = sum_levels @ q, sum_others @ q
    meet = (np.concatenate([level_of[:0], *columns]), np.tile(level_of, len(columns)))
    others_of_level = sp.csr_array(
        (np.tile(by_weight, len(columns)), meet), shape=(int(ends[-1]), levels)
    )
    means = others_of_level.copy()
    means.data /= level_size[means.indices]
    level_means = q_of_levels / level_size[:, None]
    q_within = q - sum_levels.T @ level_means
    z_q = sum_others @ q_within
    z_z = (sum_others @ sum_others.T - others_of_level @ means.T).toarray()
    within = np.block([[z_z, z_q], [z_q.T, q_within.T @ q_within]])
    cross = sp.csr_array(sp.vstack([others_of_level, sp.csr_array(q_of_levels.T)]))  # F'
    classes = class_sums(true_size, cross, room)

    present = [np.count_nonzero(np.bincount(codes)) for codes in all_codes]
    shared = Shared(
        within=within,
        between=classes.between,
        sizes=classes.sizes,
        level_sizes=classes.level_sizes,
        level_counts=classes.level_counts,
        samples_per_level=np.array([n / present[i] for i in order]),
        log_det_r=log_det_r,
        r_inverse=r_inverse,
        n=np.asarray(float(n)),
        p=p,
        levels=tuple(counts[i] for i in order),
        order=tuple(order),
    )
    grouping = Grouping(
        level_of,
        level_size[:, None],
        sum_levels,
        sum_others,
        sp.csr_array(means),
        q_of_levels,
        q_of_others,
        classes.products,
        classes.indicator,
        np.ones(len(classes.indicator.indptr) - 1),
        classes.to_nodes,
        constant=ConstantColumns.of(q, q_within, level_means),
    )
    return Compression(shared, q, q_of_ones, has_intercept, grouping, weighting)


def _fixed_only(p: int, n: int, r_inverse: np.ndarray, log_det_r: np.ndarray) -> Shared:
    """Without random terms."""
    none = np.zeros(0)
    return Shared(
        within=np.zeros((p, p)),
        between=np.zeros((0, p, p)),
        sizes=none,
        level_sizes=none,
        level_counts=none,
        samples_per_level=none,
        log_det_r=log_det_r,
        r_inverse=r_inverse,
        n=np.asarray(float(n)),
        p=p,
        levels=(),
        order=(),
    )
