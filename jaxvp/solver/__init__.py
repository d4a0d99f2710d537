"""Solvers: from a gene's deviance to its certified optimum.

A solver is a module of three functions over one gene, mapped over genes by `jaxvp.batch`:

    start(samples_per_level)                    -> state before the first evaluation step(deviance,
    samples_per_level, state)    -> state after one more evaluation, frozen once ``state.done``
    state.x, .score, .tolerance, .evaluations, .done GENES_LAST
    does ``step`` take the genes of a tile on a trailing axis?

``newton`` is the default; ``optax`` runs the same deviance through optax's L-BFGS, as an
independent check. `advance` is the one bounded loop over a block of genes that every solver and
every caller shares.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxvp.likelihood import SWEEP_COLUMNS, evaluate
from jaxvp.solver import lbfgs, newton
from jaxvp.solver.status import Status
from jaxvp.statistics import PerGene, Shared

__all__ = ["SOLVERS", "Status", "advance", "initial", "lanes", "newton"]

SOLVERS: dict[str, ModuleType] = {"newton": newton, "optax": lbfgs}

# An iteration limit, not a target: five to six evaluations are the rule.
MAX_ITERATIONS = 200


def lanes(shared: Shared, platform: str = "cpu") -> int:
    """Genes that are stepped together.

    A tile whose systems stay in one core's second-level cache.
    """
    if shared.n_columns > SWEEP_COLUMNS:
        return 1
    if platform != "cpu":
        return 2048
    return int(np.clip(2 ** np.floor(np.log2(3.2e4 / (shared.n_columns + 1) ** 2)), 16, 256))


def initial(solver: str, shared: Shared, genes: int) -> Any:
    """States of a block of genes before the first evaluation, gene axis last."""
    one = SOLVERS[solver].start(shared.samples_per_level)
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf[..., None], (*leaf.shape, genes)), one)


def genes_last(one_step: Callable[[PerGene, Any], Any]) -> Callable[[PerGene, Any], Any]:
    """A step whose `jax.vmap` keeps the genes on the last axis.

    Where elementwise code reads memory in order.

    `jax.vmap` moves them first (every broadcast does); the step, written on leading axes, takes
    them last as it is.
    """
    mapped = jax.custom_batching.custom_vmap(one_step)

    @mapped.def_vmap
    def rule(axis_size, in_batched, gene, state):
        def last(leaf):
            return jnp.moveaxis(leaf, 0, -1)

        out = one_step(*jax.tree.map(last, (gene, state)))
        return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, -1, 0), out), jax.tree.map(
            lambda _: True, out
        )

    return mapped


def advance(
    solver: str,
    width: int,
    reml: bool,
    shared: Shared,
    gene: PerGene,
    state: Any,
    genes: jax.Array,
    steps: jax.Array,
) -> Any:
    """Take the first ``genes`` genes of a block up to ``steps`` iterations further.

    Tiles of ``width`` genes are stepped one after the other, each tile until all its genes are done
    or its steps are spent. ``genes`` and ``steps`` are traced: one compiled program serves the
    first burst over all genes and every later one over the few that are left.
    """
    method = SOLVERS[solver]

    def one_step(gene, state):
        def deviance(gamma):
            return evaluate(gamma, shared, gene, reml=reml)

        return method.step(deviance, shared.samples_per_level, state)

    def tile(index, state):
        begin = index * width

        def take(leaf):
            return jax.lax.dynamic_slice_in_dim(leaf, begin, width, axis=-1)

        here, part = jax.tree.map(take, gene), jax.tree.map(take, state)
        if width == 1:
            here, part = jax.tree.map(lambda leaf: leaf[..., 0], (here, part))
            stepped = one_step
        else:
            stepped = jax.vmap(
                genes_last(one_step) if method.GENES_LAST else one_step, in_axes=-1, out_axes=-1
            )

        def unfinished(carry):
            count, part = carry
            return (count < steps) & ~jnp.all(part.done)

        _, part = jax.lax.while_loop(
            unfinished, lambda c: (c[0] + 1, stepped(here, c[1])), (jnp.zeros_like(steps), part)
        )
        if width == 1:
            part = jax.tree.map(lambda leaf: leaf[..., None], part)
        return jax.tree.map(
            lambda old, new: jax.lax.dynamic_update_slice_in_dim(old, new, begin, -1), state, part
        )

    return jax.lax.fori_loop(0, (genes + width - 1) // width, tile, state)
