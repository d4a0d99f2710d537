r"""Random slopes: the grouping factor with the most coefficients, eliminated level by level.

Level j of a factor has ``c`` coefficients ``u_j ~ N(0, sigma^2 Gamma)``, the samples of the level
their multipliers ``Z_j`` (n_j x c). With the thin QR decomposition ``Z_j = Q_j R_j`` and
``F_j = Q_j'U``, ``a_j = Q_j'y``, eliminating the factor gives, for ``V_1 = I + Z Gamma Z'``,

    U' V_1^-1 U = S + sum_j F_j' W_j F_j,      W_j = (I + R_j Gamma R_j')^-1,
    S           = sum_j (U_j - Q_j F_j)'(U_j - Q_j F_j)   ("within": what no level can explain),
    log|V_1|    = sum_j log|I + R_j Gamma R_j'|,

and the same for ``U'y`` and ``y'y``. A random intercept is the case ``c = 1``, where ``R_j`` is
``sqrt(n_j)``. Levels with the same ``R_j`` (all people seen at the same times) form a class, in
which the entries of W are shared: what is kept are the class sums of ``F_ja F_jb' + F_jb F_ja'``
for the pairs ``a <= b`` (once for ``a = b``).

*Units and origins.* A correlated block of components is orthonormalised over the samples,
``Z = Z~ T^-1`` with ``Z~'Z~ = n I``, so that ``Gamma = T Gamma~ T'``: whether time is in days or
hours, since birth or since 1970, the numbers fitted are the same. Components of their own are
scaled.

The sums over samples are those of `jaxvp.statistics.products`, with ``Q_j`` for the indicators.

*Weights.* One weight a sample multiplies the rows of the model by its square root, those of ``Z_j``
too: the levels' R then all differ, and each is a class. Weights and missing values of a gene's own
are in `own_slopes`.

More than 300 lines: what all genes share, and how it is made, are one formula after the other.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import equinox as eqx
import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int

from jaxvp.design import Design

from .compression import Compression, Grouping, Weighting, fixed_part, ones_in
from .types import Array, SlopeOwn

# Classes are summed so many at a time; their number is filled up to a multiple of it.
CHUNK = 8
# Two levels have the same R if they agree to this, relative to the largest entry.
_SAME = 1e-13


class RandomBlock(NamedTuple):
    """A correlated term: how many coefficients a level has, and how many levels."""

    size: int
    levels: int
    eliminated: bool
    design: tuple[int, ...]  # places of its components in the design


class SlopeShared(eqx.Module):
    """What all genes share, as `jaxvp.statistics.Shared`; the eliminated blocks come first.

    Where a gene has `SlopeOwn` products, these stand in for fields, with the gene axis last.
    """

    within: Float[Array, "K K *genes"]
    between: Float[Array, "PC K K *genes"]  # class sums by pair, then class
    roots: Float[Array, "C c c *genes"]  # R of every class
    counts: Float[Array, "C *genes"]  # levels in it
    samples_per_level: Float[Array, " blocks"]
    log_det_r: Float[Array, ""]
    r_inverse: Float[Array, "p p"]
    n: Float[Array, "*genes"]  # samples, those of weight zero not counted
    p: int = eqx.field(static=True)
    blocks: tuple[RandomBlock, ...] = eqx.field(static=True)

    @property
    def n_columns(self) -> int:
        """K: columns left when the first factor is eliminated."""
        return sum(b.size * b.levels for b in self.blocks if not b.eliminated) + self.p

    @property
    def order(self) -> tuple[int, ...]:
        """The design's place of every coefficient."""
        return tuple(place for block in self.blocks for place in block.design)

    @property
    def levels(self) -> tuple[int, ...]:
        """Number of levels, by block."""
        return tuple(block.levels for block in self.blocks)

    def of(self, own: SlopeOwn | None) -> SlopeShared:
        """The same with a gene's own products, if it has any."""
        return self if own is None else dataclasses.replace(self, **vars(own))


class Slopes(NamedTuple):
    """What turns the fitted blocks into those of the design, in the units of its columns."""

    transforms: tuple[Float[np.ndarray, "_ _"], ...]  # T, by block of `SlopeShared`
    order: tuple[int, ...]  # blocks of `SlopeShared` -> blocks of the design

    @property
    def count(self) -> int:
        """Entries of all relative factors."""
        return sum(len(t) * (len(t) + 1) // 2 for t in self.transforms)

    def in_formula_order(
        self, factors: list[Float[np.ndarray, "_ _ genes"]]
    ) -> Float[np.ndarray, "genes m"]:
        """Lower triangles of the design's blocks, each column by column: lme4's theta."""
        parts: list = [None] * len(factors)
        for place, factor in zip(self.order, factors, strict=True):
            column, row = np.triu_indices(len(factor))
            parts[place] = factor[row, column].T
        return np.hstack(parts)


def factors(design: Design) -> list[list[int]]:
    """Blocks of the design that have a grouping factor in common."""
    found: list[list[int]] = []
    for number, block in enumerate(design.blocks):
        codes = design.codes[block[0]]
        for group in found:
            if np.array_equal(design.codes[design.blocks[group[0]][0]], codes):
                group.append(number)
                break
        else:
            found.append([number])
    return found


def orthonormal(
    design: Design, number: int
) -> tuple[Float[np.ndarray, "n c"], Float[np.ndarray, "c c"]]:
    """The columns of a block with ``Z~'Z~ = n I``, and the T that ``Z = Z~ T^-1`` holds for."""
    n = design.n
    columns = [design.multipliers[i] for i in design.blocks[number]]
    raw = np.stack([np.ones(n) if column is None else column for column in columns], axis=1)
    size = np.abs(raw).max(axis=0)
    q, r = np.linalg.qr(raw / size)
    q, again = np.linalg.qr(q)  # orthogonal to rounding, however nearly the columns agreed
    r = again @ r * size / np.sqrt(n)
    # Equal rows stay equal to the last bit: levels seen at the same times are one class.
    _, first, which = np.unique(raw, axis=0, return_index=True, return_inverse=True)
    return q[first][which.reshape(-1)] * np.sqrt(n), np.linalg.inv(r)


def elimination_order(design: Design) -> tuple[list[int], list[int]]:
    """Blocks of the factor with the most coefficients, which is eliminated, and the others."""
    by_factor = factors(design)

    def width(group: list[int]) -> int:
        return sum(levels_of(design, b) * len(design.blocks[b]) for b in group)

    first = max(by_factor, key=width)  # the first of equals
    return first, [number for group in by_factor if group is not first for number in group]


def levels_of(design: Design, number: int) -> int:
    """How many levels the factor of a block has."""
    return int(design.codes[design.blocks[number][0]].max()) + 1


def compress_slopes(
    design: Design, weights: Float[np.ndarray, " samples"] | None = None, few_shapes: bool = False
) -> Compression:
    """Everything of a design with random slopes that does not depend on the genes.

    Parameters
    ----------
    design
        Of n samples.
    weights
        Of the samples, the same for all genes; those of weight zero are left out. Columns of levels
        that are lost with it stay, empty.
    few_shapes
        Fill the classes up to one of few numbers, so that designs that lack different samples have
        arrays of few shapes, and few compiled programs.
    """
    first, others = elimination_order(design)
    order = (*first, *others)
    X = design.X
    of = {number: np.asarray(design.codes[design.blocks[number][0]]) for number in order}
    levels = {number: levels_of(design, number) for number in order}
    pairs = {number: orthonormal(design, number) for number in order}
    z = {number: pair[0] for number, pair in pairs.items()}
    weighting, root = None, None
    if weights is not None:
        weighting = Weighting.of(weights)
        rows, root = weighting.rows, weighting.root
        X = X[rows] * root
        of = {number: codes[rows] for number, codes in of.items()}
        z = {number: columns[rows] * root for number, columns in z.items()}
    n, p = X.shape

    q, r_inverse, log_det_r, has_intercept = fixed_part(X, root)
    level_of, count = of[first[0]], levels[first[0]]
    project, roots = _level_bases(np.hstack([z[b] for b in first]), level_of, count)
    indicators = [_columns(z[b], of[b], levels[b]) for b in others]
    sum_others = sp.csr_array(sp.vstack(indicators)) if others else sp.csr_array((0, n))

    U = np.hstack([sum_others.T.toarray(), q])
    cross = project @ U  # F, a row each: (level, a)
    left_over = U - project.T @ cross
    within = left_over.T @ left_over
    class_of, roots, counts = _classes(roots, few_shapes)
    sums = _class_sums(cross, class_of, len(counts))
    shared = SlopeShared(
        within=within,
        between=sums.between,
        roots=roots,
        counts=counts,
        samples_per_level=np.array([n / len(np.unique(of[b])) for b in order]),
        log_det_r=log_det_r,
        r_inverse=r_inverse,
        n=np.asarray(float(n)),
        p=p,
        blocks=tuple(
            RandomBlock(len(design.blocks[b]), levels[b], b in first, design.blocks[b])
            for b in order
        ),
    )
    K = within.shape[0]
    grouping = Grouping(
        level_of,
        np.ones((len(cross), 1)),
        sp.csc_array(project),
        sp.csc_array(sum_others),
        sp.csr_array(cross[:, : K - p].T),
        cross[:, K - p :],
        sum_others @ q,
        sums.products,
        sums.indicator,
        sums.squares,
        None,
        project.T.tocsr(),
        (sums.left, sums.right),
    )
    slopes = Slopes(tuple(pairs[b][1] for b in order), order)
    return Compression(shared, q, ones_in(q, root), has_intercept, grouping, weighting, slopes)


def _columns(
    z: Float[np.ndarray, "n c"], codes: Int[np.ndarray, " n"], levels: int
) -> sp.csr_array:
    """Z' of a block, coefficient by coefficient: (c levels) x n."""
    n, c = z.shape
    rows = codes[None] + levels * np.arange(c)[:, None]
    columns = np.broadcast_to(np.arange(n), (c, n))
    return sp.csr_array((z.T.ravel(), (rows.ravel(), columns.ravel())), shape=(c * levels, n))


def _level_bases(
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


def _classes(
    roots: Float[np.ndarray, "levels c c"], few_shapes: bool
) -> tuple[Int[np.ndarray, " levels"], Float[np.ndarray, "C c c"], Float[np.ndarray, " C"]]:
    """Class of every level, the classes' roots and sizes, filled up with empty classes."""
    size = np.abs(roots).max()
    rounded = np.round(roots.reshape(len(roots), -1) / (size * _SAME * 10))
    _, first, class_of, counts = np.unique(
        rounded, axis=0, return_index=True, return_inverse=True, return_counts=True
    )
    found, spare = roots[first], chunked(len(first)) - len(first)
    if few_shapes:
        spare = (CHUNK << (-(-len(first) // CHUNK) - 1).bit_length()) - len(first)
    found = np.concatenate([found, np.zeros((spare, *roots.shape[1:]))])
    return class_of.reshape(-1), found, np.concatenate([counts, np.zeros(spare)]).astype(float)


def chunked(classes: int) -> int:
    """Room for so many classes: more than a chunk are filled up to whole ones."""
    return classes if classes <= CHUNK else -(-classes // CHUNK) * CHUNK


class _ClassSums(NamedTuple):
    between: Float[np.ndarray, "PC K K"]
    products: sp.csr_array  # (PC K) x (levels c): what of `a` adds to sum F_a a_b + F_b a_a
    indicator: sp.csr_array  # PC x (levels P)
    squares: Float[np.ndarray, " PC"]  # 1 where a is b
    left: Int[np.ndarray, " levels_P"]  # rows of (levels c): the a and the b of every pair
    right: Int[np.ndarray, " levels_P"]


def _class_sums(
    cross: Float[np.ndarray, "rows K"], class_of: Int[np.ndarray, " levels"], classes: int
) -> _ClassSums:
    levels, K = len(class_of), cross.shape[1]
    c = len(cross) // levels
    upper = [(a, b) for a in range(c) for b in range(a, c)]
    F = cross.reshape(levels, c, K)
    select = sp.csr_array((np.ones(levels), (class_of, np.arange(levels))), shape=(classes, levels))
    between = np.zeros((len(upper), classes, K, K))
    data, rows, columns = [], [], []
    level, column = np.arange(levels)[:, None], np.arange(K)[None]
    for pair, (a, b) in enumerate(upper):
        products = np.einsum("jk,jl->jkl", F[:, a], F[:, b])
        products = products if a == b else products + products.swapaxes(1, 2)
        between[pair] = (select @ products.reshape(levels, -1)).reshape(classes, K, K)
        row = (pair * classes + class_of[:, None]) * K + column
        for one, other in {(a, b), (b, a)}:
            data.append(F[:, one])
            rows.append(row)
            columns.append(np.broadcast_to(level * c + other, row.shape))
    shape = (len(upper) * classes * K, levels * c)
    flat = [np.concatenate(parts).ravel() for parts in (data, rows, columns)]
    each = np.array(upper)
    pair_class = np.arange(len(upper))[:, None] * classes + class_of[None]
    square = each[:, 0] == each[:, 1]
    weight = np.where(square, 1.0, 2.0)[:, None] * np.ones(levels)
    indicator = sp.csr_array(
        (weight.ravel(), (pair_class.ravel(), np.arange(pair_class.size))),
        shape=(len(upper) * classes, pair_class.size),
    )
    base = np.arange(levels)[None] * c
    return _ClassSums(
        between.reshape(len(upper) * classes, K, K),
        sp.csr_array((flat[0], (flat[1], flat[2])), shape=shape),
        indicator,
        np.repeat(square.astype(np.float64), classes),
        (base + each[:, :1]).ravel(),
        (base + each[:, 1:]).ravel(),
    )
