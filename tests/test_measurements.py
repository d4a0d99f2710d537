"""Measurements that a compiled program reads where they are: the same numbers, wherever that is."""

from typing import Any

import jax
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shared_statistics import are_those_of, formed_by_numpy, of_every_kind

import jaxvp
from jaxvp import threads
from jaxvp.batch import products, shared
from jaxvp.design import build
from jaxvp.formula import Formula
from jaxvp.memory import by_genes, spare
from jaxvp.statistics import (
    SWEEP_COLUMNS,
    Room,
    SharedPlan,
    compress,
    compress_slopes,
    gene_rows,
    products_of_tiles,
    sample_rows,
    sparse,
    statistics,
    tile_products,
)
from jaxvp.statistics.gene_rows import GeneRows
from jaxvp.statistics.sample_rows import SampleRows

GENES, CAPACITY = 150, 256


@pytest.fixture
def always(monkeypatch):
    """As if genes were many; the blocks whose products were compiled."""
    monkeypatch.setattr(tile_products, "_MANY", 1)
    formed, form = [], products._form_here
    monkeypatch.setattr(products, "_form_here", lambda *a: formed.append(a[2]) or form(*a))
    return formed


@given(
    st.integers(1, 70),
    st.integers(0, 17),
    st.integers(8, 30),
    st.integers(0, 9),
    st.sampled_from([np.float64, np.float32]),
)
@settings(max_examples=30, deadline=None)
def test_every_tile_of_gene_rows_is_what_is_in_memory(genes, before, n, beside, dtype):
    """The window begins before, in or after the block's first numbers, or there is none."""
    capacity, after = 96, 97 * n if beside else 0
    room = np.random.default_rng(0).normal(size=before + genes * n + after).astype(dtype)
    y = room[before : before + genes * n].reshape(genes, n)
    found = GeneRows.of(y, capacity)
    if found is None:
        assert genes < 16 or room.size < capacity * n + spare(y.dtype)
        return
    assert np.asarray(found.numbers).ctypes.data % 64 == 0
    assert np.shares_memory(found.numbers, room)
    assert found.capacity == capacity and found.width == 16 and found.whole == n
    tiles_are_those_of(found, y.T, n // 3)


@given(
    st.integers(1, 150),
    st.integers(0, 17),
    st.integers(8, 30),
    st.integers(0, 70),
    st.integers(0, 70),
    st.sampled_from([np.float64, np.float32]),
)
@settings(max_examples=30, deadline=None)
def test_every_tile_of_sample_rows_is_what_is_in_memory(genes, before, n, left, right, dtype):
    """Of some columns of a table that begins anywhere."""
    capacity, columns = 192, left + genes + right
    room = np.random.default_rng(0).normal(size=before + n * columns).astype(dtype)
    y = room[before:].reshape(n, columns)[:, left : left + genes]
    found = SampleRows.of(y, capacity)
    if found is None:
        assert columns < 64 or left + right < spare(y.dtype)
        return
    assert np.asarray(found.numbers).ctypes.data % 64 == 0
    assert np.shares_memory(found.numbers, room)
    assert found.capacity == capacity and found.width == 64 and found.whole == n - 2
    np.testing.assert_array_equal(found.ends[:, :genes], y[[0, -1]])
    tiles_are_those_of(found, y[1:-1], n // 3)


def tiles_are_those_of(found, y, first):
    """What a program reads: all genes, of the samples from one on."""
    width, genes = found.width, y.shape[1]
    with jax.enable_x64(True):
        for begin in {*range(0, genes - width, width), max(0, genes - width)}:
            some = found.whole - first
            tile = np.asarray(found.samples(begin, first, some, lambda samples: samples))
            expected = y[first:, begin : begin + width]
            np.testing.assert_array_equal(tile[:, : expected.shape[1]], expected)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_nothing_is_copied_that_can_be_read_where_it_is(dtype):
    whole = np.random.default_rng(1).normal(size=(20, 600)).astype(dtype)
    for turned, kind in ((False, SampleRows), (True, GeneRows)):
        table, room = whole.T.copy().T if turned else whole, Room(256)
        for block in (table[:, :256], table[:, 256:512], table[:, 512:]):
            part = room.block(block, CAPACITY)
            assert np.shares_memory(part.numbers, table) and isinstance(part, kind)
            assert part.count == block.shape[1]
        others = (
            table[:, 256:512].astype(np.dtype(dtype).newbyteorder()),
            table[::-1, 256:512],
            table[:, 512:].copy("A"),  # alone, and not as many as there is room for
        )
        for other in others:
            part = room.block(other, CAPACITY)
            assert not np.shares_memory(part.numbers, other)
            assert isinstance(part, GeneRows if by_genes(other) else SampleRows)
            tiles_are_those_of(part, other[1:-1] if isinstance(part, SampleRows) else other, 0)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_numbers_between_those_of_an_array_are_not_read_as_its_own(dtype):
    whole = np.zeros(2000, dtype)
    y = np.ndarray((20, 70), dtype, buffer=whole, offset=8 * 3 + 1)
    y[...] = np.random.default_rng(3).normal(size=y.shape)
    for some in (y, y[:, 2:66]):
        part = Room(70).block(some, CAPACITY)
        assert not np.shares_memory(part.numbers, whole)
        tiles_are_those_of(part, some[1:-1], 0)


def test_blocks_of_their_own_are_tables_of_one_width():
    """One program serves them, of whatever number of genes."""
    room, y = Room(200), np.random.default_rng(2).normal(size=(20, 200))
    blocks = [y[:, :genes].copy() for genes in (200, 64, 3)]
    assert {room.block(block, CAPACITY).numbers.shape for block in blocks} == {(18, 200)}
    few = Room(10).block(y[:, :10].copy(), 32)
    assert few.numbers.shape == (18, 32) and few.width == 32
    tiles_are_those_of(few, y[1:-1, :10], 0)


def test_genes_or_samples_are_rows():
    y = np.zeros((5, 7))
    assert not by_genes(y) and by_genes(np.asfortranarray(y))
    for genes in (1, 7):
        some = y[:, :genes]
        assert not by_genes(some) and not by_genes(some.copy()) and not by_genes(some[::-1])
        some = y.T.copy().T[:, :genes]
        assert by_genes(some) and by_genes(some.copy("F")) and by_genes(some[:, ::-1])


DESIGNS = [
    pytest.param({"g": 12}, {}, id="one term", marks=pytest.mark.slow),
    pytest.param({"g": 12, "h": 5, "i": 3}, {"weights": True}, id="three terms, weights"),
    pytest.param(
        {"g": 12}, {"formula": "~ 0 + (1|g)"}, id="no columns are left", marks=pytest.mark.slow
    ),
    pytest.param({"g": 60}, {"n": 2400}, id="interpolated classes"),
    pytest.param({"g": 90, "h": 70}, {"n": 300}, id="a large system, as records"),
]


@pytest.mark.parametrize("by_samples", [False, True], ids=["gene rows", "sample rows"])
@pytest.mark.parametrize("levels, others", DESIGNS)
def test_products_are_those_of_numpy(monkeypatch, levels, others, by_samples):
    compression, y, host = formed_by_numpy(128, levels, others)
    # Parts of 27 samples, the last of which begins in the one before, or of 1,200.
    for kind in (gene_rows, sample_rows):
        monkeypatch.setattr(kind, "_SAMPLES", 32 if len(y) == 80 else 2048)
    # Entries in several parts, too.
    monkeypatch.setattr(sparse, "_ENTRIES", 100)
    there = np.ascontiguousarray(y) if by_samples else y
    part, large = Room(128).block(there, 128), compression.shared.n_columns > SWEEP_COLUMNS
    assert isinstance(part, SampleRows if by_samples else GeneRows)
    with jax.enable_x64(True):
        run = jax.jit(lambda *arguments: products_of_tiles(large, *arguments))
        found = jax.tree.map(np.asarray, run(SharedPlan.of(compression, "cpu"), part))
    plain = found.plain
    if large:
        expected = statistics(compression, y, as_records=True).gene
        assert jax.tree.structure(found.gene) == jax.tree.structure(expected)
        found = found._replace(gene=found.gene.tree())
    assert plain.mean() > 0.9  # the others are formed with care
    are_those_of(found, host, plain)


@pytest.fixture(scope="module")
def study():
    """Genes of every kind among others."""
    table, formula, metadata = of_every_kind(GENES)
    table.iloc[16, 4] = np.nan
    return in_order(table), formula, metadata


def in_order(table, order: Any = "C"):
    """With genes as rows in memory (C), or with samples (F)."""
    return of_values(table, np.array(table, order=order))


def of_values(table, values):
    """The same names, the values where they are."""
    return pd.DataFrame(values, table.index, table.columns, copy=False)


def fit(study, table=None, block_size=128):
    with np.errstate(all="ignore"):
        return jaxvp.fit(
            study[0] if table is None else table,
            *study[1:],
            block_size=block_size,
            progress=False,
        )


NAMES = ("fractions", "log_likelihood", "coefficients", "sigma", "theta", "diagnostics")


def are_near(found, expected):
    assert expected.diagnostics["status"].nunique() == 3
    assert (found.diagnostics["status"] == expected.diagnostics["status"]).all()
    for name in NAMES[:-1]:
        mine, its = getattr(found, name), getattr(expected, name)
        np.testing.assert_allclose(mine, its, rtol=1e-6, atol=1e-8, err_msg=name)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("order", ["C", "F"])
def test_fits_are_those_with_numpy(study, always, monkeypatch, order, dtype):
    with np.errstate(all="ignore"):
        table = in_order(study[0].astype(dtype), order)
    found = fit(study, table)
    assert len(always) == 2 and by_genes(always[0]) == (order == "C")
    monkeypatch.setattr(shared, "form_block", None)
    monkeypatch.setattr(tile_products, "_MANY", 1 << 40)
    are_near(found, fit(study, table))


@pytest.mark.parametrize("order", ["C", pytest.param("F", marks=pytest.mark.slow)])
def test_genes_without_holes_lie_as_all_do(study, always, monkeypatch, order):
    """Where many have some, of samples that are looked at."""
    table = study[0].copy()
    table.iloc[::3, 0] = np.nan
    found = fit(study, in_order(table, order))
    assert sorted(y.shape[1] for y in always) == [15, 84]  # without gene 16
    assert all(by_genes(y) == (order == "C") for y in always)
    monkeypatch.setattr(tile_products, "_MANY", 1 << 40)
    are_near(found, fit(study, table))


@pytest.mark.slow
def test_parts_of_a_block_are_formed_by_helpers(always, monkeypatch):
    """Of a large system, some of whose genes want care: the same bits as by one thread."""
    table, formula, metadata = of_every_kind(256, 300, {"g": 90, "h": 70}, steep=1e2)
    table.iloc[200, 7] = np.nan
    whole = in_order(table), formula, metadata
    monkeypatch.setattr(tile_products, "_MANY_LARGE", 1)
    parts, formed = [], products._formed
    monkeypatch.setattr(products, "_formed", lambda *a: parts.append(a[-1].capacity) or formed(*a))
    found = []
    for cores in (1, 2):
        monkeypatch.setattr(threads, "cores", lambda cores=cores: cores)
        found.append(fit(whole, block_size=256))
    assert len(always) == 2 and parts == [256, 128, 128]
    monkeypatch.setattr(tile_products, "_MANY_LARGE", 1 << 40)
    expected = fit(whole, block_size=256)
    assert len(always) == 2
    for name in NAMES:
        alone, helped = (pd.DataFrame(getattr(result, name)) for result in found)
        pd.testing.assert_frame_equal(alone, helped, check_exact=True, obj=name)
    are_near(found[0], expected)


@pytest.mark.parametrize("order", ["C", "F"])
def test_the_same_bits_wherever_they_are(study, always, order):
    """Wherever genes that are rows lie, in blocks of any size, in any order, alone or not."""
    table = in_order(study[0], order)
    expected = fit(study, table)
    assert len(always) == 2
    room = np.full(3 + 2 * table.size, np.nan)
    apart = room[3 : 3 + table.size].reshape(table.shape, order=order)
    apart[...] = table
    wide = np.full((3 * GENES, table.shape[1]), np.nan, order=order)
    within = wide[50 : 50 + GENES]
    within[...] = table
    shuffled = np.random.default_rng(6).permutation(GENES)
    others = {
        "elsewhere": (of_values(table, apart), {}),
        "within a larger one": (of_values(table, within), {}),
        "blocks of 64": (table, {"block_size": 64}),
        "another order": (in_order(table.iloc[shuffled], order), {}),
        "fewer, and alone": (in_order(table.iloc[:140], order), {}),
    }
    for what, (other, options) in others.items():
        always.clear()
        found = fit(study, other, **options)
        assert len(always) == (3 if options else 2), what
        for name in NAMES:
            its = getattr(expected, name).loc[other.index]
            pd.testing.assert_frame_equal(
                pd.DataFrame(getattr(found, name)), pd.DataFrame(its), check_exact=True, obj=what
            )


def test_which_studies_are_formed_so(study, monkeypatch):
    """Of many measurements and more than 7 samples, with intercepts and few columns."""
    monkeypatch.setattr(tile_products, "_MANY", 1)

    def formed(formula, samples=60, genes=4096):
        metadata = study[2].iloc[:samples].assign(t=np.arange(samples) % 7.0)
        design = build(Formula.parse(formula), metadata)
        compression = (compress_slopes if design.slopes else compress)(design)
        return tile_products.compiled_here(compression, genes)

    assert formed("~ t + (1|g)") and formed("~ 0 + (1|g) + (1|h)") and formed("~ 1 + (1|h)", 8)
    assert not formed("~ 1 + (1|h)", 7)
    assert formed("~ t + (1|g)", genes=64) and not formed("~ t + (1|g)", genes=63)
    assert not formed("~ t + (t|g)")
    assert not formed("~ t")
    with monkeypatch.context() as few:
        few.setattr(tile_products, "_MOST_FIXED", 1)
        assert not formed("~ t + (1|g)")
    monkeypatch.setattr(tile_products, "_MANY", 4096 * 60 + 1)
    assert not formed("~ t + (1|g)")
    monkeypatch.setattr(tile_products, "_MANY", 4096 * 60)
    assert formed("~ t + (1|g)")
    monkeypatch.setattr(tile_products, "SWEEP_COLUMNS", 1)
    assert not formed("~ t + (1|g)")
