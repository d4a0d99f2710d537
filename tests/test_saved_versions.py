"""Every version of the file of a result stays readable: one of each is kept here.

They hold fits of the reference design `crossed`; `saved/README.md` says what made them.
"""

import json
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import references

import jaxvp
from jaxvp.results.archive import READABLE, VERSION

SAVED = Path(__file__).parent / "saved"


def test_there_is_a_file_of_each_version():
    versions = []
    for path in sorted(SAVED.glob("version-*.vp")):
        with zipfile.ZipFile(path) as archive:
            versions.append(json.loads(archive.read("result.json"))["version"])
        assert path.name in (f"version-{versions[-1]}.vp", f"version-{versions[-1]}-slopes.vp")
    assert tuple(dict.fromkeys(versions)) == READABLE
    assert max(READABLE) == VERSION


@pytest.mark.parametrize("version", READABLE)
def test_old_versions_are_read(version, tmp_path):
    result = jaxvp.load(SAVED / f"version-{version}.vp")
    expression, metadata, formula = references.sample("crossed")
    table = references.lme4_table("crossed")
    table = table[~table["reml"]].loc[result.fractions.index]
    assert result.formula == formula and not result.reml and not result.weighted
    np.testing.assert_allclose(result.log_likelihood, table["log_likelihood"], atol=1e-7)
    for name in ("Batch", "Individual", "Tissue", "Age", "Residuals"):
        np.testing.assert_allclose(result.fractions[name], table[f"fraction.{name}"], atol=1e-6)
    assert (result.diagnostics["status"] == "converged").all()
    assert set(result.design.samples) == set(metadata.index)
    rest = result.residuals(expression)
    assert rest.shape == expression.shape and rest.notna().all(axis=None)
    # What is written now is the newest version, whatever was read.
    result.save(tmp_path / "again.vp")
    again = jaxvp.load(tmp_path / "again.vp")
    pd.testing.assert_frame_equal(again.fractions, result.fractions)
    assert again.design.coding == result.design.coding


def test_version_1_has_no_coding():
    """It did not say what other samples are coded with: fixed terms are not predicted."""
    result = jaxvp.load(SAVED / "version-1.vp")
    expression, metadata, _ = references.sample("crossed")
    batch = result.predict(metadata, ["Batch"], expression=expression)
    expected = result.fitted(expression, terms=["Batch"])[batch.columns]
    pd.testing.assert_frame_equal(batch, expected, check_names=False)
    with pytest.raises(jaxvp.DesignError, match="fit again"):
        result.predict(metadata, expression=expression)


def test_version_2_predicts():
    result = jaxvp.load(SAVED / "version-2.vp")
    expression, metadata, _ = references.sample("crossed")
    found = result.predict(metadata, expression=expression)
    expected = result.fitted(expression)[found.columns]
    pd.testing.assert_frame_equal(found, expected, check_names=False)


def test_version_2_has_random_slopes():
    """With them the file has a table more, and names of what varies."""
    result = jaxvp.load(SAVED / "version-2-slopes.vp")
    folder = references.HERE / "slopes"
    table = pd.read_csv(folder / "lme4.csv")
    table = table[(table["formula"] == result.formula) & (table["data"] == "growth")]
    for gene, rows in table[~table["reml"]].groupby("gene"):
        if gene in result.sigma.index:
            references.same_slopes(result, gene, rows.set_index("quantity")["value"])
    assert result.design.coefficients == ("(Intercept)", "Time", "(Intercept)")
    expression = pd.read_csv(folder / "growth.expression.csv", index_col="gene")
    metadata = pd.read_csv(folder / "growth.metadata.csv", index_col="sample")
    found = result.predict(metadata, expression=expression)
    expected = result.fitted(expression)[found.columns]
    pd.testing.assert_frame_equal(found, expected, check_names=False)
