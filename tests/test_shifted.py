"""Shifted systems of a symmetric matrix, beside dense algebra."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxvp.solver import lapack, shifted

GAMMAS = np.append(0, np.geomspace(1e-6, 1e4, 6))


def some(n, rest, count, rank, seed):
    """Positive semidefinite matrices, and the rows beside them."""
    rng = np.random.default_rng(seed)
    roots = rng.standard_normal((count, n, rank))
    return roots @ roots.mT, rng.standard_normal((count, rest, rank)) @ roots.mT


def dense(m, c, gamma):
    system = np.eye(len(m)) + gamma * m
    return np.linalg.slogdet(system)[1], gamma * c @ np.linalg.solve(system, c.T)


@settings(max_examples=30, deadline=None)
@given(
    way=st.sampled_from([shifted._diagonalised, shifted._tridiagonal]),
    n=st.sampled_from([1, 2, 3, 31, 32, 50, 51, 100, 131]),
    rest=st.sampled_from([0, 1, 2, 5, shifted._FEW + 1, 12]),
    count=st.integers(1, 3),
    short=st.integers(0, 3),
    seed=st.integers(0, 99),
)
def test_both_ways_are_dense_algebra(way, n, rest, count, short, seed):
    m, c = some(n, rest, count, max(1, n - short), seed)
    before = m.copy(), c.copy()
    log_det, taken = way(m, c, GAMMAS)
    np.testing.assert_array_equal(m, before[0])
    np.testing.assert_array_equal(c, before[1])
    for i in range(count):
        for j, gamma in enumerate(GAMMAS):
            expected = dense(m[i], c[i], gamma)
            np.testing.assert_allclose(log_det[i, j], expected[0], rtol=1e-9, atol=1e-9)
            scale = 1 + np.sqrt(np.outer(*[np.diagonal(expected[1])] * 2))
            assert (abs(taken[i, j] - expected[1]) <= 1e-9 * scale).all()


def test_the_number_of_columns_decides_which_way():
    for n in (shifted._MANY - 1, shifted._MANY):
        m, c = some(n, 2, 2, n, 0)
        way = shifted._diagonalised if n < shifted._MANY else shifted._tridiagonal
        for found, expected in zip(shifted.shifted(m, c, GAMMAS), way(m, c, GAMMAS), strict=True):
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("n", [1, 2, 9, 70])
def test_tridiagonal_is_similar_to_the_matrix(n):
    (m,), (c,) = some(n, 3, 1, n, 1)
    diagonal, below, turned = lapack.tridiagonal(m, np.concatenate([c, np.eye(n)]))
    turn = turned[3:]
    t = np.diag(diagonal) + np.diag(below, 1) + np.diag(below, -1)
    scale = abs(m).max()
    np.testing.assert_allclose(turn @ turn.T, np.eye(n), atol=1e-13 * n)
    np.testing.assert_allclose(turn.T @ m @ turn, t, atol=1e-13 * n * scale)
    np.testing.assert_allclose(turned[:3], c @ turn, atol=1e-13 * n * scale)


def test_what_is_not_float64_or_side_by_side_is_the_same_matrix():
    """LAPACK would read past the end of anything else."""
    (m,), (c,) = some(40, 3, 1, 40, 3)
    m, c = np.round(m, 1), np.round(c, 1)
    m += m.T
    wide = np.zeros((80, 120))
    wide[::2, ::3] = m
    expected = lapack.tridiagonal(m, c)
    for other, rows in ((wide[::2, ::3], c), (np.asfortranarray(m), np.asfortranarray(c))):
        for found, same in zip(lapack.tridiagonal(other, rows), expected, strict=True):
            np.testing.assert_array_equal(found, same)
    whole = np.round(m)
    for found, same in zip(
        lapack.tridiagonal(whole.astype(np.float32), np.round(c).astype(np.float32)),
        lapack.tridiagonal(whole, np.round(c)),
        strict=True,
    ):
        np.testing.assert_array_equal(found, same)
    np.testing.assert_array_equal(lapack.inverse(np.eye(40, dtype=np.float32) * 4), np.eye(40) / 4)


@pytest.mark.parametrize("n", [1, 5, 80])
def test_inverse(n):
    m = some(n, 0, 1, n, 2)[0][0] + np.eye(n)
    found = lapack.inverse(m)
    np.testing.assert_array_equal(found, found.T)
    np.testing.assert_allclose(found @ m, np.eye(n), atol=1e-11)


def test_what_is_not_positive_definite_has_no_such_inverse():
    with pytest.raises(np.linalg.LinAlgError, match="dpotrf"):
        lapack.inverse(np.diag([1.0, -1.0]))
