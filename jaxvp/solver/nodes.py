"""The nodes of gamma_1 from which conjugate gradients solve a gene's own system; host code.

`jaxvp.likelihood.iterated_part` is what they are for, `jaxvp.likelihood.differences` says in which
two ways a system differs from the one at its node. The levels of term 1 are the way of many columns
(few nodes, for fuller tiles), combinations of the class sums that of many levels.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from jaxvp.likelihood.differences import Classes, Levels, class_changes
from jaxvp.likelihood.iterated_part import Node
from jaxvp.memory import aligned
from jaxvp.solver.elimination import Rotated, for_nodes, single
from jaxvp.statistics import LevelRows, Shared

# Of the table's nodes one in so many.
_EVERY = {Levels: 2, Classes: 1}
# Evaluations of a gene, and iterations of conjugate gradients in all of them.
_EVALUATIONS, _ITERATIONS = 3, 12
_RANK = 12  # combinations of class sums, more or less; known when they are made
_MOST_RANK = 15  # for what they take: up to 14 were seen
_SPANNED = 1e-13  # what combinations leave out, relative
_SAMPLES = 100  # of gamma_1 about a node
_PAIRED = 64  # other columns, whose pairs are kept: half the operations, and no copies of them
_REACH = 0.75  # of the way to the next node: the nearest one's half, and a step beyond


Way = type[Levels] | type[Classes]


def way_of(shared: Shared, rows: int, count: int, room: int, classes: bool) -> Way | None:
    """How a gene's own system is solved: from nodes in one of two ways, or by a factor (None).

    Of those that there is room for it is the one of the fewest multiply-adds. Iterations want
    columns that are neither of term 1 nor of term 2: without a fixed part there are none.

    Parameters
    ----------
    rows
        Levels of term 1.
    count
        The table's nodes of gamma_1.
    room
        Numbers that may be held.
    classes
        Whether levels may be taken together in classes.
    """
    columns = shared.n_columns
    of_iteration: dict[Way, float] = {Levels: 2 * rows * columns}
    if classes:
        of_iteration[Classes] = min(len(shared.sizes), _RANK) * columns**2
    fits = [way for way in of_iteration if _entries(way, shared, rows, count) <= room]
    if columns == shared.levels[1] or not fits:
        return None
    way = min(fits, key=lambda way: of_iteration[way])
    factored = 2 * len(shared.sizes) * columns**2 + columns**3 / 3
    return way if _ITERATIONS * of_iteration[way] < _EVALUATIONS * factored else None


def _entries(way: Way, shared: Shared, rows: int, count: int) -> int:
    """Numbers that so many of the table's nodes hold."""
    columns = shared.n_columns
    held = columns * 3 * rows  # with those in float32
    if way is Classes:
        held = columns**2 * min(len(shared.sizes), _MOST_RANK)
    return -(-count // _EVERY[way]) * (columns**2 + held)


def nodes(
    gamma: Float[np.ndarray, " N"],
    known: Rotated,
    shared: Shared,
    of: LevelRows,
    top: float,
    way: Way,
    room: int,
) -> Node:
    """The systems that genes start from.

    Parameters
    ----------
    gamma, known
        The table's nodes of gamma_1, and the systems there.
    of
        Term 1 level by level.
    top
        Largest ``log(1 + n gamma_1)`` of any search, n the size of the largest level.
    way, room
        That of `way_of`, and the room that it had.
    """
    some = slice(None, None, _EVERY[way])
    gamma, turn, couple = gamma[some], known.turn[some], known.couple[some]
    back = np.ascontiguousarray(couple.swapaxes(1, 2))
    difference = _levels(turn, of) if way is Levels else _classes(turn, gamma, shared, top)
    room -= _entries(way, shared, len(of.rows), len(known.turn))
    pairs = _pairs(couple, room)
    return Node(gamma, turn, known.roots[some], couple, back, known.rest[some], pairs, difference)


def with_single(of: Node) -> Node:
    """With matrices in float32 where that makes products take half the time.

    So are those that only the preconditioner is made of. (Products of classes are few and large:
    no gain.)
    """
    if isinstance(of.difference, Classes):
        return of
    levels = jax.tree.map(single, of.difference)
    pairs = None if of.pairs is None else single(of.pairs)
    return dataclasses.replace(of, single=levels, pairs=pairs)


def _pairs(
    couple: Float[np.ndarray, "N rest n"], room: int
) -> Float[np.ndarray, "N pairs n"] | None:
    """Products of two rows; None where they are too many."""
    count, rest, n = couple.shape
    one, other = np.tril_indices(rest)
    if rest > _PAIRED or count * len(one) * n > room:
        return None
    pairs = aligned(count, len(one), n)

    def fill(i: int) -> None:
        np.multiply(couple[i, one], couple[i, other], out=pairs[i])

    for_nodes(fill, range(count))
    return pairs


def _levels(turn: Float[np.ndarray, "N n n"], of: LevelRows) -> Levels:
    n = turn.shape[1]
    columns = aligned(len(turn), *of.rows.T.shape)
    rows = aligned(len(turn), *of.rows.shape)

    def fill(i: int) -> None:
        np.matmul(turn[i], of.rows[:, :n].T, out=columns[i, :n])
        columns[i, n:] = of.rows[:, n:].T
        rows[i] = columns[i].T

    for_nodes(fill, range(len(turn)))
    return Levels(rows, columns, np.broadcast_to(of.sizes, rows.shape[:2]))


def _classes(
    turn: Float[np.ndarray, "N n n"], gamma: Float[np.ndarray, " N"], shared: Shared, top: float
) -> Classes:
    n, sizes = turn.shape[1], np.asarray(shared.sizes)
    largest = np.asarray(shared.level_sizes).max()
    places = np.log1p(largest * gamma)
    reach = _REACH * np.diff(places)
    low, high = places - np.append(0.0, reach), np.append(places[:-1] + reach, max(top, places[-1]))
    low[0] = 0.0
    found: list[Any] = [None] * len(gamma)

    def look(i: int) -> None:
        within = np.expm1(np.linspace(low[i], high[i], _SAMPLES)) / largest
        found[i] = _spanned(sizes, gamma[i], within)

    for_nodes(look, range(len(gamma)))
    rank = max(rank for _, rank in found)
    basis = np.stack([directions[:rank] for directions, _ in found])
    sums = np.tensordot(basis, shared.between, 1)

    def fill(i: int) -> None:
        sums[i, :, :n] = turn[i] @ sums[i, :, :n]
        sums[i, ..., :n] = sums[i, ..., :n] @ turn[i].T

    for_nodes(fill, range(len(gamma)))
    return Classes(sums, basis, np.broadcast_to(sizes, (len(gamma), len(sizes))))


def _spanned(
    sizes: Float[np.ndarray, " C"], near: float, gamma: Float[np.ndarray, " samples"]
) -> tuple[np.ndarray, int]:
    """Orthonormal directions, the first ones of which span what class weights do about a node."""
    weight, change, bent = class_changes(sizes[:, None], near, gamma)
    # Both relative to the weights: the derivative as that in log(1 + n gamma).
    steep = bent * (gamma + 1 / sizes.max())
    both = np.concatenate([change, steep], axis=1) / np.tile(weight.max(0), 2)
    directions, values, _ = np.linalg.svd(both, full_matrices=False)
    return directions.T, int((values > _SPANNED * values[0]).sum())
