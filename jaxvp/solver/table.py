r"""Starting points of small systems, from a table that all genes share.

The design is the same for all genes, so everything that depends on gamma alone (the eliminated
systems, their eigenvectors, the determinants) can be computed once, at the nodes of a grid over all
gammas; a gene then costs matrix products. The table says where a gene's deviance is lowest among
the nodes, and polynomials through that node and its neighbours where about it. What comes out is a
starting point and nothing more: the deviance, the derivatives and the certificate are those of
`jaxvp.likelihood`, which a search asks three to four times where it would be five to six (one to
three terms, hundreds of samples). For more terms a table would cost more than the evaluations that
it saves.

*Several valleys.* A deviance may have more than one local minimum, most often where factors nearly
group the samples alike or levels are few and unequal. A node that is lower than its neighbours on
every axis marks a valley; the second lowest such node is a second start. Few genes have one (1 to 2
per cent in ordinary designs), and nobody else pays.

Cost a gene of k = 3 terms with q_2 and q_3 columns: ``N_1 q_2^2 + N_1 N_2 (q_2 + q_3) (q_3 + p)``
multiply-adds in matrix products, of large systems some 0.6 N_2 for N_2; `jaxvp.solver.elimination`
has the formulas.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from jaxvp.likelihood import SWEEP_COLUMNS, Scalar, fence
from jaxvp.likelihood.lanes import dot, product, total
from jaxvp.solver.elimination import Eliminated, Rotated, eliminate, level_sizes
from jaxvp.statistics import Array, PerGene, Shared
from jaxvp.target import accelerated

# Nodes of x on an axis, by the number of terms. Fine enough to tell valleys apart: with six and
# five nodes one gene in 500 of a small and very unequal design was missed, with these none.
_NODES = {
    terms: 6 * np.linspace(0, 1, count) ** 1.5
    for terms, count in {1: 12, 2: 12, 3: 8, 4: 6}.items()
}
# float32 changes deviances by 0.001 of 100 samples, by 0.03 of 1,000: little to a start, or to what
# nodes a step apart tell of valleys. Of 10,000 it would be 0.3.
SINGLE_SAMPLES = 1_000
# Nodes on an axis that a polynomial goes through: by three, a parabola, starts are two (three
# terms) to ten times (one term) as far from the optimum. And steps to where it is lowest.
_NEIGHBOURS, _STEPS = 5, 2
_FEW = 8  # columns of a sum that is written out
_SMALL, _LARGE = (1, 2, 3), (2, 3, 4)  # numbers of terms for which a table pays


class Table(eqx.Module):
    """What is shared; axes of the terms in elimination order."""

    eliminated: Eliminated
    gammas: tuple[Array, ...]  # nodes
    main: Float[Array, "*nodes"]  # main terms of the determinant
    single: bool = eqx.field(static=True, default=False)  # is float32 enough?


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
    if k not in (_LARGE if shared.n_columns > SWEEP_COLUMNS else _SMALL):
        return None
    gammas = tuple(np.expm1(_NODES[k]) / m for m in shared.samples_per_level)
    single = shared.n_columns <= SWEEP_COLUMNS and float(shared.n) <= SINGLE_SAMPLES
    return dataclasses.replace(tabulate(shared, gammas, reml), single=single)


def tabulate(
    shared: Shared, gammas: tuple[np.ndarray, ...], reml: bool, known: Rotated | None = None
) -> Table:
    """The table at given nodes; ``known`` are the systems at those of gamma_1."""
    main = np.zeros(())
    for gamma, n in zip(gammas, level_sizes(shared), strict=True):
        main = main[..., None] + np.log1p(np.outer(gamma, n)).sum(axis=1)
    return Table(eliminate(shared, gammas, reml, known), gammas, main)


def residual(eliminated: Eliminated, gene: PerGene) -> Float[Array, "*nodes genes"]:
    """``y'P y`` of a tile of genes at all nodes."""
    classes, levels, fixed, log_det = eliminated
    b = gene.within_uy + jnp.tensordot(classes, gene.between_uy, 1)
    yy = gene.within_yy + classes @ gene.between_yy
    p = fixed.shape[-1]
    for level in levels:
        if level.couple is None:
            break
        n = level.rotate.shape[1]
        c = level.rotate @ b[:, :n]
        taken = jnp.einsum("bkrn,bng->bkrg", level.couple, c)
        if level.combine is not None:
            taken = jnp.einsum("bNk,bkrg->bNrg", level.combine, taken)
        b = b[:, None, n:] - taken
        yy = (yy[:, None] - level.factor @ (c * c)).reshape(-1, yy.shape[-1])
        b = b.reshape(-1, *b.shape[2:])
    yy = fence(lambda yy, b: yy - _squares(fixed, b[:, b.shape[1] - p :]), yy, b)
    if levels:
        c = fence(lambda b: levels[-1].rotate @ b, b)
        yy = fence(lambda yy, c: yy[:, None] - _summed(levels[-1].factor, c * c), yy, c)
    return yy.reshape(*log_det.shape, -1)


def _summed(
    factor: Float[Array, "nodes N n"], squares: Float[Array, "nodes n genes"]
) -> Float[Array, "nodes N genes"]:
    """``factor @ squares``; of few columns as a sum, for a product is a call for every node."""
    if factor.shape[-1] > _FEW:
        return factor @ squares
    shares = jnp.moveaxis(jnp.asarray(factor), -1, 0)[..., None]
    return dot(shares, squares.swapaxes(0, 1)[:, :, None])


def _squares(
    half: Float[Array, "nodes p p"], b: Float[Array, "nodes p genes"]
) -> Float[Array, "nodes genes"]:
    """``|half b|^2``; of few columns as sums, for the same reason."""
    if not 0 < half.shape[-1] <= _FEW:
        return ((half @ b) ** 2).sum(1)
    rows = jnp.moveaxis(jnp.asarray(half), 0, -1)[..., None]
    scaled = product(rows, b.swapaxes(0, 1)[:, None])[:, 0]
    return dot(scaled, scaled)


def starts(
    table: Table, shared: Shared, gene: PerGene, size: Scalar
) -> Float[Array, "attempts k genes"]:
    """Points to start from, x, for every gene of a tile (genes on the trailing axis).

    NaN where a gene has no such start. ``size`` is N, the factor of log r.
    """
    if table.single:
        table, gene, size = in_single((table, gene, size))
    height = heights(table.eliminated, table.eliminated.log_det + table.main, gene, size)
    return valleys(in_x(table.gammas, shared.samples_per_level), height)


def in_single(tree: Any) -> Any:
    """In float32, on a CPU: half the traffic, which bounds what is done with a table.

    Where a term explains all but float32's rounding any node that does is as low. (An accelerator
    would multiply in fewer digits.)
    """
    if accelerated():
        return tree
    return jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), tree)


def heights(
    eliminated: Eliminated, log_det: Float[Array, "*nodes"], gene: PerGene, size: Scalar
) -> Float[Array, "*nodes genes"]:
    """``exp(deviance / N)``: the same order, without a logarithm for every node of every gene."""
    determinant = jnp.exp(log_det / size)[..., None]
    rss = residual(eliminated, gene)
    return fence(lambda rss: determinant * jnp.maximum(rss, 1e-30), rss)


def in_x(gammas: tuple[Array, ...], m: Float[Array, " k"]) -> tuple[Array, ...]:
    """Nodes of every term in ``x = log(1 + m gamma)``."""
    return tuple(jnp.log1p(m[t] * jnp.asarray(gamma)) for t, gamma in enumerate(gammas))


def valleys(
    nodes: tuple[Array, ...], height: Float[Array, "*nodes genes"], ridges: bool = False
) -> Float[Array, "2 k genes"]:
    """The point about the lowest node, and about the lowest of another valley (NaN: none).

    ``nodes`` are those of every axis, of any coordinate. Another valley is about a node that is
    lower than its neighbours on every axis. With ``ridges`` it is lower than those across the axes,
    too: along a narrow valley that lies across them, many nodes are lower than the former alone.
    """
    first = _lowest(height)
    second = _lowest(_across(height, first[0]) if ridges else _on_axes(height, first[1]))
    lowest, number = (jnp.stack(both) for both in zip(first, second, strict=True))
    return jnp.where(lowest[:, None] < jnp.inf, _about(nodes, height, number), jnp.nan)


def _about(
    nodes: tuple[Array, ...],
    height: Float[Array, "*nodes genes"],
    number: Int[Array, "attempts genes"],
) -> Float[Array, "attempts k genes"]:
    """Points near the nodes of these numbers.

    On every axis it is where the polynomial through some nodes about this one is lowest, no farther
    from it than the nodes beside it.
    """
    shape, k = height.shape[:-1], len(nodes)
    flat = height.reshape(-1, height.shape[-1])
    # Axes of what follows: nodes on an axis, axes, attempts, genes.
    stride = np.array([math.prod(shape[t + 1 :]) for t in range(k)], np.int32)[:, None, None]
    count = np.array(shape, np.int32)[:, None, None]
    some = min(_NEIGHBOURS, *shape)
    every = jnp.stack([jnp.pad(x, (0, max(shape) - len(x))) for x in nodes], 1)[..., None, None]

    def asked(number):
        place = number // stride % count
        begin = jnp.clip(place - some // 2, 0, count - some)
        on_axis = begin + np.arange(some, dtype=np.int32)[:, None, None, None]
        beside = [place, jnp.maximum(place - 1, 0), jnp.minimum(place + 1, count - 1)]
        return number + stride * (on_axis - place), jnp.concatenate([on_axis, jnp.stack(beside)])

    def of(places):
        """The nodes of these numbers: a sum over all of them is vectorised."""
        here = np.arange(max(shape), dtype=np.int32)[:, None, None, None, None]
        return total(jnp.where(here == places, every[:, None], 0.0))

    def differences(x, y):
        """Divided ones, of all orders: the polynomial's coefficients."""
        found = [y[0]]
        for order in range(1, some):
            y = (y[1:] - y[:-1]) / (x[order:] - x[:-order])
            found.append(y[0])
        return jnp.stack(found)

    def closer(v, x, coefficients, before, after):
        """A step of Newton's method."""
        value, slope, bend = coefficients[-1], jnp.zeros_like(v), jnp.zeros_like(v)
        for node, coefficient in zip(x[-2::-1], coefficients[-2::-1], strict=True):
            off = v - node
            bend, slope = bend * off + 2 * slope, slope * off + value
            value = value * off + coefficient
        bent = (bend > 0) & jnp.isfinite(bend)
        vertex = jnp.clip(v - slope / jnp.where(bent, bend, 1.0), before, after)
        return jnp.where(bent, vertex, v)

    numbers, places = fence(asked, number)
    y = jnp.asarray(flat).at[numbers, np.arange(flat.shape[1])].get(mode="promise_in_bounds")
    found = fence(of, places)
    x, (here, before, after) = found[:some], found[some:]
    known = (x, fence(differences, x, y), before, after)
    v = jax.lax.fori_loop(0, _STEPS, lambda _, v: fence(closer, v, *known), here)
    return v.swapaxes(0, 1)


def _lowest(low: Float[Array, "*nodes genes"]) -> tuple[Scalar, Int[Array, " genes"]]:
    """The lowest, and the number of the first node that is: XLA's argmin is not vectorised.

    Nodes are asked by rows of the last axis, then those of one row: of two that are equally low,
    as factors that can stand in for each other have, one axis must not take the one and another
    axis the other.
    """
    rows = low.reshape(-1, *low.shape[-2:])
    of_row = rows.min(1)
    lowest = of_row.min(0)
    row = _first(of_row == lowest)
    some = rows[row, np.arange(rows.shape[1])[:, None], np.arange(rows.shape[2])]
    return lowest, row * rows.shape[1] + _first(some == lowest)


def _first(true: Bool[Array, "some genes"]) -> Int[Array, " genes"]:
    """The number of the first that is true; of none the last one's."""
    last = np.int32(len(true) - 1)
    return jnp.where(true, np.arange(last + 1, dtype=np.int32)[:, None], last).min(0)


def _on_axes(
    height: Float[Array, "*nodes genes"], first: Int[Array, " genes"]
) -> Float[Array, "*nodes genes"]:
    """The same, infinite but at nodes other than ``first`` that no neighbour on an axis is below.

    Of neighbours that are equally low the first counts, as for `_lowest`.
    """
    shape = height.shape[:-1]
    low = np.arange(math.prod(shape), dtype=np.int32).reshape(*shape, 1) != first
    for axis, nodes in enumerate(shape):
        before, after = _beside(height, axis)
        begin = np.arange(nodes) == 0
        begin = np.expand_dims(begin, [a for a in range(height.ndim) if a != axis])
        low &= ((height < before) | begin) & (height <= after)
    return jnp.where(low, height, jnp.inf)


def _across(height: Float[Array, "*nodes genes"], lowest: Scalar) -> Float[Array, "*nodes genes"]:
    """The same, infinite but at nodes above the lowest that no neighbour at all is below."""
    around = height
    for axis in range(height.ndim - 1):
        around = jnp.minimum(around, jnp.minimum(*_beside(around, axis)))
    return jnp.where((height > lowest) & (height <= around), height, jnp.inf)


def _beside(height: Float[Array, "*nodes genes"], axis: int) -> tuple[Array, Array]:
    """At the nodes before and after on an axis.

    A copy of itself beyond either end: padding would be three more kernels an axis.
    """
    last = height.shape[axis] - 1
    place = np.arange(last + 1)
    return (
        jnp.take(height, place.clip(1) - 1, axis, mode="clip"),
        jnp.take(height, (place + 1).clip(None, last), axis, mode="clip"),
    )
