"""The entries of covariance matrices: what a deviance with random slopes is differentiated by."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxvp.statistics import Array, RandomBlock

Basis = tuple[Float[Array, "_ _ *genes"], ...]  # eigenvectors of Gamma, by block


class Entry(NamedTuple):
    """An entry ``i <= j`` of a block's covariance."""

    block: int
    i: int
    j: int


def entries(blocks: tuple[RandomBlock, ...]) -> list[Entry]:
    """What is differentiated by: the upper triangle of every block, row by row."""
    return [
        Entry(number, i, j)
        for number, block in enumerate(blocks)
        for i in range(block.size)
        for j in range(i, block.size)
    ]


def offsets(blocks: tuple[RandomBlock, ...]) -> list[int]:
    """Where the coefficients of every block begin."""
    return [int(end) for end in np.cumsum([0, *(block.size for block in blocks)])[:-1]]


def between(one: tuple[int, int]) -> list[tuple[int, int]]:
    """The places of a direction's ones: an entry and its mirror image."""
    i, j = one
    return [one] if i == j else [one, (j, i)]


def block_diagonal(basis: Basis) -> Float[Array, "all all *genes"]:
    sizes = [len(b) for b in basis]
    c, start = sum(sizes), 0
    rows = []
    for b in basis:
        after = c - start - len(b)
        left = jnp.zeros((len(b), start, *b.shape[2:]), b.dtype)
        right = jnp.zeros((len(b), after, *b.shape[2:]), b.dtype)
        rows.append(jnp.concatenate([left, b, right], 1))
        start += len(b)
    return jnp.concatenate(rows)
