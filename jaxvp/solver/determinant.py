r"""What is the same for all genes of a large system, as a function of gamma, tabulated once.

``log|V|``, by REML with ``log|X'V^-1 X|``, knows nothing of a gene. Its main terms, ``sum_j log(1 +
gamma_i n_ij)``, are taken out, and what is left is a polynomial through the nodes of a grid
(`jaxvp.solver.polynomial`), with as many nodes as make it exact to one of `_ERRORS`. How exact its
score really is, is measured beside dense algebra at random points when it is built: only one within
`PRECISE` stands in for a factorisation of each gene's own system. ``(X'V^-1 X)^-1 = U diag(d) U'``
is tabulated with it, as ``log d`` and the unit triangular U: of one size over the whole grid,
unlike what they make.

At a node of gamma_1 the system of all other columns is ``M = S + sum_c w_c C_c``. For all gamma_2
at once, with ``M_22`` the block of term 2, ``log|I + gamma_2 M_22|`` is added and the other
columns' system becomes ``M_rr - M_r2 (M_22 + I / gamma_2)^-1 M_2r`` (`jaxvp.solver.shifted`); of
that the same for term 3, and the fixed part is left. Of the terms' columns only contrasts are
eliminated like this (`jaxvp.solver.confounded`); the combinations that the fixed part has as well
are put back at the end.

Cost: N_1 reductions of size q_2, N_1 N_2 of size q_3, shared out to all cores.

More than 300 lines: the table, and the dense algebra that its error is measured beside.
"""

from __future__ import annotations

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxvp.likelihood import Scalar
from jaxvp.likelihood.elementary import log
from jaxvp.solver import lapack, polynomial, small
from jaxvp.solver.confounded import Confounded, added, contrasts, levels_left, slopes
from jaxvp.solver.elimination import (
    TOGETHER,
    for_nodes,
    level_sizes,
    some_nodes,
    systems,
    weights_at,
    without_main,
)
from jaxvp.solver.shifted import held_at_once, shifted
from jaxvp.statistics import Array, Compression, Shared

# Largest error of the score in x: a tenth of what certifies an optimum.
PRECISE = 1e-7
# Of the polynomial: the first that makes it as precise as that. Of unequal levels some designs want
# the last; others have lost as much by the rounding of more nodes.
_ERRORS = (3e-9, 5e-10, 1e-10)
# Beyond it, a residual share of 1e-4, there is no polynomial. (Up to 1e3, a tenth fewer nodes on
# every axis, two of design D's 2,000 genes would be left to factors: 0.6 s of a core each.)
LARGEST_GAMMA = 1e4
# Largest relative error of (X'V^-1 X)^-1: standard errors need no more digits.
_PRECISE_COVARIANCE = 1e-6
_POINTS = 2
_MOST_HELD = 1 << 27  # numbers, by all threads: 1 GiB
_NEAR_ZERO = 1e-4  # x: where polynomials are worst, and many genes end


class MainTerms(eqx.Module):
    """``sum_ij log(1 + gamma_i n_ij)``, the determinant of every term alone."""

    sizes: Float[Array, " L"]  # distinct numbers of samples in a level, term by term
    counts: Float[Array, "k L"]  # how many levels of every term have them
    mean: Float[Array, " k"]
    terms: tuple[int, ...] = eqx.field(static=True)  # of the L

    @classmethod
    def of(cls, sizes: tuple[np.ndarray, ...], mean: Array) -> MainTerms:
        """Of the numbers of samples in every level of every term."""
        # Sums that differ by rounding are the same number.
        found = [
            np.unique(np.log(n).round(11), return_index=True, return_counts=True) for n in sizes
        ]
        distinct = [n[first] for n, (_, first, _) in zip(sizes, found, strict=True)]
        terms = np.repeat(np.arange(len(found)), list(map(len, distinct)))
        counts = np.concatenate([count for _, _, count in found])
        each = np.where(terms == np.arange(len(found))[:, None], counts, 0.0)
        return cls(np.concatenate(distinct), each, mean, tuple(map(int, terms)))

    def __call__(self, x: Float[Array, "k genes"]) -> tuple[Scalar, Array, Array]:
        """Value, score and the Hessian's diagonal in x of a tile of genes."""
        # log(1 + gamma n) in x: with r = n / m it is log(1 + r (e^x - 1)), of slope r e^x / (...).
        of = np.array(self.terms)
        ratio = (self.sizes / self.mean[of])[:, None]
        below = 1 + ratio * jnp.expm1(x)[of]
        share = ratio * jnp.exp(x)[of] / below
        parts = jnp.stack([log(below), share, share * (1 - share)], axis=1)
        sums = jnp.tensordot(self.counts, parts, 1, precision="highest")
        return sums[:, 0].sum(0), sums[:, 1], sums[:, 2]


class Determinant(eqx.Module):
    """The tabulated determinant."""

    values: Float[Array, "*fine"]  # at the nodes, those of gamma_1 last, without the main terms
    # log d, then U by columns, of (X'V^-1 X)^-1 = U diag(d) U'
    fixed: Float[Array, "entries *fine"]
    axes: polynomial.Axes
    main: MainTerms
    error: Float[Array, ""]  # of the score, at the points that were looked at

    def __call__(self, x: Float[Array, "k genes"]) -> tuple[Scalar, Array]:
        """Value and score in x of a tile of genes."""
        value, score = self.axes.score(self.values, x)
        alone = self.main(x)
        return value + alone[0], score + alone[1]

    def covariance(self, x: Float[Array, "k genes"], p: int) -> Float[Array, "p p genes"]:
        """``(X'V^-1 X)^-1`` of a tile of genes."""
        if not p:
            return jnp.zeros((0, 0, x.shape[1]), x.dtype)
        entries = self.axes.values(self.fixed, x)
        eye = jnp.broadcast_to(jnp.eye(p, dtype=x.dtype)[..., None], (p, p, x.shape[1]))
        rows, columns = np.tril_indices(p, -1)
        unit = eye.at[columns, rows].set(entries[p:])
        return (unit[:, None] * unit[None] * jnp.exp(entries[:p])).sum(2)


def grid(shared: Shared, error: float = _ERRORS[-1]) -> tuple[polynomial.Axes, tuple[int, ...]]:
    """The axes, and the number of nodes of each."""
    axes = polynomial.Axes.of(level_sizes(shared), shared.samples_per_level, LARGEST_GAMMA)
    return axes, axes.counts(error)


def held(shared: Shared, counts: tuple[int, ...]) -> int:
    """Numbers that a thread holds while it tabulates so many nodes, at most."""
    systems, columns = TOGETHER, shared.n_columns
    found = 3 * systems * columns**2  # that of contrasts, too, and what it is made with
    for n, gammas in zip(shared.levels[1:], counts[1:], strict=True):
        columns -= n
        found += held_at_once(systems, n, columns, gammas)
        systems = gammas
    return found


def tabulate(compression: Compression, reml: bool) -> Determinant:
    """The determinant of a design with two or three random terms, host code."""
    shared, known = compression.shared, Confounded.of(compression)
    points = _points(shared)
    expected = _dense(shared, known, points, reml)
    for error in _ERRORS:
        determinant = _tabulated(shared, known, reml, *grid(shared, error))
        found = _largest_error(determinant, shared.p, points, *expected)
        if found <= PRECISE:
            break
    return eqx.tree_at(lambda d: d.error, determinant, np.asarray(found))


def _tabulated(
    shared: Shared,
    known: Confounded,
    reml: bool,
    axes: polynomial.Axes,
    counts: tuple[int, ...],
) -> Determinant:
    """Of so many nodes; its error is not known yet."""
    sizes, left = level_sizes(shared), levels_left(shared, known)
    gammas = axes.gammas(counts)
    more = added(np.stack(np.meshgrid(*gammas[1:], indexing="ij")), known)
    log_det = np.empty(counts)
    entries = np.empty((shared.p * (shared.p + 1) // 2, *counts))

    def fill(nodes: slice) -> None:
        m = contrasts(systems(shared, gammas[0][nodes]), shared, known)
        alone, information = _eliminated(m, gammas[1:], left)
        information = np.ascontiguousarray(np.moveaxis(information, (-2, -1), (0, 1)))
        with np.errstate(all="ignore"):  # NaN is found by its error
            found = _with_fixed(information, more[:, :, None], known.turn, reml)
        log_det[nodes], entries[:, nodes] = alone + found[0], found[1]

    for_nodes(fill, some_nodes(counts[0]), max(1, _MOST_HELD // held(shared, counts)))
    return Determinant(
        np.ascontiguousarray(np.moveaxis(without_main(log_det, gammas, sizes), 0, -1)),
        np.ascontiguousarray(np.moveaxis(entries, 1, -1)),
        axes,
        MainTerms.of(sizes, shared.samples_per_level),
        np.asarray(np.inf),
    )


def _with_fixed(
    information: small.Matrices,
    more: small.Matrices,
    turn: Float[np.ndarray, "p p"],
    reml: bool,
) -> tuple[Float[np.ndarray, "*nodes"], Float[np.ndarray, "entries *nodes"]]:
    """What ``log|V|``, or REML's, has beside ``log|V_c|``, and `Determinant.fixed`.

    ``information`` is ``Q'V_c^-1 Q``, ``more`` what its inverse is added to, of turned columns.
    """
    factor = small.cholesky(information)
    if reml:
        alone = small.log_det(factor)
    else:
        half = np.einsum("kl...,lb...->kb...", more, factor)
        system = np.einsum("ka...,kb...->ab...", factor, half)
        system += np.eye(len(system)).reshape(*system.shape[:2], *[1] * (system.ndim - 2))
        alone = small.log_det(small.cholesky(system))
    inverse = small.inverse_of_lower(factor)
    covariance = np.einsum("ka...,kb...->ab...", inverse, inverse) + more
    if (turn != np.eye(len(turn))).any():
        half = np.einsum("ab...,jb->aj...", covariance, turn)
        covariance = np.einsum("ia,aj...->ij...", turn, half)
    upper = small.cholesky(covariance[::-1, ::-1])[::-1, ::-1]
    roots = np.einsum("ii...->i...", upper)
    unit = (upper / roots).swapaxes(0, 1)[np.tril_indices(len(roots), -1)]
    return alone, np.concatenate([2 * np.log(roots), unit])


def _points(shared: Shared) -> Float[np.ndarray, "points k"]:
    """Where the error is looked at: anywhere, each term in turn next to zero, all of them there."""
    k = len(shared.levels)
    points = np.random.default_rng(0).uniform(0, 1, (_POINTS * (k + 2), k))
    points = np.log1p(LARGEST_GAMMA * shared.samples_per_level) * points
    for i in range(k):
        points[i * _POINTS : (i + 1) * _POINTS, i] = _NEAR_ZERO
    points[k * _POINTS] = _NEAR_ZERO
    return points


def _largest_error(
    determinant: Determinant,
    p: int,
    points: Float[np.ndarray, "points k"],
    score: Float[np.ndarray, "points k"],
    covariance: Float[np.ndarray, "points p p"],
) -> float:
    """Of the score at points where it is known; infinite where standard errors lack digits."""
    with jax.enable_x64(True):
        found, ours = map(np.asarray, _known(determinant, points.T, p))
    expected = np.moveaxis(covariance, 0, -1)
    scale = np.sqrt(np.einsum("iig,jjg->ijg", expected, expected))
    if p and (abs(ours - expected) / scale).max() > _PRECISE_COVARIANCE:
        return np.inf
    return abs(found.T - score).max()


@functools.partial(jax.jit, static_argnums=2)
def _known(determinant: Determinant, x: Float[Array, "k points"], p: int) -> tuple[Array, Array]:
    """Score and ``(X'V^-1 X)^-1`` at points; compiled whole: piece by piece it takes seconds."""
    return determinant(x)[1], determinant.covariance(x, p)


def _eliminated(
    m: Float[np.ndarray, "B K K"], gammas: tuple[np.ndarray, ...], levels: tuple[int, ...]
) -> tuple[Float[np.ndarray, "B *nodes"], Float[np.ndarray, "B *nodes p p"]]:
    """``log|V_c|`` and ``Q'V_c^-1 Q`` of B systems at all nodes of the terms that are left."""
    n = levels[0]
    alone, taken = shifted(m[:, :n, :n], m[:, n:, :n], gammas[0])
    left = m[:, None, n:, n:] - taken
    if len(gammas) == 1:
        return alone, left
    # System by system: what there is at once stays small.
    log_det, fixed = zip(*(_eliminated(one, gammas[1:], levels[1:]) for one in left), strict=True)
    return np.stack(log_det) + alone.reshape(*alone.shape, *[1] * (len(gammas) - 1)), np.stack(
        fixed
    )


def _dense(
    shared: Shared,
    known: Confounded,
    points: Float[np.ndarray, "points k"],
    reml: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Score in x and ``(X'V^-1 X)^-1`` from the inverses of the systems at these points."""
    gammas = np.expm1(points) / shared.samples_per_level
    weights = weights_at(shared, gammas[:, 0])
    score = np.empty_like(points)
    covariance = np.empty((len(points), shared.p, shared.p))

    def look(some: slice) -> None:
        # All that is *between* is read once for some points' systems and derivatives in gamma_1.
        both = np.concatenate([weights[some], -shared.sizes * weights[some] ** 2])
        whole, bent = np.split(np.tensordot(both, shared.between, 1), 2)
        whole += shared.within
        whole, bent = (contrasts(m, shared, known) for m in (whole, bent))
        for i, system, derivative in zip(range(some.start, some.stop), whole, bent, strict=True):
            slope, covariance[i] = _dense_at(shared, known, gammas[i], system, derivative, reml)
            score[i] = np.exp(points[i]) / shared.samples_per_level * slope

    for_nodes(look, some_nodes(len(points)))
    return score, covariance


def _dense_at(
    shared: Shared,
    known: Confounded,
    gamma: Float[np.ndarray, " k"],
    system: Float[np.ndarray, "less less"],
    bent: Float[np.ndarray, "less less"],
    reml: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Score in gamma and ``(X'V^-1 X)^-1``; ``bent`` is the system's derivative in gamma_1.

    With W the inverse of all columns' system the score of ``log|V| + log|X'V^-1 X|`` is a trace of
    W; ML takes away what the fixed part has of it, and adds the slopes in D_t's gammas.
    """
    levels = levels_left(shared, known)
    q = sum(levels)
    root = np.ones(len(system))
    root[:q] = np.repeat(np.sqrt(gamma[1:]), levels)
    system, bent = (root[:, None] * matrix * root for matrix in (system, bent))
    whole = lapack.inverse(system + np.diag((np.arange(len(system)) < q).astype(float)))
    of_fixed, more = whole[q:, q:], added(gamma[1:], known)
    inverse, spanned = whole, 0.0
    if not reml:
        information = np.linalg.inv(of_fixed)
        # Of less than what contrasts leave: the rest is in the slopes.
        left = np.linalg.solve(np.eye(shared.p) + information @ more, information)
        inverse = whole - whole[:, q:] @ left @ whole[q:]
        spanned = slopes(information, gamma[1:], known)
    eliminated = shared.level_counts * shared.level_sizes / (1 + gamma[0] * shared.level_sizes)
    # 1 - the inverse's diagonal is gamma times what the trace is of.
    traced = np.split(1 - np.diagonal(inverse)[:q], np.cumsum(levels)[:-1])
    others = [of.sum() / ratio for of, ratio in zip(traced, gamma[1:], strict=True)]
    first = eliminated.sum() + (inverse * bent).sum()
    covariance = known.turn @ (of_fixed + more) @ known.turn.T
    return np.array([first, *np.add(others, spanned)]), covariance
