"""Products of genes that share a design, in one compiled program.

What `products` does with NumPy, with the same sums and the same differences of sums. An accelerator
is sent a block of measurements once, turns it where its genes are the rows, and reads it from its
memory four times. On a CPU a block goes through tile by tile (`measurements`), each turned into the
cache: no thread waits for the interpreter, which pays for the compilation where genes are many
(`compiled_here`; F, two threads, per gene: 1.3 us in place of 2.8). Genes whose differences lose
too many digits are said to be not `Formed.plain`; the host forms theirs.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float, Int

from jaxvp.target import accelerated, fence, traced_for

from .compression import Compression
from .measurements import GeneRows, SampleRows
from .passes import FEW_COLUMNS, rows_of_shift
from .products import lowest_share
from .row_sums import RowSums, added, row_sums, summed, take, with_zeros
from .tiles import in_tiles
from .types import SWEEP_COLUMNS, Array, PerGene

# On a CPU: genes that pay for the compilation, and samples of which a tile stays in the cache.
_MANY_GENES, _MOST_SAMPLES = 8192, 16384


def compiled_here(c: Compression, genes: int) -> bool:
    """Whether a CPU forms products of a study's genes by this program: of small systems only."""
    small = c.grouping is not None and c.shared.n_columns <= SWEEP_COLUMNS
    return small and genes >= _MANY_GENES and len(c.q) <= _MOST_SAMPLES


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

    q: Float[np.ndarray, "n_and_1 p"]  # a row of zeros after the last
    q_of_ones: Float[np.ndarray, " p"]
    shifted: Float[np.ndarray, ""]  # 1: a gene may be shifted; 0: it may not
    root: Float[np.ndarray, "n 1"] | None
    sum_levels: Sparse
    sum_others: Sparse
    q_of_levels: Float[np.ndarray, "levels p"]
    q_of_others: Float[np.ndarray, "q p"]
    sums: ClassSums | LevelSums

    @classmethod
    def of(cls, c: Compression) -> SharedPlan:
        """Which rows are taken and which are added."""
        g = c.grouping
        assert g is not None
        return cls(
            np.concatenate([c.q, np.zeros((1, c.q.shape[1]))]),
            c.q_of_ones,
            np.asarray(float(c.has_intercept)),
            None if c.weighting is None else c.weighting.root,
            Sparse.of(g.sum_levels),
            Sparse.of(g.sum_others),
            g.q_of_levels,
            g.q_of_others,
            LevelSums.of(c) if g.class_products is None else ClassSums.of(c),
        )


class ClassSums(NamedTuple):
    """Genes keep the sums of classes."""

    products: Sparse
    indicator: Sparse
    squares: Float[np.ndarray, " classes"]
    nodes: Float[np.ndarray, "C classes"] | None
    pairs: tuple[Int[np.ndarray, " rows"], ...] | None  # with random slopes

    @classmethod
    def of(cls, c: Compression) -> ClassSums:
        """Of a design with classes."""
        g = c.grouping
        assert g is not None and g.squares is not None and g.pairs is not None
        return cls(
            Sparse.of(g.class_products),
            Sparse.of(g.class_indicator),
            g.squares,
            g.nodes,
            None if isinstance(g.pairs[0], slice) else g.pairs,
        )

    def kept(
        self, table: Float[Array, "levels_and_1 g"]
    ) -> tuple[Array, Array, tuple[Array, Array, None]]:
        """What levels explain of ``U'y`` and ``y'y``, and what a gene keeps of their sums."""
        genes = table.shape[1]

        def products(table: Array) -> Array:
            if self.pairs is None:
                return table * table
            one, other = (take(table, rows) for rows in self.pairs)
            return with_zeros(one * other)

        uy = self.products.times(table)
        yy = self.indicator.times(fence(products, table))
        uy = uy.reshape(len(yy), -1)
        squares = jnp.asarray(self.squares)[None]
        explained = _product(squares, uy).reshape(-1, genes), _product(squares, yy)[0]
        if self.nodes is not None:
            uy, yy = self.nodes @ uy, self.nodes @ yy
        return *explained, (uy.reshape(len(yy), -1, genes), yy, None)


class LevelSums(NamedTuple):
    """Genes keep the sums of levels."""

    others: Sparse
    q: Float[np.ndarray, "p levels"]
    shape: Float[np.ndarray, "C c"]  # zeros: of so many classes, and so many sums of each

    @classmethod
    def of(cls, c: Compression) -> LevelSums:
        """Of a design with random slopes."""
        g = c.grouping
        assert g is not None
        return cls(
            Sparse.of(g.others_of_levels), g.q_of_levels.T, np.zeros(c.shared.cross.shape[:2])
        )

    def kept(
        self, table: Float[Array, "levels_and_1 g"]
    ) -> tuple[Array, Array, tuple[Array, Array, Array]]:
        """As that of `ClassSums`."""
        sums, genes = table[:-1], table.shape[1]
        C, c = self.shape.shape
        uy = jnp.concatenate([self.others.times(table), _product(jnp.asarray(self.q), sums)])
        levels = jnp.pad(sums, ((0, C * c - len(sums)), (0, 0))).reshape(C, c, genes)
        none = jnp.zeros((0, *uy.shape), uy.dtype)
        return uy, (sums * sums).sum(axis=0), (none, none[:, 0], levels)


class Formed(NamedTuple):
    """Products of a block of genes, and what `Block` has beside them."""

    gene: PerGene
    scale: Float[Array, " genes"]
    ols: Float[Array, "p genes"]
    plain: Bool[Array, " genes"]  # where not, the products mean nothing


def shared_products(
    platform: str, turned: bool, plan: SharedPlan, y: Float[Array, "_ _"]
) -> Formed:
    """Products of a block, to be compiled for an accelerator.

    ``y`` is samples x genes or, ``turned``, genes x samples; float64 or float32.
    """
    with traced_for(platform):
        return _products(plan, y, turned)


def products_of_tiles(plan: SharedPlan, block: GeneRows | SampleRows) -> Formed:
    """Products of the genes of a block, to be compiled for a CPU."""
    with traced_for("cpu"):

        def tile(begin: Int[Array, ""] | int) -> Formed:
            return _products(plan, block.tile(begin), isinstance(block, GeneRows))

        return in_tiles(tile, block.width, block.capacity, block.count)


def _products(plan: SharedPlan, y: Float[Array, "_ _"], turned: bool) -> Formed:
    """``y`` as in `shared_products`."""
    q, q_of_levels, q_of_others = (
        jnp.asarray(a) for a in (plan.q, plan.q_of_levels, plan.q_of_others)
    )
    n = len(q) - 1

    def by_samples(y: Array) -> Array:
        return y.T if turned else y

    shift = by_samples(y)[rows_of_shift(n)].astype(q.dtype).mean(axis=0)
    shift = jnp.where(jnp.isfinite(shift), shift, 0.0) * plan.shifted

    def centred(y: Array, shift: Array) -> Array:
        y = by_samples(y).astype(q.dtype) - shift
        return with_zeros(y if plan.root is None else y * plan.root)

    table = fence(centred, y, shift)
    ols, yy = _product(q.T, table), _squares(table)
    squares = yy - (ols * ols).sum(axis=0)
    limit = lowest_share(n)
    plain = (yy > 1e-280) & (yy < 1e280) & (squares > limit * yy)
    scale = jnp.sqrt(jnp.where(plain, squares, 1.0) / n)

    def residual(sums: Array, of_q: Array, ols: Array, scale: Array) -> Array:
        return (sums - _product(of_q, ols)) / scale

    def levels(*sums: Array) -> Array:
        return with_zeros(residual(*sums))

    others = residual(plan.sum_others.times(table), q_of_others, ols, scale)
    sums = fence(levels, plan.sum_levels.times(table), q_of_levels, ols, scale)
    uy, yy, kept = plan.sums.kept(sums)
    some = len(others)
    within_yy = n - yy
    plain &= within_yy > limit * n
    gene = PerGene(
        jnp.concatenate([others - uy[:some], -uy[some:]]), within_yy, *kept[:2], level_sums=kept[2]
    )
    # Numbers in place of what may be none.
    gene = jax.tree.map(lambda found: jnp.where(plain, found, 1.0), gene)
    return Formed(gene, scale, ols + shift * plan.q_of_ones[:, None], plain)


def _squares(table: Float[Array, "rows g"]) -> Float[Array, " g"]:
    """Sums of squares; on a CPU of 16 genes at a time: more are not added up by vectors."""
    if accelerated():
        return (table * table).sum(axis=0)
    some = (table[:, begin : begin + 16] for begin in range(0, table.shape[1], 16))
    return jnp.concatenate([(part * part).sum(axis=0) for part in some])


def _product(a: Float[Array, "i j"], b: Float[Array, "j g"]) -> Float[Array, "i g"]:
    """``a @ b``; on an accelerator of few rows or columns as sums, fused with what is around them.

    A library's product would be tried in many forms when it is compiled.
    """
    rows, columns = a.shape
    if accelerated() and 0 < rows <= FEW_COLUMNS:
        return jnp.stack([(row[:, None] * b).sum(axis=0) for row in a])
    if accelerated() and 0 < columns <= FEW_COLUMNS:
        return added(a[:, j, None] * b[j] for j in range(columns))
    return a @ b
