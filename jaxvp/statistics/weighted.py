r"""Statistics of genes that have weights, or observations, of their own.

With ``V = W^-1 + sum_i gamma_i Z_i Z_i'`` every product of `jaxvp.statistics` becomes one with W
between its factors: sizes ``n_j = z_1j'W z_1j``, ``F_j = U'W z_1j``, ``a_j = z_1j'W y``,

    U'V_1^-1 U = S + sum_j F_j F_j' / (n_j (1 + gamma_1 n_j)),    S = U'W U - sum_j F_j F_j' / n_j,

and ``log|V|`` gains ``-sum log w``. Weights are divided by their mean over the observations that
count, those with ``w > 0``; a missing one has weight zero. A level that a gene has lost has ``n_j =
0`` and ``F_j = 0``: it says nothing and needs no other numbering.

The class sums are those of the interpolation nodes of `nodes`, ``C_c = sum_j L_c(log n_j) F_j F_j'
/ n_j``, and cost most: they are formed from the products of `structure` that may differ from zero,
as one sparse matrix (genes and places x levels) times the nodes' weights. All that is *within*
levels is formed from deviations from the weighted level means, of a gene that was residualised
twice on the fixed part (the second time for the digits that a large mean took from the first).

Source: Bates, Maechler, Bolker and Walker (2015), J. Stat. Softw. 67(1), section 2 (prior weights).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from .nodes import chebyshev, class_counts, ends, from_unit, log_range, node_counts, to_unit
from .slope_structure import SlopeStructure
from .structure import Structure
from .types import EPS, Packed, PerGene, triangle

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


def sums(
    s: Structure | SlopeStructure,
    y: Float[np.ndarray, "n genes"],
    w: Float[np.ndarray, "n genes"],
) -> Sums:
    """Everything but the products of `own`.

    Parameters
    ----------
    s
        Of the design.
    y
        Measurements, finite where the weight is above zero.
    w
        Weights, none negative; each gene has one above zero at least.
    """
    counts = w > 0
    n = counts.sum(axis=0).astype(np.float64)
    mean_weight = w.sum(axis=0) / n
    w = np.ascontiguousarray(w / mean_weight)
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


class Room(NamedTuple):
    """Arrays that `own` uses again and again: new memory costs more than what is done with it."""

    gene: PerGene
    one: Float[np.ndarray, "g products"]
    two: Float[np.ndarray, "g products"]
    gaps: Float[np.ndarray, "g J C"]


def room_for(s: Structure, nodes: int, genes: int) -> Room:
    """For the products of so many genes."""
    K, tile = len(s.term_of_other) + s.Q.shape[1], s.tile.genes
    gene = PerGene(
        np.zeros((K, genes)),
        np.ones(genes),
        np.zeros((nodes, K, genes)),
        np.zeros((nodes, genes)),
        Packed(
            np.zeros((K, K, genes)),
            np.zeros((nodes, K * (K + 1) // 2, genes)),
            np.ones((nodes, genes)),
            np.ones((s.levels, genes)),
            np.ones((s.levels, genes)),
            np.ones(genes),
        ),
    )
    one, two = np.empty((2, tile, len(s.first)))
    return Room(gene, one, two, np.empty((tile, s.levels, nodes)))


def own(s: Structure, found: Sums, nodes: int, room: Room | None = None) -> PerGene:
    """Products of genes that need no more than ``nodes`` nodes (J of them: one class a level).

    They are written into the first genes of ``room``, whose products are returned; what no pair of
    columns shares stays zero.
    """
    genes = found.w.shape[1]
    room = room_for(s, nodes, genes) if room is None else room
    out = room.gene
    assert isinstance(out.own, Packed)
    out.own.level_sizes[:, :genes] = found.level_size
    out.own.n[:genes] = found.n
    tile = s.tile.genes
    for start in range(0, genes, tile):
        _fill(s, found, slice(start, min(start + tile, genes)), nodes, room)
    return out


def _fill(s: Structure, found: Sums, part: slice, nodes: int, room: Room) -> None:
    """One tile of genes."""
    out = room.gene
    assert isinstance(out.own, Packed)
    w, y, size = found.w[:, part], found.y[:, part], found.level_size[:, part]
    wy = w * y
    p, q = s.Q.shape[1], len(s.term_of_other)
    share = np.where(size > 0, 1 / np.where(size > 0, size, 1.0), 0.0)
    a = s.sum_levels @ wy
    columns = [s.sum_levels @ (w * s.Q[:, i, None]) for i in range(p)]
    entries = np.concatenate([s.sum_cells @ w, *columns, a])
    # Genes first: the entries of one are in the cache while their products are formed.
    entries *= np.take(np.sqrt(share), s.entry_level, axis=0)
    scaled = np.ascontiguousarray(entries.T)
    products, second = room.one[: len(scaled)], room.two[: len(scaled)]
    np.take(scaled, s.first, axis=1, out=products, mode="clip")  # "raise" would buffer them
    np.take(scaled, s.second, axis=1, out=second, mode="clip")
    products *= second
    _classes(s, products, size, part, nodes, room)

    def deviations(values, level_sums):
        return values - np.take(level_sums * share, s.level_of, axis=0)

    within = out.own.within
    d = deviations(y, a)
    wd = w * d
    out.within_yy[part] = (wd * d).sum(axis=0)
    out.within_uy[:q, part] = s.sum_others @ wd
    out.within_uy[q:, part] = over_samples(s.Q, wd)
    centred = [deviations(s.Q[:, i, None], columns[i]) for i in range(p)]
    for i in range(p):
        wd = w * centred[i]
        within[:q, q + i, part] = within[q + i, :q, part] = s.sum_others @ wd
        for j in range(i + 1):
            value = (wd * centred[j]).sum(axis=0)
            within[q + i, q + j, part] = within[q + j, q + i, part] = value
    inner = s.place[1] < q
    one, two = (columns[inner] for columns in s.place)
    between = np.add.reduceat(products, s.indptr[:-1], axis=1)[:, inner].T
    within[one, two, part] = -between
    one, two = s.pair
    within[one, two, part] += s.sum_pairs @ w
    upper = np.triu_indices(q, 1)
    within[upper[1], upper[0], part] = within[upper[0], upper[1], part]


def _classes(
    s: Structure,
    products: Float[np.ndarray, "g products"],
    size: Float[np.ndarray, "J g"],
    part: slice,
    nodes: int,
    room: Room,
) -> None:
    """Class sums of all products of two entries of one level."""
    out = room.gene
    assert isinstance(out.own, Packed)
    one, two = s.place
    places = len(one)
    there = size > 0
    if nodes == s.levels:
        sums = np.zeros((nodes, places, size.shape[1]))
        sums[s.level, np.repeat(np.arange(places), np.diff(s.indptr))] = products.T
        out.own.sizes[:, part] = np.where(there, size, 1.0)
    else:
        weights = room.gaps[: size.shape[1]]
        out.own.sizes[:, part] = _shares(size, nodes, weights)
        for gene in np.flatnonzero(node_counts(log_range(size)[1], s.levels, len(s.Q)) > nodes):
            sizes = _shares_with_ends(size[:, gene], nodes, len(s.Q), weights[gene])
            out.own.sizes[:, part.start + gene] = sizes
        sums = s.tile.times(products, weights).transpose(2, 1, 0)
    K = out.within_uy.shape[0]
    inner = two < K
    out.own.packed[:, triangle(K)[one[inner], two[inner]], part] = sums[:, inner]
    edge = (s.place[1] == K) & (s.place[0] < K)
    out.between_uy[:, s.place[0][edge], part] = sums[:, edge]
    out.between_yy[:, part] = sums[:, -1]


def _shares(
    size: Float[np.ndarray, "J g"], nodes: int, out: Float[np.ndarray, "g J C"]
) -> Float[np.ndarray, "C g"]:
    """Sizes of the nodes; into ``out``, how much of each level is at each of them."""
    there = size > 0
    middle, half = log_range(size)
    knots, barycentric = chebyshev(nodes)
    z = to_unit(np.where(there, np.log(np.where(there, size, 1.0)) - middle, 0.0), half)
    np.subtract(z.T[:, :, None], knots, out=out)
    # A level at a node has a gap of rounding, or none: its share is one, to rounding.
    np.add(out, 1e-300, out=out)
    np.divide(barycentric, out, out=out)
    out *= (1 / np.einsum("gjc->gj", out))[:, :, None]
    return np.exp(middle + from_unit(knots[:, None], half))


def _shares_with_ends(
    size: Float[np.ndarray, " J"], classes: int, n: int, out: Float[np.ndarray, "J C"]
) -> Float[np.ndarray, " C"]:
    """The same of a gene whose ends are classes of their own."""
    _, below, above = ends(size, n)
    there = np.flatnonzero(size > 0)
    order = there[np.argsort(size[there], kind="stable")]
    middle = order[below : len(order) - above]
    own = np.concatenate([order[:below], order[len(order) - above :]])
    out[:] = 0.0
    shares = np.empty((1, len(middle), classes - len(own)))
    sizes = _shares(size[middle, None], classes - len(own), shares)[:, 0]
    out[middle, : len(sizes)] = shares[0]
    out[own, np.arange(len(sizes), classes)] = 1.0
    return np.concatenate([sizes, size[own]])
