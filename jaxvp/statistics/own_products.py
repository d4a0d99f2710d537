r"""Products of genes that have weights, or observations, of their own.

The class sums of `weighted` are those of the interpolation nodes of `nodes`, ``C_c = sum_j L_c(log
n_j) F_j F_j' / n_j``, and cost most: they are formed from the products of `structure` that may
differ from zero, as one sparse matrix (genes and places x levels) times the nodes' shares L_c. The
shares of a level that a gene has add up to one: the sum over the nodes is ``sum_j F_j F_j' / n_j``,
which `within` lacks. ``log|V_1|`` uses the true sizes. All that is *within* levels is formed from
deviations from the weighted level means.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jaxvp.memory import filled

from .nodes import chebyshev, ends, from_unit, log_range, node_counts, to_unit
from .structure import Structure
from .types import Packed, PerGene, triangle
from .weighted import Sums, over_samples


class Room(NamedTuple):
    """Arrays that `own` uses again and again: new memory costs more than what is done with it."""

    gene: PerGene
    one: Float[np.ndarray, "g products"]
    two: Float[np.ndarray, "g products"]
    shares: Float[np.ndarray, "g J C"]
    turned: Float[np.ndarray, "C g J"]


def room_for(s: Structure, nodes: int, genes: int) -> Room:
    """For the products of so many genes."""
    K, tile = len(s.term_of_other) + s.Q.shape[1], s.tile.genes
    gene = PerGene(
        filled(0.0, K, genes),
        filled(1.0, genes),
        filled(0.0, nodes, K, genes),
        filled(0.0, nodes, genes),
        Packed(
            filled(0.0, K, K, genes),
            filled(0.0, K * (K + 1) // 2, nodes, genes),
            filled(1.0, nodes, genes),
            filled(1.0, s.levels, genes),
            filled(1.0, s.levels, genes),
            filled(1.0, genes),
        ),
    )
    one, two = np.empty((2, tile, len(s.first)))
    shares = np.empty((tile, s.levels, nodes))
    return Room(gene, one, two, shares, np.empty((nodes, tile, s.levels)))


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
    w, size = found.w[:, part], found.level_size[:, part]
    (n, p), q, J, g = s.Q.shape, len(s.term_of_other), s.levels, w.shape[1]
    share = np.where(size > 0, 1 / np.where(size > 0, size, 1.0), 0.0)
    columns = np.empty((n, p + 1, g))  # Q, and y
    columns[:, :p] = s.Q[:, :, None]
    columns[:, p] = found.y[:, part]
    weighted = columns * w[:, None]
    level_sums = (s.sum_levels @ weighted.reshape(n, -1)).reshape(J, p + 1, g)
    sums = s.sum_weights @ w  # of cells, then of pairs
    cells = len(sums) - len(s.pair[0])
    entries = np.concatenate([sums[:cells], level_sums.swapaxes(0, 1).reshape(-1, g)])
    between = _classes(s, entries, size, share, part, nodes, room)

    level_sums *= share[:, None]
    columns -= np.take(level_sums.reshape(J, -1), s.level_of, axis=0).reshape(n, p + 1, g)
    np.multiply(columns, w[:, None], out=weighted)
    others = (s.sum_others @ weighted.reshape(n, -1)).reshape(q, p + 1, g)
    within = out.own.within
    for i in range(p):
        within[:q, q + i, part] = within[q + i, :q, part] = others[:, i]
        for j in range(i + 1):
            value = np.einsum("ng,ng->g", weighted[:, i], columns[:, j])
            within[q + i, q + j, part] = within[q + j, q + i, part] = value
    out.within_uy[:q, part] = others[:, p]
    out.within_uy[q:, part] = over_samples(s.Q, weighted[:, p])
    out.within_yy[part] = np.einsum("ng,ng->g", weighted[:, p], columns[:, p])
    inner = s.place[1] < q
    one, two = (columns[inner] for columns in s.place)
    within[one, two, part] = -between[:, inner].T
    one, two = s.pair
    within[one, two, part] += sums[cells:]
    lower = np.tril_indices(q, -1)
    within[lower[0], lower[1], part] = within[lower[1], lower[0], part]


def _classes(
    s: Structure,
    entries: Float[np.ndarray, "entries g"],
    size: Float[np.ndarray, "J g"],
    share: Float[np.ndarray, "J g"],
    part: slice,
    nodes: int,
    room: Room,
) -> Float[np.ndarray, "g places"]:
    """Class sums of all products of two entries of one level; the sums over all classes."""
    own, out = room.gene.own, room.gene
    assert isinstance(own, Packed)
    K, g = out.within_uy.shape[0], size.shape[1]
    entries *= np.take(np.sqrt(share), s.entry_level, axis=0)
    # Genes first: the entries of one are in the cache while their products are formed.
    scaled = np.ascontiguousarray(entries.T)
    products, second = room.one[:g], room.two[:g]
    np.take(scaled, s.first, axis=1, out=products, mode="clip")  # "raise" would buffer them
    np.take(scaled, s.second, axis=1, out=second, mode="clip")
    products *= second
    if nodes == s.levels:
        sums = np.zeros((g, len(s.indptr) - 1, nodes))
        sums[:, np.repeat(np.arange(sums.shape[1]), np.diff(s.indptr)), s.level] = products
        own.sizes[:, part] = np.where(size > 0, size, 1.0)
    else:
        ranges, turned = log_range(size), room.turned[:, :g]
        own.sizes[:, part] = shares_of(size, ranges, turned)
        for gene in np.flatnonzero(node_counts(ranges[1], s.levels, len(s.Q)) > nodes):
            sizes = shares_with_ends(size[:, gene], len(s.Q), turned[:, gene])
            own.sizes[:, part.start + gene] = sizes
        shares = room.shares[:g]
        shares[:] = np.moveaxis(turned, 0, -1)
        sums = s.tile.times(products, shares)
    whole = s.inner  # places of two columns of U; those of y come after
    places = triangle(K)[s.place[0][:whole], s.place[1][:whole]]
    own.packed[places, :, part] = sums[:, :whole].transpose(1, 2, 0)
    edge = s.place[0][whole:-1]
    out.between_uy[:, edge, part] = sums[:, whole:-1].transpose(2, 1, 0)
    out.between_yy[:, part] = sums[:, -1].T
    return sums @ np.ones(nodes)


def shares_of(
    size: Float[np.ndarray, "J g"],
    ranges: tuple[Float[np.ndarray, " g"], Float[np.ndarray, " g"]],
    out: Float[np.ndarray, "C g J"],
) -> Float[np.ndarray, "C g"]:
    """Sizes of the nodes; into ``out``, how much of each level is at each of them."""
    middle, half = ranges
    knots, barycentric = chebyshev(len(out))
    t = np.log(np.where(size > 0, size, np.exp(middle)))
    z = np.ascontiguousarray(to_unit(t - middle, half).T)
    total = np.zeros_like(z)
    for share, knot, weight in zip(out, knots, barycentric, strict=True):
        # A level at a node has a gap of rounding, or none: its share is one, to rounding.
        np.subtract(z, knot, out=share)
        np.add(share, 1e-300, out=share)
        np.divide(weight, share, out=share)
        total += share
    np.divide(1.0, total, out=total)
    out *= total
    return np.exp(middle + from_unit(knots[:, None], half))


def shares_with_ends(
    size: Float[np.ndarray, " J"], n: int, out: Float[np.ndarray, "C J"]
) -> Float[np.ndarray, " C"]:
    """The same of a gene whose ends are classes of their own."""
    _, below, above = ends(size, n)
    there = np.flatnonzero(size > 0)
    order = there[np.argsort(size[there], kind="stable")]
    middle = order[below : len(order) - above]
    own = np.concatenate([order[:below], order[len(order) - above :]])
    nodes = len(out) - len(own)
    rest = size[middle, None]
    shares = np.empty((nodes, 1, len(middle)))
    sizes = shares_of(rest, log_range(rest), shares)[:, 0]
    out[:] = 0.0
    out[:nodes, middle] = shares[:, 0]
    out[np.arange(nodes, len(out)), own] = 1.0
    return np.concatenate([sizes, size[own]])
