"""What `jaxvp.fit` says to wrong input, line by line; nothing is compiled before it speaks.

Formulas, designs and measurements have their own tests; here the whole call is asked.
"""

import warnings

import numpy as np
import pandas as pd
import pytest

import jaxvp
from jaxvp import DataError, DesignError, FormulaError

N = 24


@pytest.fixture
def study():
    rng = np.random.default_rng(0)
    samples = [f"s{i}" for i in range(N)]
    metadata = pd.DataFrame(
        {
            "Age": rng.normal(50, 8, N),
            "Age2": np.arange(N) * 1.0,
            "Individual": np.tile([f"i{i}" for i in range(6)], 4),
            "Tissue": np.repeat(list("AB"), 12),
            "Same": np.tile([f"x{i}" for i in range(6)], 4),
            "One": "a",
            "Own": samples,
            "Number": np.arange(N) * 0.5,
            "Missing": np.nan,
        },
        index=samples,
    )
    metadata["Twice"] = 2 * metadata["Age"]
    expression = pd.DataFrame(rng.normal(9, 1, (5, N)), [f"g{i}" for i in range(5)], samples)
    return expression, metadata


@pytest.fixture(autouse=True)
def no_fit(monkeypatch):
    """An error that came after work was done is no error in time."""

    def fail(*args, **options):
        raise AssertionError("a fit was begun")

    monkeypatch.setattr("jaxvp.batch.fit_all", fail)


@pytest.mark.parametrize(
    ("formula", "error", "message"),
    [
        ("~ Aeg + (1|Individual)", DesignError, "Aeg.*Age"),
        ("~ Age + (1|Indvidual)", DesignError, "Indvidual.*Individual"),
        ("~ Age + + * (1|Individual", FormulaError, r"\^"),
        ("", FormulaError, "empty"),
        ("~", FormulaError, "nothing follows"),
        ("y ~ Age", FormulaError, "y"),
        ("~ __import__('os').system('true')", FormulaError, ""),
        ("~ Age.__class__", FormulaError, ""),
        ("~ Missing", DesignError, "Missing"),
        ("~ (1|One)", DesignError, "One"),
        ("~ (1|Own)", DesignError, "Own"),
        ("~ (1|Number)", DesignError, "Number.*fixed"),
        ("~ Age + Twice", DesignError, "Twice"),
        ("~ Own", DesignError, "Own"),
        ("~ (1|Individual) + (1|Individual)", (FormulaError, DesignError), "Individual"),
        ("~ Tissue + (1|Tissue)", DesignError, "Tissue"),
        ("~ Age + (Age|Individual)", NotImplementedError, r"Age.*Individual.*not yet"),
        ("~ Age + (Age||Individual)", NotImplementedError, "not yet"),
        ("~ (0 + Tissue|Individual)", NotImplementedError, "not yet"),
    ],
)
def test_formulas_and_designs(study, formula, error, message):
    expression, metadata = study
    with pytest.raises(error, match=f"(?s){message}"):
        jaxvp.fit(expression, formula, metadata)


def test_reml_without_random_terms(study):
    with pytest.raises(DesignError, match="REML.*random"):
        jaxvp.fit(study[0], "~ Age", study[1], reml=True)


def test_fewer_samples_than_columns(study):
    expression, metadata = study
    with pytest.raises(DesignError):
        jaxvp.fit(
            expression.iloc[:, :3], "~ Age + Number + I(Age^2) + I(Number^2)", metadata.iloc[:3]
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e, m: (e.rename(columns=str.upper), m), "sample"),
        (lambda e, m: (e, m.reset_index(names="id")), "set_index.*id|id.*set_index"),
        (
            lambda e, m: (e.set_axis(range(N), axis=1), m.set_axis([str(i) for i in range(N)])),
            "(?i)int|str",
        ),
        (
            lambda e, m: (e.T.reset_index(drop=True), m.reset_index(drop=True)),
            "(?i)rangeindex|names",
        ),
        (lambda e, m: (e.rename(columns={"s1": "s0"}), m), "s0"),
        (lambda e, m: (e.rename(index={"g1": "g0"}), m), "g0"),
        (lambda e, m: (e, m.rename(index={"s1": "s0"})), "s0"),
        (lambda e, m: (e.to_numpy(), m), r"\.T"),
        (lambda e, m: (e.to_numpy()[:, :7], m), "7|5"),
        (lambda e, m: (e.astype(object).replace({e.iloc[2, 3]: "high"}), m), "high|g2"),
        (lambda e, m: (e.iloc[:, :0], m), "sample"),
        (lambda e, m: (e.iloc[:, :1], m), "sample"),
        (lambda e, m: (e, m.iloc[:0]), "sample"),
    ],
)
def test_measurements(study, change, message):
    with pytest.raises(DataError, match=f"(?s){message}"):
        jaxvp.fit(*(lambda e, m: (e, "~ Age + (1|Individual)", m))(*change(*study)))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"block_size": 0}, DataError, "block_size=0"),
        ({"block_size": "all"}, DataError, "block_size=.all"),
        ({"dtype": "float16"}, DataError, "float64"),
        ({"solver": "bobyqa"}, DataError, "newton"),
        ({"on_error": "ignore"}, DataError, "status"),
        ({"devices": []}, DataError, "devices"),
        ({"devices": ["gpu"]}, DataError, "devices"),
        ({"weights": np.ones(N)}, NotImplementedError, "weights"),
    ],
)
def test_options(study, options, error, message):
    with pytest.raises(error, match=message):
        jaxvp.fit(study[0], "~ Age + (1|Individual)", study[1], **options)


class TestWorks:
    """Input that looks odd and is right."""

    @pytest.fixture(autouse=True)
    def no_fit(self):
        """Here fits are wanted."""

    FORMULA = "~ Age + (1|Individual)"

    @pytest.fixture
    def expected(self, study):
        return jaxvp.fit(study[0], self.FORMULA, study[1])

    @pytest.mark.parametrize(
        "change",
        [
            lambda e: e.T,
            lambda e: e.to_numpy().T,
            lambda e: np.asfortranarray(e.to_numpy().T),
            lambda e: np.repeat(e.to_numpy().T, 2, axis=0)[::2],
            lambda e: pd.DataFrame(e.to_numpy().copy(order="F"), e.index, e.columns),
            lambda e: e.astype("Float64"),
            lambda e: e.astype(object),
        ],
    )
    def test_containers(self, study, expected, change):
        measured = change(study[0])
        if isinstance(measured, np.ndarray):
            measured.setflags(write=False)
        found = jaxvp.fit(measured, self.FORMULA, study[1])
        np.testing.assert_allclose(found.fractions, expected.fractions, rtol=1e-9, atol=1e-12)

    def test_numbers_of_other_kinds(self, study):
        expression, metadata = study
        whole = (expression * 100).round()
        expected = jaxvp.fit(whole, self.FORMULA, metadata).fractions
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            integers = jaxvp.fit(whole.astype(int), self.FORMULA, metadata).fractions
        np.testing.assert_array_equal(integers, expected)
        single = jaxvp.fit(expression.astype(np.float32), self.FORMULA, metadata).fractions
        double = jaxvp.fit(expression.astype(np.float32).astype(float), self.FORMULA, metadata)
        np.testing.assert_allclose(single, double.fractions, rtol=1e-9, atol=1e-12)

    def test_tiny_variance(self, study, expected):
        tiny = (study[0] - study[0].mean(axis=1).to_numpy()[:, None]) * 1e-150
        found = jaxvp.fit(tiny, self.FORMULA, study[1])
        assert (found.diagnostics["status"] == "converged").all()
        np.testing.assert_allclose(found.fractions, expected.fractions, rtol=1e-6, atol=1e-9)

    def test_no_genes(self, study, expected):
        found = jaxvp.fit(study[0].iloc[:0], self.FORMULA, study[1])
        for name in ("fractions", "variances", "coefficients", "theta", "diagnostics"):
            table = getattr(found, name)
            assert len(table) == 0 and list(table) == list(getattr(expected, name))

    def test_a_block_larger_than_the_study(self, study, expected):
        found = jaxvp.fit(study[0], self.FORMULA, study[1], block_size=100_000)
        np.testing.assert_allclose(found.fractions, expected.fractions, rtol=1e-9, atol=1e-12)

    @pytest.mark.parametrize(
        ("formula", "change", "message"),
        [
            (
                "~ Tissue + (1|Individual)",
                None,
                "categorical .*`Tissue`.*variancePartition advises",
            ),
            ("~ (1|Same) + (1|Individual)", None, "identically.*`.1.Same.` and `.1.Individual.`"),
            (FORMULA, lambda e, m: ((100 * e).round(), m), "looks like raw counts.*log"),
            (
                FORMULA,
                lambda e, m: (e.iloc[:, 2:], m.iloc[:-1]),
                "1 of 22 .* 2 of 23|2 of 23.*1 of",
            ),
            ("~ Holes + (1|Individual)", None, "3 of 24 samples are dropped .*`Holes` .3."),
        ],
        ids=["categorical", "identical", "counts", "dropped", "missing"],
    )
    def test_one_warning(self, study, formula, change, message):
        """It points at the line of the call, not into jaxvp."""
        expression, metadata = study
        metadata["Holes"] = metadata["Age"].where(np.arange(N) > 2)
        if change is not None:
            expression, metadata = change(expression, metadata)
        with pytest.warns(UserWarning, match=message) as caught:
            jaxvp.fit(expression, formula, metadata)
        assert [warning.filename for warning in caught] == [__file__]
