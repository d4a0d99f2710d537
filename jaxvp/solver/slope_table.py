r"""Starting points of models with random slopes, from a table that all genes share.

What `jaxvp.solver.table` is for random intercepts: the deviance is looked at, by matrix products,
at the nodes of a grid over the covariance matrices, and a search begins about the lowest node; one
more begins where a node that is lower than all its neighbours, diagonal ones too, marks another
valley (near perfect correlations they are narrow, and lie across the axes). Axes are the
coefficients' variances, in ``x = log(1 + m gamma)``, and of two that are correlated and eliminated
their correlation. Other blocks' correlations are zero at all nodes.

Where one of two correlated coefficients has no variance their correlation says nothing, and nodes
that differ in it alone would be as many valleys: the first node is near zero, and a start about it
is at zero.

Cost a gene of N nodes of the eliminated factor, in C classes of c coefficients: ``N C c (c + 1) / 2
(K + 1)`` multiply-adds; the rest as in `jaxvp.solver.table`.
"""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from jaxvp.likelihood import SWEEP_COLUMNS, Scalar, fence
from jaxvp.likelihood.slope_terms import Basis
from jaxvp.solver import small
from jaxvp.solver.eigen import eigen
from jaxvp.solver.elimination import Eliminated, others
from jaxvp.solver.table import SINGLE_SAMPLES, heights, in_single
from jaxvp.solver.valleys import valleys
from jaxvp.statistics import Array, PerGene, RandomBlock, SlopeShared, upper

# Nodes of x on an axis, by the number of axes, and of correlations. They end where a slope with few
# extreme values may have its variance, ``m gamma`` of 8,000: beyond them a valley is not seen.
# `benchmarks/valleys.py` counts genes whose lowest one is missed.
_NODES = {
    axes: 9 * np.linspace(0, 1, count) ** 2 for axes, count in {1: 12, 2: 12, 3: 10, 4: 8}.items()
}
_CORRELATIONS = np.array([-1.0, -0.6, 0.0, 0.6, 1.0])
_NEAR_ZERO = 0.05
# Weights of class sums at the nodes, at most: of more (9,000 levels, each a class) there is none.
_MOST_WEIGHTS = 1 << 23
# Of the arrays that they are made in.
_NUMBERS_AT_ONCE = 1 << 20


class SlopeTable(eqx.Module):
    """What is shared."""

    eliminated: Eliminated
    axes: tuple[Array, ...]  # nodes of every coordinate
    single: bool = eqx.field(static=True, default=False)  # is float32 enough?


class SlopeStarts(NamedTuple):
    """Where a gene's searches begin: attempts on the axis before the genes'."""

    x: Float[Array, "k 2 genes"]  # as in `cone.State`
    basis: Basis
    there: Bool[Array, "2 genes"]


def _correlated(block: RandomBlock) -> bool:
    return block.eliminated and block.size == 2


def build(shared: SlopeShared, reml: bool) -> SlopeTable | None:
    """The table of a design, host code; None where a grid would have too many nodes."""
    blocks = shared.blocks
    count = sum(block.size + _correlated(block) for block in blocks)
    fine = all(block.size <= 2 for block in blocks)
    if not fine or count not in _NODES or shared.n_columns > SWEEP_COLUMNS:
        return None
    first, rest, gammas = [], [], []
    for block, m in zip(blocks, shared.samples_per_level, strict=True):
        nodes = _NODES[count].copy()
        if _correlated(block):
            nodes[0] = _NEAR_ZERO
            first += [nodes, nodes, _CORRELATIONS]
        elif block.eliminated:
            first += [nodes] * block.size
        else:
            rest += [nodes] * block.size
            gammas += [np.expm1(nodes) / m] * block.size
    places = np.stack([axis.ravel() for axis in np.meshgrid(*first, indexing="ij")])
    if not 0 < places.shape[1] * len(shared.between) <= _MOST_WEIGHTS:
        return None
    weights, systems, log_det = _eliminated(_covariances(places, shared), shared)
    columns = [block.levels for block in blocks if not block.eliminated for _ in range(block.size)]
    levels, fixed, log_det = others(systems, log_det, gammas, columns, reml, large=False)
    axes = (*first, *rest)
    log_det = log_det.reshape([len(axis) for axis in axes])
    single = float(shared.n) <= SINGLE_SAMPLES
    return SlopeTable(Eliminated(weights, levels, fixed, log_det), axes, single)


def _covariances(
    places: Float[np.ndarray, "axes N"], shared: SlopeShared
) -> Float[np.ndarray, "c c N"]:
    """Gamma of the eliminated factor at its nodes."""
    blocks = [block for block in shared.blocks if block.eliminated]
    c = sum(block.size for block in blocks)
    found = np.zeros((c, c, places.shape[1]))
    axis = start = 0
    for block, m in zip(blocks, shared.samples_per_level, strict=False):
        gammas = np.expm1(places[axis : axis + block.size]) / m
        for i, gamma in enumerate(gammas, start):
            found[i, i] = gamma
        axis += block.size
        if _correlated(block):
            between = places[axis] * np.sqrt(gammas[0] * gammas[1])
            found[start, start + 1] = found[start + 1, start] = between
            axis += 1
        start += block.size
    return found


def _eliminated(
    covariances: Float[np.ndarray, "c c N"], shared: SlopeShared
) -> tuple[Float[np.ndarray, "N PC"], Float[np.ndarray, "N K K"], Float[np.ndarray, " N"]]:
    """Weights of the class sums, systems, and ``log|V_1|``, at the nodes; some at a time."""
    c, count = covariances.shape[1:]
    roots = np.moveaxis(np.asarray(shared.roots), 0, -1)
    classes, K = roots.shape[-1], shared.n_columns
    pairs = upper(c)
    weights = np.empty((count, len(pairs), classes))
    systems, log_det = np.empty((count, K, K)), np.empty(count)
    some = max(1, _NUMBERS_AT_ONCE // (c * c * classes))
    for start in range(0, count, some):
        part = slice(start, start + some)
        half = np.einsum("abC,bdN->adNC", roots, covariances[..., part])
        system = np.einsum("adNC,edC->aeNC", half, roots)
        system += np.eye(c)[:, :, None, None]
        factor = small.cholesky(system)
        lower = small.inverse_of_lower(factor)
        inverse = np.einsum("kaNC,kbNC->NCab", lower, lower)
        log_det[part] = small.log_det(factor) @ np.asarray(shared.counts)
        systems[part] = shared.systems(inverse)
        for pair, (a, b) in enumerate(pairs):
            weights[part, pair] = inverse[:, :, a, b]
    return weights.reshape(count, -1), systems, log_det


def slope_starts(
    table: SlopeTable, shared: SlopeShared, gene: PerGene, size: Scalar
) -> SlopeStarts:
    """For every gene of a tile. ``size`` is N, the factor of log r."""
    cross = shared.cross
    if table.single:
        table, gene, size, cross = in_single((table, gene, size, cross))
    if cross is not None:
        gene = fence(by_class, cross, gene)
    height = heights(table.eliminated, table.eliminated.log_det, gene, size)
    # Near perfect correlations valleys are narrow and lie across the axes.
    ridges = any(_correlated(block) for block in shared.blocks)
    found = valleys(table.axes, height, ridges)  # attempts, axes, genes
    there = jnp.isfinite(found).all(1)
    places = jnp.where(there[:, None], found, 0.0).astype(jnp.asarray(shared.r_inverse).dtype)
    return fence(lambda p, t: _starts(shared, p, t), places.swapaxes(0, 1), there)


def by_class(cross: Float[Array, "C c K"], gene: PerGene) -> PerGene:
    """Of a gene that keeps the sums of levels those by pair and class: products with F."""
    a = jnp.asarray(gene.level_sums)
    cross = jnp.asarray(cross)[..., None]
    uy, yy = [], []
    for i, j in upper(a.shape[1]):
        one = cross[:, i] * a[:, j, None]
        uy.append(one if i == j else one + cross[:, j] * a[:, i, None])
        yy.append((1 if i == j else 2) * a[:, i] * a[:, j])
    return PerGene(gene.within_uy, gene.within_yy, jnp.concatenate(uy), jnp.concatenate(yy))


def _starts(shared: SlopeShared, places: Float[Array, "axes 2 genes"], there: Array) -> SlopeStarts:
    """From coordinates to eigenvalues of X and their eigenvectors."""
    # The eliminated blocks come first, in both.
    axis, roots, bases = 0, [], []
    for number, block in enumerate(shared.blocks):
        m = jnp.asarray(shared.samples_per_level)[number]
        part = places[axis : axis + block.size]
        axis += block.size
        if _correlated(block):
            gamma = jnp.where(part <= _NEAR_ZERO * 1.001, 0.0, jnp.expm1(part) / m)
            between = places[axis] * jnp.sqrt(gamma[0] * gamma[1])
            axis += 1
            matrix = jnp.stack([jnp.stack([gamma[0], between]), jnp.stack([between, gamma[1]])])
            values, vectors = eigen(matrix)
            roots.append(jnp.sqrt(jnp.maximum(values, 0.0)))
            bases.append(vectors)
        else:
            roots.append(jnp.sqrt(jnp.expm1(part) / m))
            eye = jnp.eye(block.size, dtype=part.dtype)[..., None, None]
            bases.append(jnp.broadcast_to(eye, (block.size, block.size, *part.shape[1:])))
    return SlopeStarts(jnp.concatenate(roots), tuple(bases), there)
