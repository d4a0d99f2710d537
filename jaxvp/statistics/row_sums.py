"""Sums of rows, the same rows for all genes, in compiled code.

A sum over the levels or cells of a design is a sparse matrix of ones times a table whose rows are
samples, with the genes of a tile on the last axis. XLA's own sums of segments go through the rows
one by one. Here groups of eight rows are added by one fused kernel, whose inner loop runs over the
genes; then groups of eight of the results, until every sum is one row. Numbers of rows are rounded
up, so that many designs of the same sizes run the same program.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from operator import add
from typing import TypeAlias

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxvp.target import fence

from .types import Array

_AT_ONCE = 8

# Stage after stage: the numbers of the rows that are added, (at once, sums).
RowSums: TypeAlias = tuple[Int[Array, "_ _"], ...]


def row_sums(
    indptr: Int[np.ndarray, " sums_and_1"], members: Int[np.ndarray, " all"], rows: int
) -> RowSums:
    """Sum i is that of the rows ``members[indptr[i] : indptr[i + 1]]``; row ``rows`` is zero."""
    stages = []
    while True:
        counts = np.diff(indptr)
        last = counts.max(initial=0) <= _AT_ONCE
        groups = np.ones_like(counts) if last else -(-counts // _AT_ONCE)
        place = np.arange(len(members)) - np.repeat(indptr[:-1], counts)
        group = np.repeat(np.cumsum(groups) - groups, counts) + place // _AT_ONCE
        # One group more at least, of nothing: the next stage's row of zeros.
        groups_and_more = len(groups) if last else rounded(int(groups.sum()) + 1)
        table = np.full((_AT_ONCE, groups_and_more), rows, dtype=np.int32)
        table[place % _AT_ONCE, group] = members
        stages.append(table)
        if last:
            return tuple(stages)
        indptr, members = np.append(0, np.cumsum(groups)), np.arange(groups.sum())
        rows = groups_and_more - 1


def rounded(count: int) -> int:
    """Up to one of few numbers: by a quarter at most, or to a multiple of 64."""
    step = max(64, 1 << max(0, count.bit_length() - 3))
    return -(-count // step) * step


def summed(stages: RowSums, table: Float[Array, "rows ..."]) -> Float[Array, "..."]:
    """The sums of a table whose last row is zero."""
    for stage in stages:
        table = fence(lambda t, s: added(take(t, numbers) for numbers in s), table, stage)
    return table


def with_zeros(rows: Float[Array, "rows ..."]) -> Float[Array, "rows_and_1 ..."]:
    """A row of zeros after the last."""
    return jnp.concatenate([rows, jnp.zeros((1, *rows.shape[1:]), rows.dtype)])


def added(terms: Iterable[Float[Array, "sums ..."]]) -> Float[Array, "..."]:
    """Their sum."""
    return reduce(add, terms)


def take(table: Float[Array, "rows ..."], numbers: Int[Array, "*some"]) -> Float[Array, "..."]:
    """Rows of these numbers."""
    return jnp.asarray(table).at[numbers].get(mode="promise_in_bounds")
