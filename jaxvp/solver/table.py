r"""Starting points of small systems, from a table that all genes share.

The design is the same for all genes, so everything that depends on gamma alone (the eliminated
systems, their eigenvectors, the determinants) can be computed once, at the nodes of a grid over all
gammas; a gene then costs matrix products. The table says where a gene's deviance is lowest among
the nodes, and polynomials through that node and its neighbours where about it. What comes out is a
starting point and nothing more: the deviance, the derivatives and the certificate are those of
`jaxvp.likelihood`, which a search asks three to four times where it would be five to six (one to
three terms, hundreds of samples). For more terms a table would cost more than the evaluations that
it saves.

Cost a gene of k = 3 terms with q_2 and q_3 columns: ``N_1 q_2^2 + N_1 N_2 (q_2 + q_3) (q_3 + p)``
multiply-adds in matrix products, of large systems some 0.6 N_2 for N_2; `jaxvp.solver.elimination`
has the formulas.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxvp.likelihood import SWEEP_COLUMNS, Scalar, fence
from jaxvp.likelihood.lanes import dot, product
from jaxvp.solver.elimination import Eliminated, Rotated, eliminate, level_sizes, single
from jaxvp.solver.valleys import valleys
from jaxvp.statistics import Array, PerGene, Shared
from jaxvp.target import accelerated

# Nodes of x on an axis, by the number of terms. Fine enough to tell valleys apart: with six and
# five nodes one gene in 500 of a small and very unequal design was missed, with these none.
_NODES = {
    terms: 6 * np.linspace(0, 1, count) ** 1.5
    for terms, count in {1: 12, 2: 12, 3: 8, 4: 6}.items()
}
# float32 changes deviances by 0.001 of 100 samples, by 0.03 of 1,000: little to a start, or to what
# nodes a step apart tell of valleys. Of 10,000 it would be 0.3.
SINGLE_SAMPLES = 1_000
_FEW = 8  # columns of a sum that is written out
_SMALL, _LARGE = (1, 2, 3), (2, 3, 4)  # numbers of terms for which a table pays
# Genes whose starts a CPU computes together: of large systems, and of small ones at most, with the
# nodes of all of them. They stay in the cache; 512 genes take 4 % less of F's solution than 128.
_GENES_LARGE, _GENES, _OF_ALL = 128, 512, 1 << 16


class Table(eqx.Module):
    """What is shared; axes of the terms in elimination order."""

    eliminated: Eliminated
    gammas: tuple[Array, ...]  # nodes
    main: Float[Array, "*nodes"]  # main terms of the determinant
    single: bool = eqx.field(static=True, default=False)  # is float32 enough?


def build(shared: Shared, reml: bool) -> Table | None:
    """The table of a design, host code; None if there are too many terms for a grid.

    Parameters
    ----------
    shared
        NumPy arrays, float64.
    reml
        Whether the determinant of the fixed part belongs to the deviance.
    """
    k = len(shared.levels)
    if k not in (_LARGE if shared.n_columns > SWEEP_COLUMNS else _SMALL):
        return None
    gammas = tuple(np.expm1(_NODES[k]) / m for m in shared.samples_per_level)
    single = shared.n_columns <= SWEEP_COLUMNS and float(shared.n) <= SINGLE_SAMPLES
    return dataclasses.replace(tabulate(shared, gammas, reml), single=single)


def tabulate(
    shared: Shared, gammas: tuple[np.ndarray, ...], reml: bool, known: Rotated | None = None
) -> Table:
    """The table at given nodes; ``known`` are the systems at those of gamma_1."""
    main = np.zeros(())
    for gamma, n in zip(gammas, level_sizes(shared), strict=True):
        main = main[..., None] + np.log1p(np.outer(gamma, n)).sum(axis=1)
    return Table(eliminate(shared, gammas, reml, known), gammas, main)


def residual(eliminated: Eliminated, gene: PerGene) -> Float[Array, "*nodes genes"]:
    """``y'P y`` of a tile of genes at all nodes."""
    classes, levels, fixed, log_det = eliminated
    b = gene.within_uy + jnp.tensordot(classes, gene.between_uy, 1)
    yy = gene.within_yy + classes @ gene.between_yy
    p = fixed.shape[-1]
    for level in levels:
        if level.couple is None:
            break
        n = level.rotate.shape[1]
        # The large products are of the matrices' type (`coarse`), sums of the gene's.
        c = level.rotate @ b[:, :n].astype(level.rotate.dtype)
        taken = jnp.einsum("bkrn,bng->bkrg", level.couple, c).astype(b.dtype)
        c = c.astype(b.dtype)
        if level.combine is not None:
            taken = jnp.einsum("bNk,bkrg->bNrg", level.combine, taken)
        b = b[:, None, n:] - taken
        yy = (yy[:, None] - level.factor @ (c * c)).reshape(-1, yy.shape[-1])
        b = b.reshape(-1, *b.shape[2:])
    yy = fence(lambda yy, b: yy - _squares(fixed, b[:, b.shape[1] - p :]), yy, b)
    if levels:
        c = fence(lambda b: levels[-1].rotate @ b, b)
        yy = fence(lambda yy, c: yy[:, None] - _summed(levels[-1].factor, c * c), yy, c)
    return yy.reshape(*log_det.shape, -1)


def _summed(
    factor: Float[Array, "nodes N n"], squares: Float[Array, "nodes n genes"]
) -> Float[Array, "nodes N genes"]:
    """``factor @ squares``; of few columns as a sum, for a product is a call for every node."""
    if factor.shape[-1] > _FEW:
        return factor @ squares
    shares = jnp.moveaxis(jnp.asarray(factor), -1, 0)[..., None]
    return dot(shares, squares.swapaxes(0, 1)[:, :, None])


def _squares(
    half: Float[Array, "nodes p p"], b: Float[Array, "nodes p genes"]
) -> Float[Array, "nodes genes"]:
    """``|half b|^2``; of few columns as sums, for the same reason."""
    if not 0 < half.shape[-1] <= _FEW:
        return ((half @ b) ** 2).sum(1)
    rows = jnp.moveaxis(jnp.asarray(half), 0, -1)[..., None]
    scaled = product(rows, b.swapaxes(0, 1)[:, None])[:, 0]
    return dot(scaled, scaled)


def genes_together(table: Table, shared: Shared) -> int:
    """Genes whose starts a CPU computes together, a power of two."""
    if shared.n_columns > SWEEP_COLUMNS:
        return _GENES_LARGE
    most = min(_GENES, _OF_ALL // math.prod(table.main.shape))
    return 1 << (most.bit_length() - 1)


def starts(
    table: Table, shared: Shared, gene: PerGene, size: Scalar
) -> Float[Array, "attempts k genes"]:
    """Points to start from, x, for every gene of a tile (genes on the trailing axis).

    NaN where a gene has no such start. ``size`` is N, the factor of log r.
    """
    if table.single:
        table, gene, size = in_single((table, gene, size))
    height = heights(table.eliminated, table.eliminated.log_det + table.main, gene, size)
    found = valleys(in_x(table.gammas, shared.samples_per_level), height)
    return found.astype(jnp.asarray(shared.samples_per_level).dtype)


def in_single(tree: Any) -> Any:
    """In float32, on a CPU: half the traffic, which bounds most of what is done with a table.

    Where a term explains all but float32's rounding any node that does is as low. (An accelerator
    would multiply in fewer digits.)
    """
    if accelerated():
        return tree
    return jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), tree)


def coarse(eliminated: Eliminated) -> Eliminated:
    """The same with the matrices of its large products in float32, host code: half their time.

    Those of all terms but the last: of two terms there are none.
    ``y'Py`` is right to some 1e-7 of ``y'y``. Of genes of which nearly all is explained that is
    little: their searches begin a step or two farther away.
    """
    *before, last = eliminated.levels
    levels = []
    for level in before:
        assert level.couple is not None
        matrices = {"rotate": single(level.rotate), "couple": single(level.couple)}
        levels.append(dataclasses.replace(level, **matrices))
    return eliminated._replace(levels=(*levels, last))


def heights(
    eliminated: Eliminated, log_det: Float[Array, "*nodes"], gene: PerGene, size: Scalar
) -> Float[Array, "*nodes genes"]:
    """``exp(deviance / N)``: the same order, without a logarithm for every node of every gene."""
    determinant = jnp.exp(log_det / size)[..., None]
    rss = residual(eliminated, gene)
    return fence(lambda rss: determinant * jnp.maximum(rss, 1e-30), rss)


def in_x(gammas: tuple[Array, ...], m: Float[Array, " k"]) -> tuple[Array, ...]:
    """Nodes of every term in ``x = log(1 + m gamma)``."""
    return tuple(jnp.log1p(m[t] * jnp.asarray(gamma)) for t, gamma in enumerate(gammas))
