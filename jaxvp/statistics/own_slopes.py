r"""Statistics of genes that have weights, or observations, of their own, with random slopes.

Everything of `slopes` with ``W^(1/2)`` before the rows: ``W_j^(1/2) Z_j = Q_j R_j`` for every gene
and level, ``F_j = Q_j'W_j^(1/2) U``, ``a_j = Q_j'W_j^(1/2) y``. The bases Q_j are made by Gram and
Schmidt, twice each for orthogonality to rounding, for all levels and a tile of genes at a time; a
column that the ones before it leave nothing of has a row of zeros in R. The R of levels differ from
gene to gene, so that every level is a class of its own, and what is kept of it are its ``F_j`` and
``a_j``: ``8 c J (K + 1)`` bytes a gene.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from jaxvp.memory import filled

from .slope_levels import chunked
from .slope_structure import SlopeStructure
from .types import PerGene, SlopeOwn
from .weighted import Sums

# Measurements and columns of a tile of genes: in the second-level cache, or near it.
_TILE_BYTES = 4 << 20
_TILE_GENES = 32
# What is left of a column beside the ones before it in a level, of squares.
_DEPENDENT = 1e-20


def room_for_slopes(s: SlopeStructure, genes: int) -> PerGene:
    """Arrays for the products of so many genes, to be used again and again by `own_slopes`."""
    K, c = s.others.shape[1] + s.Q.shape[1], s.z.shape[1]
    classes = chunked(s.levels)
    counts = filled(0.0, classes, genes)
    counts[: s.levels] = 1.0
    return PerGene(
        filled(0.0, K, genes),
        filled(1.0, genes),
        filled(0.0, 0, K, genes),
        filled(0.0, 0, genes),
        SlopeOwn(
            filled(0.0, K, K, genes),
            filled(0.0, classes, c, K, genes),
            filled(0.0, classes, c, c, genes),
            counts,
            filled(1.0, genes),
        ),
        filled(0.0, classes, c, genes),
    )


def own_slopes(s: SlopeStructure, found: Sums, room: PerGene) -> PerGene:
    """Products of genes, written into the first genes of ``room``, which is returned."""
    assert isinstance(room.own, SlopeOwn)
    n, genes = found.w.shape
    room.own.n[:genes] = found.n
    K = len(room.within_uy)
    tile = int(np.clip(_TILE_BYTES // (8 * n * (K + 1)), 1, _TILE_GENES))
    for start in range(0, genes, tile):
        _fill(s, found, slice(start, min(start + tile, genes)), room)
    return room


def _fill(s: SlopeStructure, found: Sums, part: slice, out: PerGene) -> None:
    """One tile of genes."""
    assert isinstance(out.own, SlopeOwn) and out.level_sums is not None
    root = np.sqrt(found.w[:, part])
    n, genes = root.shape
    bases, roots = _bases(s, root)
    c, J = len(bases), s.levels
    columns = np.concatenate([s.others, s.Q], axis=1)
    K = columns.shape[1]
    cross = np.empty((c, K + 1, J, genes))
    rest = np.empty((genes, K + 1, n))
    for k in range(K + 1):
        u = root * (columns[:, k, None] if k < K else found.y[:, part])
        left = u.copy()
        for a, base in enumerate(bases):
            cross[a, k] = s.sum_levels @ (base * u)
            left -= base * np.take(cross[a, k], s.level_of, axis=0)
        rest[:, k] = left.T
    within = rest @ rest.swapaxes(1, 2)
    out.own.within[:, :, part] = np.moveaxis(within[:, :K, :K], 0, -1)
    out.within_uy[:, part] = within[:, :K, K].T
    out.within_yy[part] = within[:, K, K]
    out.own.roots[:J, :, :, part] = roots
    out.own.cross[:J, :, :, part] = np.moveaxis(cross[:, :K], 2, 0)
    out.level_sums[:J, :, part] = np.moveaxis(cross[:, K], 1, 0)


def _bases(
    s: SlopeStructure, root: Float[np.ndarray, "n g"]
) -> tuple[list[Float[np.ndarray, "n g"]], Float[np.ndarray, "J c c g"]]:
    """Q of all levels, column by column, and their R."""
    c = s.z.shape[1]
    roots = np.zeros((s.levels, c, c, root.shape[1]))
    bases: list[np.ndarray] = []
    for a in range(c):
        v = root * s.z[:, a, None]
        whole = s.sum_levels @ (v * v)
        for _ in range(2):
            for b, base in enumerate(bases):
                along = s.sum_levels @ (base * v)
                roots[:, b, a] += along
                v -= base * np.take(along, s.level_of, axis=0)
        square = s.sum_levels @ (v * v)
        new = square > _DEPENDENT * whole
        length = np.sqrt(np.where(new, square, 1.0))
        roots[:, a, a] = np.where(new, length, 0.0)
        bases.append(v * np.take(new / length, s.level_of, axis=0))
    return bases, roots
