"""Products of genes that share a design, in compiled code: for a CPU.

What `products` does with NumPy, which passes over a tile of measurements once for each of them, and
whose threads wait for the interpreter between. Here a tile of genes goes through some samples at a
time: they are turned into the second-level cache, and everything that they are added to is there,
too (two threads, per gene: F 1.6 us in place of 4, E 175 in place of 400).
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Int

from jaxvp.target import traced_for

from .compression import Compression
from .gene_rows import GeneRows
from .passes import rows_of_shift
from .records import Records
from .sample_rows import SampleRows
from .shared_products import Formed, SharedPlan, formed
from .sparse import BySample
from .tiles import in_tiles
from .types import SWEEP_COLUMNS, Array, Shared

# Measurements from which on half a second of compilation, or one, pays within some fifteen fits, of
# small systems and of large ones; and fixed columns, at most: of more NumPy is as fast. By the
# study, not by the machine: runs repeat. Of few genes there is nothing beside what is read.
_MANY, _MANY_LARGE, _MOST_FIXED = 1 << 24, 1 << 25, 32
_FEWEST_GENES, _FEWEST_SAMPLES = 64, 8
# Genes whose `Records` are formed at once. Of others at most, and the bytes of their sums: in the
# cache (in turns, one thread: B's statistics take a sixth less time than tile by tile).
_OF_RECORDS, _FORMED, _FORMED_BYTES = 16, 64, 1 << 18


def compiled_here(c: Compression, genes: int) -> bool:
    """Whether a CPU forms products of a study's genes by this program."""
    # With random slopes a sample is added to several rows, each time scaled: NumPy is as fast.
    intercepts = c.grouping is not None and isinstance(c.shared, Shared)
    n, p = c.q.shape
    if not intercepts or n < _FEWEST_SAMPLES or p > _MOST_FIXED or genes < _FEWEST_GENES:
        return False
    return genes * n >= (_MANY if c.shared.n_columns <= SWEEP_COLUMNS else _MANY_LARGE)


def products_of_tiles(as_records: bool, plan: SharedPlan, block: GeneRows | SampleRows) -> Formed:
    """Products of the genes of a block, to be compiled for a CPU; arrays, or `Records`."""

    def finish(sums: tuple[Array, ...]) -> Formed:
        found = formed(plan, *sums)
        return found._replace(gene=Records.of(found.gene)) if as_records else found

    if as_records:  # the sums of a large system's classes are as large as a cache
        some = min(block.width, _OF_RECORDS)
    else:
        sums = len(plan.q) + len(plan.q_of_levels) + len(plan.q_of_others)
        most = min(_FORMED, block.capacity, _FORMED_BYTES // (8 * sums))
        some = max(1, most // block.width) * block.width
    with traced_for("cpu"):
        tiles = block.width, block.capacity, block.count
        return in_tiles(partial(_sums, plan, block), *tiles, finish, some)


def _sums(
    plan: SharedPlan, block: GeneRows | SampleRows, begin: Int[Array, ""] | int
) -> tuple[Array, ...]:
    """Of the tile of genes that begins there: what `formed` takes."""
    sum_levels, sum_others = plan.sum_levels, plan.sum_others
    assert isinstance(sum_levels, BySample) and isinstance(sum_others, BySample)
    q = jnp.asarray(plan.q)
    genes = block.width
    shift = block.samples(
        begin, 0, block.whole, lambda y: plan.shift_of(y[rows_of_shift(block.whole)])
    )

    def centred(y: Array, first: Array | int, new: Array | None) -> Array:
        y = y - shift
        if plan.root is not None:
            y = y * jax.lax.dynamic_slice_in_dim(jnp.asarray(plan.root), first, len(y))
        return y if new is None else jnp.where(new[:, None], y, 0.0)

    def add(y: Array, first: Array | int, found: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        ols, yy, levels, others = found
        return (
            ols + jax.lax.dynamic_slice_in_dim(q, first, len(y), axis=1) @ y,
            yy + (y * y).sum(axis=0),
            sum_levels.plus(levels, y, first),
            sum_others.plus(others, y, first),
        )

    nothing = (
        jnp.zeros((len(q), genes)),
        jnp.zeros(genes),
        sum_levels.nothing(genes),
        sum_others.nothing(genes),
    )
    return shift, *block.summed(begin, centred, add, nothing)
