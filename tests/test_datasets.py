"""The bundled data against facts of the published text, found without this package."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from jaxvp import datasets


@pytest.fixture(scope="module")
def influenza():
    return datasets.influenza()


def test_influenza_design(influenza):
    expression, metadata = influenza
    assert expression.shape == (4147, 252)
    assert list(metadata.columns) == ["Subject", "Hours", "Condition", "Gender", "Age"]
    assert metadata.Subject.nunique() == 17
    hours = [0, 5, 12, 21, 29, 36, 45, 53, 60, 69, 77, 84, 93, 101, 108]
    assert sorted(metadata.Hours.unique()) == hours
    assert metadata.groupby("Subject").Condition.first().value_counts().to_dict() == {
        "sx": 9,
        "asx": 8,
    }
    assert metadata.loc["GSM758165"].tolist() == ["flu004", 29, "asx", "Female", 23]
    assert not metadata.isna().any(axis=None)
    assert pd.api.types.is_integer_dtype(metadata.Age)


def test_what_is_bundled_is_small():
    folder = Path(datasets.__file__).parent
    assert sum(file.stat().st_size for file in folder.iterdir() if file.is_file()) < 4e6


def test_influenza_names_agree_and_are_unique(influenza):
    expression, metadata = influenza
    pd.testing.assert_index_equal(expression.columns, metadata.index)
    assert expression.index.is_unique and expression.columns.is_unique
    assert (expression.index.name, expression.columns.name) == ("gene", "sample")


def test_influenza_values_are_those_of_the_text(influenza):
    expression, _ = influenza
    assert set(expression.dtypes) == {np.dtype("float64")}
    assert expression.iloc[0, :2].tolist() == [4.6004420, 4.4368550]
    assert expression.index[0] == "AKT3" and expression.columns[0] == "GSM757899"
    assert expression.loc["NFKBIE", ["GSM757909", "GSM758110"]].tolist() == [8.2883769, 8.0528320]
    assert expression.loc["NAT1"].iloc[[0, -1]].tolist() == [5.7571643, 5.8350182]


def test_influenza_is_lossless(influenza):
    """The sum of all numbers in the text, in decimal arithmetic, is 7484573.9126177."""
    values = influenza[0].to_numpy()
    integers = np.rint(values * 1e7).astype(np.int64)
    np.testing.assert_array_equal(integers / 1e7, values)
    assert integers.sum() == 74845739126177


def test_influenza_calls_are_independent(influenza):
    """Writing into what one caller got does not change what the next one gets."""
    first, _ = datasets.influenza()
    first.iloc[0, 0] = -1.0
    assert datasets.influenza()[0].iloc[0, 0] == influenza[0].iloc[0, 0] == 4.6004420
