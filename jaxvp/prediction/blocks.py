"""The measurements of a fit, once more: read in blocks, worked on in tiles, handed on with effects.

What is read must be what was fitted. That costs nothing to see: ``r'V^-1 r`` follows from the
effects and is ``N sigma^2`` at the fit (N = n by ML, n - p otherwise), so that another file, other
units or samples in another order are found out at the first gene.

A gene that lacks measurements has effects of its own samples: the others have weight 0. Weights are
divided by their mean where the fit did that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Num

from jaxvp import threads

from .effects import Effects, Factors, random_effects
from .structure import Structure

_TILE_BYTES = 1 << 21
_LARGEST_TILE = 256
# Of N sigma^2: float32 fits know sigma to about 1e-5.
_TOLERANCE = 1e-3
# Of the squares that explaining takes away: a residual share of 1e-12 may be lost in rounding.
_ROUNDING = 1e-11


# (start, stop) -> samples x genes of the source.
Blocks = Callable[[int, int], Num[np.ndarray, "n genes"]]


class Weights(NamedTuple):
    """Of the observations."""

    own: Blocks | None
    """each gene's own, in the order of the source"""
    shared: Float[np.ndarray, " n"] | None
    """of the samples, the same for all genes"""
    rescale: bool
    """divide by the mean over the observations that count"""

    def read(self, start: int, stop: int) -> Float[np.ndarray, "n _"] | None:
        """Of some genes of the source, or of all."""
        if self.own is not None:
            return np.asarray(self.own(start, stop), dtype=np.float64)
        return None if self.shared is None else self.shared[:, None]


class Estimates(NamedTuple):
    """Of all genes of a result; NaN for those without a fit."""

    coefficients: Float[np.ndarray, "genes p"]
    factors: Factors
    """by random term, in formula order"""
    blocks: tuple[tuple[int, ...], ...]
    """the components of every random term"""
    sigma: Float[np.ndarray, " genes"]
    degrees: Float[np.ndarray, " genes"]
    """N: sigma^2 N is the profiled sum of squares"""
    observed: Int[np.ndarray, " genes"]
    """how many of the samples are measured"""


class Tile(NamedTuple):
    """Some genes that have a fit."""

    rows: Int[np.ndarray, " g"] | slice
    """of the result"""
    y: Float[np.ndarray, "n g"]
    """NaN where it is not measured"""
    residual: Float[np.ndarray, "n g"]
    """y - X b"""
    effects: Effects
    """by component"""
    coefficients: Float[np.ndarray, "g p"]
    weights: Float[np.ndarray, "n _"] | None
    """of each gene, or of all, as the fit had them; None: all are 1"""


def stream(
    X: Float[np.ndarray, "n p"],
    structure: Structure | None,
    estimates: Estimates,
    read: Blocks,
    rows: Int[np.ndarray, " source"],
    use: Callable[[Tile], object],
    *,
    weights: Weights,
    block_size: int,
    variances: bool = False,
) -> int | None:
    """Hand every gene's measurements and effects to ``use``, tile by tile, from several threads.

    Parameters
    ----------
    X, structure
        The design.
    estimates
        Of the genes of the result.
    read
        ``read(start, stop)`` gives genes of the source: samples x genes.
    rows
        For every gene of the source its row in the result, -1 for none.
    use
        Called once a tile, at the same time from several threads.
    weights
        Of the observations.
    block_size
        Genes read at a time.
    variances
        Whether the effects have their conditional variances.

    Returns
    -------
    int or None
        The row of a gene whose measurements are not those that were fitted; it stops there.
    """
    n = len(X)
    fitted = np.isfinite(estimates.sigma)
    whole = estimates.observed == (n if weights.shared is None else (weights.shared > 0).sum())
    whole &= weights.own is None
    groups = [(fitted & whole, True), (fitted & ~whole, False)]
    wrong: list[int] = []

    def one_block(start: int) -> None:
        if wrong:
            return
        stop = min(start + block_size, len(rows))
        mine = rows[start:stop]
        chosen = [(np.flatnonzero((mine >= 0) & group[mine]), alike) for group, alike in groups]
        if not any(len(wanted) for wanted, _ in chosen):
            return
        block, w = read(start, stop), weights.read(start, stop)
        for wanted, alike in chosen:
            width = _tile_genes(n, structure, alike and w is None)
            for first in range(0, len(wanted), width):
                places = wanted[first : first + width]
                y = np.array(block[:, _slice(places)], dtype=np.float64, order="C")
                here = w if w is None or w.shape[1] == 1 else w[:, places]
                if not alike:
                    here = np.where(np.isfinite(y), 1.0 if here is None else here, 0.0)
                if here is not None and weights.rescale:
                    here = here / (here.sum(axis=0) / (here > 0).sum(axis=0))
                tile, good = _tile(X, structure, estimates, y, here, mine[places], variances)
                if not good.all():
                    wrong.append(int(mine[places][~good][0]))
                    return
                use(tile)

    starts = range(0, len(rows), block_size)
    threads.each(one_block, starts, threads.cores())
    return min(wrong, default=None)


def _tile(
    X: Float[np.ndarray, "n p"],
    structure: Structure | None,
    estimates: Estimates,
    y: Float[np.ndarray, "n g"],
    weights: Float[np.ndarray, "n _"] | None,
    rows: Int[np.ndarray, " g"],
    variances: bool,
) -> tuple[Tile, Bool[np.ndarray, " g"]]:
    """A tile, and which of its genes have the sigma of the fit."""
    coefficients, unit = estimates.coefficients[rows], estimates.sigma[rows]
    residual = y - X @ coefficients.T
    # In units of sigma, so that no square of a gene of 1e200 is infinite.
    with np.errstate(all="ignore"):
        scaled, size = residual / unit, y / unit
        if weights is not None:
            for array in (scaled, size):
                array[np.broadcast_to(weights == 0, array.shape)] = 0.0
        found = Effects([], [], np.zeros(len(rows)))
        if structure is not None:
            factors = [factor[rows] for factor in estimates.factors]
            found = random_effects(structure, scaled, factors, weights, variances)
        weighted = scaled if weights is None else weights * scaled
        left = np.einsum("ng,ng->g", weighted, scaled) - found.explained
        whole = np.einsum("ng,ng->g", size if weights is None else weights * size, size)
        limit = _TOLERANCE * estimates.degrees[rows] + _ROUNDING * whole
        good = np.abs(left - estimates.degrees[rows]) <= limit
        if weights is not None:
            good &= (weights > 0).sum(axis=0) == estimates.observed[rows]
        effects = found._replace(
            values=[values * unit for values in found.values],
            variances=[values * unit * unit for values in found.variances],
        ).by_component(estimates.blocks)
    return Tile(_slice(rows), y, residual, effects, coefficients, weights), good


def _slice(places: Int[np.ndarray, " g"]) -> Int[np.ndarray, " g"] | slice:
    """A slice where places follow each other: a view in place of a copy."""
    first, last = int(places[0]), int(places[-1])
    follow = last - first == len(places) - 1 and (np.diff(places) == 1).all()
    return slice(first, last + 1) if follow else places


def _tile_genes(n: int, structure: Structure | None, alike: bool) -> int:
    """So many that a tile's arrays stay in the cache, or at least small."""
    entries = n
    if structure is not None:
        q, first = structure.n_others, structure.terms[0]
        dense = first.levels * first.width * q
        entries = max(n, 2 * q * q, dense if structure.intercepts is None or not alike else 0)
    return int(np.clip(_TILE_BYTES // (8 * entries), 1, _LARGEST_TILE))
