"""Products of genes that share a design, in compiled code: for an accelerator.

What `products` does with NumPy, with the same sums and the same differences of sums. An accelerator
is sent a block of measurements once, turns it where its genes are the rows, and reads it from its
memory four times. (A CPU's program forms the sums in another way, `tile_products`, and what follows
from them alike.) Genes whose differences lose too many digits are said to be not `Formed.plain`;
NumPy forms theirs.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from jaxvp.target import accelerated, fence, traced_for

from .compression import Compression
from .passes import FEW_COLUMNS, rows_of_shift
from .products import lowest_share
from .records import Records
from .row_sums import added, take, with_zeros
from .sparse import BySample, Gathered, Scattered
from .types import Array, PerGene


class SharedPlan(NamedTuple):
    """A `Compression` with random terms as the program takes it."""

    q: Float[np.ndarray, "p n"]  # turned: XLA multiplies by Q' four times as slowly on a CPU
    q_of_ones: Float[np.ndarray, " p"]
    shifted: Float[np.ndarray, ""]  # 1: a gene may be shifted; 0: it may not
    root: Float[np.ndarray, "n 1"] | None
    sum_levels: Gathered | BySample
    sum_others: Gathered | BySample
    q_of_levels: Float[np.ndarray, "levels p"]
    q_of_others: Float[np.ndarray, "q p"]
    sums: ClassSums | LevelSums

    @classmethod
    def of(cls, c: Compression, platform: str) -> SharedPlan:
        """Which rows are taken and which are added."""
        g = c.grouping
        assert g is not None
        by_sample, sparse = (BySample, Scattered) if platform == "cpu" else (Gathered, Gathered)
        return cls(
            np.ascontiguousarray(c.q.T),
            c.q_of_ones,
            np.asarray(float(c.has_intercept)),
            None if c.weighting is None else c.weighting.root,
            by_sample.of(g.sum_levels),
            by_sample.of(g.sum_others),
            g.q_of_levels,
            g.q_of_others,
            LevelSums.of(c) if g.class_products is None else ClassSums.of(c, sparse),
        )

    def shift_of(self, some: Float[Array, "some g"]) -> Float[Array, " g"]:
        """What genes are shifted by, from some of their measurements (`passes.shift_of`)."""
        shift = some.astype(self.q.dtype).mean(axis=0)
        return jnp.where(jnp.isfinite(shift), shift, 0.0) * self.shifted


class ClassSums(NamedTuple):
    """Genes keep the sums of classes."""

    products: Gathered | Scattered
    indicator: Gathered | Scattered
    squares: Float[np.ndarray, " classes"]
    nodes: Float[np.ndarray, "C classes"] | None
    pairs: tuple[Int[np.ndarray, " rows"], ...] | None  # with random slopes

    @classmethod
    def of(cls, c: Compression, sparse: type[Gathered | Scattered]) -> ClassSums:
        """Of a design with classes."""
        g = c.grouping
        assert g is not None and g.squares is not None and g.pairs is not None
        return cls(
            sparse.of(g.class_products),
            sparse.of(g.class_indicator),
            g.squares,
            g.nodes,
            None if isinstance(g.pairs[0], slice) else g.pairs,
        )

    def kept(
        self, table: Float[Array, "levels_and_1 g"]
    ) -> tuple[Array, Array, tuple[Array, Array, None]]:
        """What levels explain of ``U'y`` and ``y'y``, and what a gene keeps of their sums.

        The table is of these, and has a row of zeros after the last.
        """
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
        if self.nodes is None:
            taken = product(squares, uy), product(squares, yy)
        else:  # one product for both: the sums of the classes are as large as a cache
            both = jnp.concatenate([self.nodes, squares])
            uy, yy = both @ uy, both @ yy
            taken, uy, yy = (uy[-1:], yy[-1:]), uy[:-1], yy[:-1]
        explained = taken[0].reshape(-1, genes), taken[1][0]
        return *explained, (uy.reshape(len(yy), -1, genes), yy, None)


class LevelSums(NamedTuple):
    """Genes keep the sums of levels."""

    others: Gathered
    q: Float[np.ndarray, "p levels"]
    shape: Float[np.ndarray, "C c"]  # zeros: of so many classes, and so many sums of each

    @classmethod
    def of(cls, c: Compression) -> LevelSums:
        """Of a design with random slopes."""
        g = c.grouping
        assert g is not None
        return cls(
            Gathered.of(g.others_of_levels), g.q_of_levels.T, np.zeros(c.shared.cross.shape[:2])
        )

    def kept(
        self, table: Float[Array, "levels_and_1 g"]
    ) -> tuple[Array, Array, tuple[Array, Array, Array]]:
        """As that of `ClassSums`."""
        sums, genes = table[:-1], table.shape[1]
        C, c = self.shape.shape
        uy = jnp.concatenate([self.others.times(table), product(jnp.asarray(self.q), sums)])
        levels = jnp.pad(sums, ((0, C * c - len(sums)), (0, 0))).reshape(C, c, genes)
        none = jnp.zeros((0, *uy.shape), uy.dtype)
        return uy, (sums * sums).sum(axis=0), (none, jnp.zeros((0, genes), uy.dtype), levels)


class Formed(NamedTuple):
    """Products of a block of genes, and what `Block` has beside them."""

    gene: PerGene | Records
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


def _products(plan: SharedPlan, y: Float[Array, "_ _"], turned: bool) -> Formed:
    """``y`` as in `shared_products`."""
    q = jnp.asarray(plan.q)
    assert isinstance(plan.sum_levels, Gathered) and isinstance(plan.sum_others, Gathered)

    def by_samples(y: Array) -> Array:
        return y.T if turned else y

    def centred(y: Array, shift: Array) -> Array:
        y = by_samples(y).astype(q.dtype) - shift
        return with_zeros(y if plan.root is None else y * plan.root)

    shift = plan.shift_of(by_samples(y)[rows_of_shift(q.shape[1])])
    table = fence(centred, y, shift)
    y = table[:-1]
    sums = plan.sum_levels.times(table), plan.sum_others.times(table)
    return formed(plan, shift, product(q, y), (y * y).sum(axis=0), *sums)


def formed(
    plan: SharedPlan,
    shift: Float[Array, " g"],
    ols: Float[Array, "p g"],
    yy: Float[Array, " g"],
    levels: Float[Array, "levels g"],
    others: Float[Array, "q g"],
) -> Formed:
    """What follows from ``Q'y``, ``y'y`` and the sums of levels, of shifted genes."""
    n = plan.q.shape[1]
    squares = yy - (ols * ols).sum(axis=0)
    limit = lowest_share(n)
    plain = (yy > 1e-280) & (yy < 1e280) & (squares > limit * yy)
    scale = jnp.sqrt(jnp.where(plain, squares, 1.0) / n)

    def residual(sums: Array, of_q: Array, ols: Array, scale: Array) -> Array:
        return (sums - product(of_q, ols)) / scale

    others = residual(others, jnp.asarray(plan.q_of_others), ols, scale)
    q_of_levels = jnp.asarray(plan.q_of_levels)
    table = fence(lambda *sums: with_zeros(residual(*sums)), levels, q_of_levels, ols, scale)
    uy, yy, (between_uy, between_yy, level_sums) = plan.sums.kept(table)
    some = len(others)
    within_uy, within_yy = jnp.concatenate([others - uy[:some], -uy[some:]]), n - yy
    plain &= within_yy > limit * n
    gene = PerGene(within_uy, within_yy, between_uy, between_yy, level_sums=level_sums)
    # Numbers in place of what may be none.
    gene = jax.tree.map(lambda found: jnp.where(plain, found, 1.0), gene)
    return Formed(gene, scale, ols + shift * plan.q_of_ones[:, None], plain)


def product(a: Float[Array, "i j"], b: Float[Array, "j g"]) -> Float[Array, "i g"]:
    """``a @ b``; on an accelerator of few rows or columns as sums, fused with what is around them.

    A library's product would be tried in many forms when it is compiled.
    """
    rows, columns = a.shape
    if accelerated() and 0 < rows <= FEW_COLUMNS:
        return jnp.stack([(row[:, None] * b).sum(axis=0) for row in a])
    if accelerated() and 0 < columns <= FEW_COLUMNS:
        return added(a[:, j, None] * b[j] for j in range(columns))
    return a @ b
