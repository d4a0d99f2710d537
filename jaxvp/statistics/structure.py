"""Where the products of weights go: the design's side of statistics that every gene has for itself.

With weights ``W`` of a gene's own every product is a sum of weights over samples, ``Z_1'WZ_1``,
``Z_1'WZ_2``, ``Q'WQ``. Which sums there are depends on the design alone: the *cells* (level of term
1, column of another term) that hold a sample, the pairs of columns that meet in one. They are found
once (`Plan`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int

from jaxvp.design import Design

from .compression import indicator, indicators
from .row_sums import RowSums, rounded, row_sums
from .types import Shared, triangle


class Plan(NamedTuple):
    """Which rows are taken and which are added, for the products of a tile of genes.

    Tables of samples, of entries and of sums have a row of zeros after their last. *Entries* are
    the values of ``F_j = U'W z_1j`` that may differ from zero, and with them, as a last column,
    ``a_j = y'W z_1j``: cells first, then the columns of Q, then a. *Products* are those of two
    entries of one level; their *places* are the pairs of columns of U, the upper triangle row by
    row, then the columns of U beside y, then y beside y.
    """

    Q: Float[np.ndarray, "n p"]
    level_of: Int[np.ndarray, " n"]
    levels: RowSums  # of samples
    others: RowSums  # of samples
    cells: RowSums  # of samples
    pairs: RowSums  # of samples: of columns of other terms that meet
    pair: Int[np.ndarray, "q q"]  # where two columns are among these
    entry_level: Int[np.ndarray, " entries"]
    first: Int[np.ndarray, " products"]  # entries
    second: Int[np.ndarray, " products"]
    slot: Int[np.ndarray, " products"]  # place * J + level; none for what fills up
    # The first stage of the sums of products over levels, and the others.
    groups: tuple[Int[np.ndarray, "at_once groups"], ...]  # first, second and level
    places: RowSums


class Structure(NamedTuple):
    """Of a design: K columns U = [Z_2 ... Z_k, Q], q of them indicators; J levels of term 1."""

    Q: Float[np.ndarray, "n p"]
    X: Float[np.ndarray, "n p"]  # centred, for variances of the fixed part
    sum_levels: sp.csr_array  # J x n
    sum_others: sp.csr_array  # q x n
    term_of_other: Int[np.ndarray, " q"]
    plan: Plan

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
    columns = [codes[t + 1] + ends[t] for t in range(len(codes) - 1)]
    sum_levels = indicator(first, levels) if codes else sp.csr_array((0, n))
    sum_others = indicators(columns, int(ends[-1]), n)
    return Structure(
        Q,
        design.X - design.X.mean(axis=0),
        sum_levels,
        sum_others,
        np.repeat(np.arange(1, len(codes)), shared.levels[1:]) if codes else np.zeros(0, int),
        _plan(Q, first, columns, sum_levels, sum_others),
    )


def _plan(
    Q: Float[np.ndarray, "n p"],
    level_of: Int[np.ndarray, " n"],
    columns: list[Int[np.ndarray, " n"]],
    sum_levels: sp.csr_array,
    sum_others: sp.csr_array,
) -> Plan:
    (n, p), levels, q = Q.shape, len(sum_levels.indptr) - 1, len(sum_others.indptr) - 1
    K = q + p
    cells, cell_of = _numbered([level_of.astype(np.int64) * max(q, 1) + c for c in columns])
    pairs, pair_of = _numbered(
        [a.astype(np.int64) * q + b for i, a in enumerate(columns) for b in columns[i:]]
    )
    cell_rows, pair_rows = rounded(len(cells)), rounded(len(pairs))
    pair = np.full((q, q), pair_rows)
    one, two = pairs // max(q, 1), pairs % max(q, 1)
    pair[one, two] = pair[two, one] = np.arange(len(pairs))

    whole = np.tile(np.arange(levels), p + 1)
    entry_level = np.concatenate([cells // max(q, 1), whole])
    entry_column = np.concatenate([cells % max(q, 1), np.repeat(np.arange(q, K + 1), levels)])
    one, two = _products(entry_level, entry_column)
    a, b = entry_column[one], entry_column[two]  # the smaller one first
    inner = triangle(K)[np.minimum(a, K - 1), np.minimum(b, K - 1)] if K else a
    place = np.where(b < K, inner, K * (K + 1) // 2 + a)
    order = np.lexsort((entry_level[one], place))
    one, two, place = one[order], two[order], place[order]
    level = entry_level[one]
    count = K * (K + 1) // 2 + K + 1
    indptr = np.append(0, np.cumsum(np.bincount(place, minlength=count)))
    products, *stages = row_sums(indptr, np.arange(len(place)), len(place))
    # Rows that are there for their number: entries that are zero, products of these.
    entry = np.append(np.arange(len(cells)), cell_rows + np.arange(len(whole)))
    nothing, none = cell_rows + len(whole), rounded(len(place)) - len(place)
    one, two = entry[one], entry[two]
    groups = tuple(
        np.append(numbers, zero).astype(np.int32)[products]
        for numbers, zero in ((one, nothing), (two, nothing), (level, 0))
    )
    return Plan(
        Q,
        level_of.astype(np.int32),
        _of_rows(sum_levels, n, levels),
        _of_rows(sum_others, n, q),
        _of_rows(indicators(cell_of, len(cells), n), n, cell_rows),
        _of_rows(indicators(pair_of, len(pairs), n), n, pair_rows),
        pair.astype(np.int32),
        np.concatenate([cells // max(q, 1), np.zeros(cell_rows - len(cells)), whole]).astype(
            np.int32
        ),
        np.pad(one, (0, none), constant_values=nothing).astype(np.int32),
        np.pad(two, (0, none), constant_values=nothing).astype(np.int32),
        np.pad(place * levels + level, (0, none), constant_values=count * levels),
        groups,
        tuple(stages),
    )


def _of_rows(ones: sp.csr_array, n: int, sums: int) -> RowSums:
    """As many sums, some of them of nothing."""
    indptr = np.append(ones.indptr, np.repeat(ones.indptr[-1:], sums + 1 - len(ones.indptr)))
    return row_sums(indptr, ones.indices, n)


def _numbered(
    keys: list[Int[np.ndarray, " n"]],
) -> tuple[Int[np.ndarray, " distinct"], list[Int[np.ndarray, " n"]]]:
    """The distinct keys of all lists, and each list as places among them."""
    if not keys:
        return np.zeros(0, dtype=np.int64), []
    distinct, places = np.unique(np.concatenate(keys), return_inverse=True)
    return distinct, np.split(places.reshape(-1), len(keys))


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
