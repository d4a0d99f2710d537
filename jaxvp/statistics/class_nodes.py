r"""Some of a design's class sizes that stand for all of them.

What a level of n samples adds at ``gamma`` is ``f(n) = 1 / (1 + gamma n)`` times what it holds, and
its derivatives. A rational function of n with the poles ``-p_j`` and the values of f at the nodes
n_k errs by, relative,

    r(n) / r(-1 / gamma),     r(z) = prod_k (z - n_k) / prod_j (z + p_j),

for every gamma at once: r is to be small at the sizes and large on the negative axis. Nodes and
poles are chosen in turn, a node where r is largest and a pole where it is smallest (*Leja-Bagby
points*); the first poles are at infinity, so that what is left of small gammas, next to which many
genes end, is exact. The error falls like ``exp(-pi^2 N / log(16 b / a))``, of sizes from a to b:
up to a quarter fewer nodes than a polynomial in ``log n`` wants, and the weights are products,
exact to rounding.

Sources: Bagby (1969), Duke Math. J. 36; Beckermann and Townsend (2019), SIAM Review 61, for the
rate.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from .types import EPS

_MAX_NODES = 64
_FEWER = 3 / 4  # of the sizes: more nodes would not be worth their products
_AT_INFINITY = 3  # poles
# Relative errors of f and of its derivative in gamma.
_ERROR, _ROUNDINGS, _ERROR_OF_SLOPE = 3e-14, 4, 3e-13
# Where errors are looked at, and poles: so far beyond the sizes, in log gamma; and of how many
# sizes, at most: between them nothing is left to be seen by so few nodes.
_GAMMAS, _CANDIDATES, _BEYOND, _SIZES = 200, 400, 14.0, 1000


def class_nodes(
    sizes: Float[np.ndarray, " classes"], most: int = _MAX_NODES
) -> tuple[Float[np.ndarray, " C"], Float[np.ndarray, "C classes"]] | None:
    """Nodes, some of the sizes, and weights that replace many class sizes, in increasing order.

    None if they would not be much fewer, or more than ``most``. As many as make the error over all
    ``gamma >= 0`` and all sizes given that of rounding.
    """
    some = sizes
    if len(sizes) > _SIZES:
        even = np.geomspace(sizes[0], sizes[-1], _SIZES)
        some = sizes[np.unique(np.searchsorted(sizes, even).clip(max=len(sizes) - 1))]
    low, high = np.log(some[[0, -1]]) + [-_BEYOND, _BEYOND]
    exact = 1 / (1 + np.exp(np.linspace(-high, -low, _GAMMAS))[:, None] * some)
    candidates = np.exp(np.linspace(low, high, _CANDIDATES))
    most = min(int(_FEWER * len(some)), most, _MAX_NODES)
    chosen, poles, bounds = _points(some, candidates, most)
    for count in 1 + np.flatnonzero(bounds < _ERROR):
        nodes = some[chosen[:count]]
        weights, at = _weights(some, nodes, poles[:count]), exact[:, chosen[:count]]
        # Or what the sums are rounded by themselves, however BLAS adds them up.
        allowed = np.maximum(_ERROR * exact, _ROUNDINGS * EPS * (at @ np.abs(weights)))
        slope, found = some * exact**2, (nodes * at**2) @ weights
        if (np.abs(at @ weights - exact) < allowed).all() and (
            np.abs(found - slope) < _ERROR_OF_SLOPE * slope
        ).all():
            order = np.argsort(nodes)
            weights = weights if some is sizes else _weights(sizes, nodes, poles[:count])
            return nodes[order], weights[order]
    return None


def _points(
    sizes: Float[np.ndarray, " classes"], candidates: Float[np.ndarray, " p"], most: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Places of nodes among the sizes, poles, and the error's bound with so many of both."""
    at_sizes, at_poles = np.zeros(len(sizes)), np.zeros(len(candidates))  # log |r|
    chosen, poles, bounds = np.zeros(most, int), np.full(most, np.inf), np.empty(most)
    # The first in the middle: the others are then as far from it as they can be.
    middle = np.argmin(np.abs(2 * np.log(sizes) - np.log(sizes[0]) - np.log(sizes[-1])))
    with np.errstate(divide="ignore"):
        for i in range(most):
            chosen[i] = np.argmax(at_sizes) if i else middle
            node = sizes[chosen[i]]
            at_sizes += np.log(np.abs(sizes - node))
            at_poles += np.log(candidates + node)
            if i >= _AT_INFINITY:
                poles[i] = candidates[np.argmin(at_poles)]
                at_sizes -= np.log(sizes + poles[i])
                at_poles -= np.log(np.abs(candidates - poles[i]))
            bounds[i] = np.exp(at_sizes.max() - at_poles.min())
    return chosen, poles, bounds


def _weights(
    sizes: Float[np.ndarray, " classes"], nodes: Float[np.ndarray, " C"], poles: np.ndarray
) -> Float[np.ndarray, "C classes"]:
    """``prod_(m != k) (n - n_m) / (n_k - n_m) prod_j (n_k + p_j) / (n + p_j)`` at all sizes n."""
    itself = np.arange(len(nodes))[:, None]
    weights = np.ones((len(nodes), len(sizes)))
    for m, (node, pole) in enumerate(zip(nodes, poles, strict=True)):
        own = itself == m
        below = np.where(own, 1.0, nodes[:, None] - node)
        if np.isfinite(pole):
            weights *= (nodes[:, None] + pole) / (sizes + pole)
        weights *= np.where(own, 1.0, sizes - node) / below
    return weights
