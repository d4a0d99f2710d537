"""States of many searches as rows of one array."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxvp
from jaxvp.design import build
from jaxvp.formula import Formula
from jaxvp.likelihood import every
from jaxvp.solver import prepare, solve
from jaxvp.solver.loop import _zeros_first
from jaxvp.statistics import Records, compress, statistics


class State(NamedTuple):
    matrix: jax.Array
    none: jax.Array
    scalar: jax.Array
    count: jax.Array
    done: jax.Array


def state(searches, seed=0):
    rng = np.random.default_rng(seed)
    return State(
        jnp.asarray(rng.normal(size=(2, 3, searches))),
        jnp.zeros((0, searches)),
        jnp.asarray(rng.normal(size=searches)).at[0].set(-jnp.inf),
        jnp.asarray(rng.integers(0, 99, searches), jnp.int32),
        jnp.asarray(rng.random(searches) < 0.5),
    )


def same(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("x64", [True, False])
def test_what_goes_in_comes_out(x64):
    order = np.array([3, 0, 4])

    @jax.jit
    def back(one, alone):
        records = Records.of(one)
        some = (records, records.take(order), records.cut(jnp.int32(2), 2))
        return [r.tree() for r in (*some, Records.repeated(alone, 3))]

    with jax.enable_x64(x64):
        one = jax.tree.map(np.asarray, state(5))
        alone = jax.tree.map(lambda leaf: leaf[..., 1], one)
        whole, taken, cut, repeated = jax.tree.map(np.asarray, back(one, alone))
    same(whole, one)
    same(taken, jax.tree.map(lambda leaf: leaf[..., order], one))
    same(cut, jax.tree.map(lambda leaf: leaf[..., 2:4], one))
    same(repeated, jax.tree.map(lambda leaf: np.repeat(leaf[..., None], 3, -1), alone))


@pytest.mark.parametrize("capacity", [0, 60])
def test_statistics_as_records_are_the_same(capacity):
    rng = np.random.default_rng(3)
    study = jaxvp.simulate(50, 90, {"g": 12, "h": 5}, seed=1)
    y = study.expression.to_numpy().T.copy()
    y[:, 7] = y[0, 7]  # constant
    y[3, 9] = np.nan
    y[:, 11] = 1e9 + 1e-3 * rng.normal(size=90)  # formed with care
    compression = compress(build(Formula.parse(study.formula), study.metadata))
    expected = statistics(compression, y, capacity=capacity)
    found = statistics(compression, y, capacity=capacity, as_records=True)
    assert isinstance(found.gene, Records) and found.gene.rows.flags.c_contiguous
    assert len(found.gene.rows) == max(50, capacity)
    for one, other in zip(
        jax.tree.leaves(found._replace(gene=found.gene.tree())),
        jax.tree.leaves(expected),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)
    some = np.array([4, 0, 30])
    taken, of_arrays = found.gene.take(some).tree(), jax.tree.leaves(expected.gene)
    for one, other in zip(jax.tree.leaves(taken), of_arrays, strict=True):
        np.testing.assert_array_equal(one, other[..., some])


def test_leaves_are_replaced_and_rows_chosen():
    with jax.enable_x64(True):
        one, other = state(5), state(5, seed=1)
        records = Records.of(one)
        found = records.replaced(done=~one.done, matrix=other.matrix)
        same(found.tree(), one._replace(done=~one.done, matrix=other.matrix))
        takes = jnp.asarray([True, False, False, True, False])
        expected = jax.tree.map(lambda a, b: jnp.where(takes, b, a), one, other)
        found = records.chosen(Records.of(other), takes, always="count")
        same(found.tree(), expected._replace(count=other.count))
        mine, index = jnp.asarray([False, True, True]), jnp.asarray([3, 4, 0], jnp.int32)
        found = records.put(Records.of(other).cut(jnp.int32(0), 3), mine, index)
        wanted = jax.tree.map(lambda a, b: a.at[..., index[1:]].set(b[..., 1:3]), one, other)
        same(found.tree(), wanted)


@pytest.mark.parametrize("truths", [[True], [True, True], [True, False], [False, True]])
def test_every(truths):
    assert bool(every(jnp.asarray(truths))) == all(truths)


def test_genes_that_are_not_wanted_are_never_stepped():
    """Not by starts of a table either."""
    study = jaxvp.simulate(16, 60, {"g": 9, "h": 4}, zero_probability=0.5, seed=2)
    compression = compress(build(Formula.parse(study.formula), study.metadata))
    block = statistics(compression, study.expression.to_numpy().T)
    wanted = np.arange(16) % 3 > 0
    with jax.enable_x64(True):
        table = prepare("newton", compression.shared, False)
        assert table is not None
        found = jax.jit(solve, static_argnums=(0, 1, 2, 3))(
            "newton", 16, False, "cpu", compression.shared, block.gene, wanted, np.int32(99), table
        )
    np.testing.assert_array_equal(np.asarray(found.evaluations) > 0, wanted)


@pytest.mark.parametrize("count", [1, 7, 96, 384, 2048, 1027])
def test_what_is_done_goes_behind_the_others_in_order(count):
    """As a stable sort; 1,027 rows of one are too many to count, and are sorted."""
    rng = np.random.default_rng(count)
    for share in (0.0, 0.3, 1.0):
        key = (rng.random(count) < share).astype(np.int32)
        np.testing.assert_array_equal(
            _zeros_first(jnp.asarray(key)), np.argsort(key, kind="stable")
        )
