"""Elimination of one random term after the other at the nodes of a grid: what tables are made of.

Host code, float64. At a node of gamma_1 the system of all other columns is ``M = S + sum_c w_c
C_c``. Let ``M_22 = Q diag(l) Q'`` be the block of the next term: then for every gamma_2, with ``d =
gamma_2 / (1 + gamma_2 l)``,

    y'V^-1 y  <-  y'V^-1 y - sum d (Q' M_2y)^2,      M_ry  <-  M_ry - M_r2 Q diag(d) Q' M_2y,

one rotation for all nodes of gamma_2. Of large systems d, a function of gamma_2 and l without poles
where they are, is taken as a sum of few products ``d(gamma_2, l) = sum_k a_k(gamma_2) s_k(l)``:
there are fewer ``M_r2 Q diag(s_k)`` than nodes. The fixed part is eliminated before the last term,
so that a node of the last gamma costs only the first of these sums.

Cost: N_1 eigenproblems of size q_2, N_1 N_2 of size q_3.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import numpy as np
from jaxtyping import Float

from jaxvp import threads
from jaxvp.likelihood.system import term_slices
from jaxvp.memory import aligned
from jaxvp.runtime import using_blas_threads
from jaxvp.statistics import SWEEP_COLUMNS, Array, Shared

TOGETHER = 6  # nodes, at most
_SEPARATED = 1e-8  # relative error of every d as a sum of products: tables want 1e-5


class Level(eqx.Module):
    """One term's elimination at B nodes of the terms before it, for its own N nodes."""

    rotate: Float[Array, "B n m"]  # Q', for the last term with the fixed part eliminated
    factor: Float[Array, "B N n"]  # gamma / (1 + gamma l)
    couple: Float[Array, "B few rest n"] | None  # M_r2 Q diag(s); None for the last term
    # a; None where ``couple`` has d itself
    combine: Float[Array, "B N few"] | None = None


class Eliminated(NamedTuple):
    """At the nodes, axes of the terms in elimination order."""

    classes: Float[np.ndarray, "N1 C"]  # class weights at the nodes of gamma_1
    levels: tuple[Level, ...]
    fixed: Float[np.ndarray, "B p p"]  # L^-1 of X'V^-1 X = L L', last term not in V
    log_det: Float[np.ndarray, "*nodes"]  # without main terms


def single(array: Float[Array, "B *rest"]) -> Float[np.ndarray, "B *rest"]:
    """A copy in float32 of an array of NumPy's; all cores share out its first axis."""
    found = aligned(*array.shape, dtype=np.float32)
    for_nodes(lambda i: np.copyto(found[i], array[i]), range(len(array)))
    return found


def level_sizes(shared: Shared) -> tuple[np.ndarray, ...]:
    """Samples in every level of every term: ``sum_j log(1 + gamma_i n_ij)`` is a main term."""
    classes = np.diagonal(shared.between, axis1=1, axis2=2)
    diagonal = np.diagonal(shared.within) + classes.sum(axis=0)
    return (
        np.repeat(shared.level_sizes, np.asarray(shared.level_counts, dtype=int)),
        *(diagonal[block] for block in term_slices(shared)),
    )


def weights_at(shared: Shared, gamma: Float[np.ndarray, " N"]) -> Float[np.ndarray, "N C"]:
    """``1 / (1 + gamma_1 n_c)`` at nodes of gamma_1; NumPy's, as threads run this."""
    return 1 / (1 + np.outer(gamma, shared.sizes))


def systems(shared: Shared, gamma: Float[np.ndarray, " N"]) -> Float[np.ndarray, "N K K"]:
    """``M = S + sum_c w_c C_c`` at nodes of gamma_1."""
    found = np.tensordot(weights_at(shared, gamma), shared.between, 1)
    found += np.asarray(shared.within)
    return found


class Rotated(NamedTuple):
    """Systems at nodes of gamma_1, their block of term 2 diagonal: ``M_22 = Q diag(l) Q'``."""

    turn: Float[np.ndarray, "N n n"]  # Q'
    roots: Float[np.ndarray, "N n"]
    couple: Float[np.ndarray, "N rest n"]  # M_r2 Q
    rest: Float[np.ndarray, "N rest rest"]


def rotated(shared: Shared, gamma: Float[np.ndarray, " N"]) -> Rotated:
    """The nodes are shared out to all cores."""
    n, rest = shared.levels[1], shared.n_columns - shared.levels[1]
    shapes = ((n, n), (n,), (rest, n), (rest, rest))
    found = Rotated(*(np.empty((len(gamma), *shape)) for shape in shapes))

    def fill(nodes: slice) -> None:
        for i, m in enumerate(systems(shared, gamma[nodes]), nodes.start):
            for every, one in zip(found, _rotated(m[None], n), strict=True):
                every[i] = one[0]

    for_nodes(fill, some_nodes(len(gamma)))
    return found


def for_nodes(work: Callable[[Any], object], nodes: Sequence[Any], most: int | None = None) -> None:
    """``work`` of every node, or some together, on all cores: BLAS alone would not fill them.

    ``most`` is how many there may be at once.
    """
    cores = threads.cores()
    with using_blas_threads(1):
        threads.each(work, nodes, cores if most is None else min(cores, most))


def _in_turn(work: Callable[[Any], object], nodes: Sequence[Any]) -> None:
    """Of a small system: sharing it out would take longer."""
    for node in nodes:
        work(node)


def some_nodes(count: int) -> list[slice]:
    """Nodes whose systems are formed together: all that is *between* is read once for them.

    So many that every core has some of them.
    """
    size = min(TOGETHER, max(1, count // (2 * threads.cores())))
    return [slice(i, min(i + size, count)) for i in range(0, count, size)]


def _rotated(m: Float[np.ndarray, "N K K"], n: int) -> Rotated:
    """The same of systems that are there; ``n`` columns have the next term."""
    values, vectors = np.linalg.eigh(m[:, :n, :n])
    return Rotated(vectors.transpose(0, 2, 1), values, m[:, n:, :n] @ vectors, m[:, n:, n:])


def eliminate(
    shared: Shared, gammas: tuple[np.ndarray, ...], reml: bool, known: Rotated | None = None
) -> Eliminated:
    """Eliminate every term at the nodes of a grid, one array of gammas a term.

    ``known`` is `rotated` at the nodes of gamma_1, of three or more terms.
    """
    system = systems(shared, gammas[0]) if known is None else known
    log_det = np.zeros(len(gammas[0]))  # term 1 is nothing but a main term
    large = shared.n_columns > SWEEP_COLUMNS
    levels, fixed, log_det = others(system, log_det, gammas[1:], shared.levels[1:], reml, large)
    log_det = log_det.reshape([len(gamma) for gamma in gammas])
    log_det = without_main(log_det, gammas, level_sizes(shared))
    return Eliminated(weights_at(shared, gammas[0]), levels, fixed, log_det)


def others(
    system: Rotated | Float[np.ndarray, "B K K"],
    log_det: Float[np.ndarray, " B"],
    gammas: Sequence[np.ndarray],
    columns: Sequence[int],
    reml: bool,
    large: bool,
) -> tuple[tuple[Level, ...], Float[np.ndarray, "nodes p p"], Float[np.ndarray, " all"]]:
    """All terms but the first, which is eliminated at B nodes: `Eliminated`'s levels and fixed.

    Parameters
    ----------
    system
        Of all other columns, the fixed ones last; or with the next term's block diagonal.
    log_det
        The first term's part of it; what is returned has all terms', and the fixed part's by REML.
    gammas, columns
        Nodes and columns of every other term.
    large
        Whether the nodes are worth sharing out to all cores.
    """
    share = for_nodes if large else _in_turn
    levels = []
    for gamma, n in zip(gammas[:-1], columns[:-1], strict=True):
        of = system if isinstance(system, Rotated) else _rotated(system, n)
        factor = gamma[None, :, None] / (1 + gamma[None, :, None] * of.roots[:, None, :])
        count, rest, turned = of.couple.shape
        combine, shares = _separated(factor) if large else (None, factor)
        couple = aligned(count, shares.shape[1], rest, turned)
        left = np.empty((count, len(gamma), rest, rest))
        share(functools.partial(_take, of, shares, combine, couple, left), range(count))
        levels.append(Level(of.turn, factor, couple, combine))
        log_det = _grow(log_det, np.log1p(gamma[None, :, None] * of.roots[:, None, :]).sum(-1))
        system = left.reshape(-1, rest, rest)
    assert not isinstance(system, Rotated)
    m, n = system, columns[-1] if columns else 0
    factors = np.linalg.cholesky(m[:, n:, n:])
    fixed = np.linalg.inv(factors)  # p is small: one call for all nodes
    half = fixed @ m[:, n:, :n]
    zpz = m[:, :n, :n] - half.transpose(0, 2, 1) @ half
    if reml:
        log_det = log_det + 2 * np.log(np.diagonal(factors, axis1=1, axis2=2)).sum(-1)
    if columns:
        gamma = gammas[-1]
        values, vectors = np.empty(zpz.shape[:2]), np.empty_like(zpz)
        roots = values if reml else np.empty_like(values)

        def fill(nodes: slice) -> None:
            values[nodes], vectors[nodes] = np.linalg.eigh(zpz[nodes])
            if not reml:
                roots[nodes] = np.linalg.eigvalsh(m[nodes, :n, :n])

        share(fill, some_nodes(len(zpz)) if large else [slice(None)])
        turned = vectors.transpose(0, 2, 1)
        # Z'Py = Z'V^-1 y - half' (L^-1 X'V^-1 y): one matrix for both parts.
        rotate = np.concatenate([turned, -turned @ (half.transpose(0, 2, 1) @ fixed)], axis=2)
        factor = gamma[None, :, None] / (1 + gamma[None, :, None] * values[:, None, :])
        levels.append(Level(rotate, factor, None))
        log_det = _grow(log_det, np.log1p(gamma[None, :, None] * roots[:, None, :]).sum(-1))
    return tuple(levels), fixed, log_det


def without_main(
    log_det: Float[np.ndarray, "*nodes"],
    gammas: tuple[np.ndarray, ...],
    sizes: tuple[np.ndarray, ...],
) -> Float[np.ndarray, "*nodes"]:
    """``log|V|`` less every term's ``sum_j log(1 + gamma_i n_ij)``; what comes lacks term 1's."""
    for axis, (gamma, size) in enumerate(zip(gammas[1:], sizes[1:], strict=True), 1):
        main = np.log1p(np.outer(gamma, size)).sum(axis=1)
        log_det = log_det - main.reshape([-1 if i == axis else 1 for i in range(len(gammas))])
    return log_det


def _separated(
    factor: Float[np.ndarray, "B N n"],
) -> tuple[Float[np.ndarray, "B N few"], Float[np.ndarray, "B few n"]]:
    """Two factors of ``gamma / (1 + gamma l)``, exact to `_SEPARATED`.

    The last gamma is the largest, and above zero.
    """
    last = factor[:, -1:]
    scaled = factor / last
    of_node = scaled.max(2, keepdims=True)
    scaled /= np.where(of_node > 0, of_node, 1.0)
    left, values, right = np.linalg.svd(scaled, full_matrices=False)
    left *= (of_node > 0) * values[:, None]  # nothing of a gamma of zero
    few = int((values > _SEPARATED * values[:, :1]).sum(1).max())
    while few < len(values[0]):
        found = left[:, :, :few] @ right[:, :few]
        if (np.abs(found - scaled) <= _SEPARATED * scaled).all():
            break
        few += 1
    return of_node * left[:, :, :few], right[:, :few] * last


def _take(
    of: Rotated,
    shares: Float[np.ndarray, "B few n"],
    combine: Float[np.ndarray, "B N few"] | None,
    couple: Float[np.ndarray, "B few rest n"],
    left: Float[np.ndarray, "B N rest rest"],
    node: int,
) -> None:
    """``M_r2 Q diag(s)`` of one node, and what is left of the other columns' system."""
    np.multiply(of.couple[node], shares[node, :, None], out=couple[node])
    taken = couple[node] @ of.couple[node].T
    if combine is not None:
        taken = np.tensordot(combine[node], taken, 1)
    np.subtract(of.rest[node], taken, out=left[node])


def _grow(log_det: np.ndarray, more: np.ndarray) -> np.ndarray:
    return (log_det.reshape(-1, 1) + more).reshape(-1)
