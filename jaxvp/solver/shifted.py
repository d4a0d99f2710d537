r"""Shifted systems ``I + gamma M`` of a symmetric M, for many gammas at once. Host code, float64.

Wanted are ``log|I + gamma M|`` and ``C (M + I / gamma)^-1 C'``, what eliminating M's columns takes
from those of C. Of a few columns M is diagonalised. Of many it becomes tridiagonal, ``M = Q T Q'``,
a third of the operations and of the time: ``I + gamma T = L D L'`` is a recurrence down its n rows,

    r_i = gamma e_i / d_i,    d_i+1 = 1 + gamma t_i+1 - gamma e_i r_i,    w_i+1 = c_i+1 - r_i w_i,

of all gammas and all rows of ``C Q`` together, ``log|..| = sum log d_i``, and what is taken is
``gamma sum_i w_i w_i' / d_i``. It is as stable as a Cholesky factorisation.

Cost of a system: 4/3 n^3 for T (9 n^3 for eigenvectors), ``n rest^2`` a gamma.

Source: Golub and Van Loan, Matrix Computations (2013), sec. 4.3.6 and 8.3.1.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from jaxvp.solver import lapack

# Columns from which on, by measurement: below it the interpreter takes longer than LAPACK.
_MANY = 32
_ROWS = 50  # of the recurrence, whose products are one: they stay in the cache


def held_at_once(count: int, n: int, rest: int, gammas: int) -> int:
    """Numbers that `shifted` holds for so many systems of size n, beside what it is given."""
    return count * (gammas * (4 * n + rest * (2 * rest + 2 * _ROWS)) + 3 * n * rest)


def shifted(
    m: Float[np.ndarray, "B n n"], c: Float[np.ndarray, "B rest n"], gamma: Float[np.ndarray, " N"]
) -> tuple[Float[np.ndarray, "B N"], Float[np.ndarray, "B N rest rest"]]:
    """``log|I + gamma M|`` and ``C (M + I / gamma)^-1 C'`` of B systems at all gammas."""
    return (_diagonalised if m.shape[-1] < _MANY else _tridiagonal)(m, c, gamma)


def _diagonalised(m: np.ndarray, c: np.ndarray, gamma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    roots, vectors = np.linalg.eigh(m)
    turned = c @ vectors
    below = 1 + gamma[:, None] * roots[:, None]
    taken = (turned[:, None] * (gamma[:, None] / below)[:, :, None]) @ turned.mT[:, None]
    return np.log(below).sum(-1), taken


def _tridiagonal(m: np.ndarray, c: np.ndarray, gamma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    count, rest, n = c.shape
    reduced = zip(*map(lapack.tridiagonal, m, c), strict=True)
    diagonal, beside, turned = (np.stack(parts, axis=-1) for parts in reduced)
    # Axes: rows of T, systems, gammas, then rows of C.
    pivots = 1 + diagonal[..., None] * gamma
    beside = beside[..., None] * gamma
    ratios = np.empty_like(beside)
    for i, off in enumerate(beside):
        np.divide(off, pivots[i], out=ratios[i])
        pivots[i + 1] -= off * ratios[i]
    turned = np.ascontiguousarray(turned.transpose(1, 2, 0))[:, :, None]
    taken = np.zeros((count, len(gamma), rest, rest))
    w = np.empty((_ROWS, count, len(gamma), rest))
    less = np.zeros(w.shape[1:])
    for begin in range(0, n, _ROWS):
        some = slice(begin, min(begin + _ROWS, n))
        for i in range(some.start, some.stop):
            if i:
                # (Index -1, before a part's first row, is the last one of the part before.)
                np.multiply(w[i - begin - 1], ratios[i - 1][..., None], out=less)
            np.subtract(turned[i], less, out=w[i - begin])
        found = w[: some.stop - begin].transpose(1, 2, 3, 0)
        shares = (gamma / pivots[some]).transpose(1, 2, 0)[:, :, None]
        taken += (found * shares) @ found.mT
    return np.log(pivots).sum(0), taken
