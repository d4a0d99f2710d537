"""`jaxvp.tl` and `jaxvp.pp`: an AnnData in, shares beside its genes; cells to samples.

Pseudobulk is compared with pandas' groupby on a dense table; fits with those of `jaxvp.fit`, which
are compared with others elsewhere. Models have no random term: they need no compiled program.
"""

import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
from containers import Lookalike, annotated, plain
from scipy import sparse

import jaxvp
from jaxvp.integrations.scverse import cells as module

pytestmark = [
    pytest.mark.filterwarnings("ignore:The 'mode.chained_assignment' option"),
    pytest.mark.filterwarnings("ignore::FutureWarning:anndata"),
]
FIXED = "~ age + plate"


@pytest.fixture(scope="module")
def table():
    """Counts of cells x genes, and what is known of the cells, in no order."""
    rng = np.random.default_rng(0)
    n = 160
    donor = rng.integers(0, 12, n)
    obs = pd.DataFrame(
        {
            "donor": [f"d{i}" for i in donor],
            "type": rng.choice(["T/CD4", "B"], n),
            "age": (20.0 + donor * donor) % 31,
            "plate": np.array(list("xyz"))[donor % 3],
            "depth": rng.normal(size=n),
        },
        index=[f"c{i}" for i in range(n)],
    )
    counts = rng.poisson(1.5, (n, 7)).astype(float)
    counts[:, 2] = 0
    return pd.DataFrame(counts, obs.index, [f"g{i}" for i in range(7)]), obs


@pytest.fixture
def cells(table):
    return annotated(*table, twice=2 * table[0].to_numpy())


@pytest.fixture
def bulk(cells):
    found = jaxvp.pp.pseudobulk(cells, "donor", "type", mode="mean")
    found.X = np.log2(found.X + 0.1)
    return found


def by_pandas(table, mode):
    counts, obs = table
    return counts.groupby([obs["donor"], obs["type"]]).agg(mode)


def as_kind(cells, kind, folder):
    """The same counts as another container; and whether in a file."""
    anndata = pytest.importorskip("anndata")
    if kind == "dense":
        return cells
    if kind == "float32":
        cells.X = cells.X.astype(np.float32)
        return cells
    matrix = sparse.csc_matrix if "csc" in kind else sparse.csr_matrix
    if kind != "backed":
        cells.X = matrix(cells.X)
    if kind.startswith("backed"):
        cells.write_h5ad(folder / "x.h5ad")
        return anndata.read_h5ad(folder / "x.h5ad", backed="r")
    return cells


@pytest.mark.parametrize("mode", ["sum", "mean"])
@pytest.mark.parametrize(
    "kind", ["dense", "float32", "csr", "csc", "backed", "backed csr", "backed csc"]
)
def test_rows_are_those_of_groupby(table, cells, kind, mode, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_BYTES", 8 * 7 * 30)  # chunks of 31 cells
    bulk = jaxvp.pp.pseudobulk(
        as_kind(cells, kind, tmp_path), sample="donor", group="type", mode=mode
    )
    wanted = by_pandas(table, mode)
    assert list(bulk.obs_names) == [f"{donor}:{kind}" for donor, kind in wanted.index]
    assert isinstance(bulk.X, np.ndarray) and bulk.X.dtype == np.float64
    np.testing.assert_allclose(bulk.X, wanted, rtol=1e-14)
    assert list(bulk.var_names) == list(wanted.columns)
    sizes = table[1].groupby(["donor", "type"]).size()
    assert list(bulk.obs["n_cells"]) == list(sizes)
    assert bulk.uns["pseudobulk"] == {"sample": "donor", "group": "type", "mode": mode}


def test_a_layer_without_groups(table, cells):
    bulk = jaxvp.pp.pseudobulk(cells, "donor", layer="twice")
    np.testing.assert_allclose(bulk.X, 2 * table[0].groupby(table[1]["donor"]).sum())
    assert bulk.uns["pseudobulk"] == {"sample": "donor", "layer": "twice", "mode": "sum"}
    assert list(bulk.obs_names) == sorted(set(table[1]["donor"]))


def test_a_sparse_matrix_is_never_dense():
    """A million cells of 20,000 genes would be 160 GB."""
    rng = np.random.default_rng(1)
    n, genes, stored = 1_000_000, 20_000, 5_000
    places = rng.integers(0, n, stored), rng.integers(0, genes, stored)
    values = sparse.coo_matrix((np.ones(stored), places), shape=(n, genes))
    rows = np.arange(n) % 4
    found = module.sums(values.tocsc(), np.arange(n), rows, 4)
    wanted = np.zeros((4, genes))
    np.add.at(wanted, (places[0] % 4, places[1]), 1.0)
    np.testing.assert_array_equal(found, wanted)


def test_columns_that_are_constant_are_kept(table):
    counts, obs = table
    one_of_few = obs["donor"].where(obs["donor"] != "d3")  # no value: the same in all its cells
    lists = pd.Series([[0]] * len(obs), obs.index)
    obs = obs.assign(known=one_of_few, of_type=obs["type"].str.lower())
    cells = annotated(counts, obs.drop(columns="known"))
    cells.obs["known"], cells.obs["lists"] = pd.Categorical(one_of_few), lists
    found = jaxvp.pp.pseudobulk(cells, "donor", "type").obs
    assert list(found.columns) == ["donor", "type", "age", "plate", "of_type", "known", "n_cells"]
    first = obs.groupby(["donor", "type"]).first()
    np.testing.assert_array_equal(found["age"], first["age"])
    assert list(found["plate"]) == list(first["plate"])
    assert found["known"].isna().equals(found["donor"] == "d3")


def test_small_rows_and_cells_without_a_sample_are_left_out(table):
    counts, obs = table
    obs = obs.assign(donor=obs["donor"].where(np.arange(len(obs)) > 9))
    cells = annotated(counts, obs.drop(columns="donor"))
    cells.obs["donor"] = pd.Categorical(obs["donor"])
    with pytest.warns(UserWarning, match="10 of 160 rows of adata.obs have no value of"):
        bulk = jaxvp.pp.pseudobulk(cells, "donor", "type", min_cells=6)
    grouped = counts.iloc[10:].groupby([obs["donor"].iloc[10:], obs["type"].iloc[10:]])
    sizes = grouped.size()
    assert 3 < (sizes >= 6).sum() < len(sizes)
    np.testing.assert_allclose(bulk.X, grouped.sum()[sizes >= 6])
    assert bulk.obs["n_cells"].min() >= 6


def test_fit_of_a_layer_with_weights_by_name(bulk, tmp_path):
    anndata = pytest.importorskip("anndata")
    bulk.layers["log"] = sparse.csr_matrix(bulk.X)
    bulk.X = np.zeros(bulk.shape)
    result = jaxvp.tl.variance_partition(bulk, FIXED, layer="log", weights="n_cells")
    frame = pd.DataFrame(bulk.layers["log"].toarray(), bulk.obs_names, bulk.var_names)
    wanted = jaxvp.fit(frame, FIXED, bulk.obs, weights=bulk.obs["n_cells"])
    pd.testing.assert_frame_equal(result.fractions, wanted.fractions)
    assert result.weighted and list(result.fractions.index) == list(bulk.var_names)
    assert list(result.fractions.index[result.fractions.isna().any(axis=1)]) == ["g2"]
    np.testing.assert_array_equal(bulk.varm["variance_partition"], wanted.fractions)
    assert bulk.uns["variance_partition"]["formula"] == FIXED
    bulk.write_h5ad(tmp_path / "x.h5ad")
    again = anndata.read_h5ad(tmp_path / "x.h5ad").varm["variance_partition"]
    np.testing.assert_array_equal(again, wanted.fractions)


def test_fit_options_and_key(bulk):
    result = jaxvp.tl.variance_partition(bulk, FIXED, key_added="mine", block_size=3)
    assert result.block_size == 3 and "variance_partition" not in bulk.varm
    np.testing.assert_array_equal(bulk.varm["mine"], result.fractions)


def test_a_view_stays_as_it_is(cells):
    """What NumPy computes of AnnData's views is one, too: gene 2 would be written into it."""
    view = cells[10:90]
    wanted = cells.X[10:90].copy()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Trying to modify")
        result = jaxvp.tl.by_group(view, FIXED, "type")
        jaxvp.fit(view, FIXED)
    assert view.is_view and list(result) == ["B", "T/CD4"]
    np.testing.assert_array_equal(view.X, wanted)


def test_one_result_a_group(bulk):
    weights = bulk.obs["n_cells"].to_numpy()
    results = jaxvp.tl.by_group(bulk, FIXED, group="type", weights=weights)
    assert list(results) == ["B", "T/CD4"]
    for level, result in results.items():
        mine = (bulk.obs["type"] == level).to_numpy()
        frame = pd.DataFrame(bulk.X, bulk.obs_names, bulk.var_names)[mine]
        wanted = jaxvp.fit(frame, FIXED, bulk.obs[mine], weights=weights[mine])
        pd.testing.assert_frame_equal(result.fractions, wanted.fractions)
    by_name = jaxvp.tl.by_group(bulk, FIXED, "type", weights="n_cells")
    pd.testing.assert_frame_equal(by_name["B"].fractions, results["B"].fractions)
    assert not bulk.varm and "variance_partition" not in bulk.uns


def test_a_group_that_cannot_be_fitted_is_left_out(bulk):
    bulk.obs["kind"] = plain(["rare" if i < 2 else "common" for i in range(bulk.n_obs)])
    with pytest.warns(UserWarning, match=r"1 of 2 groups of 'kind' are left out: 'rare' \("):
        results = jaxvp.tl.by_group(bulk, FIXED, "kind")
    assert list(results) == ["common"]
    bulk.obs["kind"] = bulk.obs_names
    with pytest.raises(jaxvp.DataError, match="no group of 'kind' can be fitted: 'd0:B' .the met"):
        jaxvp.tl.by_group(bulk, FIXED, "kind")


def test_figures_read_it(bulk):
    component = "I(age / 10)"
    result = jaxvp.tl.variance_partition(bulk, f"~ {component} + plate", key_added="mine")
    for draw in (
        lambda x, **key: jaxvp.pl.violins(x, **key),
        lambda x, **key: jaxvp.pl.bars(x, ["g0", "g3"], **key),
        lambda x, **key: jaxvp.pl.top_genes(x, component, 3, **key),
    ):
        ours, wanted = draw(bulk, key="mine"), draw(result.fractions)
        assert len(ours.patches) == len(wanted.patches)
        assert len(ours.collections) == len(wanted.collections)
        for name in ("get_xticklabels", "get_yticklabels"):
            one, other = ([text.get_text() for text in getattr(a, name)()] for a in (ours, wanted))
            assert one == other
    figure = jaxvp.pl.components_against_mean(bulk, key="mine", components="plate")
    x = figure.axes[0].lines[0].get_xdata()
    np.testing.assert_allclose(np.sort(x), np.sort(np.delete(bulk.X.mean(axis=0), 2)))
    with pytest.raises(jaxvp.DataError, match="no 'Mine' .did you mean 'mine'.*key_added"):
        jaxvp.pl.violins(bulk, key="Mine")
    bulk.varm["pca"] = np.zeros((7, 2))
    with pytest.raises(jaxvp.DataError, match="is ndarray, not a table of fractions"):
        jaxvp.pl.bars(bulk, key="pca")


TYPE = (jaxvp.DataError, jaxvp.DesignError, jaxvp.FormulaError)
BAD_PSEUDOBULK = {
    "sample": (("donr",), {}, "no column of adata.obs 'donr' .did you mean 'donor'"),
    "group": (("donor", "typ"), {}, "no column of adata.obs 'typ' .did you mean 'type'"),
    "layer": (("donor",), {"layer": "twic"}, "no layer 'twic' .did you mean 'twice'"),
    "mode": (("donor",), {"mode": "median"}, "mode='median': use 'sum' or 'mean'"),
    "min_cells": (("donor",), {"min_cells": 0}, "min_cells=0: use a whole number"),
    "no cells left": (("donor",), {"min_cells": 1000}, "has 1,000 cells, the most is .*lower min"),
}


@pytest.mark.parametrize("arguments, options, message", BAD_PSEUDOBULK.values(), ids=BAD_PSEUDOBULK)
def test_bad_input_of_pseudobulk(cells, arguments, options, message):
    with pytest.raises(jaxvp.DataError, match=message):
        jaxvp.pp.pseudobulk(cells, *arguments, **options)


def test_cells_that_cannot_be_added_up(cells):
    bad = cells.copy()
    bad.obs["donor"] = pd.Categorical([None] * bad.n_obs, ["d0"])
    with pytest.raises(jaxvp.DataError, match="none of the 160 rows .* value of 'donor'"):
        jaxvp.pp.pseudobulk(bad, "donor")
    with pytest.raises(jaxvp.DataError, match="none of the 0 rows"):
        jaxvp.pp.pseudobulk(cells[:0], "donor")
    bad = cells.copy()
    bad.obs["n_cells"] = 1
    with pytest.raises(jaxvp.DataError, match="has a column 'n_cells'.*rename"):
        jaxvp.pp.pseudobulk(bad, "donor")
    bad = cells.copy()
    bad.obs["one"], bad.obs["two"] = plain(["a:b", "a"] * 80), plain(["c", "b:c"] * 80)
    with pytest.raises(jaxvp.DataError, match="two rows would be called 'a:b:c'"):
        jaxvp.pp.pseudobulk(bad, "one", "two")
    bad = cells.copy()
    bad.X = None
    with pytest.raises(jaxvp.DataError, match="X is empty .layers: 'twice'"):
        jaxvp.pp.pseudobulk(bad, "donor")
    bad.var_names = ["g0"] * 7
    with pytest.raises(jaxvp.DataError, match="var_names has 'g0' more than once.*make_unique"):
        jaxvp.pp.pseudobulk(bad, "donor")


BAD_FITS = {
    "variable": ({"formula": "~ agee"}, "did you mean age"),
    "formula": ({"formula": "age"}, "~"),
    "layer": ({"layer": "log"}, "no layer 'log': there are none"),
    "weights": ({"weights": "n_cell"}, "no column of adata.obs 'n_cell' .did you mean 'n_cells'"),
    "length": ({"weights": [1.0, 2.0]}, r"shape \(2,\) does not fit the 24 rows"),
    "negative": ({"weights": "minus"}, "weights must be zero or more.*'d0:B' with -1"),
    "NaN": ({"weights": "nothing"}, "weights must be zero or more.*'d0:B' with nan"),
    "option": ({"dtype": "int8"}, "dtype='int8'"),
}


@pytest.mark.parametrize("change, message", BAD_FITS.values(), ids=BAD_FITS)
def test_bad_input_of_fits(bulk, change, message):
    bulk.obs["minus"], bulk.obs["nothing"] = -1.0, np.nan
    given = {"formula": FIXED, **change}
    with pytest.raises(TYPE, match=message):
        jaxvp.tl.variance_partition(bulk, **given)
    with pytest.raises(TYPE, match=message):
        jaxvp.tl.by_group(bulk, group="type", **given)
    assert not bulk.varm


def test_bad_keys_and_groups(bulk):
    with pytest.raises(jaxvp.DataError, match="key_added='a/b': use a name without"):
        jaxvp.tl.variance_partition(bulk, FIXED, key_added="a/b")
    with pytest.raises(jaxvp.DataError, match="key_added='': use a name"):
        jaxvp.tl.variance_partition(bulk, FIXED, key_added="")
    with pytest.raises(jaxvp.DataError, match="no column of adata.obs 'typ'"):
        jaxvp.tl.by_group(bulk, FIXED, "typ")
    bulk.obs_names = ["x"] * bulk.n_obs
    with pytest.raises(jaxvp.DataError, match="obs_names has 'x' more than once"):
        jaxvp.tl.variance_partition(bulk, FIXED)


# From here on: what holds without anndata, too.

CALLS = {
    "variance_partition": lambda thing: jaxvp.tl.variance_partition(thing, FIXED),
    "by_group": lambda thing: jaxvp.tl.by_group(thing, FIXED, "type"),
    "pseudobulk": lambda thing: jaxvp.pp.pseudobulk(thing, "donor"),
}


@pytest.mark.parametrize("name", CALLS)
def test_what_is_no_anndata(name, table, monkeypatch):
    monkeypatch.setitem(sys.modules, "anndata", sys)  # as if it were installed
    for thing, message in (
        (table[0], "not pandas.DataFrame: jaxvp.fit takes tables"),
        ("x.h5ad", r"not str: anndata.read_h5ad\('x.h5ad'\)"),
        (None, "not NoneType"),
    ):
        with pytest.raises(jaxvp.DataError, match=f"{name} takes an AnnData, {message}"):
            CALLS[name](thing)


@pytest.mark.parametrize("name", CALLS)
def test_the_error_names_the_extra(name, table, monkeypatch):
    monkeypatch.setitem(sys.modules, "anndata", None)  # as if it were not installed
    with pytest.raises(jaxvp.DataError, match=rf'{name}: .* pip install "jaxvp\[anndata\]"'):
        CALLS[name](table[0])


def test_a_fit_imports_no_anndata(table, monkeypatch):
    monkeypatch.setitem(sys.modules, "anndata", None)
    counts, obs = table
    adata = Lookalike(sparse.csr_matrix(np.log1p(counts)), obs, counts.columns)
    result = jaxvp.tl.variance_partition(adata, FIXED)
    wanted = jaxvp.fit(np.log1p(counts), FIXED, obs)
    pd.testing.assert_frame_equal(result.fractions, wanted.fractions)
    np.testing.assert_array_equal(adata.varm["variance_partition"], wanted.fractions)
    results = jaxvp.tl.by_group(adata, FIXED, "type")
    assert list(results) == ["B", "T/CD4"]
    assert len(jaxvp.pl.violins(adata).get_xticklabels()) == 3


def test_importing_it_imports_no_anndata():
    code = "import jaxvp.tl, jaxvp.pp, sys; print('anndata' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
