r"""Fixed effects that are sums of a random term's columns, as the intercept is of every term's.

What large variances leave of them is next to nothing, and a difference leaves no digit of that. Let
``Z_t B_t = Q D_t`` with orthonormal B_t, and let V_c be V with Z_t's columns but for their
combinations B_t, its *contrasts*. Then, without a difference,

    (Q'V^-1 Q)^-1 = (Q'V_c^-1 Q)^-1 + sum_t gamma_t D_t D_t',
    log|V| + log|Q'V^-1 Q| = log|V_c| + log|Q'V_c^-1 Q|.

Host code, float64.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jaxvp.likelihood.system import term_slices
from jaxvp.statistics import Compression, Shared

_NOTHING = 1e-12  # of a column of length one


class Combinations(NamedTuple):
    """B of one term, of q levels: ``(I - V T V')'`` makes it the first r coordinates."""

    vectors: Float[np.ndarray, "q r"]  # V
    mixed: Float[np.ndarray, "q r"]  # V T
    fixed: Float[np.ndarray, "p r"]  # D

    @classmethod
    def of(cls, b: Float[np.ndarray, "q r"], v: Float[np.ndarray, "p r"]) -> Combinations:
        """With ``Z b = Q v``."""
        packed, scales = np.linalg.qr(b, mode="raw")  # reflectors, one after the other
        vectors = np.tril(packed.T, -1)
        np.fill_diagonal(vectors, 1)
        triangle = np.diag(scales)
        for i, scale in enumerate(scales):
            triangle[:i, i] = -scale * triangle[:i, :i] @ (vectors[:, :i].T @ vectors[:, i])
        return cls(vectors, vectors @ triangle, v @ np.linalg.inv(np.triu(packed.T[: len(scales)])))


class Confounded(NamedTuple):
    """Of a design: of every term but the one that is eliminated from the start."""

    terms: tuple[Combinations, ...]
    # Of the fixed columns, so that what is confounded comes first, alone; D is of turned ones.
    turn: Float[np.ndarray, "p p"]

    @classmethod
    def of(cls, compression: Compression) -> Confounded:
        """What can be seen of a design's samples."""
        g, q = compression.grouping, compression.q
        assert g is not None
        found = []
        # One entry a term has every sample, in the terms' order.
        entries = g.sum_others.indices.reshape(len(q), -1), g.sum_others.data.reshape(len(q), -1)
        for t, block in enumerate(term_slices(compression.shared)):
            level, root = (array[:, t] for array in entries)
            # To the last digit: those of the class sums are interpolated.
            size = np.bincount(level - block.start, root**2, block.stop - block.start)
            means = g.q_of_others[block] / np.where(size > 0, size, 1.0)[:, None]
            within = q - means[level - block.start] * root[:, None]
            _, lengths, directions = np.linalg.svd(np.linalg.qr(within, mode="r"))
            v = directions[lengths < _NOTHING].T
            found.append(Combinations.of(means @ v, v))
        turn = np.linalg.svd(np.hstack([term.fixed for term in found]))[0]
        if np.abs(np.abs(turn) - np.eye(len(turn))).max(initial=0) < _NOTHING:
            turn = np.eye(len(turn))  # as with an intercept, which is Q's first column
        return cls(tuple(t._replace(fixed=turn.T @ t.fixed) for t in found), turn)


def contrasts(
    m: Float[np.ndarray, "B K K"], shared: Shared, known: Confounded
) -> Float[np.ndarray, "B less less"]:
    """Systems of contrasts and turned fixed columns; ``m`` is overwritten.

    ``(I - V T V')' M (I - V T V') = M - (L V' + V L')`` with ``L = U - V T' V'U / 2, U = M V T``,
    of all terms' V and T together.
    """
    columns, count = m.shape[1], [term.fixed.shape[1] for term in known.terms]
    vectors, mixed = np.zeros((2, columns, sum(count)))
    kept, first = np.ones(columns, bool), 0
    for block, term, n in zip(term_slices(shared), known.terms, count, strict=True):
        one = block, slice(first, first + n)
        vectors[one], mixed[one] = term.vectors, term.mixed
        kept[block.start : block.start + n] = False
        first += n
    fixed, less = slice(columns - shared.p, None), int(kept.sum())
    found = np.empty((len(m), less, less))
    # One system after the other, which stays in the cache.
    for system, contrast in zip(m, found, strict=True):
        left = system @ mixed
        left -= 0.5 * vectors @ (mixed.T @ left)
        system -= np.hstack([left, vectors]) @ np.hstack([vectors, left]).T
        system[:, fixed] = system[:, fixed] @ known.turn
        system[fixed] = known.turn.T @ system[fixed]
        contrast[:] = system[kept][:, kept]
    return found


def levels_left(shared: Shared, known: Confounded) -> tuple[int, ...]:
    """Contrasts of every term."""
    return tuple(n - t.fixed.shape[1] for n, t in zip(shared.levels[1:], known.terms, strict=True))


def added(
    gammas: Float[np.ndarray, "terms *nodes"], known: Confounded
) -> Float[np.ndarray, "p p *nodes"]:
    """``E = sum_t gamma_t D_t D_t'`` of all terms but the first."""
    squares = np.stack([term.fixed @ term.fixed.T for term in known.terms], axis=-1)
    return np.tensordot(squares, gammas, 1)


def slopes(
    information: Float[np.ndarray, "p p"],
    gammas: Float[np.ndarray, " terms"],
    known: Confounded,
) -> Float[np.ndarray, " terms"]:
    """Of ``log|V| - log|V_c| = log|I + Q'V_c^-1 Q E|`` in the gammas.

    ``information`` is ``Q'V_c^-1 Q``.
    """
    D = np.hstack([term.fixed for term in known.terms])
    of = np.repeat(np.arange(len(gammas)), [term.fixed.shape[1] for term in known.terms])
    own = D.T @ information @ D
    each = np.diagonal(np.linalg.solve(np.eye(len(of)) + own * gammas[of], own))
    return np.array([each[of == t].sum() for t in range(len(gammas))])
