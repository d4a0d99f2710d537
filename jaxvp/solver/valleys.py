"""Valleys of a function that is known at the nodes of a grid, and where about in them it is lowest.

A deviance may have more than one local minimum, most often where factors nearly group the samples
alike or levels are few and unequal. A node that is lower than its neighbours on every axis marks a
valley; the second lowest such node is a second start. Few genes have one (1 to 2 per cent in
ordinary designs), and nobody else pays.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from jaxvp.likelihood import Scalar, fence
from jaxvp.likelihood.lanes import total
from jaxvp.statistics import Array

# Nodes on an axis that a polynomial goes through: by three, a parabola, starts are two (three
# terms) to nine times (one term) as far from the optimum. And steps to where it is lowest.
_NEIGHBOURS, _STEPS = 5, 2


def valleys(
    nodes: tuple[Array, ...], height: Float[Array, "*nodes genes"], ridges: bool = False
) -> Float[Array, "2 k genes"]:
    """The point about the lowest node, and about the lowest of another valley (NaN: none).

    They are numbers of the type of ``height``.

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
    every = every.astype(height.dtype)

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
