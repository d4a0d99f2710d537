"""Sums of rows by groups of eight, beside NumPy's."""

import jax
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from jaxvp.statistics.row_sums import rounded, row_sums, summed

ROWS, COLUMNS = 40, 3


@given(
    sums=st.lists(st.lists(st.integers(0, ROWS - 1), max_size=90), min_size=1, max_size=30),
    many=st.integers(0, 1200),
)
def test_any_rows_are_added(sums, many):
    """Some sums are of nothing, some of the same row more than once, one of up to four stages."""
    sums = [*sums, [i % ROWS for i in range(many)]]
    table = np.random.default_rng(0).normal(size=(ROWS, COLUMNS))
    indptr = np.cumsum([0, *map(len, sums)])
    members = np.array([row for rows in sums for row in rows], dtype=np.int64)
    stages = row_sums(indptr, members, ROWS)
    assert len(stages) <= 4 and all(len(stage) == 8 for stage in stages)
    with jax.disable_jit(), jax.enable_x64(True):
        found = summed(stages, np.vstack([table, np.zeros(COLUMNS)]))
    expected = np.array([table[rows].sum(axis=0) for rows in sums])
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


@given(st.integers(0, 10**7))
def test_few_numbers_of_rows(count):
    more = rounded(count)
    assert count <= more <= max(count + 63, 5 * count / 4) and rounded(more) == more
    assert more // (1 << max(0, more.bit_length() - 4)) <= 16
