"""What the statistics are: shared by all genes, and one gene's own."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

# NumPy on the host, JAX on a device and inside compiled code.
Array = jax.Array | np.ndarray
EPS = float(np.finfo(np.float64).eps)
# Up to this many columns the system is swept as elementwise arithmetic over a tile of genes; larger
# ones are factored, one gene at a time with random slopes.
SWEEP_COLUMNS = 64


def namespace(array: Array) -> Any:
    """NumPy or jax.numpy: formulas that the host and compiled code share are written once."""
    return jnp if isinstance(array, jax.Array) else np


def padded(array: Array, genes: int) -> Array:
    """With the last gene again, as often as so many genes need."""
    spare = genes - array.shape[-1]
    if not spare:
        return array
    return np.concatenate([array, np.repeat(array[..., -1:], spare, axis=-1)], axis=-1)


class Own(eqx.Module):
    """What weights and lost observations give each gene for itself, in place of `Shared`'s."""

    within: Float[Array, "K K *genes"]
    between: Float[Array, "C K K *genes"]
    sizes: Float[Array, "C *genes"]
    level_sizes: Float[Array, "L *genes"]  # of every level: sums of weights; lost ones are zero
    level_counts: Float[Array, "L *genes"]
    n: Float[Array, "*genes"]  # observations that count


class Packed(eqx.Module):
    """`Own`, with the upper triangles of the class sums in place of the whole: half the memory.

    What bounds an evaluation of such genes is reading them: those of all classes are side by side.
    """

    within: Float[Array, "K K *genes"]
    packed: Float[Array, "T C *genes"]  # T = K (K + 1) / 2, row by row
    sizes: Float[Array, "C *genes"]
    level_sizes: Float[Array, "L *genes"]
    level_counts: Float[Array, "L *genes"]
    n: Float[Array, "*genes"]


@functools.lru_cache(maxsize=16)
def triangle(K: int) -> Int[np.ndarray, "K K"]:
    """Where the entries of a symmetric matrix are in its upper triangle, row by row."""
    row, column = np.triu_indices(K)
    place = np.zeros((K, K), dtype=np.int64)
    place[row, column] = place[column, row] = np.arange(len(row))
    place.flags.writeable = False  # all callers have the same one
    return place


class SlopeOwn(eqx.Module):
    """The same with random slopes, in place of `SlopeShared`'s; every level is a class."""

    within: Float[Array, "K K *genes"]
    cross: Float[Array, "C c K *genes"]
    roots: Float[Array, "C c c *genes"]
    counts: Float[Array, "C *genes"]
    n: Float[Array, "*genes"]


class Shared(eqx.Module):
    """What all genes of a design share. Arrays are NumPy on the host, JAX inside compiled code.

    Random terms are numbered with the eliminated one first: ``order[0]`` is its place in the
    formula. Sizes are sums of weights. Where a gene has `Own` products, these stand in for the
    first fields, with the gene axis last.
    """

    within: Float[Array, "K K *genes"]
    between: Float[Array, "_ K K ..."]  # class sums C_c of the C classes
    sizes: Float[Array, "C *genes"]  # n_c, or interpolation nodes
    level_sizes: Float[Array, "L *genes"]  # distinct true sizes of the levels of term 1
    level_counts: Float[Array, "L *genes"]  # how many levels have that size
    samples_per_level: Float[Array, " k"]  # mean, per random term in elimination order
    log_det_r: Float[Array, ""]  # log|det R|, X = Q R
    r_inverse: Float[Array, "p p"]  # R^-1
    n: Float[Array, "*genes"]  # samples, those of weight zero not counted
    p: int = eqx.field(static=True)
    levels: tuple[int, ...] = eqx.field(static=True)  # number of levels, elimination order
    order: tuple[int, ...] = eqx.field(static=True)  # elimination order -> formula order
    packed: Float[Array, "T C *genes"] | None = None  # of a gene's own, in place of `between`

    @property
    def n_columns(self) -> int:
        """K: columns left when term 1 is eliminated."""
        return sum(self.levels[1:]) + self.p

    @property
    def numbers_of_gene(self) -> int:
        """What a gene's statistics are."""
        return (len(self.between) + 1) * (self.n_columns + 1)

    @property
    def class_sums(self) -> Float[Array, "C K K *genes"]:
        """`between`, or what stands in for it."""
        if self.packed is None:
            return self.between
        return self.packed.swapaxes(0, 1)[:, triangle(self.n_columns)]

    def of(self, own: Own | Packed | SlopeOwn | None) -> Shared:
        """The same with a gene's own products, if it has any."""
        assert not isinstance(own, SlopeOwn)
        return self if own is None else dataclasses.replace(self, **vars(own))


class PerGene(eqx.Module):
    """Statistics of a block of genes, the gene axis last (one gene: without it)."""

    within_uy: Float[Array, "K *genes"]
    within_yy: Float[Array, "*genes"]
    between_uy: Float[Array, "C K *genes"]
    between_yy: Float[Array, "C *genes"]
    # with weights of its own, or observations that it lacks
    own: Own | Packed | SlopeOwn | None = None
    # with random slopes, level by level and in place of sums by class: a of every level
    level_sums: Float[Array, "levels c *genes"] | None = None
    # of a gene with products of its own, where searches begin by it: statistics without weights
    plain: PerGene | None = None


class Block(NamedTuple):
    """One block's `PerGene`, what undoes residualising and scaling, and the genes not to fit."""

    gene: Any  # `PerGene`, or `Records` of it
    scale: Float[np.ndarray, " genes"]  # s, in the units of the measurements
    ols: Float[np.ndarray, "p genes"]  # least-squares coefficients on Q, units of the measurements
    non_finite: Bool[np.ndarray, " genes"]
    constant: Bool[np.ndarray, " genes"]
    explained: Bool[np.ndarray, " genes"]  # exactly, by the fixed part alone
