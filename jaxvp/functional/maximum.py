r"""Has the likelihood of a gene a maximum on the samples that count? Asked in compiled code.

By ML it has none where the columns of X and of the random terms together can write any m samples,
and those of the random terms alone cannot (`jaxvp.design.information`):

    rank [X Z] = m > rank Z        (rows of the m samples that count).

All samples are asked with the design. Weights of zero, or other numbers in X, can bring it about,
where there are no more samples than columns: counting excludes it for many observations a level.

Rows are taken by Gram and Schmidt, the longest of what is left first: no LAPACK. Whatever is mapped
is one batch, none of which is worked on where counting excludes all.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jaxtyping import Bool, Float, Int

from jaxvp.functional.model import Design
from jaxvp.statistics import Array

# As in `jaxvp.fit`: ranks of more samples than this cost more than they tell.
_MOST_SAMPLES = 300


def unbounded(
    design: Design, counts: Bool[Array, " n"], levels: Int[Array, " k"]
) -> Bool[Array, ""]:
    """Is there no maximum on the samples that count, with so many levels left to the terms?"""
    n, p = design.X.shape
    layout = design.layout
    if design.reml or layout is None:
        return jnp.zeros((), bool)
    m = counts.sum()
    few = (m <= p + levels.sum()) & (m <= _MOST_SAMPLES)
    most = min(n, p + sum(design.levels), _MOST_SAMPLES)
    samples = jax.lax.stop_gradient((design.X, layout.level_of, layout.others))
    return _batch(most, layout.levels)(samples, few[None], counts[None])[0]


def _batch(most: int, levels: int) -> Callable[..., Array]:
    """The answer for a batch of patterns, of no more than ``most`` samples where they are few."""

    @custom_vmap
    def batch(samples, few, counts):
        def asked(pattern):
            few, counts = pattern
            return jax.lax.cond(few, lambda: _explain(samples, counts, most, levels), _no)

        def each():
            return jax.lax.map(asked, (few, counts))

        return jax.lax.cond(few.any(), each, lambda: jnp.zeros_like(few))

    @batch.def_vmap
    def _mapped(size, batched, *arguments):
        if any(jax.tree.leaves(batched[0])):  # designs that differ

            def at(i):
                return batch(
                    *jax.tree.map(lambda a, flag: a[i] if flag else a, arguments, tuple(batched))
                )

            return jax.lax.map(at, jnp.arange(size)), True
        samples, *patterns = arguments
        few, counts = (
            a if flag else jnp.broadcast_to(a, (size, *a.shape))
            for a, flag in zip(patterns, batched[1:], strict=True)
        )
        found = batch(samples, few.reshape(-1), counts.reshape(-1, counts.shape[-1]))
        return found.reshape(few.shape), True

    return batch


def _no() -> Array:
    return jnp.zeros((), bool)


def _explain(
    samples: tuple[Array, Array, Array], counts: Bool[Array, " n"], most: int, levels: int
) -> Bool[Array, ""]:
    """Can X and the random terms write any samples, and the random terms alone cannot?"""
    (index,) = jnp.nonzero(counts, size=most, fill_value=len(counts))
    X, level_of, others = (a.at[index].get(mode="fill", fill_value=0) for a in samples)
    there = index < len(counts)
    first = (level_of[:, None] == jnp.arange(levels)) & there[:, None]
    Z = jnp.concatenate([first.astype(X.dtype), others.astype(X.dtype)], axis=1)
    length = jnp.sqrt((X * X).sum(axis=0))
    X = X / jnp.where(length > 0, length, 1)
    m = there.sum()
    return (_rank(jnp.concatenate([X, Z], axis=1)) == m) & (_rank(Z) < m)


def _rank(rows: Float[Array, "m c"]) -> Array:
    """Rows that are no combination of others."""
    count = len(rows)
    least = (8 * count * jnp.finfo(rows.dtype).eps) ** 2 * (rows * rows).sum(axis=1).max()

    def step(_, carry):
        rest, rank = carry
        squares = (rest * rest).sum(axis=1)
        longest = jnp.argmax(squares)
        new = squares[longest] > least
        row = rest[longest] / jnp.sqrt(jnp.where(new, squares[longest], 1))
        rest = rest - (rest @ row)[:, None] * row
        return rest.at[longest].set(0), rank + new

    return jax.lax.fori_loop(0, count, step, (rows, jnp.zeros((), jnp.int32)))[1]
