"""Optima of models with random slopes: several searches a gene, the best is kept.

These likelihoods have more than one optimum more often than those of random intercepts. A table
says where searches begin (`jaxvp.solver.slope_table`): for most genes one is enough. Where there is
none, every gene is searched from several starts (`cone.STARTS`). Searches of a gene are as if of
several genes; of optima that agree to rounding the first counts.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from jaxvp.likelihood import SWEEP_COLUMNS, Estimates, traced_for
from jaxvp.likelihood.slope_terms import Basis
from jaxvp.likelihood.slopes import evaluate_slopes
from jaxvp.solver import cone
from jaxvp.solver.loop import by_tiles, for_each, iterate
from jaxvp.solver.slope_table import SlopeStarts, SlopeTable, slope_starts
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
    return 64 if shared.n_columns <= 8 else 32


def solve_slopes(
    width: int,
    reml: bool,
    platform: str,
    shared: SlopeShared,
    gene: PerGene,
    wanted: Bool[Array, " genes"],
    limit: Int[Array, ""],
    table: SlopeTable | None = None,
) -> SlopeSolution:
    """Optima and estimates of a block of genes, of which there are a multiple of ``width``."""
    with traced_for(platform):
        return _solve(width, reml, shared, gene, wanted, limit, table)


def _solve(
    width: int,
    reml: bool,
    shared: SlopeShared,
    gene: PerGene,
    wanted: Bool[Array, " genes"],
    limit: Int[Array, ""],
    table: SlopeTable | None,
) -> SlopeSolution:
    count = wanted.shape[0]
    weighted = gene.plain is not None
    plain, gene = gene.plain or gene, dataclasses.replace(gene, plain=None)
    nowhere = cone.start(shared, 0.0)

    def stepped(gene, state):
        if width == 1:
            gene, state = jax.tree.map(lambda leaf: leaf[..., 0], (gene, state))

        def deviance(gamma, basis):
            return evaluate_slopes(gamma, basis, shared, gene, reml=reml)

        out = cone.step(deviance, shared, state)
        return jax.tree.map(lambda leaf: leaf[..., None], out) if width == 1 else out

    def searched(begin: SlopeStarts, best: cone.State) -> cone.State:
        """The best end of the searches that begin there, and of those before."""
        searches = begin.there.shape[0]
        start = for_each(nowhere, searches * count)._replace(
            trial_x=_flat(begin.x),
            trial_basis=jax.tree.map(_flat, begin.basis),
            done=~(begin.there & wanted).reshape(-1),
        )
        state = iterate(stepped, width, gene, Records.of(start), limit, count).tree()
        return _best(
            jax.tree.map(
                lambda old, new: jnp.concatenate(
                    [old[..., None, :], new.reshape(*new.shape[:-1], searches, count)], axis=-2
                ),
                best,
                state,
            )
        )

    best = for_each(nowhere, count)
    anywhere = [_everywhere(nowhere, deviation, count) for deviation in cone.STARTS]
    if table is None:
        found = searched(_together(anywhere), best)
    else:
        size = shared.n - reml * shared.p
        empty = jax.tree.map(jnp.zeros_like, _together(anywhere[:2]))
        of_table = by_tiles(lambda g: slope_starts(table, shared, g, size), plain, empty)
        # Weights of a gene's own move valleys: one more search, from large variances.
        first, left = [of_table], list(anywhere)
        if weighted:
            first.append(left.pop())
        # Who ends without a certificate begins again elsewhere, some at a time.
        attempts = [_together(first)]
        some = len(attempts[0].there)
        spare = anywhere[0]._replace(there=jnp.zeros_like(anywhere[0].there))
        left += [spare] * (-len(left) % some)
        attempts += [_together(left[i : i + some]) for i in range(0, len(left), some)]
        rounds = jax.tree.map(lambda *leaves: jnp.stack(leaves), *attempts)

        def attempt(number, best):
            begin = jax.tree.map(lambda leaf: leaf[number], rounds)
            again = (number == 0) | ~_certified(best)
            return searched(begin._replace(there=begin.there & again), best)

        found = jax.lax.fori_loop(0, len(attempts), attempt, best)
    return SlopeSolution(
        found.x, found.basis, found.wrong, found.tolerance, found.evaluations, found.estimates
    )


def _everywhere(nowhere: cone.State, deviation: float, count: int) -> SlopeStarts:
    """All genes at one point, every coefficient of the same standard deviation."""
    one = SlopeStarts(
        jnp.full_like(nowhere.x, deviation)[:, None],
        jax.tree.map(lambda leaf: leaf[..., None], nowhere.basis),
        jnp.ones(1, bool),
    )
    return for_each(one, count)


def _together(starts: list[SlopeStarts]) -> SlopeStarts:
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis=-2), *starts)


def _flat(leaf: Array) -> Array:
    """Searches on one axis, those of an attempt side by side."""
    return leaf.reshape(*leaf.shape[:-2], -1)


def _certified(state: cone.State) -> Bool[Array, "..."]:
    return state.wrong <= jnp.maximum(cone.GRADIENT_TOLERANCE, state.tolerance)


def _best(ends: cone.State) -> cone.State:
    """Of the searches, on the axis before the genes'; evaluations are those of all."""
    certified = _certified(ends)
    # Of optima that agree to rounding the first; one without certificate only if there is no other.
    eps = 1e-10 if ends.deviance.dtype == jnp.float64 else 1e-5
    lowest = jnp.where(certified, ends.deviance, jnp.inf).min(0)
    lowest = jnp.where(jnp.isfinite(lowest), lowest, ends.deviance.min(0))
    good = ends.deviance <= lowest + eps * (1 + abs(lowest))
    good &= certified | ~certified.any(0)
    best = jnp.argmax(good, axis=0)

    def pick(leaf):
        index = jnp.broadcast_to(best, (*leaf.shape[:-2], 1, leaf.shape[-1]))
        return jnp.take_along_axis(leaf, index, axis=-2)[..., 0, :]

    found = jax.tree.map(pick, ends)
    return found._replace(evaluations=ends.evaluations.sum(0, dtype=jnp.int32))


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
