"""A result in an AnnData, and in its file."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from containers import annotated

import jaxvp
from jaxvp.expression import DataError

anndata = pytest.importorskip("anndata")
pytestmark = [
    pytest.mark.filterwarnings("ignore:The 'mode.chained_assignment' option"),
    pytest.mark.filterwarnings("ignore::FutureWarning:anndata"),
]
TABLES = ("variances", "coefficients", "standard_errors", "theta", "diagnostics")


@pytest.fixture(scope="module")
def study():
    rng = np.random.default_rng(0)
    names = [f"s{i}" for i in range(24)]
    metadata = pd.DataFrame({"Age": rng.normal(size=24), "Batch": list("abcd") * 6}, names)
    values = rng.normal(size=(24, 7))
    values[:, 2] = 4  # cannot be fitted
    return pd.DataFrame(values, names, [f"g{i}" for i in range(7)]), metadata


@pytest.fixture(params=["~ I(Age/10) + (1|Batch)", "~ Age + Batch"])
def result(study, request):
    """With ``/`` in the name of a column; and without random terms, so without columns of theta."""
    return jaxvp.fit(study[0], request.param, study[1])


@pytest.fixture
def adata(study):
    return annotated(*study)


def check(result, adata, key="variance_partition"):
    found = adata.uns[key]
    for name in (*TABLES, "fractions"):
        table = adata.varm[key] if name == "fractions" else found[name]
        wanted = getattr(result, name)
        assert list(table.index) == list(adata.var_names)
        assert list(table.columns) == [column.replace("/", "÷") for column in wanted.columns]
        for column, label in zip(table.columns, wanted.columns, strict=True):
            np.testing.assert_array_equal(table[column], wanted[label])
    for name in ("sigma", "log_likelihood"):
        np.testing.assert_array_equal(found[name][name], getattr(result, name))
    assert found["formula"] == result.formula and found["versions"] == result.versions
    assert not found["reml"] and not found["weighted"]
    assert found["block_size"] == result.block_size


def test_round_trip(result, adata, tmp_path):
    assert result.to_anndata(adata) is adata
    check(result, adata)
    adata.write_h5ad(tmp_path / "x.h5ad")
    check(result, anndata.read_h5ad(tmp_path / "x.h5ad"))
    # What was there is replaced, another key stands beside it.
    result.to_anndata(adata)
    result.to_anndata(adata, key_added="again")
    check(result, adata)
    check(result, adata, "again")


def test_genes_go_by_name(result, adata):
    turned = adata[:, ["g6", "g0", "g2"]].copy()
    result.to_anndata(turned)
    wanted = result.fractions.loc[["g6", "g0", "g2"]]
    np.testing.assert_array_equal(turned.varm["variance_partition"], wanted)


def test_genes_that_were_not_fitted(study, adata, tmp_path):
    result = jaxvp.fit(study[0][["g1", "g5", "g4"]], "~ Age + Batch", study[1])
    result.to_anndata(adata)
    adata.write_h5ad(tmp_path / "x.h5ad")
    adata = anndata.read_h5ad(tmp_path / "x.h5ad")
    fractions = adata.varm["variance_partition"]
    np.testing.assert_array_equal(fractions.loc[["g1", "g5", "g4"]], result.fractions)
    assert fractions.loc[["g0", "g2", "g3", "g6"]].isna().all(axis=None)
    diagnostics = adata.uns["variance_partition"]["diagnostics"]
    assert list(diagnostics["status"][:2]) == ["not fitted", "converged"]
    assert list(diagnostics["n_obs"][:2]) == [0, 24]


def test_genes_without_names_go_by_position(study, adata):
    result = jaxvp.fit(study[0].to_numpy(), "~ Age + Batch", study[1])
    result.to_anndata(adata)
    np.testing.assert_array_equal(adata.varm["variance_partition"], result.fractions)
    with pytest.raises(DataError, match="7 of them, not the 3"):
        result.to_anndata(adata[:, :3].copy())


def test_what_cannot_be_written(study, adata):
    result = jaxvp.fit(study[0], "~ Age + Batch", study[1])
    with pytest.raises(DataError, match="not into DataFrame"):
        result.to_anndata(study[0])
    with pytest.raises(DataError, match="without '/'"):
        result.to_anndata(adata, key_added="a/b")
    other = adata.copy()
    other.var_names = [f"ENSG{i}" for i in range(7)]
    with pytest.raises(DataError, match="no gene of the result .'g0'"):
        result.to_anndata(other)
    other.var_names = ["g1"] * 7
    with pytest.raises(DataError, match="must be unique"):
        result.to_anndata(other)
    assert "variance_partition" not in other.uns


def test_an_empty_result(study, adata):
    result = jaxvp.fit(study[0], "~ Age + Batch", study[1])
    tables = {name: getattr(result, name).iloc[:0] for name in ("fractions", *TABLES)}
    series = {name: getattr(result, name).iloc[:0] for name in ("sigma", "log_likelihood")}
    with pytest.raises(DataError, match="no gene"):
        replace(result, **tables, **series).to_anndata(adata)
