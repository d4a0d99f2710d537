r"""Elimination by sweeping, for small systems and many genes at once.

Arithmetic on arrays whose last axis is the gene (one gene: without it), in two stages.

*Value* (`_system`; the columns: `jaxvp.likelihood.columns`).
With ``M = U' V_1^-1 U``, each random column ``z`` is swept by a rank-one
update, ``M <- M - d M_z M_z'``, ``d = gamma / (1 + gamma M_zz)``: finite at zero, where it does
nothing. What is left holds ``A = Z' V^-1 Z``, ``Z' V^-1 X``, ``X' V^-1 X`` and the same with ``y``;
``log|V|`` gains ``log(1 + gamma M_zz)``. The fixed part is then eliminated by the inverse ``C`` of
its p x p block.

*Derivatives* (`swept`). Those in the swept gammas are sums over blocks of ``A`` (by REML of
``Z'PZ``) and of ``Z'Py``. Term 1 enters through ``M`` alone, ``dM = -N``, ``N = sum_c n_c w_c^2
C_c``. With ``W = [I - Gamma A; ...]``, the map for which ``T = W Gamma`` is the inverse of the
system,

    d log|.| = -tr(T N),   d2 log|.| = 2 tr(T N2) - tr(T N T N),   N2 = sum_c n_c^2 w_c^3 C_c,
    d (Z'V^-1 Z) = -W' N W,

and for the data, with ``u = T U'V_1^-1 y`` (the predicted random effects and coefficients) and
``rho_c = sum_{j in c} (a_j - F_j'u)^2 / n_j``, the squared level sums of what u does not explain,

    d r = -sum_c n_c w_c^2 rho_c,   d2 r = 2 sum_c n_c^2 w_c^3 rho_c - 2 s'T s,
    s = N u - sum_c n_c w_c^2 (F a)_c.

Cost of an evaluation: about ``2 C K^2 + 3 K^3`` multiply-adds a gene. What bounds it is the traffic
with the second-level cache: an update reads and writes all of ``M`` for one multiplication each.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxvp.likelihood.columns import sweep_columns
from jaxvp.likelihood.lanes import apply, diagonal, dot, inverse, lift, product
from jaxvp.likelihood.system import (
    FixedSystem,
    Moments,
    Scalar,
    Vector,
    by_term,
    class_weights,
    log_det_eliminated,
    spread,
    term_slices,
)
from jaxvp.statistics import Array, PerGene, Shared, triangle
from jaxvp.target import accelerated, fence, kernel


class System(NamedTuple):
    """What sweeping leaves; q random columns, p fixed ones."""

    zz: Array  # Z'V^-1 Z
    projected: Array  # C X'V^-1 Z, p x q
    zpz: Array  # Z'P Z
    zpy: Array  # Z'P y
    fixed: FixedSystem
    lost: Scalar  # of `Moments`


def _class_sums(shared: Shared, weights: tuple[Array, ...], like: Scalar) -> list[Array]:
    """Of the power series of the classes' weights: three matrices, the second one with its sign
    changed.

    A gene's own sums are read from memory, once for all three: those are next to each other.
    """
    if shared.packed is None:
        between = jnp.asarray(shared.between)
        # A gene's own have its axis; shared ones are a library's product on a CPU, where the sum
        # written out is a slower loop.
        written_out = accelerated() or between.ndim > 3
        placed = lift(between, like, 3) if written_out else jnp.moveaxis(between, 0, -1)

        def summed(w):
            return dot(w, placed) if written_out else jnp.tensordot(placed, w, 1)

        w0, w1, w2 = weights
        return [fence(summed, w0), fence(lambda w: summed(-w), w1), fence(summed, w2)]

    def three(packed, *weights):
        # The classes stay where they are: moved to the front they would be copied.
        w0, w1, w2 = weights
        return product(packed, jnp.stack([w0, -w1, w2], 1))

    sums = fence(three, shared.packed, *weights)
    place = triangle(shared.n_columns)
    return [fence(lambda sums, i=i: sums[:, i][place], sums) for i in range(len(weights))]


def _system(
    gamma: Vector,
    shared: Shared,
    gene: PerGene,
    weights: Array,
    sums: Array,
    log_det_first: Scalar,
) -> System:
    """Eliminate all columns at ``gamma``.

    ``weights`` are those of the classes of term 1, ``log_det_first`` is its ``log|V_1|``.
    """
    q = shared.n_columns - shared.p

    def of_gene(weights, gene):
        uy = gene.within_uy + dot(weights, gene.between_uy)
        yy = gene.within_yy + dot(weights, gene.between_yy)
        return jnp.concatenate([uy, yy[None]])

    def bordered(sums, last):
        uu = lift(shared.within, gamma[0], 2) + sums
        return jnp.concatenate([jnp.concatenate([uu, last[:-1, None]], 1), last[None]])

    m = fence(bordered, sums, kernel(of_gene, weights, gene))
    m, log_det, lost = sweep_columns(spread(gamma, shared, m[-1, -1]), m)
    log_det = log_det + log_det_first
    covariance, log_det_fixed = fence(lambda m: inverse(m[q:-1, q:-1]), m)

    def eliminate_fixed(m, covariance):
        xy = m[q:-1, -1]
        beta = apply(covariance, xy)
        zx = m[:q, q:-1]
        return product(covariance, zx.swapaxes(0, 1)), beta, m[-1, -1] - dot(xy, beta)

    projected, beta, rss = fence(eliminate_fixed, m, covariance)

    def project(m, projected, beta):
        zx, swept = m[:q, q:-1], m[:q, :q]
        # Factors: a choice between entries would be several loops, which take longer to compile.
        lower = lift(np.tri(q, dtype=m.dtype), m[-1, -1])
        zz = lower * swept + (1 - lower) * swept.swapaxes(0, 1)
        return zz, zz - product(zx, projected), m[:q, -1] - apply(zx, beta)

    zz, zpz, zpy = fence(project, m, projected, beta)
    fixed = FixedSystem(covariance, beta, rss, log_det, log_det_fixed)
    return System(zz, projected, zpz, zpy, fixed, lost)


def swept(gamma: Vector, shared: Shared, gene: PerGene, reml: bool) -> tuple[Moments, FixedSystem]:
    """`Moments` of one gene, or of a tile of genes on a trailing axis."""
    q = shared.n_columns - shared.p
    w0, w1, w2 = fence(lambda g: class_weights(shared, g), gamma[0])
    sums, n1, n2 = _class_sums(shared, (w0, w1, w2), gamma[0])
    base = fence(lambda g: log_det_eliminated(shared, g), gamma[0])
    system = _system(gamma, shared, gene, w0, sums, base[0])
    log_det, traces = _determinant(gamma, shared, system, n1, n2, base, reml)
    ratio = spread(gamma, shared, system.fixed.rss)

    def slopes(system, ratio, n1, w1, gene):
        u = jnp.concatenate([ratio * system.zpy, system.fixed.beta])
        right = dot(w1, gene.between_uy)  # -sum_c n_c w_c^2 (F a)_c
        s = apply(n1, u) + right
        return u, s, dot(w1, gene.between_yy) - dot(u, right) - dot(u, s)

    u, s, rss1 = fence(slopes, system, ratio, n1, w1, gene)
    # Z'P times the change of the right-hand side, and s'T s.
    scaled = fence(lambda r, s: r * s[:q], ratio, s)
    zpy1, form = fence(_respond, system, scaled, s)

    def image(n2, u, w2, gene):
        return apply(n2, u) - 2 * dot(w2, gene.between_uy)

    def curvature(w2, u, image, gene, form):
        return dot(w2, gene.between_yy) + dot(u, image) - form

    rss2 = fence(curvature, w2, u, fence(image, n2, u, w2, gene), gene, form)
    rss = (system.fixed.rss, rss1, rss2)
    sums = _sums(system, traces, zpy1, shared, reml)
    moments = Moments(log_det, rss, sums, system.lost)
    return moments, system.fixed


def _determinant(
    gamma: Vector,
    shared: Shared,
    system: System,
    n1: Array,
    n2: Array,
    base: tuple[Scalar, Scalar, Scalar],
    reml: bool,
) -> tuple[tuple[Scalar, Scalar, Scalar], Array]:
    """log|V| (REML: and log|X'V^-1 X|) as a power series in gamma_1; ``base`` is that of ``V_1``.

    The second result is the derivative of the diagonal of ``Z'V^-1 Z`` (REML: ``Z'PZ``) there.
    """
    q, p = shared.n_columns - shared.p, shared.p
    fixed = reml and p > 0
    columns = q + p if fixed else q
    log_det = system.fixed.log_det + system.fixed.log_det_fixed if fixed else system.fixed.log_det
    ratio = spread(gamma, shared, system.fixed.rss)
    if not columns:
        return (log_det, base[1], base[2]), ratio

    def maps(ratio, system):
        a = system.zpz if fixed else system.zz
        w = lift(jnp.eye(q, dtype=a.dtype), gamma[0]) - ratio[:, None] * a
        if fixed:
            corner = -ratio[:, None] * system.projected.swapaxes(0, 1)
            right = jnp.concatenate([corner, system.fixed.covariance])
            w = jnp.concatenate([jnp.concatenate([w, -system.projected]), right], 1)
        return w

    w = fence(maps, ratio, system)
    scale = jnp.concatenate([ratio, jnp.ones((p, *ratio.shape[1:]), ratio.dtype)])[:columns]
    image = fence(lambda n, w: product(n[:columns, :columns], w), n1, w)
    middle = diagonal(image)

    def partial_sums(image, n2, w, scale):
        # The sums over the other axis come after: a fused double sum would not be vectorised.
        return (
            dot(scale[:, None] * image, image.swapaxes(0, 1)),
            dot(n2[:columns, :columns], w),
            -dot(w[:, :q], image[:, :q]),
        )

    squares, forms, diagonal1 = fence(partial_sums, image, n2, w, scale)

    def series(log_det, base1, base2, scale, middle, squares, forms):
        second = dot(scale, forms) - 0.5 * dot(scale, squares)
        return log_det, base1 - dot(scale, middle), base2 + second

    terms = fence(series, log_det, base[1], base[2], scale, middle, squares, forms)
    return terms, diagonal1


def _respond(system: System, scaled: Array, s: Array) -> tuple[Array, Scalar]:
    """``Z'P`` and the quadratic form of the inverse, for the right-hand side ``s``."""
    q = system.zpy.shape[0]
    zpy1 = s[:q] - apply(system.zpz, scaled) - apply(system.projected.swapaxes(0, 1), s[q:])
    fixed = apply(system.fixed.covariance, s[q:]) - apply(system.projected, scaled)
    return zpy1, dot(scaled, zpy1) + dot(s[q:], fixed)


def _sums(
    system: System, traces: Array, zpy1: Array, shared: Shared, reml: bool
) -> Float[Array, "k some *genes"]:
    """Sums over the columns of each term, of `Moments`."""

    def columns(system, traces, zpy1):
        a, y = system.zpz if reml else system.zz, system.zpy
        blocks = term_slices(shared)
        return by_term(
            [
                diagonal(a),
                -y * y,
                traces,
                *(-dot(a[b], a[b]) for b in blocks),
                -2 * y * zpy1,
                *(2 * y * dot(system.zpz[b], y[b][:, None]) for b in blocks),
            ],
            shared,
        )

    return fence(columns, system, traces, zpy1)
