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
_FEW = 8  # rows of C
_ROWS = 50  # of the recurrence, whose products are one: they stay in the cache


def held_at_once(count: int, n: int, rest: int, gammas: int) -> int:
    """Numbers that `shifted` holds for so many systems of size n, beside what it is given."""
    by_gamma = n * (7 + min(rest, _FEW)) + rest * (2 * rest + 2 * _ROWS)
    return count * (gammas * by_gamma + 3 * n * rest)


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
    reduced = zip(*map(lapack.tridiagonal, m, c), strict=True)
    diagonal, beside, turned = (np.stack(parts, axis=-1) for parts in reduced)
    # Axes: rows of T, systems, gammas.
    pivots = 1 + diagonal[..., None] * gamma
    beside = beside[..., None] * gamma
    ratios = np.empty_like(beside)
    for i, off in enumerate(beside):
        np.divide(off, pivots[i], out=ratios[i])
        pivots[i + 1] -= off * ratios[i]
    taken = _few if c.shape[1] <= _FEW else _many
    return np.log(pivots).sum(0), taken(turned, ratios, gamma / pivots)


def _few(turned: np.ndarray, ratios: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """What is taken from few rows of C, as sums: products would be of next to nothing each."""
    turned = turned.transpose(1, 0, 2)[..., None]
    rest = turned.shape[1]
    w = np.empty((len(turned), rest, *shares.shape[1:]))
    w[0] = turned[0]
    for i, ratio in enumerate(ratios, 1):
        np.multiply(w[i - 1], ratio, out=w[i])
        np.subtract(turned[i], w[i], out=w[i])
    taken = np.empty((*shares.shape[1:], rest, rest))
    for a in range(rest):
        shared = w[:, a] * shares
        for b in range(a + 1):
            taken[..., a, b] = taken[..., b, a] = (shared * w[:, b]).sum(0)
    return taken


def _many(turned: np.ndarray, ratios: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """The same as matrix products, of some rows of T after the other."""
    turned = np.ascontiguousarray(turned.transpose(1, 2, 0))[:, :, None]
    n, (count, gammas), rest = len(turned), shares.shape[1:], turned.shape[-1]
    taken = np.zeros((count, gammas, rest, rest))
    w = np.empty((count, gammas, _ROWS, rest))
    shared, less = np.empty_like(w), np.zeros((count, gammas, rest))
    for begin in range(0, n, _ROWS):
        some = slice(begin, min(begin + _ROWS, n))
        for i in range(some.start, some.stop):
            if i:
                # (Index -1, before a part's first row, is the last one of the part before.)
                np.multiply(w[:, :, i - begin - 1], ratios[i - 1][..., None], out=less)
            np.subtract(turned[i], less, out=w[:, :, i - begin])
        rows = slice(some.stop - begin)
        of_rows = shares[some].transpose(1, 2, 0)[..., None]
        np.multiply(w[:, :, rows], of_rows, out=shared[:, :, rows])
        taken += shared[:, :, rows].mT @ w[:, :, rows]
    return taken
