r"""Few classes for the sizes of a gene with weights of its own: Chebyshev nodes.

(Those of a design, to rounding, are in `jaxvp.statistics.class_nodes`.)

The function ``gamma -> 1 / (1 + gamma n)`` is smooth in ``t = log n``: its poles lie on the lines
``Im t = +-pi``, wherever gamma puts them. ``u = tanh(t / 4)`` maps the strip between these lines to
the unit disc, and an interval of half-width h to ``[-r, r]``, ``r = tanh(h / 4)``. Polynomial
interpolation in C Chebyshev nodes of u then errs by ``rho^-C``, ``rho = (1 + sqrt(1 - r^2)) / r``
(Trefethen, Approximation Theory and Approximation Practice, ch. 8): the largest ellipse about the
interval that the disc has room for, larger than any that the strip has room for about its own. Sums
of weights differ from gene to gene, and so does the interval: each gene has its own nodes and its
own number of them, rounded up to one of few, so that most studies have one: every number is a
program to compile.

Where a few levels lie far from the others (a sample alone in its level with a weight of a
hundredth), they would widen the interval of all: such *ends* are classes of their own, and the
nodes are those of the rest.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from .types import Array, namespace

# Relative error that is allowed: the deviance of n samples errs by n times as much at most.
_ERROR, _ERROR_OF_DEVIANCE = 1e-10, 1e-7
_COUNTS = (14, 20, 28, 40, 64, 128)
# Above this count a gene's ends are looked at, at most so many on each side.
_WIDE, _ENDS = 20, 4
# Of the levels: with more nodes than that every level is a class, and nothing is interpolated.
_WORTH = 1 / 2


def log_range(
    sizes: Float[np.ndarray, "J genes"],
) -> tuple[Float[np.ndarray, " genes"], Float[np.ndarray, " genes"]]:
    """Middle and half-width of log n over the levels that a gene has; sizes of zero are lost."""
    low = np.log(np.where(sizes > 0, sizes, np.inf).min(axis=0))
    high = np.log(sizes.max(axis=0))
    return (low + high) / 2, np.maximum((high - low) / 2, 1e-3)


def node_counts(
    half: Float[np.ndarray, " genes"], levels: int, n: int
) -> Int[np.ndarray, " genes"]:
    """Nodes that each gene needs; ``levels`` means that every level is a class of its own."""
    return _rounded_up(_needed(half, n), levels)


def class_counts(sizes: Float[np.ndarray, "J genes"], n: int) -> Int[np.ndarray, " genes"]:
    """Classes that each gene needs: nodes, and ends if that is less."""
    levels = len(sizes)
    counts = node_counts(log_range(sizes)[1], levels, n)
    # Of few levels every one may be a class: looking would cost more than it saves.
    for gene in np.flatnonzero(counts > _WIDE) if _WORTH * levels >= _WIDE else ():
        fewest = np.array([ends(sizes[:, gene], n)[0]])
        counts[gene] = min(counts[gene], _rounded_up(fewest, levels)[0])
    return counts


def ends(sizes: Float[np.ndarray, " J"], n: int) -> tuple[float, int, int]:
    """The fewest classes of a gene, and how many of its smallest and largest levels are some."""
    t = np.sort(np.log(sizes[sizes > 0]))
    few = np.arange(min(_ENDS + 1, len(t)))
    below, above = few[:, None], few[None]
    half = (t[len(t) - 1 - above] - t[below]) / 2
    count = np.ceil(_needed(np.maximum(half, 1e-3), n)) + below + above
    a, b = np.unravel_index(np.argmin(count), count.shape)
    return float(count[a, b]), int(a), int(b)


class Nodes(NamedTuple):
    """Interpolation nodes of some genes: C of them, on [-1, 1] or classes of one level each."""

    middle: Float[np.ndarray, " genes"]  # of the logarithms of sizes
    half: Float[np.ndarray, " genes"]
    knots: Float[np.ndarray, "C genes"]
    barycentric: Float[np.ndarray, "C genes"]  # zero: not a node
    sizes: Float[np.ndarray, "C genes"]
    own: Int[np.ndarray, "J genes"]  # which class a level is, or -1


def nodes_of(sizes: Float[np.ndarray, "J genes"], count: int, n: int) -> Nodes:
    """So many nodes for every gene; where they are too few, the ends are classes of their own."""
    middle, half = log_range(sizes)
    knots, barycentric = (np.repeat(a[:, None], len(half), 1) for a in chebyshev(count))
    own = np.full(sizes.shape, -1, np.int32)
    for gene in np.flatnonzero(node_counts(half, len(sizes), n) > count):
        _, below, above = ends(sizes[:, gene], n)
        there = np.flatnonzero(sizes[:, gene] > 0)
        order = there[np.argsort(sizes[there, gene], kind="stable")]
        rest = order[below : len(order) - above]
        few = count - below - above
        (middle[gene],), (half[gene],) = log_range(sizes[rest, gene][:, None])
        knots[:, gene], barycentric[:, gene] = 0.0, 0.0
        knots[:few, gene], barycentric[:few, gene] = chebyshev(few)
        own[np.setdiff1d(there, rest), gene] = np.arange(few, count)
    at = np.exp(middle + from_unit(knots, half))
    level, gene = np.nonzero(own >= 0)
    at[own[level, gene], gene] = sizes[level, gene]
    return Nodes(middle, half, knots, barycentric, at, own)


def interpolated(sizes: Float[Array, "J genes"], nodes: Nodes) -> Float[Array, "J C genes"]:
    """How much of each level is at each node, in compiled code."""
    t = jnp.where(sizes > 0, jnp.log(jnp.where(sizes > 0, sizes, 1.0)) - nodes.middle, 0.0)
    # A level at a node has a gap of rounding, or none: its share is one, to rounding.
    gap = to_unit(t, nodes.half)[:, None] - nodes.knots + 1e-300
    shares = nodes.barycentric / gap
    shares = shares * (1 / shares.sum(axis=1, keepdims=True))
    own = nodes.own[:, None]
    return jnp.where(own < 0, shares, own == jnp.arange(len(nodes.knots))[:, None])


def _needed(half: Float[np.ndarray, "..."], n: int) -> Float[np.ndarray, "..."]:
    r = np.tanh(half / 4)
    rate = np.log((1 + np.sqrt(1 - r * r)) / r)
    return -np.log(min(_ERROR, _ERROR_OF_DEVIANCE / n)) / rate


def _rounded_up(needed: Float[np.ndarray, " genes"], levels: int) -> Int[np.ndarray, " genes"]:
    counts = np.array([*(count for count in _COUNTS if count <= _WORTH * levels), levels])
    return counts[np.minimum(np.searchsorted(counts, needed), len(counts) - 1)]


def chebyshev(count: int) -> tuple[Float[np.ndarray, " C"], Float[np.ndarray, " C"]]:
    """Nodes on [-1, 1] and their barycentric weights."""
    angle = (2 * np.arange(count) + 1) * np.pi / (2 * count)
    return np.cos(angle), (-1.0) ** np.arange(count) * np.sin(angle)


# Of one gene, or of many on a trailing axis.
Half = Float[Array, "*genes"] | float


def to_unit(t: Float[Array, "J *genes"], half: Half) -> Float[Array, "J *genes"]:
    """Logarithms of sizes, less the middle of their range, as places on [-1, 1]."""
    xp = namespace(t)
    return xp.tanh(t / 4) / xp.tanh(half / 4)


def from_unit(knots: Float[Array, "C *one"], half: Half) -> Float[Array, "C *genes"]:
    """The logarithms that places on [-1, 1] stand for."""
    xp = namespace(knots)
    return 4 * xp.arctanh(knots * xp.tanh(half / 4))
