"""The nodes of gamma_1 from which conjugate gradients solve a gene's own system; host code.

`jaxvp.likelihood.iterated_part` is what they are for, `jaxvp.likelihood.differences` says in which
two ways a system differs from the one at its node. The levels of term 1 are the way of many columns
(few nodes, for fuller tiles), combinations of the class sums that of many levels.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from jaxvp.likelihood.differences import Classes, Levels, class_changes
from jaxvp.likelihood.iterated_part import Node
from jaxvp.memory import aligned
from jaxvp.solver.elimination import Rotated
from jaxvp.statistics import LevelRows, Shared

# Of the table's nodes one in so many.
_EVERY_BY_LEVELS, _EVERY_BY_CLASSES = 2, 1
# Evaluations of a gene, and iterations of conjugate gradients in all of them.
_EVALUATIONS, _ITERATIONS = 3, 12
_RANK = 12  # combinations of class sums, more or less; known when they are made
_MOST_RANK = 15  # for what they take: up to 14 were seen
_SPANNED = 1e-13  # what combinations leave out, relative
_SAMPLES = 100  # of gamma_1 about a node
_REACH = 0.75  # of the way to the next node: the nearest one's half, and a step beyond


def iterations_pay(shared: Shared, rows: int, classes: bool) -> bool:
    """Do a gene's iterations take fewer multiply-adds than the factors of its evaluations?

    ``rows`` are the levels of term 1; ``classes``: may these be taken together? Iterations want
    columns that are neither of term 1 nor of term 2: without a fixed part there are none.
    """
    columns = shared.n_columns
    if columns == shared.levels[1]:
        return False
    factored = 2 * len(shared.sizes) * columns**2 + columns**3 / 3
    return _ITERATIONS * min(_costs(shared, rows, classes)) < _EVALUATIONS * factored


def _costs(shared: Shared, rows: int, classes: bool) -> tuple[float, float]:
    """Multiply-adds of an iteration by the levels, and by the classes."""
    by_classes = min(len(shared.sizes), _RANK) * shared.n_columns**2
    return 2.0 * rows * shared.n_columns, float(by_classes if classes else np.inf)


def _by_levels(shared: Shared, rows: int, classes: bool) -> bool:
    levels, together = _costs(shared, rows, classes)
    return levels <= together


def entries(shared: Shared, count: int, rows: int, classes: bool) -> int:
    """Numbers that so many of the table's nodes hold."""
    columns = shared.n_columns
    if _by_levels(shared, rows, classes):
        return -(-count // _EVERY_BY_LEVELS) * columns * (2 * rows + columns)
    return -(-count // _EVERY_BY_CLASSES) * columns**2 * (1 + min(len(shared.sizes), _MOST_RANK))


def nodes(
    gamma: Float[np.ndarray, " N"],
    known: Rotated,
    shared: Shared,
    of: LevelRows,
    top: float,
    classes: bool,
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
    classes
        Whether levels may be taken together in classes.
    """
    by_levels = _by_levels(shared, len(of.rows), classes)
    some = slice(None, None, _EVERY_BY_LEVELS if by_levels else _EVERY_BY_CLASSES)
    gamma, turn, couple = gamma[some], known.turn[some], known.couple[some]
    back = np.ascontiguousarray(couple.swapaxes(1, 2))
    difference = _levels(turn, of) if by_levels else _classes(turn, gamma, shared, top)
    return Node(gamma, turn, known.roots[some], couple, back, known.rest[some], difference)


def _levels(turn: Float[np.ndarray, "N n n"], of: LevelRows) -> Levels:
    n = turn.shape[1]
    columns = aligned(len(turn), *of.rows.T.shape)
    np.matmul(turn, of.rows[:, :n].T, out=columns[:, :n])
    columns[:, n:] = of.rows[:, n:].T
    rows = aligned(len(turn), *of.rows.shape)
    rows[...] = columns.swapaxes(1, 2)
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
    found = [
        _spanned(sizes, near, np.expm1(np.linspace(a, b, _SAMPLES)) / largest)
        for near, a, b in zip(gamma, low, high, strict=True)
    ]
    rank = max(rank for _, rank in found)
    basis = np.stack([directions[:rank] for directions, _ in found])
    sums = np.tensordot(basis, shared.between, 1)
    sums[..., :n, :] = turn[:, None] @ sums[..., :n, :]
    sums[..., :n] = sums[..., :n] @ turn.swapaxes(1, 2)[:, None]
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
