r"""Cross-products, once: what all genes share and what belongs to one gene.

The deviance of a gene needs the samples only through inner products, and most of those do not
depend on the gene. Let term 1 be the random term with the most levels (``F_j = U'z_1j``, ``a_j =
z_1j'y``, ``n_j`` the size of its level ``j``) and let the ``K`` columns of ``U = [Z_2 ... Z_k, Q]``
be the indicators of the other random terms and an orthonormal basis of the fixed part, ``X = Q R``.
Eliminating term 1 exactly, ``V_1 = I + gamma_1 Z_1 Z_1'``,

    U' V_1^-1 U = S + sum_c w_c C_c,      w_c = 1 / (1 + gamma_1 n_c),
    S   = U'U - sum_j F_j F_j' / n_j      (products of deviations from the level means: "within"),
    C_c = sum_{j in c} F_j F_j' / n_j     (a class c holds the levels of one size n_c),

and the same for ``U'y`` (with ``F_j a_j / n_j``) and ``y'y`` (with ``a_j^2 / n_j``). The number of
samples never appears again. The within-products are formed from ``y`` minus its level means, never
by subtraction of two large numbers, so that a small residual beside a dominant term keeps its
digits.

*Few classes.* ``gamma -> 1 / (1 + gamma n)`` is, for all ``gamma >= 0`` at once, a smooth function
of ``log n``: a logistic curve shifted by ``log n``, analytic in a strip of half-width pi. Where
there are more class sizes than Chebyshev nodes needed to interpolate it to rounding (about 20), the
class sums are replaced by their interpolation weights times the sums, and the "sizes" by the nodes:
the identity above and its derivatives in ``gamma`` keep holding to about 1e-14 with at most that
many classes. ``log|V_1|`` uses the true sizes.

*Scaling.* A gene is residualised on ``Q`` and divided by ``s``, the root mean square of that
residual, before any product is formed: a large mean cannot cancel digits away. What that changes is
undone in `jaxvp.likelihood` (``log|V|``-free terms get ``2 (n - p) log s`` and so on) from
``PerGene.scale`` and ``PerGene.ols``.

*Host code.* Sparse matrices times a tile of measurements; they never enter JAX. Six passes over a
tile that is in the cache: copy (turned), mean, centring, level sums of term 1, of the others, and
``y'y`` with ``Q'y``. Everything else follows from those sums, residualising and the within-products
included, as differences. Where such a difference loses more digits than the log-likelihood can
spare, those genes are formed again from residuals and deviations.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float, Int

from jaxvp.design import Design

# NumPy on the host, JAX on a device and inside compiled code.
Array = jax.Array | np.ndarray

# More nodes than this are never needed: the interpolation error is then below 1e-14 for group sizes
# that differ by a factor of 1e4 (measured in tests/test_statistics.py).
_MAX_NODES = 64
_INTERPOLATION_ERROR = 3e-15
EPS = float(np.finfo(np.float64).eps)


class Shared(eqx.Module):
    """What all genes of a design share. Arrays are NumPy on the host, JAX inside compiled code.

    Random terms are numbered with the eliminated one first: ``order[0]`` is its place in the
    formula.
    """

    within: Float[Array, "K K"]
    between: Float[Array, "C K K"]  # class sums C_c
    sizes: Float[Array, " C"]  # n_c, or interpolation nodes
    level_sizes: Float[Array, " L"]  # distinct true sizes of the levels of term 1
    level_counts: Float[Array, " L"]  # how many levels have that size
    samples_per_level: Float[Array, " k"]  # mean, per random term in elimination order
    log_det_r: Float[Array, ""]  # log|det R|, X = Q R
    r_inverse: Float[Array, "p p"]  # R^-1
    n: int = eqx.field(static=True)
    p: int = eqx.field(static=True)
    levels: tuple[int, ...] = eqx.field(static=True)  # number of levels, elimination order
    order: tuple[int, ...] = eqx.field(static=True)  # elimination order -> formula order

    @property
    def n_columns(self) -> int:
        """K: columns left when term 1 is eliminated."""
        return sum(self.levels[1:]) + self.p


class PerGene(eqx.Module):
    """Statistics of a block of genes, the gene axis last (one gene: without it)."""

    within_uy: Float[Array, "K *genes"]
    within_yy: Float[Array, "*genes"]
    between_uy: Float[Array, "C K *genes"]
    between_yy: Float[Array, "C *genes"]


class Block(NamedTuple):
    """One block's `PerGene`, what undoes residualising and scaling, and the genes not to fit."""

    gene: PerGene
    scale: Float[np.ndarray, " genes"]  # s, in the units of the measurements
    ols: Float[np.ndarray, "p genes"]  # least-squares coefficients on Q, units of the measurements
    non_finite: Bool[np.ndarray, " genes"]
    constant: Bool[np.ndarray, " genes"]
    explained: Bool[np.ndarray, " genes"]  # exactly, by the fixed part alone


class Grouping(NamedTuple):
    """The random terms' factors of the products."""

    level_of: Int[np.ndarray, " n"]  # level of term 1
    level_size: Float[np.ndarray, "levels 1"]
    sum_levels: sp.csr_array  # levels x n, indicator of term 1
    sum_others: sp.csr_array  # q x n, indicators of the other terms
    others_of_levels: sp.csr_array  # q x levels, Z_o'Z_1 over the level sizes
    q_of_levels: Float[np.ndarray, "levels p"]  # Z_1'Q
    q_of_others: Float[np.ndarray, "q p"]  # Z_o'Q
    class_products: sp.csr_array  # (classes K) x levels: F_j / n_j at class of j
    class_indicator: sp.csr_array  # classes x levels: 1 / n_j at class of j
    nodes: (
        Float[np.ndarray, "C classes"] | None
    )  # interpolation weights, None where classes are few


class Compression(NamedTuple):
    """A design prepared for taking blocks of genes: the factors of every product."""

    shared: Shared
    q: Float[np.ndarray, "n p"]
    has_intercept: bool  # 1 is in the span of Q: a gene may be shifted
    grouping: Grouping | None  # None without random terms


def _indicator(codes: Int[np.ndarray, " n"], levels: int) -> sp.csr_array:
    n = len(codes)
    return sp.csr_array((np.ones(n), (codes, np.arange(n))), shape=(levels, n))


def class_nodes(
    sizes: Float[np.ndarray, " classes"],
) -> tuple[Float[np.ndarray, " C"], Float[np.ndarray, "C classes"]] | None:
    """Chebyshev nodes in ``log n`` and Lagrange weights that replace many class sizes.

    None if they would not be fewer. The number of nodes is the smallest whose interpolation error
    of ``1/(1 + gamma n)``, relative, over all ``gamma >= 0`` and all sizes given, is at rounding
    level.
    """
    t = np.log(sizes)
    middle, half = (t[0] + t[-1]) / 2, (t[-1] - t[0]) / 2
    gamma = np.exp(np.linspace(-t[-1] - 12, -t[0] + 12, 200))
    exact = 1 / (1 + gamma[:, None] * sizes)
    for count in range(6, min(len(sizes), _MAX_NODES + 1)):
        angle = (2 * np.arange(count) + 1) * np.pi / (2 * count)
        knots = middle + half * np.cos(angle)
        bary = (-1.0) ** np.arange(count) * np.sin(angle)
        gap = t[None, :] - knots[:, None]
        hit = np.abs(gap) < 1e-14 * max(1.0, half)
        terms = bary[:, None] / np.where(hit, 1.0, gap)
        weights = np.where(hit.any(axis=0), hit, terms / terms.sum(axis=0))
        error = np.abs((1 / (1 + gamma[:, None] * np.exp(knots))) @ weights - exact) / exact
        if error.max() < _INTERPOLATION_ERROR * 10:
            return np.exp(knots), weights
    return None


def compress(design: Design) -> Compression:
    """Everything that does not depend on the genes.

    Without random terms only Q and R are needed.
    """
    n, p = design.X.shape
    counts = [int(codes.max()) + 1 for codes in design.codes]
    order = sorted(
        range(len(counts)), key=lambda i: -counts[i]
    )  # stable: formula order breaks ties
    norms = np.maximum(np.sqrt((design.X**2).sum(axis=0)), np.finfo(float).tiny)
    q, r = np.linalg.qr(design.X / norms)
    r = r * norms

    r_inverse = np.linalg.inv(r) if p else np.zeros((0, 0))
    log_det_r = np.asarray(np.log(np.abs(np.diag(r))).sum())
    has_intercept = bool(np.abs(q @ q.sum(axis=0) - 1).max() < 1e-9)
    if not counts:
        none = np.zeros(0)
        shared = Shared(
            np.zeros((p, p)),
            np.zeros((0, p, p)),
            none,
            none,
            none,
            none,
            log_det_r,
            r_inverse,
            n,
            p,
            (),
            (),
        )
        return Compression(shared, q, has_intercept, None)

    level_of = np.asarray(design.codes[order[0]])
    sum_levels = _indicator(level_of, counts[order[0]])
    others = [_indicator(np.asarray(design.codes[i]), counts[i]) for i in order[1:]]
    sum_others = sp.csr_array(sp.vstack(others)) if others else sp.csr_array((0, n))
    level_size = np.bincount(level_of).astype(np.float64)

    # F_j (levels x K) and the products within levels: U minus its level means, squared up.
    q_of_levels, q_of_others = sum_levels @ q, sum_others @ q
    cross = sp.csr_array(sp.hstack([sum_levels @ sum_others.T, sp.csr_array(q_of_levels)]))
    scaled = sp.csr_array(cross.multiply(1 / level_size[:, None]))
    q_within = q - (sum_levels.T @ (q_of_levels / level_size[:, None]))
    z_q = sum_others @ q_within
    others_of_level = sum_others @ sum_levels.T
    means = others_of_level.multiply(1 / level_size[None, :])
    z_z = (sum_others @ sum_others.T - others_of_level @ means.T).toarray()
    within = np.block([[z_z, z_q], [z_q.T, q_within.T @ q_within]])
    k_columns = within.shape[0]

    sizes, class_of, class_count = np.unique(level_size, return_inverse=True, return_counts=True)
    interpolation = class_nodes(sizes)
    nodes, weights = interpolation if interpolation is not None else (sizes, None)
    # Sparse, one row a class, until the last moment: a class has few of the K x K products.
    products = sp.vstack(
        [
            (cross[rows].T @ scaled[rows]).reshape((1, k_columns**2))
            for rows in (np.flatnonzero(class_of == c) for c in range(len(sizes)))
        ]
    )
    between = products.toarray() if weights is None else (products.T @ weights.T).T
    between = np.ascontiguousarray(between).reshape(len(nodes), k_columns, k_columns)

    # Row (c, i) of class_products picks F_ji / n_j for the levels j of class c.
    entry = sp.coo_array(scaled)
    class_products = sp.csr_array(
        (entry.data, (class_of[entry.row] * k_columns + entry.col, entry.row)),
        shape=(len(sizes) * k_columns, len(level_size)),
    )
    class_indicator = sp.csr_array(
        (1 / level_size, (class_of, np.arange(len(level_size)))),
        shape=(len(sizes), len(level_size)),
    )
    shared = Shared(
        within=within,
        between=between,
        sizes=nodes,
        level_sizes=sizes,
        level_counts=class_count.astype(np.float64),
        samples_per_level=np.array([n / counts[i] for i in order]),
        log_det_r=log_det_r,
        r_inverse=r_inverse,
        n=n,
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
        class_products,
        class_indicator,
        weights,
    )
    return Compression(shared, q, has_intercept, grouping)


def statistics(compression: Compression, y: Float[np.ndarray, "n genes"]) -> Block:
    """Statistics of a block of genes.

    ``y`` is samples x genes with any strides, its rows in the design's order. It is read once, in
    tiles that stay in the cache.
    """
    n, genes = y.shape
    shared = compression.shared
    classes, k_columns = shared.between.shape[:2]
    block = Block(
        PerGene(
            np.empty((k_columns, genes)),
            np.empty(genes),
            np.empty((classes, k_columns, genes)),
            np.empty((classes, genes)),
        ),
        np.ones(genes),
        np.zeros((shared.p, genes)),
        *(np.zeros(genes, dtype=bool) for _ in range(3)),
    )
    tile = int(np.clip(_TILE_BYTES // (8 * n), *_TILE_GENES))
    for start in range(0, genes, tile):
        part = slice(start, min(start + tile, genes))
        with np.errstate(all="ignore"):
            _fill(compression, y[:, part], block, part)
    return block


# A tile of measurements: small enough for the cache, large enough that NumPy's calls cost little.
_TILE_BYTES = 1 << 21
_TILE_GENES = (16, 512)
# Smallest share of a sum of squares that may be what is left of a difference: the statistics keep
# twelve digits, and for the more samples the log-likelihood, a multiple of n, eight.
_SMALLEST_SHARE, _SMALLEST_SHARE_PER_SAMPLE = 1e-4, 1e-8


def _fill(c: Compression, raw: np.ndarray, block: Block, part: slice) -> None:
    """The products of one tile, written into ``block[..., part]``."""
    n, q = len(raw), c.q
    # Of one layout from here on: the same bits, however the measurements lie in memory.
    y = np.array(raw, dtype=np.float64, order="C")
    shift = np.zeros(raw.shape[1])
    if c.has_intercept:
        shift = np.full(n, 1 / n) @ y
        shift[~np.isfinite(shift)] = 0.0
        y -= shift
    ols = q.T @ y
    yy = np.einsum("ng,ng->g", y, y)
    squares = yy - np.einsum("pg,pg->g", ols, ols)
    limit = max(_SMALLEST_SHARE, _SMALLEST_SHARE_PER_SAMPLE * n)
    # NaN fails every comparison, so it is looked at again, too.
    plain = (yy > 1e-280) & (yy < 1e280) & (squares > limit * yy)
    scale = np.sqrt(np.where(plain, squares, 1.0) / n)
    block.scale[part] = scale
    block.ols[:, part] = ols + shift * q.sum(axis=0)[:, None]
    if c.grouping is not None:
        within = _fill_products(c.grouping, y, ols, squares, 1 / scale, block.gene, part)
        plain &= within > limit * n
    again = np.flatnonzero(~plain)
    if len(again):
        _fill_carefully(c, raw[:, again], block, part.start + again)


def _fill_products(
    g: Grouping,
    y: Float[np.ndarray, "n g"],
    ols: Float[np.ndarray, "p g"],
    squares: Float[np.ndarray, " g"],
    shrink: Float[np.ndarray, " g"],
    gene: PerGene,
    part: slice,
) -> Float[np.ndarray, " g"]:
    """Products of one tile by differences of sums; ``within_yy`` of it."""
    sums = (g.sum_levels @ y - g.q_of_levels @ ols) * shrink
    others = (g.sum_others @ y - g.q_of_others @ ols) * shrink
    q = len(others)
    gene.within_uy[:q, part] = others - g.others_of_levels @ sums
    gene.within_uy[q:, part] = -(g.q_of_levels / g.level_size).T @ sums
    within = squares * shrink**2 - np.einsum("lg,lg->g", sums, sums / g.level_size)
    gene.within_yy[part] = within
    _fill_classes(g, sums, gene, part)
    return within


def _fill_classes(
    g: Grouping, sums: Float[np.ndarray, "levels g"], gene: PerGene, part: Any
) -> None:
    """Class sums of the level sums of term 1."""
    uy = g.class_products @ sums
    yy = g.class_indicator @ (sums * sums)
    if g.nodes is not None:
        uy = g.nodes @ uy.reshape(yy.shape[0], -1)
        yy = g.nodes @ yy
    gene.between_uy[:, :, part] = uy.reshape(-1, gene.within_uy.shape[0], sums.shape[1])
    gene.between_yy[:, part] = yy


def _fill_carefully(
    c: Compression, raw: np.ndarray, block: Block, part: Int[np.ndarray, " g"]
) -> None:
    """The same from residuals and from deviations from the level means, gene by gene scaled.

    Needed by genes whose sum of squares is NaN, infinite or tiny, or nearly explained.
    """
    y = raw.astype(np.float64)
    for j, gene in enumerate(part):
        y[:, j], block.ols[:, gene], block.scale[gene], defect = _examine(y[:, j], c.q)
        if defect is not None:
            getattr(block, defect)[gene] = True
    g = c.grouping
    if g is None:
        return
    sums = g.sum_levels @ y
    y -= np.take(sums / g.level_size, g.level_of, axis=0)
    others = g.sum_others @ y
    block.gene.within_yy[part] = np.einsum("ng,ng->g", y, y)
    block.gene.within_uy[: len(others), part] = others
    block.gene.within_uy[len(others) :, part] = c.q.T @ y
    _fill_classes(g, sums, block.gene, part)


def _examine(
    y: Float[np.ndarray, " n"], q: Float[np.ndarray, "n p"]
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " p"], float, str | None]:
    """Scaled residual, least-squares coefficients, scale and defect (None: fit it) of one gene."""
    nothing = (
        np.ones(len(y)) / len(y),
        np.zeros(q.shape[1]),
        1.0,
    )  # stands in for a gene that is not fitted
    if not np.isfinite(y).all():
        return *nothing, "non_finite"
    largest = np.abs(y).max()
    if largest == 0:
        return *nothing, "constant"
    y = y / largest
    rounding = 8 * EPS
    if np.abs(y - y.mean()).max() <= rounding:
        return *nothing, "constant"
    ols = q.T @ y
    residual = y - q @ ols
    scale = np.sqrt(np.mean(residual**2))
    if scale <= rounding:
        return *nothing, "explained"
    return residual / scale, ols * largest, float(scale * largest), None
