"""Where the products of weights go: the design's side of statistics that every gene has for itself.

With weights ``W`` of a gene's own every product is a sum of weights over samples, ``Z_1'WZ_1``,
``Z_1'WZ_2``, ``Q'WQ``. Which sums there are depends on the design alone: the *cells* (level of term
1, column of another term) that hold a sample, the pairs of columns that meet in one. They are found
once; a gene then costs sparse matrices times its weights.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int

from jaxvp.design import Design

from .compression import indicator
from .types import Shared

# Products of the genes that are formed at once. With 1 MiB, which stays in the second-level cache,
# one thread is as fast, but two together were as slow as one: they wait for the interpreter.
_TILE_BYTES = 4 << 20
_TILE_GENES = 32


class Tile(NamedTuple):
    """A sparse matrix of a tile: rows are genes and places, columns genes and levels."""

    indices: Int[np.ndarray, " all"]
    indptr: Int[np.ndarray, " rows_and_1"]
    places: int
    genes: int

    @classmethod
    def of(
        cls,
        level: Int[np.ndarray, " products"],
        indptr: Int[np.ndarray, " places_and_1"],
        levels: int,
    ) -> Tile:
        count = len(level)
        genes = int(np.clip(_TILE_BYTES // (8 * max(count, 1)), 4, _TILE_GENES))
        gene = np.arange(genes)[:, None]
        indices = (level + gene * levels).reshape(-1)
        starts = np.append((indptr[:-1] + gene * count).reshape(-1), genes * count)
        return cls(indices.astype(np.int32), starts.astype(np.int32), len(indptr) - 1, genes)

    def times(
        self,
        products: Float[np.ndarray, "g products"],
        weights: Float[np.ndarray, "g J C"],
    ) -> Float[np.ndarray, "g places C"]:
        """Sum over the levels."""
        genes, levels, nodes = weights.shape
        places = self.places
        data, indices = products.reshape(-1), self.indices[: products.size]
        matrix = sp.csr_array(
            (data, indices, self.indptr[: genes * places + 1]),
            shape=(genes * places, genes * levels),
        )
        return (matrix @ weights.reshape(genes * levels, nodes)).reshape(genes, places, nodes)


class Structure(NamedTuple):
    """Of a design: K columns U = [Z_2 ... Z_k, Q], of which q are indicators; J levels of term 1.

    *Entries* are the values of ``F_j = U'W z_1j`` that may differ from zero, and with them, as a
    last column, ``a_j = y'W z_1j``: cells first, then the columns of Q, then a. *Products* are
    those of two entries of one level.
    """

    Q: Float[np.ndarray, "n p"]
    X: Float[np.ndarray, "n p"]  # centred, for variances of the fixed part
    level_of: Int[np.ndarray, " n"]
    sum_levels: sp.csr_array  # J x n
    sum_others: sp.csr_array  # q x n
    sum_weights: sp.csr_array  # cells, and pairs of columns of other terms that meet x n
    pair: tuple[Int[np.ndarray, " pairs"], Int[np.ndarray, " pairs"]]
    entry_level: Int[np.ndarray, " entries"]
    first: Int[np.ndarray, " products"]  # entries
    second: Int[np.ndarray, " products"]
    level: Int[np.ndarray, " products"]
    place: tuple[Int[np.ndarray, " places"], Int[np.ndarray, " places"]]  # columns, of K + 1
    indptr: Int[np.ndarray, " places_and_1"]  # products, sorted by place
    inner: int  # places of two columns of U come first, those of y after them
    tile: Tile
    term_of_other: Int[np.ndarray, " q"]

    @property
    def levels(self) -> int:
        """J."""
        return len(self.sum_levels.indptr) - 1


def structure(design: Design, shared: Shared) -> Structure:
    """Find the sums that weights need; `shared` says in which order the terms come."""
    n, p = design.X.shape
    Q = design.X @ np.asarray(shared.r_inverse)
    codes = [np.asarray(design.codes[i]) for i in shared.order]
    first = codes[0] if codes else np.zeros(n, dtype=np.int64)
    levels = shared.levels[0] if codes else 0
    ends = np.cumsum((0, *shared.levels[1:])).astype(np.int64)
    q = int(ends[-1])
    columns = [codes[t + 1] + ends[t] for t in range(len(codes) - 1)]

    cells, cell_of = _numbered([first.astype(np.int64) * max(q, 1) + column for column in columns])
    pairs, pair_of = _numbered(
        [a.astype(np.int64) * q + b for i, a in enumerate(columns) for b in columns[i:]]
    )
    everyone = np.arange(levels)
    entry_level = np.concatenate([cells // max(q, 1), np.tile(everyone, p + 1)])
    entry_column = np.concatenate([cells % max(q, 1), np.repeat(np.arange(q, q + p + 1), levels)])
    one, two = _products(entry_level, entry_column)
    place = entry_column[one] * (q + p + 1) + entry_column[two]
    place += (q + p + 1) ** 2 * (entry_column[two] == q + p)
    order = np.lexsort((entry_level[one], place))
    one, two, place = one[order], two[order], place[order]
    distinct, starts = np.unique(place, return_index=True)
    indptr = np.append(starts, len(place))
    inner = int((distinct < (q + p + 1) ** 2).sum())
    distinct %= (q + p + 1) ** 2
    return Structure(
        Q,
        design.X - design.X.mean(axis=0),
        first,
        indicator(first, levels) if codes else sp.csr_array((0, n)),
        _indicators(columns, q, n),
        sp.csr_array(
            sp.vstack([_indicators(cell_of, len(cells), n), _indicators(pair_of, len(pairs), n)])
        ),
        (pairs // max(q, 1), pairs % max(q, 1)),
        entry_level,
        one,
        two,
        entry_level[one],
        (distinct // (q + p + 1), distinct % (q + p + 1)),
        indptr,
        inner,
        Tile.of(entry_level[one], indptr, levels),
        np.repeat(np.arange(1, len(codes)), shared.levels[1:]) if codes else np.zeros(0, int),
    )


def _numbered(
    keys: list[Int[np.ndarray, " n"]],
) -> tuple[Int[np.ndarray, " distinct"], list[Int[np.ndarray, " n"]]]:
    """The distinct keys of all lists, and each list as places among them."""
    if not keys:
        return np.zeros(0, dtype=np.int64), []
    distinct, places = np.unique(np.concatenate(keys), return_inverse=True)
    return distinct, np.split(places.reshape(-1), len(keys))


def _indicators(codes: list[Int[np.ndarray, " n"]], rows: int, n: int) -> sp.csr_array:
    """One row a code; a sample has an entry for each of the lists."""
    if not codes:
        return sp.csr_array((rows, n))
    samples = np.tile(np.arange(n), len(codes))
    where = np.concatenate(codes)
    return sp.csr_array((np.ones(len(where)), (where, samples)), shape=(rows, n))


def _products(
    level: Int[np.ndarray, " entries"], column: Int[np.ndarray, " entries"]
) -> tuple[Int[np.ndarray, " products"], Int[np.ndarray, " products"]]:
    """All pairs of entries of one level, the smaller column first."""
    order = np.lexsort((column, level))
    counts = np.bincount(level) if len(level) else np.zeros(0, dtype=np.int64)
    starts = np.cumsum(counts) - counts
    one, two = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
    for count in np.unique(counts[counts > 0]):  # levels with as many entries at once
        begin = starts[counts == count][:, None]
        i, j = np.triu_indices(count)
        one.append((begin + i[None]).reshape(-1))
        two.append((begin + j[None]).reshape(-1))
    return order[np.concatenate(one)], order[np.concatenate(two)]
