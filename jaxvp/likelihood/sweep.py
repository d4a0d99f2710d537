"""Elimination by sweeping, for small systems and many genes at once.

Arithmetic on arrays whose last axis is the gene.

Columns are swept in panels of one term. With ``B`` the panel's square of ``M``, ``P`` its columns
and ``D = gamma (I + gamma B)^-1`` (fixed part: ``B^-1``), which is finite at zero,

    M <- M - P D P',      log|V| <- log|V| + log|I + gamma B|,

and as power series in gamma_1, coefficient by coefficient,

    D1 = -D0 B1 D0,   D2 = -D0 (B2 D0 + B1 D1),   E = P D,   M <- M - E P'.

Why panels: an update column by column reads and writes all of ``M`` for one multiplication an
entry, and memory is what bounds it; a panel of eight does eight.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxvp.likelihood.system import (
    Matrix,
    Moments,
    Scalar,
    Vector,
    augmented,
    fence,
    lift,
    log_det_eliminated,
    term_slices,
    total,
)
from jaxvp.statistics import Array, PerGene, Shared

_PANEL = 8


def panels(begin: int, end: int) -> list[slice]:
    """Near-equal panels of at most _PANEL columns."""
    count = -(-(end - begin) // _PANEL)
    edges = np.linspace(begin, end, count + 1).round().astype(int)
    return [slice(int(a), int(b)) for a, b in zip(edges[:-1], edges[1:], strict=True)]


@jax.jit
def product(a: Array, b: Array) -> Array:
    """Matrix product over the two leading axes, gene axis untouched."""
    out = a[:, 0, None] * b[None, 0]
    for t in range(1, a.shape[1]):
        out = out + a[:, t, None] * b[None, t]
    return out


@jax.jit
def inverse(matrix: Array) -> tuple[Array, Scalar]:
    """Inverse and log determinant of a positive definite matrix, Gauss and Jordan in place."""
    size = matrix.shape[0]
    number = lift(jnp.arange(size), matrix[0, 0])

    def pivot(t, carry):
        m, log_det = carry
        row = jax.lax.dynamic_index_in_dim(m, t, 0, keepdims=False)
        column = jax.lax.dynamic_index_in_dim(m, t, 1, keepdims=False)
        p = jax.lax.dynamic_index_in_dim(row, t, 0, keepdims=False)
        here = number == t
        row = jnp.where(here, 1.0, row) / p
        rest = jnp.where(here[None], 0.0, m) - jnp.where(here, 0.0, column)[:, None] * row[None]
        return jnp.where(here[:, None], row[None], rest), log_det + jnp.log(p)

    return jax.lax.fori_loop(0, size, pivot, (matrix, jnp.zeros_like(matrix[0, 0])))


def swept(gamma: Vector, shared: Shared, gene: PerGene, reml: bool) -> Moments:
    """Sweep the K columns. Of ``M1`` only the columns still to come (and the diagonal).

    Of ``M2`` only the rows and columns still to come are kept.
    """
    always = shared.level_counts[0] > 0
    m0, m1, m2 = fence(always, lambda gene, g: augmented(shared, gene, g), gene, gamma[0])
    blocks = term_slices(shared)
    q = shared.n_columns - shared.p
    log_det = log_det_eliminated(shared, gamma[0])
    diagonal1 = [m1[j, j] for j in range(q)]

    def sweep(panel: slice, ratio: Scalar | None, counts: bool) -> None:
        nonlocal m0, m1, m2, log_det, diagonal1
        a, b = panel.start, panel.stop
        size = b - a
        p0, p1, p2 = m0[:, a:b], m1[:, :size], m2[:, :size]
        b0, b1, b2 = p0[a:b], p1[a:b], p2[:size]
        if ratio is None:
            d0, pivots = fence(always, inverse, b0)
        else:
            identity = lift(jnp.eye(size, dtype=ratio.dtype), ratio)
            scaled, pivots = fence(always, lambda b0, r: inverse(identity + r * b0), b0, ratio)
            d0 = ratio * scaled

        d0b1 = fence(always, product, d0, b1)
        d1 = fence(always, lambda x, d: -product(x, d), d0b1, d0)
        inner = fence(
            always, lambda b2, d0, b1, d1: product(b2, d0) + product(b1, d1), b2, d0, b1, d1
        )
        d2 = fence(always, lambda d, x: -product(d, x), d0, inner)
        if counts:
            trace1 = sum(d0b1[t, t] for t in range(size))
            trace2 = total(d0 * b2, 2) + 0.5 * total(d1 * b1, 2)
            log_det = (log_det[0] + pivots, log_det[1] + trace1, log_det[2] + trace2)

        def spread(p0, p1, p2, d0, d1, d2):
            e0, e1 = product(p0, d0), product(p0, d1) + product(p1, d0)
            return e0, e1, product(p0[b:], d2) + product(p1[b:], d1) + product(p2[size:], d0)

        e0, e1, e2 = fence(always, spread, p0, p1, p2, d0, d1, d2)

        def update(m0, m1, m2, e0, e1, e2):
            t0, t1, t2 = (jnp.swapaxes(p, 0, 1) for p in (p0, p1, p2))
            new2 = (
                m2[size:, size:]
                - product(e0[b:], t2[:, size:])
                - product(e1[b:], t1[:, b:])
                - product(e2, t0[:, b:])
            )
            new1 = m1[:, size:] - product(e0, t1[:, b:]) - product(e1, t0[:, b:])
            change = (e0[:q] * p1[:q]).sum(1) + (e1[:q] * p0[:q]).sum(1)
            return m0 - product(e0, t0), new1, new2, change

        m0, m1, m2, change = fence(always, update, m0, m1, m2, e0, e1, e2)
        diagonal1 = [diagonal1[j] - change[j] for j in range(q)]

    for t, block in enumerate(blocks):
        for panel in panels(block.start, block.stop):
            sweep(panel, gamma[t + 1], counts=True)
    traces = None if reml else _block_traces(m0, diagonal1, blocks)
    for panel in panels(q, q + shared.p):
        sweep(panel, None, counts=reml)
    if traces is None:
        traces = _block_traces(m0, diagonal1, blocks)
    trace, squares = traces
    zpy, zpy1 = m0[:q, -1], m1[:q, 0]
    data = (
        tuple(total(zpy[b] ** 2, 1) for b in blocks),
        tuple(total(2 * zpy[b] * zpy1[b], 1) for b in blocks),
    )
    curved = tuple(
        tuple(total(m0[a, b] * zpy[a][:, None] * zpy[b][None], 2) for b in blocks) for a in blocks
    )
    return Moments(log_det, (m0[-1, -1], m1[-1, 0], m2[0, 0]), trace, squares, data, curved)


def _block_traces(
    m0: Array, diagonal1: list[Scalar], blocks: list[slice]
) -> tuple[tuple[Vector, Vector], Matrix]:
    trace = (
        tuple(
            sum((m0[j, j] for j in range(b.start + 1, b.stop)), m0[b.start, b.start])
            for b in blocks
        ),
        tuple(sum(diagonal1[b][1:], diagonal1[b.start]) for b in blocks),
    )
    return trace, tuple(tuple(total(m0[a, b] ** 2, 2) for b in blocks) for a in blocks)


def random_swept(
    gamma: Vector, shared: Shared, uu: Array, uy: Array, rss: Scalar
) -> tuple[Array, Array, Scalar, Scalar]:
    """What the random columns leave of a system (value only, no derivatives).

    And their part of log|V|.
    """
    always = shared.level_counts[0] > 0
    m = jnp.concatenate(
        [jnp.concatenate([uu, uy[:, None]], 1), jnp.concatenate([uy, rss[None]])[None]]
    )
    log_det = jnp.zeros_like(rss)
    for t, block in enumerate(term_slices(shared)):
        for panel in panels(block.start, block.stop):
            size = panel.stop - panel.start

            def sweep(m, ratio, size=size):
                identity = lift(jnp.eye(size, dtype=ratio.dtype), ratio)
                scaled, pivots = fence(
                    always, lambda b, r: inverse(identity + r * b), m[:size, :size], ratio
                )
                e = fence(always, lambda p, s, r: product(p, r * s), m[size:, :size], scaled, ratio)
                return m[size:, size:] - product(e, m[:size, size:]), pivots

            m, pivots = fence(always, sweep, m, gamma[t + 1])
            log_det = log_det + pivots
    return m[:-1, :-1], m[:-1, -1], m[-1, -1], log_det
