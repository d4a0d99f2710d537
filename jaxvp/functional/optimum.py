r"""The optimum of a block of genes as a function of their statistics, with its derivative.

*Value.* `jaxvp.solver.solve`, on tiles as wide as the device likes them. Under ``jax.vmap`` the
mapped genes become genes of one block: a mapped loop would run until the slowest is done, for all.
Where the design's statistics are mapped too (bootstrap weights), each of them is a block.

*Derivative.* With g the score in gamma and e what follows from it (coefficients, sigma,
log-likelihood), both closed forms of gamma and the statistics s (`jaxvp.likelihood.evaluate`),

    d gamma = -H^-1 (dg/ds) ds    where gamma > 0, else 0,
    d e     = (de/ds) ds + (de/d gamma) d gamma.

Both are linear in ds: JAX transposes them for reverse mode.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Bool, Float

from jaxvp.likelihood import Estimates, conditions
from jaxvp.solver import MAX_ITERATIONS, Solution, Table, lanes, solve
from jaxvp.statistics import Array, Own, PerGene, Shared


class Problem(eqx.Module):
    """A block of genes."""

    shared: Shared  # its products are those of all genes, or stand in for those of `gene.own`
    gene: PerGene
    wanted: Bool[Array, " genes"]  # others are never stepped
    table: Table | None
    reml: bool = eqx.field(static=True)


@jax.custom_jvp
def optimum(problem: Problem) -> Solution:
    """Optima of a block of genes, differentiable in its statistics."""
    return _block(problem)


@custom_vmap
def _block(problem: Problem) -> Solution:
    genes = problem.wanted.shape[0]
    cpu, gpu = (
        partial(_solve, min(lanes(problem.shared, kind), _power_of_two(genes)), kind)
        for kind in ("cpu", "gpu")
    )
    if jax.default_backend() == "cpu":
        # Nothing but a CPU is there: what is for others would be compiled, too, and that by a
        # compiler that it is not for.
        return cpu(problem)
    return jax.lax.platform_dependent(problem, cpu=cpu, default=gpu)


def _solve(width: int, platform: str, problem: Problem) -> Solution:
    """Whole tiles: padded with genes that nobody steps."""
    genes = problem.wanted.shape[0]
    spare = -genes % width

    def pad(leaf):
        return jnp.concatenate([leaf, jnp.repeat(leaf[..., -1:], spare, axis=-1)], axis=-1)

    gene, wanted = problem.gene, problem.wanted
    if spare:
        gene = jax.tree.map(pad, gene)
        wanted = jnp.concatenate([wanted, jnp.zeros(spare, bool)])
    limit = jnp.asarray(MAX_ITERATIONS, jnp.int32)
    system = (problem.shared, gene, wanted, limit, problem.table)
    found = solve("newton", width, problem.reml, platform, *system)
    return jax.tree.map(lambda leaf: leaf[..., :genes], found)


def _power_of_two(genes: int) -> int:
    return 1 << (genes - 1).bit_length()


@_block.def_vmap
def _mapped(size: int, batched: Sequence[Problem], problem: Problem) -> tuple[Solution, Solution]:
    """Genes of ``size`` blocks as genes of one; or block after block, where designs differ."""
    (mapped,) = batched
    genes = problem.wanted.shape[-1]
    if genes == 1 and problem.gene.own is None:
        problem, mapped = _with_own(problem, mapped)
    if any(jax.tree.leaves((mapped.shared, mapped.table))):
        leaves, structure = jax.tree.flatten(problem)
        flags = jax.tree.leaves(mapped)

        def one(moving):
            moving = iter(moving)
            return _block(
                structure.unflatten(
                    next(moving) if flag else leaf for leaf, flag in zip(leaves, flags, strict=True)
                )
            )

        found = jax.lax.map(one, [x for x, flag in zip(leaves, flags, strict=True) if flag])
    else:

        def merge(leaf, flag):
            if flag:
                leaf = jnp.moveaxis(leaf, 0, -2)
            else:
                leaf = jnp.broadcast_to(
                    leaf[..., None, :], (*leaf.shape[:-1], size, leaf.shape[-1])
                )
            return leaf.reshape(*leaf.shape[:-2], -1)

        gene, wanted = jax.tree.map(
            merge, (problem.gene, problem.wanted), (mapped.gene, mapped.wanted)
        )
        found = jax.tree.map(
            lambda leaf: jnp.moveaxis(leaf.reshape(*leaf.shape[:-1], size, genes), -2, 0),
            _block(Problem(problem.shared, gene, wanted, problem.table, problem.reml)),
        )
    return found, jax.tree.map(lambda _: True, found)


def _with_own(problem: Problem, mapped: Problem) -> tuple[Problem, Problem]:
    """Single genes of designs that differ in their products are genes with products of their own.

    In the design's place stand the first one's.
    """
    names = [field.name for field in dataclasses.fields(Own)]
    flags = [getattr(mapped.shared, name) for name in names]
    if not any(flags):
        return problem, mapped
    products = [getattr(problem.shared, name) for name in names]
    first = [leaf[0] if flag else leaf for leaf, flag in zip(products, flags, strict=True)]
    own = jax.tree.structure(Own(*first)).unflatten

    def put(tree, design, of_gene):
        tree = eqx.tree_at(lambda t: [getattr(t.shared, name) for name in names], tree, design)
        return eqx.tree_at(lambda t: t.gene.own, tree, own(of_gene), is_leaf=lambda x: x is None)

    return (
        put(problem, first, [leaf[..., None] for leaf in products]),
        put(mapped, [False] * len(names), flags),
    )


@partial(optimum.defjvp, symbolic_zeros=True)
def _derivative(primals: tuple[Problem], tangents: tuple[Problem]) -> tuple[Solution, Solution]:
    (problem,), (moving,) = primals, tangents
    found = optimum(problem)
    leaves, structure = jax.tree.flatten((problem.shared, problem.gene))
    towards = jax.tree.leaves((moving.shared, moving.gene))
    live = [i for i, tangent in enumerate(towards) if not isinstance(tangent, SymbolicZero)]
    values, tangent = ([array[i] for i in live] for array in (leaves, towards))

    def at(gamma, values):
        moved = list(leaves)
        for i, value in zip(live, values, strict=True):
            moved[i] = value
        shared, gene = structure.unflatten(moved)
        return _conditions(gamma, shared, gene, problem.reml)

    gamma, hessian = found.gamma, found.hessian
    assert hessian is not None
    m = problem.shared.samples_per_level[:, None]
    slope = gamma + 1 / m  # of gamma in x
    _, score = jax.jvp(lambda values: at(gamma, values)[0], (values,), (tangent,))
    free = gamma > 0
    same = jnp.eye(len(gamma), dtype=gamma.dtype)[..., None]
    inverse = _inverse(jnp.where(free[:, None] & free[None], hessian, same))
    right = jnp.where(free, slope * score, 0)
    d_gamma = -slope * jnp.where(free, (inverse * right).sum(1), 0)
    _, estimates = jax.jvp(
        lambda gamma, values: at(gamma, values)[1], (gamma, values), (d_gamma, tangent)
    )
    nothing = jnp.zeros_like(found.violation)
    none = np.zeros(found.evaluations.shape, jax.dtypes.float0)
    return found, Solution(d_gamma, nothing, nothing, none, estimates, jnp.zeros_like(hessian))


def _conditions(gamma: Array, shared: Shared, gene: PerGene, reml: bool) -> tuple[Array, Estimates]:
    """At the gammas of a block."""
    each = jax.vmap(
        lambda gamma, gene: conditions(gamma, shared, gene, reml=reml), in_axes=-1, out_axes=-1
    )
    return each(gamma, gene)


def _inverse(matrix: Float[Array, "k k genes"]) -> Float[Array, "k k genes"]:
    """By Gauss and Jordan: the matrix is positive definite at a minimum."""
    k = len(matrix)
    same = jnp.broadcast_to(jnp.eye(k, dtype=matrix.dtype)[..., None], matrix.shape)
    rows = jnp.concatenate([matrix, same], axis=1)
    for t in range(k):
        row = rows[t] / rows[t, t]
        rows = (rows - rows[:, t, None] * row).at[t].set(row)
    return rows[:, k:]
