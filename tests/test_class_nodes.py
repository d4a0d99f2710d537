"""Some class sizes that stand for all, beside the functions that they interpolate."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxvp.statistics import class_nodes
from jaxvp.statistics.class_sums import Room, class_sums

GAMMAS = 10.0 ** np.arange(-8, 9)[:, None]


def check(sizes, nodes, weights):
    """Of f(n) = 1 / (1 + gamma n), and of its derivatives in gamma."""
    exact, at = 1 / (1 + GAMMAS * sizes), 1 / (1 + GAMMAS * nodes)
    np.testing.assert_allclose(at @ weights, exact, rtol=3e-13)
    np.testing.assert_allclose((nodes * at**2) @ weights, sizes * exact**2, rtol=1e-12)
    # Newton's method wants no more digits of the second.
    np.testing.assert_allclose((nodes**2 * at**3) @ weights, sizes**2 * exact**3, rtol=1e-7)


@pytest.mark.parametrize("largest", [40, 100, 1000, 10_000])
def test_interpolated_classes(largest):
    sizes = np.unique(np.round(np.geomspace(1, largest, 400)))
    nodes, weights = class_nodes(sizes)
    assert len(nodes) <= 3 / 4 * len(sizes)
    check(sizes, nodes, weights)


@settings(max_examples=30, deadline=None)
@given(
    count=st.integers(25, 200),
    low=st.floats(1e-3, 100),
    spread=st.floats(1e-6, 6),
    seed=st.integers(0, 99),
)
def test_sizes_of_any_kind(count, low, spread, seed):
    sizes = low * np.exp(np.sort(np.random.default_rng(seed).uniform(0, spread, count)))
    found = class_nodes(sizes)
    if found is not None:
        nodes, weights = found
        places = np.searchsorted(sizes, nodes)
        np.testing.assert_array_equal(sizes[places], nodes)
        np.testing.assert_array_equal(weights[:, places], np.eye(len(nodes)))
        check(sizes, nodes, weights)
        again = class_nodes(1e3 * sizes)  # nothing has a unit, but what is equal to rounding
        assert again is not None and abs(len(again[0]) - len(nodes)) <= 4
        check(1e3 * sizes, *again)
    else:
        assert count < 60 or spread > 3


@pytest.mark.parametrize("spread", [1e-9, 0.5, 5.0])
def test_of_many_sizes_some_are_looked_at(spread):
    """As with weights of the samples: all differ; some are near to each other, some far."""
    rng = np.random.default_rng(0)
    sizes = 3 * np.exp(np.sort(spread * rng.beta(0.5, 5, 5_000)))
    nodes, weights = class_nodes(np.unique(sizes))
    check(np.unique(sizes), nodes, weights)


def test_few_sizes_stay_as_they_are():
    for sizes in ([1.0], [1.0, 1000.0], np.arange(1.0, 10.0)):
        assert class_nodes(np.array(sizes)) is None


@pytest.mark.parametrize("each", [1, 20])
def test_at_nodes_class_sums_are_those_of_all_levels(each):
    """Of sizes that all differ, few or many columns in a level: in both ways."""
    rng = np.random.default_rng(0)
    size, columns = rng.uniform(2, 20, 300), 40
    f = np.zeros((columns, len(size)))
    for level in range(len(size)):
        f[rng.choice(columns, each, replace=False), level] = rng.random(each)
    found = class_sums(size, sp.csr_array(f))
    assert found.to_nodes is not None and len(found.sizes) < 40
    for gamma in GAMMAS[:, 0]:
        expected = (f / (size * (1 + gamma * size))) @ f.T
        ours = np.tensordot(1 / (1 + gamma * found.sizes), found.between, 1)
        np.testing.assert_allclose(ours, expected, rtol=1e-11, atol=1e-13 * expected.max())


@settings(max_examples=30, deadline=None)
@given(
    levels=st.sampled_from([3, 15, 30, 200]),
    largest=st.sampled_from([1, 10, 30, 100]),
    kept=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_with_room_class_sums_are_those_of_all_levels(levels, largest, kept, seed):
    """Whatever samples are lost: of one shape, and the sums over the levels one by one."""
    rng = np.random.default_rng(seed)
    size = np.round(rng.integers(0, largest + 1, levels) * kept)
    size[0] = 1.0
    f = (rng.standard_normal((levels, 2)) * (size > 0)[:, None]).T
    room = Room.of(levels, largest)
    found = class_sums(size, sp.csr_array(f), room)
    assert len(found.sizes) == len(found.between) == room.classes
    assert len(found.level_sizes) == room.distinct
    scale = np.where(size > 0, size, 1.0)
    for gamma in GAMMAS[:, 0]:
        expected = (f / (scale * (1 + gamma * size))) @ f.T
        ours = np.tensordot(1 / (1 + gamma * found.sizes), found.between, 1)
        limit = 1e-12 * np.sqrt(np.outer(*[np.diagonal(expected)] * 2))
        assert (abs(ours - expected) <= limit + 1e-300).all()
