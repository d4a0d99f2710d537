"""Measurements that a compiled program reads where they are: the same numbers, wherever that is."""

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
from jaxvp.statistics import (
    SWEEP_COLUMNS,
    Room,
    SharedPlan,
    by_genes,
    compress,
    compress_slopes,
    products_of_tiles,
    sparse,
    statistics,
    tile_products,
)
from jaxvp.statistics.measurements import GeneRows

GENES, CAPACITY = 150, 256


@pytest.fixture
def always(monkeypatch):
    """As if genes were many; the blocks whose products were compiled."""
    monkeypatch.setattr(tile_products, "_MANY", 1)
    formed, form = [], products._form_here
    monkeypatch.setattr(products, "_form_here", lambda *a: formed.append(a[1]) or form(*a))
    return formed


@given(st.integers(1, 70), st.integers(0, 9), st.integers(8, 30), st.integers(0, 9))
@settings(max_examples=30, deadline=None)
def test_every_tile_is_what_is_in_memory(genes, before, n, beside):
    """The window begins before, in or after the block's first numbers, or there is none."""
    capacity, after = 96, 97 * n if beside else 0
    room = np.random.default_rng(0).normal(size=before + genes * n + after)
    y = room[before : before + genes * n].reshape(genes, n)
    found = GeneRows.of(y, capacity)
    if found is None:
        assert genes < 16 or room.size < capacity * n + 7
        return
    assert found.numbers.ctypes.data % 64 == 0
    assert np.shares_memory(found.numbers, room)
    assert found.capacity == capacity and found.width == 16
    with jax.enable_x64(True):
        for begin in {*range(0, genes - found.width, found.width), genes - found.width}:
            first = n // 3
            tile = np.asarray(found.samples(begin, first, n - first, lambda samples: samples)).T
            np.testing.assert_array_equal(tile, y[begin : begin + found.width, first:])


def test_nothing_is_copied_that_can_be_read_where_it_is():
    whole = np.random.default_rng(1).normal(size=(600, 20))
    room = Room()
    for block in (whole[:256], whole[256:512], whole[512:]):
        part = room.rows(block.T, CAPACITY)
        assert np.shares_memory(part.numbers, whole) and part.count == len(block)
    for other in (
        whole[256:512].astype(np.float32),
        whole[256:512].astype(">f8"),
        whole[256:512, ::-1],
        whole[512:].copy(),  # alone, and not as many as there is room for
    ):
        part = room.rows(other.T, CAPACITY)
        assert not np.shares_memory(part.numbers, whole)
        with jax.enable_x64(True):
            tile = np.asarray(part.samples(16, 0, 20, lambda samples: samples)).T
        np.testing.assert_array_equal(tile, other[16:32])


def test_genes_or_samples_are_rows():
    y = np.zeros((5, 7))
    assert not by_genes(y) and by_genes(np.asfortranarray(y))
    assert by_genes(y.T.copy().T[:, :1]) and by_genes(y[:, :1].copy()) and not by_genes(y[:, :1])


DESIGNS = [
    pytest.param({"g": 12}, {}, id="one term", marks=pytest.mark.slow),
    pytest.param({"g": 12, "h": 5, "i": 3}, {"weights": True}, id="three terms, weights"),
    pytest.param(
        {"g": 12}, {"formula": "~ 0 + (1|g)"}, id="no columns are left", marks=pytest.mark.slow
    ),
    pytest.param({"g": 60}, {"n": 2400}, id="interpolated classes"),
    pytest.param({"g": 90, "h": 70}, {"n": 300}, id="a large system, as records"),
]


@pytest.mark.parametrize("levels, others", DESIGNS)
def test_products_are_those_of_numpy(monkeypatch, levels, others):
    compression, y, host = formed_by_numpy(128, levels, others)
    # Parts of 27 samples, the last of which begins in the one before, or of 1,200.
    monkeypatch.setattr(tile_products, "_SAMPLES", 32 if len(y) == 80 else 2048)
    # Entries in several parts, too.
    monkeypatch.setattr(sparse, "_ENTRIES", 100)
    part, large = Room().rows(y, 128), compression.shared.n_columns > SWEEP_COLUMNS
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
    return _by_rows(table), formula, metadata


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


def test_fits_are_those_with_numpy(study, always, monkeypatch):
    found = fit(study)
    assert len(always) == 2
    monkeypatch.setattr(shared, "form_block", None)
    monkeypatch.setattr(tile_products, "_MANY", 1 << 40)
    are_near(found, fit(study))


def test_parts_of_a_block_are_formed_by_helpers(always, monkeypatch):
    """Of a large system, some of whose genes want care: the same bits as by one thread."""
    table, formula, metadata = of_every_kind(256, 300, {"g": 90, "h": 70}, steep=1e2)
    table.iloc[200, 7] = np.nan
    whole = _by_rows(table), formula, metadata
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


def test_the_same_bits_wherever_they_are(study, always):
    """Wherever genes that are rows lie, in blocks of any size, in any order, alone or not."""
    table = study[0]
    expected = fit(study)
    assert len(always) == 2
    room = np.full(3 + 2 * table.size, np.nan)
    apart = room[3 : 3 + table.size].reshape(table.shape)
    apart[...] = table
    order = np.random.default_rng(6).permutation(GENES)
    others = {
        "elsewhere": (
            pd.DataFrame(apart, table.index, table.columns, copy=False),
            {},
        ),
        "blocks of 64": (table, {"block_size": 64}),
        "another order": (_by_rows(table.iloc[order]), {}),
        "fewer, and alone": (_by_rows(table.iloc[:140]), {}),
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


def _by_rows(table):
    """With genes as rows in memory."""
    values = np.ascontiguousarray(table.to_numpy())
    return pd.DataFrame(values, table.index, table.columns, copy=False)


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


def test_what_would_be_copied_is_left_to_numpy(study, always):
    values = study[0].to_numpy()
    for other in (np.asfortranarray(values), values.astype(np.float32)):
        fit(study, pd.DataFrame(other, study[0].index, study[0].columns, copy=False))
    assert not always
