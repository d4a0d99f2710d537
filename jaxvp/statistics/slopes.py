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
for the pairs ``a <= b`` (once for ``a = b``), and of a gene those of ``F_ja a_jb + F_jb a_ja``.

*Level by level.* Where most levels are alone in their class (everybody was seen at times of their
own) a gene keeps its ``a_j`` in place of their products with ``F_j``: c numbers a level, not
``c (c + 1) / 2 (K + 1)``. Every level then is a class, and all genes share the ``F_j``.

*Units and origins.* A correlated block of components is orthonormalised over the samples,
``Z = Z~ T^-1`` with ``Z~'Z~ = n I``, so that ``Gamma = T Gamma~ T'``: whether time is in days or
hours, since birth or since 1970, the numbers fitted are the same. Components of their own are
scaled.

The sums over samples are those of `jaxvp.statistics.products`, with ``Q_j`` for the indicators.

*Weights.* One weight a sample multiplies the rows of the model by its square root, those of ``Z_j``
too: the levels' R then all differ, and each is a class. Weights and missing values of a gene's own
are in `own_slopes`.
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
from .slope_levels import classes, level_bases, upper
from .types import Array, SlopeOwn, triangle


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
    # Class sums by pair, then class: upper triangles, row by row. Of none there is `cross`.
    between: Float[Array, "PC T"]
    cross: Float[Array, "C c K *genes"] | None  # F of every level, where genes keep `level_sums`
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

    @property
    def numbers_of_gene(self) -> int:
        """What a gene's statistics are."""
        if self.cross is None:
            return (len(self.between) + 1) * (self.n_columns + 1)
        return int(np.prod(self.cross.shape[:2])) + self.n_columns + 1

    def systems(self, w: Float[np.ndarray, "genes C c c"]) -> Float[np.ndarray, "genes K K"]:
        """``U'V_1^-1 U`` for weights W of the classes, host side."""
        K = self.n_columns
        if len(self.between):
            pairs = np.stack([w[:, :, a, b] for a, b in upper(w.shape[-1])], axis=1)
            sums = pairs.reshape(len(w), -1) @ np.asarray(self.between)
            return np.asarray(self.within) + sums[:, triangle(K)]
        rows = np.asarray(self.cross).reshape(-1, K)
        images = (w @ np.asarray(self.cross)).reshape(len(w), len(rows), K)
        return np.asarray(self.within) + rows.T @ images

    def of(self, own: SlopeOwn | None) -> SlopeShared:
        """The same with a gene's own products, if it has any."""
        if own is None:
            return self
        return dataclasses.replace(self, between=self.between[:0], **vars(own))


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
    project, roots = level_bases(np.hstack([z[b] for b in first]), level_of, count)
    indicators = [_columns(z[b], of[b], levels[b]) for b in others]
    sum_others = sp.csr_array(sp.vstack(indicators)) if others else sp.csr_array((0, n))

    U = np.hstack([sum_others.T.toarray(), q])
    cross = project @ U  # F, a row each: (level, a)
    left_over = U - project.T @ cross
    within = left_over.T @ left_over
    F = cross.reshape(count, roots.shape[1], within.shape[0])
    found, to_classes = classes(F, roots, few_shapes)
    products, ones, squares, rows_of_pairs = to_classes or (None, None, None, None)
    shared = SlopeShared(
        within=within,
        between=found.between,
        cross=found.cross,
        roots=found.roots,
        counts=found.counts,
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
        products,
        ones,
        squares,
        None,
        project.T.tocsr(),
        rows_of_pairs,
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
