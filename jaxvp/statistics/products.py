"""One block of genes: a few passes over tiles of measurements that stay in the cache."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int

from jaxvp import threads
from jaxvp.memory import aligned

from .compression import Compression, Grouping
from .passes import Rows, in_parts, passes
from .records import Records
from .types import EPS, Block, PerGene

# A tile of measurements: small enough for the cache, and so large that a call of NumPy takes 50 us:
# two threads that pass the interpreter on more often wait for each other (F: two took as long as
# one, with twice as many calls and half as large a tile). Samples that are too many for it are
# taken so many at a time (E's 100,000: an eighth less time, a sixth of two threads that share a
# cache).
_TILE_BYTES = 1 << 22
_TILE_GENES = (16, 1024)


def statistics(
    compression: Compression,
    y: Float[np.ndarray, "n genes"],
    helpers: int = 1,
    larger: int = 1,
    capacity: int = 0,
    as_records: bool = False,
) -> Block:
    """Statistics of a block of genes.

    ``y`` is samples x genes with any strides, its rows those of the compression (the design's, or
    the ones that its weights leave). It is read once, in tiles that stay in the cache, by so many
    threads. Many of them want tiles some times ``larger`` than that: between the operations of a
    tile they wait for the interpreter. The statistics have room for ``capacity`` genes: those that
    the block lacks are its last one. They are arrays with the genes last or, what a large system
    is solved from, `Records`.
    """
    n, genes = y.shape
    room = max(genes, capacity)
    block, gene = _empty(compression, genes, room, as_records)
    tile = larger * int(np.clip(_TILE_BYTES // (8 * n), *_TILE_GENES))
    tile = max(1, min(tile, genes))
    parts = in_parts(compression, n, larger * _TILE_BYTES // (8 * tile))
    longest = max(len(rows.q) for rows in parts)
    rooms = threading.local()  # fresh memory would cost as much as what is written into it

    def fill(start: int) -> None:
        part = slice(start, min(start + tile, genes))
        if not hasattr(rooms, "numbers"):
            rooms.numbers = np.empty(longest * tile)
        with np.errstate(all="ignore"):
            _fill(compression, parts, y[:, part], rooms.numbers, block, part)

    threads.each(fill, range(0, genes, tile), helpers)
    if 0 < genes < room:
        for array in jax.tree.leaves(block.gene):
            array[..., genes:] = array[..., genes - 1 : genes]
    return block._replace(gene=gene)


def careful_statistics(
    compression: Compression, y: Float[np.ndarray, "n genes"], as_records: bool = False
) -> Block:
    """The same of a few genes, none of them formed by differences of sums."""
    genes = y.shape[1]
    block, gene = _empty(compression, genes, genes, as_records)
    with np.errstate(all="ignore"):
        _fill_carefully(compression, y, block, np.arange(genes))
    return block._replace(gene=gene)


def _one(compression: Compression) -> PerGene:
    """The shapes of a gene's."""
    shared = compression.shared
    K, g = shared.n_columns, compression.grouping
    classes, levels = len(shared.between), None
    if g is not None and g.class_products is None:
        classes, levels = 0, np.empty(shared.cross.shape[:2])
    return PerGene(
        np.empty(K), np.empty(()), np.empty((classes, K)), np.empty(classes), level_sums=levels
    )


def _empty(
    compression: Compression, genes: int, room: int, as_records: bool
) -> tuple[Block, PerGene | Records]:
    """To be filled, and the products that it has then, with ``room`` for more genes."""
    one = _one(compression)
    if as_records:
        found = Records.empty(one, room)
        arrays = found.tree()
    else:
        found = arrays = jax.tree.map(lambda leaf: aligned(*leaf.shape, room), one)
    block = Block(
        arrays,
        np.ones(genes),
        np.zeros((compression.shared.p, genes)),
        *(np.zeros(genes, dtype=bool) for _ in range(3)),
    )
    return block, found


# Smallest share of a sum of squares that may be what is left of a difference: the statistics keep
# twelve digits, and for the more samples the log-likelihood, a multiple of n, eight.
_SMALLEST_SHARE, _SMALLEST_SHARE_PER_SAMPLE = 1e-4, 1e-8


def lowest_share(n: int) -> float:
    """Of n samples."""
    return max(_SMALLEST_SHARE, _SMALLEST_SHARE_PER_SAMPLE * n)


def _fill(
    c: Compression, parts: list[Rows], raw: np.ndarray, room: np.ndarray, block: Block, part: slice
) -> None:
    """The products of one tile, written into ``block[..., part]``."""
    n = len(raw)
    shift, (ols, yy, *sums) = passes(c.has_intercept, parts, raw, room)
    if c.grouping is not None and c.grouping.constant is not None:
        ols = c.grouping.constant.projected(ols, sums[0])
    squares = yy - np.einsum("pg,pg->g", ols, ols)
    limit = lowest_share(n)
    # NaN fails every comparison, so it is looked at again, too.
    plain = (yy > 1e-280) & (yy < 1e280) & (squares > limit * yy)
    scale = np.sqrt(np.where(plain, squares, 1.0) / n)
    block.scale[part] = scale
    block.ols[:, part] = ols if shift is None else ols + shift * c.q_of_ones[:, None]
    if c.grouping is not None:
        within = _fill_products(c.grouping, n, sums, ols, 1 / scale, block.gene, part)
        plain &= within > limit * n
    again = np.flatnonzero(~plain)
    if len(again):
        _fill_carefully(c, raw[:, again], block, part.start + again)


def _fill_products(
    g: Grouping,
    n: int,
    sums: Sequence[np.ndarray],
    ols: Float[np.ndarray, "p g"],
    shrink: Float[np.ndarray, " g"],
    gene: PerGene,
    part: slice,
) -> Float[np.ndarray, " g"]:
    """Products of one tile by differences of sums; ``within_yy`` of it.

    ``sums`` are those of the levels of term 1, and of the others'.
    """
    ols = ols * shrink
    levels, others = sums
    for found, of_q in ((levels, g.q_of_levels), (others, g.q_of_others)):
        found *= shrink
        found -= of_q @ ols
    q = len(others)
    uy, yy = _fill_classes(g, levels, gene, part)
    gene.within_uy[:q, part] = others - uy[:q]
    gene.within_uy[q:, part] = -uy[q:]
    within = n - yy
    gene.within_yy[part] = within
    return within


def _fill_classes(
    g: Grouping, sums: Float[np.ndarray, "levels g"], gene: PerGene, part: Any
) -> tuple[Float[np.ndarray, "K g"], Float[np.ndarray, " g"]]:
    """What the classes hold; of ``U'y`` and ``y'y`` what the levels' means explain is returned."""
    if g.class_products is None:
        assert gene.level_sums is not None
        c = gene.level_sums.shape[1]
        kept = sums.reshape(-1, c, sums.shape[1])
        gene.level_sums[: len(kept), :, part] = kept
        gene.level_sums[len(kept) :, :, part] = 0.0
        uy = np.concatenate([g.others_of_levels @ sums, g.q_of_levels.T @ sums])
        return uy, np.einsum("jg,jg->g", sums, sums)
    assert g.class_indicator is not None and g.squares is not None and g.pairs is not None
    one, other = g.pairs
    yy = g.class_indicator @ (sums[one] * sums[other])
    columns, genes = len(gene.within_uy), sums.shape[1]
    uy = (g.class_products @ sums).reshape(len(yy), columns * genes)
    at = (uy, yy) if g.nodes is None else (g.nodes @ uy, g.nodes @ yy)
    gene.between_uy[:, :, part] = at[0].reshape(len(at[1]), columns, genes)
    gene.between_yy[:, part] = at[1]
    return (g.squares @ uy).reshape(columns, genes), g.squares @ yy


def _fill_carefully(
    c: Compression, raw: np.ndarray, block: Block, part: Int[np.ndarray, " g"]
) -> None:
    """The same from residuals and from deviations from the level means, gene by gene scaled.

    Needed by genes whose sum of squares is NaN, infinite or tiny, or nearly explained.
    """
    root = np.ones((1, 1)) if c.weighting is None else c.weighting.root
    # Every gene is a row: NumPy adds the numbers of a row pairwise.
    rows, ols, scale, defects = _examine(np.array(raw.T, np.float64, order="C"), c.q, root.T)
    y, block.ols[:, part], block.scale[part] = rows.T, ols.T, scale
    for name, genes in defects.items():
        getattr(block, name)[part[genes]] = True
    g = c.grouping
    if g is None:
        return
    sums = g.sum_levels @ y
    if g.bases is None:
        y -= np.take(sums / g.level_size, g.level_of, axis=0) * root
    else:
        y -= g.bases @ sums
    others = g.sum_others @ y
    block.gene.within_yy[part] = np.einsum("ng,ng->g", y, y)
    block.gene.within_uy[: len(others), part] = others
    block.gene.within_uy[len(others) :, part] = c.q.T @ y
    _fill_classes(g, sums, block.gene, part)


def _examine(
    y: Float[np.ndarray, "g n"], q: Float[np.ndarray, "n p"], root: Float[np.ndarray, "1 rows"]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
    """Scaled residuals, least-squares coefficients, scales and defects of genes; ``y`` is lost.

    What has a defect is not fitted, and something else stands in for it.
    """
    rounding = 8 * EPS
    non_finite = ~np.isfinite(y).all(axis=1)
    largest = np.abs(y).max(axis=1)
    y /= np.where(largest == 0, 1.0, largest)[:, None]
    constant = np.abs(y - y.mean(axis=1, keepdims=True)).max(axis=1) <= rounding
    y *= root
    ols = np.empty((len(y), q.shape[1]))
    for gene, b in zip(y, ols, strict=True):  # or its last bits would depend on who is beside it
        b[:] = q.T @ gene
        gene -= q @ b
    scale = np.sqrt(np.mean(y**2, axis=1))
    explained = (scale <= rounding) & ~constant
    nothing = non_finite | constant | explained
    y /= scale[:, None]
    ols *= largest[:, None]
    scale *= largest
    y[nothing], ols[nothing], scale[nothing] = 1 / y.shape[1], 0.0, 1.0
    return y, ols, scale, {"non_finite": non_finite, "constant": constant, "explained": explained}
