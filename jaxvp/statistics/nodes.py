"""Few classes for sizes that all differ: Chebyshev nodes in log n for every gene.

As in `compression.class_nodes`, ``gamma -> 1 / (1 + gamma n)`` is a smooth function of ``log n``,
its poles at distance pi from the real line. On an interval of half-width h, polynomial
interpolation in C Chebyshev nodes then errs by ``rho^-C``, ``rho = pi/h + sqrt((pi/h)^2 + 1)``
(Trefethen, Approximation Theory and Approximation Practice, ch. 8). Sums of weights differ from
gene to gene, and so does the interval: each gene has its own nodes and its own number of them,
rounded up to one of few, so that most studies have one: every number is a program to compile.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

# Relative error that is allowed: the deviance of n samples errs by n times as much at most.
_ERROR, _ERROR_OF_DEVIANCE = 1e-10, 1e-7
_COUNTS = (24, 48, 96, 192)
# Of the levels: with more nodes than that every level is a class, and nothing is interpolated.
_WORTH = 2 / 3


def log_range(
    sizes: Float[np.ndarray, "J genes"],
) -> tuple[Float[np.ndarray, " genes"], Float[np.ndarray, " genes"]]:
    """Middle and half-width of log n over the levels that a gene has; sizes of zero are lost."""
    t = np.log(np.where(sizes > 0, sizes, 1.0))
    low = np.where(sizes > 0, t, np.inf).min(axis=0)
    high = np.where(sizes > 0, t, -np.inf).max(axis=0)
    return (low + high) / 2, np.maximum((high - low) / 2, 1e-3)


def node_counts(
    half: Float[np.ndarray, " genes"], levels: int, n: int
) -> Int[np.ndarray, " genes"]:
    """Nodes that each gene needs; ``levels`` means that every level is a class of its own."""
    ratio = np.pi / half
    needed = -np.log(min(_ERROR, _ERROR_OF_DEVIANCE / n)) / np.log(ratio + np.sqrt(ratio**2 + 1))
    counts = np.array([*(count for count in _COUNTS if count <= _WORTH * levels), levels])
    return counts[np.minimum(np.searchsorted(counts, needed), len(counts) - 1)]


def chebyshev(count: int) -> tuple[Float[np.ndarray, " C"], Float[np.ndarray, " C"]]:
    """Nodes on [-1, 1] and their barycentric weights."""
    angle = (2 * np.arange(count) + 1) * np.pi / (2 * count)
    return np.cos(angle), (-1.0) ** np.arange(count) * np.sin(angle)
