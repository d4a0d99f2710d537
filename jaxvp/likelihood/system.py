"""The system that is left to sweep or factor once term 1 is gone, as a power series in gamma_1."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxvp.likelihood.elementary import log1p
from jaxvp.likelihood.lanes import lift, total
from jaxvp.statistics import Array, Shared
from jaxvp.target import accelerated

# Sizes of levels whose sum is written out on a CPU, for a tile of genes: its own takes three times
# as long (F: a fifth of a step). For one gene, which may be differentiated, they would be scalars.
_FEW_SIZES = 64

Scalar = Float[Array, "*genes"]
Vector = Float[Array, "k *genes"] | tuple[Scalar, ...]


class Moments(NamedTuple):
    """Power series in gamma_1 (coefficients 0, 1, 2), and sums over the columns of each term."""

    log_det: tuple[Scalar, Scalar, Scalar]
    rss: tuple[Scalar, Scalar, Scalar]
    # Derivatives, summed over the columns of every term (`by_term`), with t = k - 1 terms left:
    # of log|.|, a diagonal of Z'PZ (ML: Z'V^-1 Z), and of r, -(Z'Py)^2; then the second ones of
    # log|.| with gamma_1, 1, and with the others, t; and the same of r.
    sums: Float[Array, "k _ *genes"]
    lost: Scalar  # largest ratio of a column's square to what the others leave of it: lost digits


class FixedSystem(NamedTuple):
    """What is left when the random columns are eliminated."""

    covariance: Float[Array, "p p *genes"]  # (X'V^-1 X)^-1
    beta: Float[Array, "p *genes"]
    rss: Scalar  # y'P y
    log_det: Scalar  # log|V|
    log_det_fixed: Scalar  # log|X'V^-1 X|


def class_weights(shared: Shared, gamma: Scalar) -> tuple[Array, Array, Array]:
    """Power series of ``1 / (1 + gamma n_c)`` in a change of gamma."""
    sizes = lift(shared.sizes, gamma, 1)
    w0 = 1 / (1 + gamma * sizes)
    w1 = -sizes * w0 * w0
    return w0, w1, -sizes * w0 * w1


def log_det_eliminated(shared: Shared, gamma: Scalar) -> tuple[Scalar, Scalar, Scalar]:
    """Power series of ``log|V_1|``, from the true sizes of the levels."""
    sizes = lift(shared.level_sizes, gamma, 1)
    counts = lift(shared.level_counts, gamma, 1)
    share = sizes / (1 + gamma * sizes)
    few = jnp.ndim(gamma) and len(sizes) <= _FEW_SIZES and not accelerated()
    added = total if few else partial(jnp.sum, axis=0)
    return (
        added(counts * log1p(gamma * sizes)),
        added(counts * share),
        -0.5 * added(counts * share * share),
    )


def term_slices(shared: Shared) -> list[slice]:
    """Columns of every random term that is left."""
    ends = np.cumsum((0, *shared.levels[1:]))
    return [slice(int(a), int(b)) for a, b in zip(ends[:-1], ends[1:], strict=True)]


def spread(gamma: Vector, shared: Shared, like: Scalar) -> Array:
    """The variance ratio of every random column that is left."""
    if len(shared.levels) == 1:
        return jnp.zeros((0, *like.shape), like.dtype)
    ratios = jnp.stack(gamma) if isinstance(gamma, tuple) else gamma
    return jnp.tensordot(_members(shared, like.dtype).T, ratios, 1, precision="highest")


def by_term(columns: Sequence[Array], shared: Shared) -> Float[Array, "k some *genes"]:
    """Sums over the columns of each term: nothing for the first, which has none."""
    together = jnp.stack(columns, 1)
    return jnp.tensordot(_members(shared, together.dtype), together, 1, precision="highest")


def _members(shared: Shared, dtype: Any) -> Float[np.ndarray, "k q"]:
    """Which columns are of which term.

    Products with it have nothing to compile, where loops over parts of an array cost as much as
    many kernels.
    """
    member = np.zeros((len(shared.levels), shared.n_columns - shared.p))
    for t, block in enumerate(term_slices(shared)):
        member[t + 1, block] = 1
    return member.astype(dtype)
