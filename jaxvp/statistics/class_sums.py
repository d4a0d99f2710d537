"""Sums over the levels of term 1 that have as many samples; `jaxvp.statistics` says what for.

Of more sizes than nodes interpolate they are taken to the nodes.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float

from jaxvp import threads
from jaxvp.runtime import using_blas_threads

from .class_nodes import class_nodes

_DENSE = 1 << 17  # numbers of some columns' products with all, which are dense in the cache
# Of these, the share that is not zero from which on that is worth it. (With weights of the samples
# every level is a class, and next to nothing is in one.)
_FILLED = 0.02


class Room(NamedTuple):
    """What suffices for some levels whatever samples a gene lacks."""

    classes: int
    distinct: int  # sizes
    # Of all sizes that there may be, 1, 2 and so on; None where every size is a class.
    interpolation: tuple[np.ndarray, np.ndarray] | None

    @classmethod
    @functools.lru_cache(maxsize=8)  # every pattern of a design asks
    def of(cls, levels: int, largest: int) -> Room:
        """Of levels of as many samples, at most."""
        found = class_nodes(np.arange(1.0, largest + 1), levels - 1)
        classes = min(largest, levels) if found is None else len(found[0])
        return cls(classes, min(levels, largest) + 1, found)

    def nodes(self, sizes: Float[np.ndarray, " classes"]) -> tuple[np.ndarray, np.ndarray] | None:
        """Nodes and weights of some sizes; None where there is room for every size."""
        if self.interpolation is None or len(sizes) <= self.classes:
            return None
        nodes, weights = self.interpolation
        return nodes, weights[:, sizes.astype(int) - 1]


class ClassSums(NamedTuple):
    """Of a design, and what forms those of a gene from its level sums."""

    sizes: Float[np.ndarray, " C"]  # of the classes, or nodes
    to_nodes: Float[np.ndarray, "C classes"] | None  # None where classes are few
    between: Float[np.ndarray, "C K K"]
    products: sp.csr_array  # (classes K) x levels: F_j / n_j at class of j
    indicator: sp.csr_array  # classes x levels: 1 / n_j at class of j
    level_sizes: Float[np.ndarray, " L"]  # distinct true sizes
    level_counts: Float[np.ndarray, " L"]


def class_sums(
    size: Float[np.ndarray, " levels"], cross: sp.csr_array, room: Room | None = None
) -> ClassSums:
    """Class sums of a design's levels of term 1.

    Parameters
    ----------
    size
        Of every level, zero where no sample is left.
    cross
        F', K x levels.
    room
        What to make room for, as in `compress`; sizes are then numbers of samples.
    """
    distinct, counts = np.unique(size, return_counts=True)
    sizes = distinct[distinct > 0]
    class_of = np.minimum(np.searchsorted(sizes, size), len(sizes) - 1)
    size = np.where(size > 0, size, 1.0)
    interpolation = class_nodes(sizes) if room is None else room.nodes(sizes)
    nodes, to_nodes = (sizes, None) if interpolation is None else interpolation
    # Row (c, i) picks F_ji / n_j for the levels j of class c.
    K, levels = len(cross.indptr) - 1, len(size)
    column, level = np.repeat(np.arange(K), np.diff(cross.indptr)), cross.indices
    values = cross.data / size[level]
    products = sp.csr_array(
        (values, (class_of[level] * K + column, level)), shape=(len(sizes) * K, levels)
    )
    classes = len(sizes)
    if to_nodes is None:
        between = (products @ cross.T).toarray().reshape(classes, K, K)
    else:
        by_column = (column * classes + class_of[level], level)
        by_column = sp.csr_array((values, by_column), shape=products.shape)
        between = _at_nodes(sp.csr_array(by_column @ cross.T), to_nodes)
    if room is not None:  # classes that hold no level
        spare, unused = room.classes - len(nodes), room.distinct - len(distinct)
        between = np.concatenate([between, np.zeros((spare, *between.shape[1:]))])
        nodes = np.append(nodes, np.ones(spare))
        if to_nodes is None:
            classes = room.classes
            products.resize((classes * K, levels))
        else:
            to_nodes = np.concatenate([to_nodes, np.zeros((spare, classes))])
        distinct, counts = np.append(distinct, np.zeros(unused)), np.append(counts, [0] * unused)
    indicator = sp.csr_array((1 / size, (class_of, np.arange(levels))), shape=(classes, levels))
    return ClassSums(
        nodes, to_nodes, between, products, indicator, distinct, counts.astype(np.float64)
    )


def _at_nodes(
    products: sp.csr_array, to_nodes: Float[np.ndarray, "C classes"]
) -> Float[np.ndarray, "C K K"]:
    """``C_c`` from the products of every column in all classes with all columns.

    (K classes) x K: few of a class's are not zero, but of a column's in all classes many.
    """
    nodes, classes = to_nodes.shape
    K = (len(products.indptr) - 1) // classes
    between = np.empty((nodes, K, K))
    sparse = products.nnz < _FILLED * classes * K**2
    step = 1 if sparse else max(1, _DENSE // max(1, classes * K))
    from_classes = np.ascontiguousarray(to_nodes.T)

    def fill(first: int) -> None:
        some = slice(first, min(first + step, K))
        mine = products[some.start * classes : some.stop * classes]
        if sparse:
            between[:, first] = (mine.T @ from_classes).T
        else:
            between[:, some] = (to_nodes @ mine.toarray().reshape(-1, classes, K)).swapaxes(0, 1)

    with using_blas_threads(1):
        threads.each(fill, range(0, K, step), threads.cores())
    return between
