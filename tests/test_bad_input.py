"""What `jaxvp.fit` says to wrong input, line by line; nothing is compiled before it speaks.

Formulas, designs and measurements have their own tests; here the whole call is asked, for models
with random intercepts, with weights and with random slopes.
"""

import warnings

import numpy as np
import pandas as pd
import pytest

import jaxvp
from jaxvp import DataError, DesignError, FormulaError

N = 24
FORMULA = "~ Age + (1|Individual)"
SLOPE = "~ Age + (Age|Individual)"
KINDS = ("intercepts", "weights", "slopes")


def options_of(kind):
    """What `fit` is told beside its tables: weights that differ, by position."""
    return {"weights": np.arange(1.0, N + 1)} if kind == "weights" else {}


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


SYNTAX = [
    ("~ Age + + * (1|Individual", r"expected a variable, but there is `\+`\n.*\n +\^ position 9"),
    ("~ (1|Individual", r"this parenthesis is never closed\n.*\n +\^ position 3"),
    ("", "the formula is empty: write"),
    ("  ", "the formula is empty: write"),
    ("~", "nothing follows the `~`: write"),
    ("~ 0", "no term at all"),
    ("Age", "starts with `~`"),
    ("y ~ Age", "a response, `y`; .* leave out what stands before"),
    ("~ __import__('os').system('true')", "quotes have no place"),
    ("~ __import__(Age)", "unknown function `__import__`"),
    ("~ Age.__class__", "looks like Python, and no Python is evaluated"),
    ("~ {Age}", "code in braces is never evaluated"),
    ("~ np.log(Age)", "unknown function `np.log`; did you mean log"),
]


SYNTAX_OF_SLOPES = [
    ("~ (Age + |Individual)", r"expected .*\^ position"),
    ("~ (Age|Individual", "this parenthesis is never closed"),
    ("y ~ (Age|Individual)", "a response, `y`"),
    ("~ (Age.__class__|Individual)", "looks like Python, and no Python is evaluated"),
    ("~ (np.log(Age)|Individual)", "unknown function `np.log`; did you mean log"),
]


@pytest.mark.parametrize(("formula", "message"), SYNTAX_OF_SLOPES)
def test_what_is_no_formula_of_slopes(study, formula, message):
    with pytest.raises(FormulaError, match=f"(?s){message}"):
        jaxvp.fit(study[0], formula, study[1])


@pytest.mark.parametrize(("formula", "message"), SYNTAX)
@pytest.mark.parametrize("kind", KINDS[:2])
def test_what_is_no_formula(study, kind, formula, message):
    expression, metadata = study
    with pytest.raises(FormulaError, match=f"(?s){message}"):
        jaxvp.fit(expression, formula, metadata, **options_of(kind))


UNFIT = [
    ("~ Aeg + (1|Individual)", "`Aeg` .did you mean Age.*Its columns are: Age, "),
    ("~ Age + (1|Indvidual)", "`Indvidual` .did you mean Individual"),
    ("~ Missing", "`Missing` is missing in all 24 samples: leave it out"),
    ("~ (1|Missing)", "`Missing` is missing in all 24 samples: leave it out"),
    ("~ (1|One)", r"`One` has one level, 'a', .* leave \(1\|One\) out"),
    ("~ One", "`One`: it has one level, 'a', .* leave it out"),
    ("~ (1|Own)", r"`Own` has as many levels as there are samples, 24.* leave \(1\|Own\) out"),
    ("~ (1|Number)", "`Number` has as many levels .* numeric: use it as a fixed effect, `Number`"),
    ("~ Own", "`Own`: it has a level for each of the 24 samples"),
    ("~ Age + Twice", "rank-deficient: `Twice` is a combination of `Age`.* Leave out a term"),
    ("~ poly(Age, 12) + poly(Number, 12)", "has 25 columns and there are 24 samples.* leave out"),
    ("~ (1|Individual) + (1|Individual)", r"\(1\|Individual\) are the same: leave one out"),
    ("~ (1|One:Own) + (1|Own:One)", r"\(1\|One:Own\) and \(1\|Own:One\) are the same"),
    ("~ Tissue + (1|Tissue)", "`Tissue` is a fixed effect and also the grouping factor of .*keep"),
    ("~ C(Tissue) + (1|Tissue)", "`C.Tissue.` is a fixed effect and also the grouping factor"),
]


@pytest.mark.parametrize(("formula", "message"), UNFIT)
@pytest.mark.parametrize("kind", KINDS)
def test_models_that_cannot_be_fitted(study, kind, formula, message):
    expression, metadata = study
    formula += " + (0 + Slope|Half)" * (kind == "slopes")
    metadata["Half"], metadata["Slope"] = np.repeat(list("abc"), 8), np.arange(N) % 7.0
    with pytest.raises(DesignError, match=f"(?s){message}"):
        jaxvp.fit(expression, formula, metadata, **options_of(kind))


SLOPES = [
    ("~ (Agee|Individual)", "`Agee` .did you mean Age"),
    ("~ (Constant|Individual)", "`Constant` is constant within every level of `Individual`"),
    ("~ (poly(Age, 3)|Individual)", "24 random effects .4 in each of 6 levels.*24 samples"),
    ("~ (1|Individual) + (Age|Individual)", "both have a random intercept of `Individual`"),
    ("~ (Lost + 0|Individual)", "`Lost`.* has levels that no sample has.*'b'"),
    ("~ (Missing|Individual)", "`Missing` is missing in all 24 samples"),
    ("~ (Own + 0|Individual)", r"the slope `Own` of \(0 \+ Own\|Individual\): it has a level for"),
    ("~ (One|Individual)", "the slope `One` .*one level, 'a'"),
    ("~ (Age|One)", "`One` has one level, 'a'"),
    ("~ (Age + Twice|Individual)", "`Twice`, a slope of .* is a combination of `Age`"),
]


@pytest.mark.parametrize(("formula", "message"), SLOPES)
def test_slopes_that_cannot_be_fitted(study, formula, message):
    expression, metadata = study
    metadata["Constant"] = metadata["Individual"].str[1:].astype(float)
    metadata["Lost"] = pd.Categorical(["a", "c"] * 12, categories=["a", "b", "c"])
    with pytest.raises(DesignError, match=f"(?s){message}"):
        jaxvp.fit(expression, formula, metadata)


@pytest.mark.parametrize("kind", KINDS[:2])
def test_reml_without_random_terms(study, kind):
    with pytest.raises(DesignError, match="REML needs a random term .* reml=False"):
        jaxvp.fit(study[0], "~ Age", study[1], reml=True, **options_of(kind))


def numbered(names):
    return [str(i) for i in range(len(names))]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e, m: (e.rename(columns="other {}".format), m), "no sample name .* usual reasons"),
        (lambda e, m: (e.rename(columns=str.upper), m), "differ in case.*'s0' .*'S0'"),
        (
            lambda e, m: (e, m.reset_index(names="id")),
            r"column 'id' holds 24 of the names in expression.columns: metadata.set_index\('id'\)",
        ),
        (
            lambda e, m: (e.set_axis(range(N), axis=1), m.set_axis(numbered(m.index))),
            r"numbers in expression.columns and text .* = expression.columns.astype\(str\)",
        ),
        (
            lambda e, m: (e.set_axis(numbered(m.index), axis=1), m.set_axis([*range(N)])),
            r"numbers in metadata.index and text .* = metadata.index.astype\(str\)",
        ),
        (
            lambda e, m: (e.T.reset_index(drop=True), m.reset_index(drop=True)),
            "both have a RangeIndex.*set_index the sample names on both, or pass an array",
        ),
        (lambda e, m: (e.rename(columns={"s1": "s0"}), m), "sample names of the expr.*'s0' .2 tim"),
        (lambda e, m: (e.rename(index={"g1": "g0"}), m), "gene names of the expr.*'g0' .2 times"),
        (lambda e, m: (e, m.rename(index={"s1": "s0"})), "sample names of the meta.*'s0' .2 times"),
        (
            lambda e, m: (e.iloc[:, :5].set_axis(m.index[:5], axis=0), m),
            "both axes .* match .*5 in its rows, 5 in its columns.* or pass an array",
        ),
        (lambda e, m: (e.to_numpy(), m), r"shape \(5, 24\) has 5 rows .* pass expression.T"),
        (lambda e, m: (e.to_numpy()[:, :7], m), r"shape \(5, 7\) has 5 rows for the 24 samples"),
        (
            lambda e, m: (e.astype(object).replace({e.iloc[2, 3]: "high"}), m),
            "'g2' holds text, 'high' in sample 's3'.*drop.*pd.to_numeric",
        ),
        (lambda e, m: (e.iloc[:, :0], m), "no sample name .* the expression is empty"),
        (lambda e, m: (e.iloc[:, :1], m), "one sample, 's0', is in both tables"),
        (lambda e, m: (e, m.iloc[:0]), "the metadata has no samples"),
        (lambda e, m: (e, m.iloc[:1]), "the metadata has one sample, 's0'"),
        (lambda e, m: (None, m), "must be a DataFrame or a 2-d array"),
        (lambda e, m: (e, m.to_dict()), "metadata must be a pandas DataFrame .*, not dict"),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_measurements(study, kind, change, message):
    expression, metadata = change(*study)
    formula = SLOPE if kind == "slopes" else FORMULA
    with pytest.raises(DataError, match=f"(?s){message}"):
        jaxvp.fit(expression, formula, metadata, **options_of(kind))


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
        ({"weights": np.ones(N - 1)}, DataError, "one for each of the 24 samples"),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_options(study, kind, options, error, message):
    formula = SLOPE if kind == "slopes" else FORMULA
    with pytest.raises(error, match=message):
        jaxvp.fit(study[0], formula, study[1], **options_of(kind) | options)


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
@pytest.mark.parametrize("kind", KINDS)
def test_one_warning(study, kind, formula, change, message):
    """It points at the line of the call, not into jaxvp, and then the fit begins."""
    expression, metadata = study
    options = {"weights": pd.Series(np.arange(1.0, N + 1), metadata.index)}
    options = options if kind == "weights" else {}
    formula += " + (0 + Slope|Half)" * (kind == "slopes")
    metadata["Half"], metadata["Slope"] = np.repeat(list("abc"), 8), np.arange(N) % 7.0
    metadata["Holes"] = metadata["Age"].where(np.arange(N) > 2)
    if change is not None:
        expression, metadata = change(expression, metadata)
    with (
        pytest.warns(UserWarning, match=message) as caught,
        pytest.raises(AssertionError, match="a fit was begun"),
    ):
        jaxvp.fit(expression, formula, metadata, **options)
    assert [warning.filename for warning in caught] == [__file__]


class TestWorks:
    """Input that looks odd and is right."""

    @pytest.fixture(autouse=True)
    def no_fit(self):
        """Here fits are wanted."""

    @pytest.fixture(
        params=["intercepts", *(pytest.param(k, marks=pytest.mark.slow) for k in KINDS[1:])]
    )
    def fit(self, request):
        formula = "~ Age + (0 + Number|Individual)" if request.param == "slopes" else FORMULA
        # A weight a measurement: genes have products of their own.
        weights = np.linspace(0.5, 2, 5 * N).reshape(N, 5)

        def call(expression, metadata, **options):
            if request.param == "weights":
                options["weights"] = weights[:, : genes(expression)]
            return jaxvp.fit(expression, formula, metadata, **options)

        def genes(expression):
            return next(size for size in np.shape(expression) if size != N)

        return call

    @pytest.fixture
    def expected(self, study, fit):
        return fit(*study)

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
    def test_containers(self, study, fit, expected, change):
        measured = change(study[0])
        if isinstance(measured, np.ndarray):
            measured.setflags(write=False)
        found = fit(measured, study[1])
        np.testing.assert_allclose(found.fractions, expected.fractions, rtol=1e-9, atol=1e-12)

    def test_numbers_of_other_kinds(self, study, fit):
        expression, metadata = study
        whole = (expression * 100).round()
        with warnings.catch_warnings():  # they look like counts
            warnings.simplefilter("ignore")
            expected = fit(whole, metadata).fractions
            integers = fit(whole.astype(int), metadata).fractions
        np.testing.assert_array_equal(integers, expected)
        single = fit(expression.astype(np.float32), metadata).fractions
        double = fit(expression.astype(np.float32).astype(float), metadata)
        np.testing.assert_allclose(single, double.fractions, rtol=1e-9, atol=1e-12)

    def test_tiny_variance(self, study, fit, expected):
        tiny = (study[0] - study[0].mean(axis=1).to_numpy()[:, None]) * 1e-150
        found = fit(tiny, study[1])
        assert (found.diagnostics["status"] == "converged").all()
        np.testing.assert_allclose(found.fractions, expected.fractions, rtol=1e-6, atol=1e-9)

    def test_no_genes(self, study, fit, expected):
        found = fit(study[0].iloc[:0], study[1])
        for name in ("fractions", "variances", "coefficients", "theta", "diagnostics"):
            table = getattr(found, name)
            assert len(table) == 0 and list(table) == list(getattr(expected, name))
        assert len(found.standard_errors) == len(found.sigma) == len(found.log_likelihood) == 0

    def test_a_block_larger_than_the_study(self, study, fit, expected):
        found = fit(*study, block_size=100_000)
        np.testing.assert_allclose(found.fractions, expected.fractions, rtol=1e-9, atol=1e-12)
