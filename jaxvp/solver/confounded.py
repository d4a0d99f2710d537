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
    """B of one term, of q levels: ``I - scale v v'``, one after the other, make it the first r of
    q coordinates."""

    reflectors: Float[np.ndarray, "r q"]  # v
    scales: Float[np.ndarray, " r"]
    fixed: Float[np.ndarray, "p r"]  # D

    @classmethod
    def of(cls, b: Float[np.ndarray, "q r"], v: Float[np.ndarray, "p r"]) -> Combinations:
        """With ``Z b = Q v``."""
        packed, scales = np.linalg.qr(b, mode="raw")
        reflectors = np.triu(packed, 1)
        np.fill_diagonal(reflectors, 1)
        return cls(reflectors, scales, v @ np.linalg.inv(np.triu(packed.T[: len(scales)])))


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
    """Systems of contrasts and turned fixed columns; ``m`` is overwritten."""
    left = []
    for block, term in zip(term_slices(shared), known.terms, strict=True):
        for v, scale in zip(term.reflectors, term.scales, strict=True):
            taken = scale * (m[:, :, block] @ v)
            taken[:, block] -= scale / 2 * (taken[:, block] @ v)[:, None] * v
            m[:, :, block] -= taken[:, :, None] * v
            m[:, block] -= v[:, None] * taken[:, None]
        left.append(np.arange(block.start + len(term.scales), block.stop))
    fixed = slice(m.shape[1] - shared.p, None)
    m[:, :, fixed] = m[:, :, fixed] @ known.turn
    m[:, fixed] = known.turn.T @ m[:, fixed]
    left = np.concatenate([*left, np.arange(fixed.start, m.shape[1])])
    return m if len(left) == m.shape[1] else m[:, left[:, None], left]


def levels_left(shared: Shared, known: Confounded) -> tuple[int, ...]:
    """Contrasts of every term."""
    return tuple(n - len(t.scales) for n, t in zip(shared.levels[1:], known.terms, strict=True))


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
    of = np.repeat(np.arange(len(gammas)), [len(term.scales) for term in known.terms])
    own = D.T @ information @ D
    each = np.diagonal(np.linalg.solve(np.eye(len(of)) + own * gammas[of], own))
    return np.array([each[of == t].sum() for t in range(len(gammas))])
