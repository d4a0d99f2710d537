"""Optima of models with random slopes: several searches a gene, the best is kept.

These likelihoods have more than one optimum more often than those of random intercepts. Every gene
is searched from several starts (`cone.STARTS`), as if it were several genes; of optima that agree
to rounding the first counts.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from jaxvp.likelihood import SWEEP_COLUMNS, Estimates, traced_for
from jaxvp.likelihood.slope_terms import Basis
from jaxvp.likelihood.slopes import evaluate_slopes
from jaxvp.solver import cone
from jaxvp.solver.loop import for_each, iterate
from jaxvp.statistics import Array, PerGene, Records, Slopes, SlopeShared


class SlopeSolution(NamedTuple):
    """Optima of a block of genes; blocks in elimination order, the gene axis last."""

    deviations: Float[Array, "k genes"]  # eigenvalues of Gamma^(1/2), all blocks
    basis: Basis  # their eigenvectors, by block
    violation: Float[Array, " genes"]
    tolerance: Float[Array, " genes"]
    evaluations: Int[Array, " genes"]  # of all searches
    estimates: Estimates


def slope_lanes(shared: SlopeShared, platform: str = "cpu") -> int:
    """Searches that are stepped together."""
    if shared.n_columns > SWEEP_COLUMNS:
        return 1
    if platform != "cpu":
        return 2048
    return 256 if shared.n_columns <= 4 else 128 if shared.n_columns <= 8 else 32


def solve_slopes(
    width: int,
    reml: bool,
    platform: str,
    shared: SlopeShared,
    gene: PerGene,
    wanted: Bool[Array, " genes"],
    limit: Int[Array, ""],
) -> SlopeSolution:
    """Optima and estimates of a block of genes, of which there are a multiple of ``width``."""
    with traced_for(platform):
        return _solve(width, reml, shared, gene, wanted, limit)


def _solve(
    width: int,
    reml: bool,
    shared: SlopeShared,
    gene: PerGene,
    wanted: Bool[Array, " genes"],
    limit: Int[Array, ""],
) -> SlopeSolution:
    count, searches = wanted.shape[0], len(cone.STARTS)
    begin = [cone.start(shared, deviation) for deviation in cone.STARTS]

    def stepped(gene, state):
        if width == 1:
            gene, state = jax.tree.map(lambda leaf: leaf[..., 0], (gene, state))

        def deviance(gamma, basis):
            return evaluate_slopes(gamma, basis, shared, gene, reml=reml)

        out = cone.step(deviance, shared, state)
        return jax.tree.map(lambda leaf: leaf[..., None], out) if width == 1 else out

    parts = [for_each(one, count) for one in begin]
    start = jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis=-1), *parts)
    start = start._replace(done=jnp.tile(~wanted, searches))
    state = iterate(stepped, width, gene, Records.of(start), limit, count).tree()

    shaped = jax.tree.map(lambda leaf: leaf.reshape(*leaf.shape[:-1], searches, count), state)
    certified = shaped.wrong <= jnp.maximum(cone.GRADIENT_TOLERANCE, shaped.tolerance)
    # Of optima that agree to rounding the first; one without certificate only if there is no other.
    eps = 1e-10 if shaped.deviance.dtype == jnp.float64 else 1e-5
    lowest = jnp.where(certified, shaped.deviance, jnp.inf).min(0)
    lowest = jnp.where(jnp.isfinite(lowest), lowest, shaped.deviance.min(0))
    good = shaped.deviance <= lowest + eps * (1 + abs(lowest))
    good &= certified | ~certified.any(0)
    best = jnp.argmax(good, axis=0)

    def pick(leaf):
        index = jnp.broadcast_to(best, (*leaf.shape[:-2], 1, count))
        return jnp.take_along_axis(leaf, index, axis=-2)[..., 0, :]

    found = jax.tree.map(pick, shaped)
    return SlopeSolution(
        found.x,
        found.basis,
        found.wrong,
        found.tolerance,
        shaped.evaluations.sum(0),
        found.estimates,
    )


def relative_factors(
    found: SlopeSolution, shared: SlopeShared, slopes: Slopes
) -> tuple[Float[np.ndarray, "k genes"], list[Float[np.ndarray, "_ _ genes"]]]:
    """Relative variances of the coefficients and relative Cholesky factors, host side.

    Both are in the units of the design's columns, blocks in elimination order. As many diagonal
    entries of a factor are exactly zero as Gamma has zero eigenvalues, and a variance of zero has a
    column of zeros (the factor of a singular matrix is not unique).
    """
    variances, factors, start = [], [], 0
    for block, vectors, transform in zip(
        shared.blocks, found.basis, slopes.transforms, strict=True
    ):
        x = np.asarray(found.deviations, np.float64)[start : start + block.size]
        start += block.size
        root = np.einsum("ij,jkg->ikg", transform, np.asarray(vectors, np.float64) * x)
        variances.append((root**2).sum(axis=1))
        factors.append(_triangular(root, (x != 0).sum(axis=0)))
    return np.concatenate(variances), factors


def _triangular(
    root: Float[np.ndarray, "c c genes"], rank: Int[np.ndarray, " genes"]
) -> Float[np.ndarray, "c c genes"]:
    """L with ``L L' = root root'``, by Gram and Schmidt on the rows."""
    factor = np.zeros_like(root)
    axes = np.zeros_like(root)  # rows: directions that are taken
    taken = np.zeros_like(rank)
    for i, row in enumerate(root):
        rest = row
        for _ in range(2):  # once more: orthogonal to rounding
            along = np.einsum("kjg,jg->kg", axes[:i], rest)
            factor[i, :i] += along
            rest = rest - np.einsum("kjg,kg->jg", axes[:i], along)
        length = np.sqrt((rest**2).sum(axis=0))
        full = rank == len(root)
        new = (length > 1e-9 * np.sqrt((row**2).sum(axis=0))) & (taken < rank)
        new |= full & (length > 0)
        factor[i, i] = np.where(new, length, 0.0)
        axes[i] = np.where(new, rest / np.where(new, length, 1.0), 0.0)
        taken += new
    return factor
