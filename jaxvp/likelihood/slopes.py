r"""The deviance with random slopes, and its derivatives in the covariance matrices.

Every correlated block has a covariance ``sigma^2 Gamma`` of its coefficients. It is handed over by
its eigenvectors ``E`` and eigenvalues, ``Gamma = E diag(gamma) E'``, and the derivatives are those
in the entries of ``E' Gamma E``, for ``i <= j`` (an off-diagonal entry moves with its mirror
image). In that basis Gamma is diagonal: the blocks that are left after the elimination are swept
like random intercepts, finite at zero.

*The eliminated factor* enters the system ``M(Gamma) = S + sum_c sum_{a<=b} W_ab C_ab`` of
`jaxvp.statistics.slopes` through the weights of its classes only. With ``Y = W R E`` and ``B =
E'R' Y``,

    dW = -Y dG Y',   d2W = 2 sym Y dG B dG' Y',
    d log|V_1| = sum_c n_c tr(dG B),   d2 log|V_1| = -sum_c n_c tr(dG B dG' B).

*The others*, with ``T`` the inverse of the system (`slope_system`), ``u = T M_y``, ``A = Z'V^-1 Z``
(by REML ``Z'PZ``), ``q = Z'Py``, residual sum of squares r and ``e = (-u, 1)``; for s, t of the
eliminated factor

    d log|.| = tr(T M_s),                  d2 = tr(T M_st) - tr(T M_s T M_t),
    d r      = e'M_s e,                    d2 = e'M_st e - 2 g_s'T g_t,      g_s = (M_s e)_U,

for ``D_s = dV`` of a swept block, a matrix of zeros and ones on its columns,

    d log|.| = tr(A D_s),                  d2 = -tr(A D_s A D_t),
    d r      = -q'D_s q,                   d2 = 2 q'D_s Z'PZ D_t q,

and mixed, with ``K = I - T M``: ``d2 log|.| = tr(K'M_s K D_t)``, ``d2 r = -2 (K'g_s)'D_t q``.
``M_st`` is only needed contracted: first the classes' sums are, and then they are weighted.

Acts on leading axes, genes of a tile on a trailing one, as the rest of `jaxvp.likelihood`.

Source: Bates et al. (2015), J. Stat. Softw. 67(1), for the model; Searle, Casella and McCulloch,
Variance Components (1992), ch. 6, for the derivatives.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Float

from jaxvp.likelihood.estimates import Estimates, estimates
from jaxvp.likelihood.lanes import apply, diagonal, dot, total
from jaxvp.likelihood.slope_classes import Derivatives, Eliminated, differentiate, eliminate
from jaxvp.likelihood.slope_sums import inner, summed
from jaxvp.likelihood.slope_system import System, product, solve, turned
from jaxvp.likelihood.slope_terms import Basis, between, block_diagonal, entries
from jaxvp.likelihood.system import Scalar
from jaxvp.statistics import Array, PerGene, RandomBlock, SlopeOwn, SlopeShared
from jaxvp.target import fence


class SlopeEvaluation(NamedTuple):
    """Deviance (without its constants) and its derivatives in the entries of ``E'Gamma E``."""

    deviance: Scalar
    score: Float[Array, "m *genes"]
    hessian: Float[Array, "m m *genes"]
    fisher: Float[Array, "m m *genes"]  # expected, sigma profiled out: positive semidefinite
    rounding: Float[Array, "m *genes"]  # size of the score's rounding error
    estimates: Estimates


def evaluate_slopes(
    gamma: Float[Array, "k *genes"], basis: Basis, shared: SlopeShared, gene: PerGene, *, reml: bool
) -> SlopeEvaluation:
    """Deviance and derivatives at ``Gamma = E diag(gamma) E'`` of every block."""
    assert gene.own is None or isinstance(gene.own, SlopeOwn)
    shared = shared.of(gene.own)
    blocks = shared.blocks
    first = gamma[: sum(block.size for block in blocks if block.eliminated)]
    corner = fence(lambda *b: block_diagonal(b), *basis[: _count(blocks)])
    eliminated = fence(lambda g, e, s: eliminate(g, e, shared, s), first, corner, gene)
    system = fence(lambda g, b, m: solve(g, b, m, shared, reml), gamma, basis, eliminated.system)
    moved = fence(
        lambda g, e, s, t, u: differentiate(g, e, shared, s, t, u),
        first,
        corner,
        gene,
        *system.in_u,
    )
    size = shared.n - shared.p if reml else shared.n
    return fence(
        lambda b, e, s, m: _assemble(b, e, s, m, shared, size, reml),
        basis,
        eliminated,
        system,
        moved,
    )


def _count(blocks: tuple[RandomBlock, ...]) -> int:
    return sum(block.eliminated for block in blocks)


class _Swept(NamedTuple):
    """An entry of a swept block: where D_s has its ones, as pairs of slices of columns."""

    pairs: list[tuple[slice, slice]]


def _swept(shared: SlopeShared) -> list[_Swept]:
    starts, start = {}, 0
    for number, block in enumerate(shared.blocks):
        if not block.eliminated:
            starts[number] = start
            start += block.size * block.levels
    found = []
    for entry in entries(shared.blocks):
        if entry.block in starts:
            levels, begin = shared.blocks[entry.block].levels, starts[entry.block]

            def columns(i, begin=begin, levels=levels):
                return slice(begin + i * levels, begin + (i + 1) * levels)

            found.append(_Swept([(columns(i), columns(j)) for i, j in between((entry.i, entry.j))]))
    return found


def _image(entry: _Swept, v: Array) -> Array:
    """``D_s v``."""
    out = jnp.zeros_like(v)
    for to, source in entry.pairs:
        out = out.at[to].set(v[source])
    return out


def _trace(a: Array) -> Scalar:
    return summed(diagonal(a)) if len(a) else jnp.zeros(a.shape[2:], a.dtype)


class _Products(NamedTuple):
    """What the second derivatives are inner products of, by entry s."""

    g: Float[Array, "m1 K *genes"]
    solved: list[Array]  # T g
    pulled: list[Array]  # K'g
    maps: list[Array]  # T M_s, of the determinant
    turned: list[Array]  # M_s K
    images: list[Array]  # D_s q
    projected: list[Array]  # Z'PZ D_s q


def _products(basis: Basis, system: System, moved: Derivatives, shared: SlopeShared) -> _Products:
    systems, g = fence(lambda *a: turned(basis, shared, *a), moved.systems, moved.moved)
    of_det, of_data = system.maps
    images = [_image(d, system.zpy) for d in _swept(shared)]
    return _Products(
        g,
        [fence(apply, system.inverse, one) for one in g],
        [fence(apply, of_data.swapaxes(0, 1), one) for one in g],
        [fence(product, system.inverse_det, one) for one in systems],
        [fence(product, one, of_det) for one in systems],
        images,
        [fence(apply, system.zpz, one) for one in images],
    )


def _assemble(
    basis: Basis,
    eliminated: Eliminated,
    system: System,
    moved: Derivatives,
    shared: SlopeShared,
    size: Array | float,
    reml: bool,
) -> SlopeEvaluation:
    swept = _swept(shared)
    m1, zz, zpy = len(moved.log_det), system.zz, system.zpy
    its = fence(lambda b, s, m: _products(b, s, m, shared), basis, system, moved)
    l1 = [moved.log_det[s] + moved.trace[s] for s in range(m1)]
    r1 = [moved.form[s] for s in range(m1)]
    l1 += [total(jnp.stack([_trace(zz[a, b]) for a, b in d.pairs])) for d in swept]
    r1 += [-dot(zpy, v) for v in its.images]

    def entry(i, j):
        if j < m1:
            of_trace = moved.trace2[i, j] - inner(its.maps[i], its.maps[j].swapaxes(0, 1), 2)
            of_form = moved.form2[i, j] - 2 * dot(its.g[i], its.solved[j])
            return moved.log_det2[i, j] + of_trace, of_form
        d = swept[j - m1]
        if i < m1:
            pairs = [inner(system.maps[0][:, b], its.turned[i][:, a], 2) for a, b in d.pairs]
            return total(jnp.stack(pairs)), -2 * dot(its.pulled[i], its.images[j - m1])
        pairs = [
            inner(zz[alpha, delta], zz[beta, gamma], 2)
            for alpha, beta in swept[i - m1].pairs
            for gamma, delta in d.pairs
        ]
        return -total(jnp.stack(pairs)), 2 * dot(its.images[i - m1], its.projected[j - m1])

    m = len(l1)
    rss = system.fixed.rss
    hessian: list[list] = [[None] * m for _ in range(m)]
    fisher: list[list] = [[None] * m for _ in range(m)]
    for i in range(m):
        for j in range(i, m):
            log_det, r2 = entry(i, j)
            hessian[i][j] = log_det + size * (r2 / rss - r1[i] * r1[j] / rss**2)
            fisher[i][j] = -log_det - l1[i] * l1[j] / size
            hessian[j][i], fisher[j][i] = hessian[i][j], fisher[i][j]
    score = jnp.stack([l1[i] + size * r1[i] / rss for i in range(m)])
    noise = 8 * jnp.finfo(rss.dtype).eps * (1 + eliminated.lost / rss)
    rounding = jnp.stack([noise * (abs(l1[i]) + size * abs(r1[i]) / rss) for i in range(m)])
    fixed = system.fixed._replace(log_det=system.fixed.log_det + eliminated.log_det)
    deviance = fixed.log_det + size * jnp.log(rss)
    if reml:
        deviance = deviance + fixed.log_det_fixed
    return SlopeEvaluation(
        deviance,
        score,
        jnp.stack([jnp.stack(row) for row in hessian]),
        jnp.stack([jnp.stack(row) for row in fisher]),
        rounding,
        estimates(fixed, shared, reml),
    )
