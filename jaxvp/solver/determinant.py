r"""The determinants of large systems as a function of gamma, tabulated once for all genes.

``log|V|``, by REML with ``log|X'V^-1 X|``, knows nothing of a gene. Its main terms, ``sum_j log(1 +
gamma_i n_ij)``, are taken out, and what is left is a polynomial through the nodes of a grid
(`jaxvp.solver.polynomial`), with as many nodes as make it exact to `_ERROR`. How exact its score
really is, is measured beside dense algebra at random points when it is built: only one within
`PRECISE` stands in for a factorisation of each gene's own system.
"""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxvp.likelihood import Scalar
from jaxvp.likelihood.system import class_weights, term_slices
from jaxvp.solver import polynomial
from jaxvp.solver.elimination import eliminate, level_sizes
from jaxvp.statistics import Array, Shared

# Largest error of the score in x: a tenth of what certifies an optimum.
PRECISE = 1e-7
_ERROR = 1e-10
_POINTS = 4
_NEAR_ZERO = 1e-4  # x: where polynomials are worst, and many genes end


class MainTerms(eqx.Module):
    """``sum_ij log(1 + gamma_i n_ij)``, the determinant of every term alone."""

    sizes: Float[Array, "k L"]  # distinct numbers of samples in a level
    counts: Float[Array, "k L"]  # how many levels have them
    mean: Float[Array, " k"]

    @classmethod
    def of(cls, sizes: tuple[np.ndarray, ...], mean: Array) -> MainTerms:
        """Of the numbers of samples in every level of every term."""
        found = [np.unique(n, return_counts=True) for n in sizes]
        shape = (len(found), max(len(n) for n, _ in found))
        distinct, counts = np.ones(shape), np.zeros(shape)
        for i, (n, count) in enumerate(found):
            distinct[i, : len(n)], counts[i, : len(n)] = n, count
        return cls(distinct, counts, mean)

    def __call__(self, x: Float[Array, "k genes"]) -> tuple[Scalar, Array, Array]:
        """Value, score and the Hessian's diagonal in x of a tile of genes."""
        x, m, counts = x[:, None], self.mean[:, None, None], self.counts[..., None]
        # log(1 + gamma n) in x: n e^x / (m + n (e^x - 1)) is its slope.
        n = self.sizes[..., None]
        below = m + n * jnp.expm1(x)
        share = n * jnp.exp(x) / below
        value = (counts * jnp.log(below / m)).sum((0, 1))
        return value, (counts * share).sum(1), (counts * share * (1 - share)).sum(1)


class Determinant(eqx.Module):
    """The tabulated determinant."""

    values: Float[Array, "*fine 1"]  # at the nodes, without the main terms
    axes: polynomial.Axes
    main: MainTerms
    error: Float[Array, ""]  # of the score, at the points that were looked at

    def __call__(self, x: Float[Array, "k genes"]) -> tuple[Scalar, Array]:
        """Value and score in x of a tile of genes."""
        value, score = self.axes.score(self.values, x)
        alone = self.main(x)
        return value + alone[0], score + alone[1]


def grid(shared: Shared) -> tuple[polynomial.Axes, tuple[int, ...]]:
    """The axes, and the number of nodes of each."""
    axes = polynomial.Axes.of(level_sizes(shared), shared.samples_per_level)
    return axes, axes.counts(_ERROR)


def tabulate(shared: Shared, reml: bool) -> Determinant:
    """The determinant of a design with two or three random terms, host code."""
    sizes = level_sizes(shared)
    axes, counts = grid(shared)
    values = eliminate(shared, axes.gammas(counts), reml).log_det
    coefficients = values
    for axis, count in enumerate(counts):
        matrix = polynomial.to_coefficients(count)
        coefficients = np.moveaxis(np.tensordot(matrix, coefficients, (1, axis)), 0, axis)
    k = len(counts)
    points = np.random.default_rng(0).uniform(0, 1, (_POINTS * (k + 2), k))
    points = np.log1p(polynomial.LARGEST_GAMMA * shared.samples_per_level) * points
    for i in range(k):  # each term in turn next to zero, and all of them
        points[i * _POINTS : (i + 1) * _POINTS, i] = _NEAR_ZERO
    points[k * _POINTS] = _NEAR_ZERO
    error = max(
        abs(_score(coefficients, axes, sizes, x) - _dense_score(shared, x, reml)).max()
        for x in points
    )
    main = MainTerms.of(sizes, shared.samples_per_level)
    return Determinant(values[..., None], axes, main, np.asarray(error))


def _score(
    coefficients: np.ndarray,
    axes: polynomial.Axes,
    sizes: tuple[np.ndarray, ...],
    x: np.ndarray,
) -> np.ndarray:
    """What `Determinant` says of one point."""
    below = axes.mean + axes.largest * np.expm1(x)
    z = 2 * np.log(below / axes.mean) / axes.top - 1
    score = np.asarray(axes.largest * np.exp(x) / below * 2 / axes.top)
    for i, (n, m) in enumerate(zip(sizes, axes.mean, strict=True)):
        slope = np.polynomial.chebyshev.chebder(coefficients, axis=i)
        for point in z:
            row = np.polynomial.chebyshev.chebvander(point, slope.shape[0] - 1)[0]
            slope = np.tensordot(row, slope, 1)
        score[i] = score[i] * slope + (n * np.exp(x[i]) / (m + n * np.expm1(x[i]))).sum()
    return score


def _dense_score(shared: Shared, x: np.ndarray, reml: bool) -> np.ndarray:
    """The same from the inverse of the system at this point."""
    gamma = np.expm1(x) / shared.samples_per_level
    q = shared.n_columns - shared.p
    rows = slice(None) if reml else slice(q)
    w0, w1, _ = (np.asarray(w) for w in class_weights(shared, np.asarray(gamma[0])))
    root = np.ones(shared.n_columns)
    for block, ratio in zip(term_slices(shared), gamma[1:], strict=True):
        root[block] = np.sqrt(ratio)
    both = np.outer(root, root)[rows, rows]
    system = both * (shared.within + np.tensordot(w0, shared.between, 1))[rows, rows]
    system += np.diag((np.arange(len(system)) < q).astype(float))
    inverse = np.linalg.inv(system)
    moved = (inverse * both * np.tensordot(w1, shared.between, 1)[rows, rows]).sum()
    eliminated = shared.level_counts * shared.level_sizes / (1 + gamma[0] * shared.level_sizes)
    # 1 - the inverse's diagonal is gamma times what the trace is of.
    traced = 1 - np.diagonal(inverse)
    others = [
        traced[block].sum() / ratio
        for block, ratio in zip(term_slices(shared), gamma[1:], strict=True)
    ]
    return np.exp(x) / shared.samples_per_level * np.array([eliminated.sum() + moved, *others])
