"""Levels of the eliminated factor of random slopes: their bases, their classes, and class sums.

Where most levels are alone in their class every level is one, and genes keep the sums of levels in
place of their products (`jaxvp.statistics.slopes`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int

from .types import SWEEP_COLUMNS

# Classes are summed at most so many at a time; their number is filled up, to chunks of one size.
CHUNK = 64
# Designs that differ have the same number of classes, if they have fewer.
_FEW = 8
# Two levels have the same R if they agree to this, relative to the largest entry.
_SAME = 1e-13
# Class sums of U'U, for matrix products of all genes: not kept where genes keep the sums of levels
# and these would be more numbers, or one gene is solved at a time.
_MOST_SUMS = 1 << 24
# More classes than this share of the levels: each level is one.
_MOSTLY_ALONE = 0.5


class Classes(NamedTuple):
    """Fields of `SlopeShared`."""

    between: Float[np.ndarray, "PC T"]
    cross: Float[np.ndarray, "C c K"] | None
    roots: Float[np.ndarray, "C c c"]
    counts: Float[np.ndarray, " C"]


class ToClasses(NamedTuple):
    """What turns the sums of a gene's levels into those of classes, as fields of `Grouping`."""

    products: sp.csr_array  # (PC K) x (levels c): what of `a` adds to sum F_a a_b + F_b a_a
    indicator: sp.csr_array  # PC x (levels P)
    squares: Float[np.ndarray, " PC"]  # 1 where a is b
    # rows of (levels c): the a and the b of every pair
    pairs: tuple[Int[np.ndarray, " levels_P"], Int[np.ndarray, " levels_P"]]


def upper(c: int) -> list[tuple[int, int]]:
    """The pairs ``a <= b`` of a level's coefficients, row by row."""
    return [(a, b) for a in range(c) for b in range(a, c)]


def chunked(classes: int) -> int:
    """Room for so many classes: chunks of one size."""
    chunks = max(1, -(-classes // CHUNK))
    return chunks * -(-classes // chunks)


def classes(
    F: Float[np.ndarray, "levels c K"],
    roots: Float[np.ndarray, "levels c c"],
    few_shapes: bool,
) -> tuple[Classes, ToClasses | None]:
    """Classes of levels, their number filled up; no sums where each level is one."""
    class_of, distinct, counts = _distinct(roots)
    by_level = len(distinct) > _MOSTLY_ALONE * len(roots)
    if by_level:
        class_of, distinct, counts = np.arange(len(roots)), roots, np.ones(len(roots))
    room = chunked(len(distinct))
    if few_shapes and not by_level:
        room = max(_FEW, 1 << (room - 1).bit_length())
    found = Classes(
        _between(F, class_of, room, by_level),
        _filled(F, room) if by_level else None,
        _filled(distinct, room),
        _filled(counts, room),
    )
    return found, None if by_level else _class_sums(F, class_of, room)


def level_bases(
    z: Float[np.ndarray, "n c"], codes: Int[np.ndarray, " n"], levels: int
) -> tuple[sp.csr_array, Float[np.ndarray, "levels c c"]]:
    """Q' of all levels, (levels c) x n, and their R. Where a level has rank below c, rows of 0."""
    n, c = z.shape
    values, roots = np.zeros((n, c)), np.zeros((levels, c, c))
    order = np.argsort(codes, kind="stable")
    ends = np.searchsorted(codes[order], np.arange(levels + 1))
    for j in range(levels):
        rows = order[ends[j] : ends[j + 1]]
        if not len(rows):  # lost
            continue
        basis, singular, right = np.linalg.svd(z[rows], full_matrices=False)
        rank = int((singular > 1e-10 * singular[0]).sum()) if singular[0] > 0 else 0
        # Triangular with a positive diagonal: levels of equal Z'Z get equal roots.
        q, r = np.linalg.qr(singular[:rank, None] * right[:rank])
        sign = np.sign(np.where(np.diag(r[:, :rank]) == 0, 1.0, np.diag(r[:, :rank])))
        values[rows, :rank] = basis[:, :rank] @ q * sign
        roots[j, :rank] = r * sign[:, None]
    entries = (np.repeat(np.arange(n), c), codes[:, None] * c + np.arange(c))
    project = sp.csr_array(
        (values.ravel(), (entries[1].ravel(), entries[0])), shape=(levels * c, n)
    )
    project.eliminate_zeros()
    return project, roots


def _distinct(
    roots: Float[np.ndarray, "levels c c"],
) -> tuple[Int[np.ndarray, " levels"], Float[np.ndarray, "C c c"], Float[np.ndarray, " C"]]:
    """Class of every level, the classes' roots and sizes."""
    size = np.abs(roots).max()
    rounded = np.round(roots.reshape(len(roots), -1) / (size * _SAME * 10))
    _, first, class_of, counts = np.unique(
        rounded, axis=0, return_index=True, return_inverse=True, return_counts=True
    )
    return class_of.reshape(-1), roots[first], counts.astype(float)


def _filled(array: Float[np.ndarray, "some ..."], room: int) -> Float[np.ndarray, "room ..."]:
    """With zeros."""
    return np.concatenate([array, np.zeros((room - len(array), *array.shape[1:]))])


def _between(
    F: Float[np.ndarray, "levels c K"],
    class_of: Int[np.ndarray, " levels"],
    classes: int,
    by_level: bool,
) -> Float[np.ndarray, "PC T"]:
    """Class sums of products; none where matrix products of them would be no gain."""
    levels, c, K = F.shape
    pairs, (row, column) = upper(c), np.triu_indices(K)
    if by_level and (K > SWEEP_COLUMNS or len(pairs) * classes * len(row) > _MOST_SUMS):
        return np.zeros((0, len(row)))
    select = sp.csr_array((np.ones(levels), (class_of, np.arange(levels))), shape=(classes, levels))
    found = []
    for a, b in pairs:
        one, other = F[:, a], F[:, b]
        products = one[:, row] * other[:, column]
        if a != b:
            products += other[:, row] * one[:, column]
        found.append(select @ products)
    return np.concatenate(found)


def _class_sums(
    F: Float[np.ndarray, "levels c K"], class_of: Int[np.ndarray, " levels"], classes: int
) -> ToClasses:
    levels, c, K = F.shape
    pairs = upper(c)
    data, rows, columns = [], [], []
    level, column = np.arange(levels)[:, None], np.arange(K)[None]
    for pair, (a, b) in enumerate(pairs):
        row = (pair * classes + class_of[:, None]) * K + column
        for one, other in {(a, b), (b, a)}:
            data.append(F[:, one])
            rows.append(row)
            columns.append(np.broadcast_to(level * c + other, row.shape))
    shape = (len(pairs) * classes * K, levels * c)
    flat = [np.concatenate(parts).ravel() for parts in (data, rows, columns)]
    each = np.array(pairs)
    pair_class = np.arange(len(pairs))[:, None] * classes + class_of[None]
    square = each[:, 0] == each[:, 1]
    weight = np.where(square, 1.0, 2.0)[:, None] * np.ones(levels)
    indicator = sp.csr_array(
        (weight.ravel(), (pair_class.ravel(), np.arange(pair_class.size))),
        shape=(len(pairs) * classes, pair_class.size),
    )
    base = np.arange(levels)[None] * c
    return ToClasses(
        sp.csr_array((flat[0], (flat[1], flat[2])), shape=shape),
        indicator,
        np.repeat(square.astype(np.float64), classes),
        ((base + each[:, :1]).ravel(), (base + each[:, 1:]).ravel()),
    )
