"""The random terms of a design as columns, and the products that all genes share."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int

from jaxvp.design import Design
from jaxvp.statistics import compress


class Term(NamedTuple):
    """Columns of one random term in some samples."""

    codes: Int[np.ndarray, " n"]
    """the level of every sample; -1 for one that is not among the levels"""
    columns: Float[np.ndarray, "n c"]
    """what varies between the levels; ones for a random intercept"""
    levels: int

    @property
    def width(self) -> int:
        """Columns a level."""
        return self.columns.shape[1]

    @property
    def place(self) -> Int[np.ndarray, "n c"]:
        """Which of the term's columns those of a sample are, level by level."""
        return np.maximum(self.codes, 0)[:, None] * self.width + np.arange(self.width)

    def matrix(self) -> sp.csr_array:
        """Z: n x (levels c). A sample of no known level has a row of zeros."""
        n = len(self.codes)
        values = np.where(self.codes[:, None] >= 0, self.columns, 0.0)
        starts = np.arange(0, n * self.width + 1, self.width)
        shape = (n, self.levels * self.width)
        return sp.csr_array((values.ravel(), self.place.ravel(), starts), shape=shape)


class Gather(NamedTuple):
    """Sums over the samples, weighted by gene: ``full[places] = sums @ weights``."""

    places: Int[np.ndarray, " entries"]
    sums: sp.csr_array  # entries x n
    size: int

    def __call__(self, weights: Float[np.ndarray, "n genes"]) -> Float[np.ndarray, "genes size"]:
        """One row a gene, zero where no sample contributes."""
        full = np.zeros((weights.shape[1], self.size))
        full[:, self.places] = (self.sums @ weights).T
        return full


class Intercepts(NamedTuple):
    """What a gene whose observations all count alike needs of a design of random intercepts."""

    within: Float[np.ndarray, "q q"]
    between: Float[np.ndarray, "C qq"]
    sizes: Float[np.ndarray, " C"]
    level_sizes: Float[np.ndarray, "levels 1"]
    cross: sp.csr_array  # levels x q: F_j
    squares: sp.csr_array  # levels x q^2: F_j F_j', for the variances


class Products(NamedTuple):
    """The same for any columns and weights."""

    own: Gather  # N_j of the eliminated term
    cross: Gather  # F_j
    others: Gather  # Z_2'WZ_2


class Structure(NamedTuple):
    """The random part, the eliminated term first; ``order[0]`` is its place in the formula."""

    terms: tuple[Term, ...]
    order: tuple[int, ...]
    sums: sp.csr_array  # Z' of all terms
    intercepts: Intercepts | None  # None: some term has other columns than ones
    products: Products

    @property
    def n_others(self) -> int:
        """q: columns of all terms but the eliminated one."""
        return sum(term.levels * term.width for term in self.terms[1:])


def prepare(design: Design) -> Structure | None:
    """The random part of a design, a term for every correlated block; None if it has none."""
    if not design.codes:
        return None
    single = components(design)
    if not design.slopes:
        return arrange(single, design)
    terms = [
        single[block[0]]._replace(columns=np.hstack([single[i].columns for i in block]))
        for block in design.blocks
    ]
    return arrange(terms)


def components(design: Design) -> list[Term]:
    """Every random component for itself: one column a level."""
    found = []
    for i, (codes, levels) in enumerate(zip(design.codes, design.levels, strict=True)):
        column = design.multipliers[i] if design.slopes else None
        columns = np.ones((design.n, 1)) if column is None else np.asarray(column)[:, None]
        found.append(Term(codes, columns, len(levels)))
    return found


def arrange(terms: list[Term], design: Design | None = None) -> Structure:
    """Any terms, in formula order; with the design of which they are all random intercepts."""
    order = sorted(range(len(terms)), key=lambda i: -terms[i].levels * terms[i].width)
    first, *others = (terms[i] for i in order)
    sums = sp.csr_array(sp.hstack([term.matrix() for term in (first, *others)]).T)
    products = _products(first, others)
    shared = None if design is None else _intercepts(design, first, sums)
    return Structure((first, *others), tuple(order), sums, shared, products)


def _intercepts(design: Design, first: Term, sums: sp.csr_array) -> Intercepts:
    shared = compress(design).shared
    q = shared.n_columns - shared.p
    cross = sp.csr_array(sums[: first.levels] @ sums[first.levels :].T)
    cross.sort_indices()
    # Row by row all pairs of a row's entries: there are few beside q^2.
    count = np.diff(cross.indptr)
    row = np.repeat(np.arange(first.levels), count**2)
    offset = np.concatenate([np.arange(c * c) for c in count]) if len(row) else row
    start, width = cross.indptr[row], count[row]
    one, other = start + offset // np.maximum(width, 1), start + offset % np.maximum(width, 1)
    entry = cross.indices[one].astype(np.int64) * q + cross.indices[other]
    values = cross.data[one] * cross.data[other]
    return Intercepts(
        within=np.asarray(shared.within)[:q, :q],
        between=np.asarray(shared.between)[:, :q, :q].reshape(len(shared.sizes), q * q),
        sizes=np.asarray(shared.sizes),
        level_sizes=np.asarray(sums[: first.levels].sum(axis=1))[:, None],
        cross=cross,
        squares=sp.csr_array((values, (row, entry)), shape=(first.levels, q * q)),
    )


def _products(first: Term, others: list[Term]) -> Products:
    n, c = first.columns.shape
    q = sum(term.levels * term.width for term in others)
    starts = np.cumsum([0, *(term.levels * term.width for term in others)])
    place = np.concatenate(
        [np.zeros((n, 0), int), *(t.place + s for t, s in zip(others, starts, strict=False))], 1
    )
    value = np.concatenate([np.zeros((n, 0)), *(term.columns for term in others)], 1)
    own = first.codes[:, None] * c * c + np.arange(c * c)
    return Products(
        _gather(own, _outer(first.columns, first.columns), first.levels * c * c),
        _gather(
            (first.place[:, :, None] * q + place[:, None, :]).reshape(n, -1),
            _outer(first.columns, value),
            first.levels * c * q,
        ),
        _gather(
            (place[:, :, None] * q + place[:, None, :]).reshape(n, -1), _outer(value, value), q * q
        ),
    )


def _outer(a: Float[np.ndarray, "n a"], b: Float[np.ndarray, "n b"]) -> Float[np.ndarray, "n ab"]:
    return (a[:, :, None] * b[:, None, :]).reshape(len(a), -1)


def _gather(place: Int[np.ndarray, "n m"], value: Float[np.ndarray, "n m"], size: int) -> Gather:
    places, entry = np.unique(place.ravel(), return_inverse=True)
    sample = np.repeat(np.arange(len(place)), place.shape[1])
    shape = (len(places), len(place))
    return Gather(places, sp.csr_array((value.ravel(), (entry, sample)), shape=shape), size)
