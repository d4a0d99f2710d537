"""Products of genes that share a design, in one compiled program: for an accelerator.

What `products` does on the host, with the same sums and the same differences of sums: there NumPy
reads a tile of measurements while it is in the cache, here a block of measurements is sent once,
turned where its genes are the rows, and read from the device's memory four times. Genes whose
differences lose too many digits are said to be not `Formed.plain`; the host forms theirs.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float, Int

from jaxvp.target import fence, traced_for

from .compression import Compression
from .passes import FEW_COLUMNS, rows_of_shift
from .products import lowest_share
from .row_sums import RowSums, added, row_sums, summed, take, with_zeros
from .types import Array, PerGene


class Sparse(NamedTuple):
    """A sparse matrix, for products with tables that have a row of zeros after their last."""

    numbers: Int[np.ndarray, "at_once groups"]  # rows of the table that are added first
    values: Float[np.ndarray, "at_once groups"]
    stages: RowSums  # sums of these

    @classmethod
    def of(cls, matrix: Any) -> Sparse:
        """Any of SciPy's."""
        matrix = sp.csr_array(matrix)
        entries = len(matrix.data)
        first, *stages = row_sums(matrix.indptr, np.arange(entries), entries)
        numbers = np.append(matrix.indices, matrix.shape[1]).astype(np.int32)[first]
        return cls(numbers, np.append(matrix.data, 0.0)[first], tuple(stages))

    def times(self, table: Float[Array, "rows_and_1 g"]) -> Float[Array, "sums g"]:
        """The product, row i that of the matrix's row i."""

        def first(table: Array, numbers: Array, values: Array) -> Array:
            return added(
                take(table, some) * factor[:, None]
                for some, factor in zip(numbers, values, strict=True)
            )

        return summed(self.stages, fence(first, table, self.numbers, self.values))


class SharedPlan(NamedTuple):
    """A `Compression` with random terms as the program takes it."""

    q: Float[np.ndarray, "n p"]
    q_of_ones: Float[np.ndarray, " p"]
    shifted: Float[np.ndarray, ""]  # 1: a gene may be shifted; 0: it may not
    root: Float[np.ndarray, "n 1"] | None
    sum_levels: Sparse
    sum_others: Sparse
    others_of_levels: Sparse
    q_of_levels: Float[np.ndarray, "levels p"]
    q_of_others: Float[np.ndarray, "q p"]
    level_size: Float[np.ndarray, "levels 1"]
    class_products: Sparse | None  # None where genes keep the sums of levels
    class_indicator: Sparse | None
    nodes: Float[np.ndarray, "C classes"] | None
    pairs: tuple[Int[np.ndarray, " rows"], ...] | None  # with random slopes
    level_sums: Float[np.ndarray, "C c"] | None  # zeros, of their shape

    @classmethod
    def of(cls, c: Compression) -> SharedPlan:
        """Which rows are taken and which are added."""
        g = c.grouping
        assert g is not None
        return cls(
            c.q,
            c.q_of_ones,
            np.asarray(float(c.has_intercept)),
            None if c.weighting is None else c.weighting.root,
            Sparse.of(g.sum_levels),
            Sparse.of(g.sum_others),
            Sparse.of(g.others_of_levels),
            g.q_of_levels,
            g.q_of_others,
            g.level_size,
            None if g.class_products is None else Sparse.of(g.class_products),
            None if g.class_indicator is None else Sparse.of(g.class_indicator),
            g.nodes,
            None if g.pairs is None or isinstance(g.pairs[0], slice) else g.pairs,
            None if g.class_products is not None else np.zeros(c.shared.cross.shape[:2]),
        )


class Formed(NamedTuple):
    """Products of a block of genes, and what `Block` has beside them."""

    gene: PerGene
    scale: Float[Array, " genes"]
    ols: Float[Array, "p genes"]
    plain: Bool[Array, " genes"]  # where not, the products mean nothing


def shared_products(
    platform: str, turned: bool, plan: SharedPlan, y: Float[Array, "_ _"]
) -> Formed:
    """Products of a block, to be compiled for a platform.

    ``y`` is samples x genes or, ``turned``, genes x samples; float64 or float32.
    """
    with traced_for(platform):
        return _products(plan, y.T if turned else y)


def _products(plan: SharedPlan, y: Float[Array, "n g"]) -> Formed:
    n, _ = y.shape
    q, q_of_levels, size = (jnp.asarray(a) for a in (plan.q, plan.q_of_levels, plan.level_size))
    shift = y[rows_of_shift(n)].astype(q.dtype).mean(axis=0)
    shift = jnp.where(jnp.isfinite(shift), shift, 0.0) * plan.shifted

    def centred(y: Array, shift: Array) -> Array:
        y = y.astype(q.dtype) - shift
        return with_zeros(y if plan.root is None else y * plan.root)

    table = fence(centred, y, shift)
    y = table[:n]
    ols, yy = _product(q.T, y), (y * y).sum(axis=0)
    squares = yy - (ols * ols).sum(axis=0)
    limit = lowest_share(n)
    plain = (yy > 1e-280) & (yy < 1e280) & (squares > limit * yy)
    squares = jnp.where(plain, squares, 1.0)
    scale = jnp.sqrt(squares / n)

    sums = (plan.sum_levels.times(table) - _product(q_of_levels, ols)) / scale
    others = (plan.sum_others.times(table) - _product(jnp.asarray(plan.q_of_others), ols)) / scale
    sums_and_0 = fence(with_zeros, sums)
    sums = sums_and_0[:-1]
    within_yy = n - (sums * sums / size).sum(axis=0)
    plain &= within_yy > limit * n
    within_uy = jnp.concatenate(
        [others - plan.others_of_levels.times(sums_and_0), -_product((q_of_levels / size).T, sums)]
    )

    def numbers(found: Array) -> Array:
        """In place of what may be none."""
        return jnp.where(plain, found, 1.0)

    ols = ols + shift * plan.q_of_ones[:, None]
    if plan.class_products is None or plan.class_indicator is None:
        assert plan.level_sums is not None
        C, c = plan.level_sums.shape
        spare = C * c - len(sums)
        kept = jnp.pad(numbers(sums), ((0, spare), (0, 0))).reshape(C, c, len(shift))
        none = jnp.zeros((0, *within_uy.shape), within_uy.dtype)
        gene = PerGene(numbers(within_uy), numbers(within_yy), none, none[:, 0], level_sums=kept)
        return Formed(gene, scale, ols, plain)
    one, other = (sums, sums) if plan.pairs is None else (take(sums, rows) for rows in plan.pairs)
    uy = plan.class_products.times(sums_and_0)
    yy = plan.class_indicator.times(fence(with_zeros, one * other))
    uy = uy.reshape(len(yy), len(within_uy) * len(shift))
    if plan.nodes is not None:
        uy, yy = plan.nodes @ uy, plan.nodes @ yy
    uy = uy.reshape(len(yy), len(within_uy), len(shift))
    gene = PerGene(numbers(within_uy), numbers(within_yy), numbers(uy), numbers(yy))
    return Formed(gene, scale, ols, plain)


def _product(a: Float[Array, "i j"], b: Float[Array, "j g"]) -> Float[Array, "i g"]:
    """``a @ b``; of few rows or columns as sums that are fused with what is around them.

    A library's product would be tried in many forms when it is compiled.
    """
    rows, columns = a.shape
    if 0 < rows <= FEW_COLUMNS:
        return jnp.stack([(row[:, None] * b).sum(axis=0) for row in a])
    if 0 < columns <= FEW_COLUMNS:
        return added(a[:, j, None] * b[j] for j in range(columns))
    return a @ b
