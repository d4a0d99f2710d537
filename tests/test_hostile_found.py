"""What `test_hostile` found, one by one.

Annotations are not checked here, as they are not where users call: what is passed gets as far as it
gets.
"""

import decimal

import jaxtyping
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import jaxvp
from jaxvp import DataError, DesignError

N = 12


@pytest.fixture(autouse=True)
def unchecked():
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def study():
    rng = np.random.default_rng(0)
    samples = [f"s{i}" for i in range(N)]
    metadata = pd.DataFrame({"x": rng.normal(size=N), "g": [*"abcd"] * 3}, index=samples)
    return pd.DataFrame(rng.normal(size=(3, N)), ["g0", "g1", "g2"], samples), metadata


def refused(error, words, study, formula="~ x", **options):
    with pytest.raises(error) as caught:
        jaxvp.fit(study[0], formula, study[1], **options)
    assert words in str(caught.value)


SWITCHES = {
    "reml as text": {"reml": "no"},
    "reml as a number": {"reml": 2},
    "rescale_weights as text": {"rescale_weights": "no"},
    "progress as text": {"progress": "no"},
    "dtypes": {"dtype": np.array(["float64", "float32"])},
    "a dtype": {"dtype": np.float64},
    "solvers": {"solver": ["newton"]},
    "block sizes": {"block_size": np.array([1, 2])},
    "a fraction of a block": {"block_size": 2.5},
    "ways with errors": {"on_error": np.array(["status", "raise"])},
    "a number of devices": {"devices": 3},
}


@pytest.mark.parametrize("name", SWITCHES)
def test_options_of_other_types(study, name):
    """Text is true to Python, an array neither true nor false, a list has no hash."""
    ((option, value),) = SWITCHES[name].items()
    refused(DataError, option, study, **{option: value})


WEIGHTS = {
    "number": 2.0,
    "no axis": np.array(2.0),
    "ragged": [[1.0], [1.0, 2.0]],
    "text": ["high"] * N,
    "numbers as text": ["1.5"] * N,
    "dates": np.array(["2020"] * N, dtype="M8[D]"),
    "complex": np.ones(N) * 1j,
    "complex by name": pd.Series(np.ones(N) * 1j, [f"s{i}" for i in range(N)]),
    "long numbers": [10**400] * N,
    "function": len,
    "levels": pd.DataFrame(
        np.ones((3, N)), ["g0", "g1", "g2"], pd.MultiIndex.from_product([["a"], range(N)])
    ),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_that_are_none(study, name):
    refused(DataError, "weights", study, weights=WEIGHTS[name])


def zero_but(*samples):
    return np.isin(np.arange(N), samples).astype(float)


@pytest.mark.parametrize(
    ("formula", "weights", "words"),
    [
        (
            "~ x",
            zero_but(0, 1),
            "2 of 12 samples have a weight above zero, and the fixed part has 2",
        ),
        ("~ g", zero_but(0, 1, 2, 4, 5, 6, 8, 9), "`g[T.d]` is zero in all samples"),
        ("~ x + (1|g)", zero_but(0, 4, 8), "`g` has one level there"),
        ("~ x + (1|g)", zero_but(0, 1, 2, 3), "`g` has a level for each there"),
        ("~ x + (1|g)", zero_but(0, 1, 2, 4), "the likelihood has no maximum"),
    ],
    ids=["few", "lost", "one level", "levels", "explained"],
)
def test_weights_that_leave_too_little(study, formula, weights, words):
    """Zeros for samples that a level needs ended in LAPACK."""
    refused(DesignError, words, study, formula, weights=weights)


def test_measurements_that_no_float_holds(study):
    expression, metadata = study
    for value in (10**400, decimal.Decimal("sNaN")):
        long = expression.astype(object)
        long.loc["g1", "s2"] = value
        refused(DataError, "'g1' holds a number beyond all", (long, metadata))
        refused(DataError, "row 2, column 1", (long.to_numpy().T, metadata))


def arrow(values, kind):
    return pd.array(values, dtype=pd.ArrowDtype(kind))


COLUMNS = {
    "long numbers": ([10**400 + i for i in range(N)], "no floating-point numbers"),
    "long decimals": ([decimal.Decimal("sNaN")] * N, ""),
    "lists": ([[i] for i in range(N)], ""),
    "lists of Arrow": (arrow([[i] for i in range(N)], pa.list_(pa.int64())), ""),
    "structs of Arrow": (arrow([{"a": i} for i in range(N)], pa.struct({"a": pa.int64()})), ""),
    "a large unit": (np.arange(N) * 1e200, "`x` reach 1.1e+201: give its variable in a unit"),
    "a small unit": (np.arange(N) * 1e-200, "`x` reach 1.1e-199: give its variable in a unit"),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_columns_that_no_model_has(study, name):
    expression, metadata = study
    metadata["x"], words = COLUMNS[name]
    refused(DesignError, words, study)
    refused(DesignError, "`x`", study)


@pytest.mark.parametrize("name", ["lists", "lists of Arrow", "structs of Arrow"])
def test_groups_that_cannot_be_compared(study, name):
    expression, metadata = study
    metadata["g"] = list(COLUMNS[name][0][:4]) * 3
    metadata["g"] = metadata["g"].astype(getattr(COLUMNS[name][0], "dtype", object))
    refused(DesignError, "`g` holds values that cannot be levels", study, "~ (1|g)")


@pytest.mark.parametrize("level", ["__b", "__", "__hide__", "_b", "\ue000b"])
def test_a_level_whose_name_begins_with_underscores(study, level):
    """formulaic took it for its own and left it out: its samples counted as the first level's."""
    expression, metadata = study
    expected = jaxvp.fit(expression, "~ g + x:g", metadata)
    renamed = metadata.assign(
        g=pd.Categorical(metadata["g"].replace({"b": level}), ["a", level, *"cd"])
    )
    found = jaxvp.fit(expression, "~ g + x:g", renamed)
    np.testing.assert_array_equal(found.coefficients, expected.coefficients)
    assert list(found.coefficients)[1] == f"g[T.{level}]"
    np.testing.assert_allclose(found.predict(renamed), expected.predict(metadata))


def test_a_coefficient_that_no_float_holds(study):
    """What a variable explains does not depend on units: it was NaN, and said to be converged."""
    expression, metadata = study
    expected = jaxvp.fit(expression, "~ x", metadata)
    found = jaxvp.fit(expression * 1e280, "~ x", metadata[["x"]] * 1e-55)
    assert np.isinf(found.coefficients["x"]).all()
    np.testing.assert_allclose(found.fractions, expected.fractions, rtol=1e-9)


def test_a_spread_that_is_no_number(study):
    """`scale` squares."""
    study[1]["x"] = np.arange(N) * 1e200
    refused(DesignError, "scale(x)", study, "~ scale(x)")


def test_names_of_types_that_do_not_compare(study):
    """Arrow refuses to look for a text among its numbers."""
    expression, metadata = study
    expected = jaxvp.fit(expression, "~ x", metadata)
    numbers = pd.Index(1000 + np.arange(N), dtype=pd.ArrowDtype(pa.int64()))
    renamed = expression.set_axis(numbers, axis=1).set_axis(pd.Index(["a", 1, 2.5]), axis=0)
    for table in (renamed, renamed.T):
        found = jaxvp.fit(table, "~ x", metadata.set_axis(numbers, axis=0))
        np.testing.assert_array_equal(found.fractions, expected.fractions)
    plain = metadata.set_axis(1000 + np.arange(N), axis=0)
    np.testing.assert_array_equal(jaxvp.fit(renamed, "~ x", plain).fractions, expected.fractions)


@pytest.mark.filterwarnings("ignore:the matrix subclass")
def test_a_matrix_of_numpy(study):
    """It has two axes whatever is taken of it."""
    expression, metadata = study
    array = expression.to_numpy().T
    expected = jaxvp.fit(array, "~ x", metadata)
    found = jaxvp.fit(np.asmatrix(array), "~ x", metadata, weights=np.asmatrix(np.ones((N, 3))))
    np.testing.assert_allclose(found.fractions, expected.fractions, rtol=1e-9)


def test_a_gene_that_its_model_explains_whatever_it_is(study):
    """Four observations, two fixed columns and three levels: no likelihood has a maximum there.

    A local optimum at zero was given as the gene's.
    """
    expression, metadata = study
    expression.iloc[0] = np.nan
    expression.iloc[0, [0, 1, 2, 4]] = [1.0, 5.0, 2.0, 1.1]
    expression.iloc[1:] = np.inf  # and nothing is compiled for it
    weights = np.ones((N, 3))
    result = jaxvp.fit(expression.T.to_numpy(), "~ x + (1|g)", metadata, weights=weights)
    assert result.diagnostics["status"].tolist() == [
        "too_few_observations",
        *["non_finite"] * 2,
    ]


def test_a_saved_result_of_which_any_byte_is_another(study, tmp_path):
    """It is what was saved, or an error that names the file."""
    result = jaxvp.fit(study[0], "~ x", study[1])
    path = tmp_path / "a.vp"
    result.save(path)
    content = path.read_bytes()
    refused = 0
    for place in np.random.default_rng(0).integers(0, len(content), 60).tolist():
        path.write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
        try:
            found = jaxvp.load(path)
        except DataError as error:
            assert str(path) in str(error)
            refused += 1
        else:
            pd.testing.assert_frame_equal(found.fractions, result.fractions)
    assert refused > 30


def test_a_formula_of_no_characters_by_the_command(study, tmp_path, capsys):
    from jaxvp.cli import BAD_INPUT, main

    for name, table in zip(("x.csv", "m.csv"), study, strict=True):
        table.to_csv(tmp_path / name)
    options = ["--expression", str(tmp_path / "x.csv"), "--metadata", str(tmp_path / "m.csv")]
    assert main(["fit", *options, "--formula", "", "--out", str(tmp_path / "out")]) == BAD_INPUT
    assert "empty" in capsys.readouterr().err
