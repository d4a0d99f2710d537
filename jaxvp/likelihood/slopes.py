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
from jaxvp.likelihood.lanes import apply, dot, total
from jaxvp.likelihood.slope_classes import Sums, contract, eliminate
from jaxvp.likelihood.slope_system import System, product, solve
from jaxvp.likelihood.slope_terms import Basis, between, block_diagonal, entries
from jaxvp.likelihood.system import Scalar
from jaxvp.statistics import Array, PerGene, RandomBlock, SlopeOwn, SlopeShared
from jaxvp.target import fence

# Sums of more terms are left to XLA: written out they would take long to compile.
_UNROLLED = 400


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
    sums = fence(lambda g, e, s: eliminate(g, e, shared, s), first, corner, gene)
    system = fence(lambda g, b, m: solve(g, b, m, shared, reml), gamma, basis, sums.matrices)
    t, contrast = system.in_u
    second = fence(
        lambda g, e, s, t, u: contract(g, e, shared, s, t, u), first, corner, gene, t, contrast
    )
    size = shared.n - shared.p if reml else shared.n
    return fence(lambda *a: _assemble(a[0], a[1], a[2], shared, size, reml), sums, system, second)


def _count(blocks: tuple[RandomBlock, ...]) -> int:
    return sum(block.eliminated for block in blocks)


def _inner(a: Array, b: Array) -> Scalar:
    """Sum of the products of all entries, genes apart."""
    if 0 < a.shape[0] * a.shape[1] <= _UNROLLED:
        return total(dot(a, b))
    return (a * b).sum((0, 1))


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


def _diagonal(a: Array) -> Scalar:
    if not len(a):
        return jnp.zeros(a.shape[2:], a.dtype)
    return total(jnp.stack([a[i, i] for i in range(len(a))]))


def _assemble(
    sums: Sums,
    system: System,
    second: tuple[Array, Array],
    shared: SlopeShared,
    size: Scalar | float,
    reml: bool,
) -> SlopeEvaluation:
    swept = _swept(shared)
    m1 = len(sums.log_det) - 1
    K = shared.n_columns
    e, T, T_det = system.contrast, system.inverse, system.inverse_det
    slopes, q_y = system.slopes, system.zpy

    image = [apply(slopes[s], e) for s in range(m1)]
    g = [one[:K] for one in image]
    solved = [apply(T, one) for one in g]
    maps = [product(T_det, slopes[s][:K, :K]) for s in range(m1)]
    l1 = [sums.log_det[1 + s] + _diagonal(maps[s]) for s in range(m1)]
    r1 = [dot(e, image[s]) for s in range(m1)]
    images = [_image(d, q_y) for d in swept]
    l1 += [total(jnp.stack([_diagonal(system.zz[a, b]) for a, b in d.pairs])) for d in swept]
    r1 += [-dot(q_y, v) for v in images]
    projected = [apply(system.zpz, v) for v in images]
    map_det, map_data = system.maps
    turned = [product(slopes[s][:K, :K], map_det) for s in range(m1)]
    pulled = [apply(map_data.swapaxes(0, 1), one) for one in g]

    def entry(i, j):
        if j < m1:
            log_det = (
                sums.log_det2[i, j] + second[0][i, j] - _inner(maps[i], maps[j].swapaxes(0, 1))
            )
            return log_det, second[1][i, j] - 2 * dot(g[i], solved[j])
        d = swept[j - m1]
        if i < m1:
            pairs = [_inner(map_det[:, b], turned[i][:, a]) for a, b in d.pairs]
            return total(jnp.stack(pairs)), -2 * dot(pulled[i], images[j - m1])
        a = system.zz
        pairs = [
            _inner(a[alpha, delta], a[beta, gamma])
            for alpha, beta in swept[i - m1].pairs
            for gamma, delta in d.pairs
        ]
        return -total(jnp.stack(pairs)), 2 * dot(images[i - m1], projected[j - m1])

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
    noise = 8 * jnp.finfo(rss.dtype).eps * (1 + sums.lost / rss)
    rounding = jnp.stack([noise * (abs(l1[i]) + size * abs(r1[i]) / rss) for i in range(m)])
    fixed = system.fixed._replace(log_det=system.fixed.log_det + sums.log_det[0])
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
