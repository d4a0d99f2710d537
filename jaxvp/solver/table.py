r"""Starting points from a table that all genes share.

The design is the same for all genes, so everything that depends on gamma alone (the eliminated
systems, their eigenvectors, the determinants) can be computed once, at the nodes of a grid over all
gammas; a gene then costs matrix products. The table says where a gene's deviance is lowest among
the nodes, and Newton's method on the polynomial through the nodes goes on from there. What comes
out is a starting point and nothing more: the deviance, the derivatives and the certificate are
those of `jaxvp.likelihood`, which is asked two to four times, not seven. Small systems of up to
three terms have a coarse table and start at its best node; for more terms, or a polynomial, it
would cost more than the evaluations that it saves.

*Several valleys.* A deviance may have more than one local minimum, most often where factors nearly
group the samples alike or levels are few and unequal. A node that is lower than its neighbours on
every axis marks a valley; the second lowest such node is a second start. Few genes have one (1 to 2
per cent in ordinary designs), and nobody else pays.

*Nodes.* In ``u = m gamma / (1 + m gamma)``, which is ``1 - exp(-x)`` with the x of
`jaxvp.solver.newton`, Chebyshev's with both ends, so that zero is a node. Every part of the
deviance is smooth in u up to gamma = infinity, once the main terms of the determinant, ``sum_j
log(1 + gamma_i n_ij)``, are taken out.

*Elimination, one term after the other.* At a node of gamma_1 the system of all other columns is
``M = S + sum_c w_c C_c``. Let ``M_22 = Q diag(l) Q'`` be the block of the next term: then for every
gamma_2, with ``d = gamma_2 / (1 + gamma_2 l)``,

    y'V^-1 y  <-  y'V^-1 y - sum d (Q' M_2y)^2,      M_ry  <-  M_ry - M_r2 Q diag(d) Q' M_2y,

one rotation for all nodes of gamma_2. The fixed part is eliminated before the last term, so that a
node of the last gamma costs only the first of these sums.

Cost a gene of k = 3 terms with q_2 and q_3 columns: ``N_1 q_2^2 + N_1 N_2 (q_2 + q_3) (q_3 + p)``
multiply-adds in matrix products. Set-up: N_1 eigenproblems of size q_2 and N_1 N_2 of size q_3.
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Float

from jaxvp.likelihood import SWEEP_COLUMNS, fence, lift
from jaxvp.likelihood.sweep import dot
from jaxvp.likelihood.system import class_weights, term_slices
from jaxvp.solver import newton
from jaxvp.statistics import Array, PerGene, Shared

_LARGEST_U = 1 - 1e-7
# Nodes of an axis, by the number of terms, in elimination order: of large systems u, where a
# polynomial goes on from the best node, of small ones x, where Newton's method does.
# Fine enough to tell valleys apart: with six and five nodes one gene in five hundred of a small and
# very unequal design was missed, with these none.
_COARSE = {
    terms: 6 * np.linspace(0, 1, count) ** 1.5 for terms, count in {1: 12, 2: 12, 3: 8}.items()
}
_NODES = {2: (20, 16), 3: (16, 14, 10), 4: (10, 8, 7, 6)}
_STEPS = 6  # of Newton's method on the polynomial


class Level(eqx.Module):
    """One term's elimination at B nodes of the terms before it, for its own N nodes."""

    rotate: Float[Array, "B n m"]  # Q', for the last term with the fixed part eliminated
    factor: Float[Array, "B N n"]  # gamma / (1 + gamma l)
    couple: Float[Array, "B N rest n"] | None  # M_r2 Q diag(d); None for the last term


class Table(eqx.Module):
    """What is shared; axes of the terms in elimination order."""

    classes: Float[Array, "N1 C"]  # class weights at the nodes of gamma_1
    levels: tuple[Level, ...]
    fixed: Float[Array, "B p p"]  # L^-1 of X'V^-1 X = L L', last term not in V
    log_det: Float[Array, "*nodes"]  # without main terms
    main: tuple[Array, ...]  # level sizes of every term
    nodes: tuple[Array, ...]  # u
    to_coefficients: tuple[Array, ...]  # values at nodes -> Chebyshev coefficients


def build(shared: Shared, reml: bool) -> Table | None:
    """The table of a design, host code; None if there are too many terms for a grid.

    Parameters
    ----------
    shared
        NumPy arrays, float64.
    reml
        Whether the determinant of the fixed part belongs to the deviance.
    """
    k = len(shared.levels)
    large = shared.n_columns > SWEEP_COLUMNS
    if k not in (_NODES if large else _COARSE):
        return None
    nodes = [_chebyshev(count) for count in _NODES[k]] if large else [1 - np.exp(-_COARSE[k])] * k
    u = tuple(nodes)
    gammas = [node / (m * (1 - node)) for node, m in zip(u, shared.samples_per_level, strict=True)]
    diagonal = np.diagonal(shared.within + shared.between.sum(axis=0))
    sizes = (
        np.repeat(shared.level_sizes, np.asarray(shared.level_counts, dtype=int)),
        *(diagonal[block] for block in term_slices(shared)),
    )
    weights = np.asarray(class_weights(shared, gammas[0][:, None].T)[0]).T.reshape(len(u[0]), -1)
    m = shared.within + np.tensordot(weights, shared.between, 1)
    log_det = np.log1p(np.outer(gammas[0], sizes[0])).sum(axis=1)
    levels = []
    for t, gamma in enumerate(gammas[1:], 1):
        n = shared.levels[t]
        last = t == k - 1
        if last:
            break
        values, vectors = np.linalg.eigh(m[:, :n, :n])
        factor = gamma[None, :, None] / (1 + gamma[None, :, None] * values[:, None, :])
        coupled = m[:, n:, :n] @ vectors
        couple = coupled[:, None] * factor[:, :, None, :]
        levels.append(Level(vectors.transpose(0, 2, 1), factor, couple))
        log_det = _grow(log_det, np.log1p(gamma[None, :, None] * values[:, None, :]).sum(-1))
        m = m[:, None, n:, n:] - couple @ coupled.transpose(0, 2, 1)[:, None]
        m = m.reshape(-1, *m.shape[2:])
    n, p = m.shape[1] - shared.p, shared.p
    factors = np.linalg.cholesky(m[:, n:, n:])
    fixed = np.stack([scipy.linalg.solve_triangular(f, np.eye(p), lower=True) for f in factors])
    half = fixed @ m[:, n:, :n]
    zpz = m[:, :n, :n] - half.transpose(0, 2, 1) @ half
    if reml:
        log_det = log_det + 2 * np.log(np.diagonal(factors, axis1=1, axis2=2)).sum(-1)
    if k > 1:
        gamma = gammas[-1]
        values, vectors = np.linalg.eigh(zpz)
        turned = vectors.transpose(0, 2, 1)
        # Z'Py = Z'V^-1 y - half' (L^-1 X'V^-1 y): one matrix for both parts.
        rotate = np.concatenate([turned, -turned @ (half.transpose(0, 2, 1) @ fixed)], axis=2)
        factor = gamma[None, :, None] / (1 + gamma[None, :, None] * values[:, None, :])
        levels.append(Level(rotate, factor, None))
        roots = values if reml else np.linalg.eigvalsh(m[:, :n, :n])
        log_det = _grow(log_det, np.log1p(gamma[None, :, None] * roots[:, None, :]).sum(-1))
    log_det = log_det.reshape([len(node) for node in u])
    for axis, (gamma, size) in enumerate(zip(gammas, sizes, strict=True)):
        main = np.log1p(np.outer(gamma, size)).sum(axis=1)
        log_det = log_det - main.reshape([-1 if i == axis else 1 for i in range(k)])
    inverses = tuple(np.linalg.inv(_polynomials(node)) for node in u) if large else ()
    return Table(weights, tuple(levels), fixed, log_det, sizes, u, inverses)


def _chebyshev(count: int) -> np.ndarray:
    return _LARGEST_U * (1 - np.cos(np.pi * np.arange(count) / (count - 1))) / 2


def _polynomials(u: np.ndarray) -> np.ndarray:
    """Chebyshev polynomials (columns) at the nodes."""
    return np.polynomial.chebyshev.chebvander(2 * u / _LARGEST_U - 1, len(u) - 1)


def _grow(log_det: np.ndarray, more: np.ndarray) -> np.ndarray:
    return (log_det.reshape(-1, 1) + more).reshape(-1)


def residual(table: Table, gene: PerGene) -> Float[Array, "*nodes genes"]:
    """``y'P y`` of a tile of genes at all nodes."""
    b = gene.within_uy + jnp.tensordot(table.classes, gene.between_uy, 1)
    yy = gene.within_yy + table.classes @ gene.between_yy
    p = table.fixed.shape[-1]
    for level in table.levels:
        if level.couple is None:
            break
        n = level.rotate.shape[1]
        c = level.rotate @ b[:, :n]
        b = b[:, None, n:] - jnp.einsum("bNrn,bng->bNrg", level.couple, c)
        yy = (yy[:, None] - level.factor @ (c * c)).reshape(-1, yy.shape[-1])
        b = b.reshape(-1, *b.shape[2:])
    yy = yy - ((table.fixed @ b[:, b.shape[1] - p :]) ** 2).sum(1)
    if table.levels:
        c = table.levels[-1].rotate @ b
        yy = yy[:, None] - table.levels[-1].factor @ (c * c)
    return yy.reshape(*(len(u) for u in table.nodes), -1)


def starts(
    table: Table, shared: Shared, gene: PerGene, reml: bool
) -> Float[Array, "attempts k genes"]:
    """Points to start from, x, for every gene of a tile (genes on the trailing axis).

    NaN where a gene has no such start.
    """
    size = shared.n - shared.p if reml else shared.n
    rss = residual(table, gene)
    k = len(table.nodes)
    main = sum(
        jnp.log1p(_gamma(u, m)[:, None] * n)
        .sum(1)
        .reshape([-1 if i == axis else 1 for i in range(k)])
        for axis, (u, n, m) in enumerate(
            zip(table.nodes, table.main, shared.samples_per_level, strict=True)
        )
    )
    # exp(deviance / N): the same order, without a logarithm for every node of every gene.
    height = jnp.exp((table.log_det + main) / size)[..., None] * jnp.maximum(rss, 1e-300)
    x = jnp.stack([_place(table, h) for h in (height, _other_valleys(height))])
    if not table.to_coefficients:
        return x
    # Of large systems the polynomial is exact enough to say which valley is deeper.
    deviance, refined = jax.vmap(lambda x: _refine(table, shared, rss, size, x))(x)
    first = ~(deviance[1] < deviance[0])
    return jnp.where(first, refined[0], refined[1])[None]


def _place(table: Table, height: Float[Array, "*nodes genes"]) -> Float[Array, "k genes"]:
    """x of the lowest node, NaN where none is finite."""
    flat = height.reshape(-1, height.shape[-1])
    place = jnp.unravel_index(jnp.argmin(flat, axis=0), height.shape[:-1])
    x = jnp.stack([-jnp.log1p(-u[i]) for u, i in zip(table.nodes, place, strict=True)])
    return jnp.where(flat.min(0) < jnp.inf, x, jnp.nan)


def _other_valleys(height: Float[Array, "*nodes genes"]) -> Float[Array, "*nodes genes"]:
    """The same, infinite but where it is a local minimum other than the lowest."""
    low = height > height.min(tuple(range(height.ndim - 1)))
    for axis in range(height.ndim - 1):
        wall = [(0, 0)] * height.ndim
        wall[axis] = (1, 1)
        walled = jnp.pad(height, wall, constant_values=jnp.inf)
        count = height.shape[axis]
        before, after = (
            jax.lax.slice_in_dim(walled, shift, shift + count, axis=axis) for shift in (0, 2)
        )
        # Of two equal neighbours one is the valley.
        low &= (height <= before) & (height < after)
    return jnp.where(low, height, jnp.inf)


def _gamma(u: Array, m: Array) -> Array:
    return u / (m * (1 - u))


def _refine(
    table: Table, shared: Shared, rss: Float[Array, "*nodes genes"], size: Array, x: Array
) -> tuple[Float[Array, " genes"], Float[Array, "k genes"]]:
    """Newton's method on the polynomial through the nodes: its deviance, and where to go on."""
    coefficients, log_det = rss, table.log_det
    for axis, matrix in enumerate(table.to_coefficients):
        coefficients = jnp.moveaxis(jnp.tensordot(matrix, coefficients, (1, axis)), 0, axis)
        log_det = jnp.moveaxis(jnp.tensordot(matrix, log_det, (1, axis)), 0, axis)

    def in_x(x):
        u = 1 - jnp.exp(-x)
        basis = [_basis(u[i], len(nodes)) for i, nodes in enumerate(table.nodes)]
        r, r1, r2 = fence(_derivatives, coefficients, basis)
        l0, l1, l2 = fence(_derivatives, log_det[..., None], basis)
        slope = 1 - u
        value = l0 + size * jnp.log(r)
        score = (l1 + size * r1 / r) * slope
        curved = l2 + size * (r2 / r - r1[:, None] * r1[None] / r**2)
        hessian = curved * slope[:, None] * slope[None]
        fisher = []
        for i, (n, m) in enumerate(zip(table.main, shared.samples_per_level, strict=True)):
            # log(1 + gamma n) in x: n e^x / (m + n (e^x - 1)) is its slope.
            grown = jnp.exp(x[i])
            share = n[:, None] * grown / (m + n[:, None] * (grown - 1))
            value = value + jnp.log1p(n[:, None] * (grown - 1) / m).sum(0)
            score = score.at[i].add(share.sum(0))
            hessian = hessian.at[i, i].add((share - share**2).sum(0))
            fisher.append((share**2).sum(0))
        same = lift(jnp.eye(len(x), dtype=bool), x[0])
        # The second derivative of u in x is minus the first.
        hessian = jnp.where(same, hessian - ((l1 + size * r1 / r) * slope)[None], hessian)
        information = jnp.where(same, jnp.stack(fisher)[None], 0.0)
        return value, score, hessian, information, jnp.zeros_like(value), none

    none = jax.tree.map(
        lambda leaf: jnp.zeros((*leaf.shape, x.shape[-1]), leaf.dtype),
        newton.start(shared).estimates,
    )
    state = jax.tree.map(
        lambda leaf: jnp.broadcast_to(leaf[..., None], (*leaf.shape, x.shape[-1])),
        newton.start(shared),
    )._replace(trial=x)
    state = jax.lax.fori_loop(0, _STEPS, lambda _, s: newton.step_in_x(in_x, s), state)
    # Beyond the nodes a polynomial says nothing.
    return state.deviance, jnp.minimum(state.trial, -np.log1p(-_LARGEST_U))


def _basis(u: Float[Array, " genes"], count: int) -> Float[Array, "3 N genes"]:
    """Chebyshev polynomials of u on the nodes' interval, first and second derivatives in u."""
    z, scale = 2 * u / _LARGEST_U - 1, 2 / _LARGEST_U
    one, zero = jnp.ones_like(z), jnp.zeros_like(z)
    t = [[one, z], [zero, one], [zero, zero]]
    for n in range(2, count):
        t[0].append(2 * z * t[0][-1] - t[0][-2])
        t[1].append(2 * t[0][n - 1] + 2 * z * t[1][-1] - t[1][-2])
        t[2].append(4 * t[1][n - 1] + 2 * z * t[2][-1] - t[2][-2])
    return jnp.stack([jnp.stack(row) * scale**order for order, row in enumerate(t)])


def _derivatives(coefficients: Array, basis: list[Array]) -> tuple[Array, Array, Array]:
    """Value, gradient and Hessian of a polynomial, one axis after the other."""
    partial: dict[tuple[int, ...], Array] = {(): coefficients}
    for axis in basis:
        grown: dict[tuple[int, ...], Array] = {}
        for orders, array in partial.items():
            for order in range(3 - sum(orders)):
                weights = axis[order].reshape(len(axis[order]), *(1,) * (array.ndim - 2), -1)
                grown[(*orders, order)] = fence(dot, weights, array)
        partial = grown
    k = len(basis)

    def at(*places):
        return partial[tuple(places.count(i) for i in range(k))]

    gradient = jnp.stack([at(i) for i in range(k)])
    hessian = jnp.stack([jnp.stack([at(i, j) for j in range(k)]) for i in range(k)])
    return at(), gradient, hessian
