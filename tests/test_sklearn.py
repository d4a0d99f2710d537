"""scikit-learn: its own battery, pipelines, searches, and what the estimators compute.

Models without random terms need no compiled program, and most tests here are content with them.
"""

import pickle
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from test_prediction import CROSSED, result_at

import jaxvp

sklearn = pytest.importorskip("sklearn")

import references  # noqa: E402
from sklearn.base import clone  # noqa: E402
from sklearn.decomposition import PCA  # noqa: E402
from sklearn.model_selection import GridSearchCV, KFold  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.utils.estimator_checks import parametrize_with_checks  # noqa: E402

from jaxvp.design import build  # noqa: E402
from jaxvp.formula import Formula  # noqa: E402
from jaxvp.integrations.sklearn.partition import bic, held_out  # noqa: E402
from jaxvp.sklearn import (  # noqa: E402
    MixedEffectsResidualizer,
    VariancePartition,
    VarianceSelector,
)

# Checks of scikit-learn's battery that an estimator may fail, each with the reason: none.
EXCEPTIONS: dict[str, str] = {}


@parametrize_with_checks(
    [VariancePartition(), VarianceSelector(), MixedEffectsResidualizer()],
    expected_failed_checks=lambda estimator: EXCEPTIONS,
)
@pytest.mark.filterwarnings("ignore")
def test_battery(estimator, check):
    """The battery knows no metadata, so that the formula is the one that reads none."""
    check(estimator)


@pytest.fixture(scope="module")
def study():
    """X (samples x features), metadata: a batch effect in the first half of the features."""
    rng = np.random.default_rng(0)
    n = 48
    metadata = pd.DataFrame(
        {
            "Batch": np.resize(["a", "b", "c"], n),
            "Noise": np.resize(["p", "q"], n),
            "Age": rng.uniform(20, 80, n),
            "g": np.repeat([f"g{i}" for i in range(8)], 6),
        },
        index=[f"s{i}" for i in range(n)],
    )
    values = rng.normal(size=(n, 8)) + 5
    values[:, :4] += 3 * pd.factorize(metadata["Batch"])[0][:, None]
    names = [f"gene_{i}" for i in range(8)]
    return pd.DataFrame(values, metadata.index, names), metadata


@pytest.fixture
def routing():
    with sklearn.config_context(enable_metadata_routing=True):
        yield


# What is computed


def test_fractions_are_those_of_fit(study):
    X, metadata = study
    model = VariancePartition("~ Batch + Age").fit(X, metadata=metadata)
    expected = jaxvp.fit(X, "~ Batch + Age", metadata)
    pd.testing.assert_frame_equal(model.fractions_, expected.fractions)
    pd.testing.assert_frame_equal(model.diagnostics_, expected.diagnostics)
    assert model.get_feature_names_out().tolist() == list(X.columns)
    by_array = VariancePartition("~ Batch + Age").fit(X.to_numpy(), metadata=metadata)
    assert list(by_array.fractions_.index) == [f"x{i}" for i in range(8)]
    np.testing.assert_array_equal(by_array.fractions_, model.fractions_)
    out = model.set_output(transform="pandas").transform(X)
    pd.testing.assert_frame_equal(out, X)


def test_selector(study):
    X, metadata = study
    few = VarianceSelector(component="Batch", below=0.5, formula="~ Batch + Age")
    assert few.fit(X, metadata=metadata).get_feature_names_out().tolist() == list(X.columns[4:])
    much = VarianceSelector(component="Batch", above=0.5, formula="~ Batch")
    kept = much.set_output(transform="pandas").fit_transform(X, metadata=metadata)
    pd.testing.assert_frame_equal(kept, X.iloc[:, :4])
    share = much.fractions_["Batch"]
    between = VarianceSelector(
        component="Batch", below=share.max(), above=share.min(), formula="~ Batch"
    )
    assert between.fit(X, metadata=metadata).get_support().sum() == 6
    numeric = VarianceSelector(component="Age", below=0.9).fit(X, metadata=metadata)
    assert list(numeric.fractions_) == ["Age", "Residuals"]
    constant = X.assign(gene_0=1.0)
    assert not much.fit(constant, metadata=metadata).get_support()[0]


def test_residualizer_fixed(study):
    X, metadata = study
    model = MixedEffectsResidualizer("~ Batch + Age", ["Batch"], center=True)
    out = model.fit_transform(X, metadata=metadata)
    expected = jaxvp.fit(X, "~ Batch + Age", metadata).remove(X, ["Batch"], center=True)
    np.testing.assert_allclose(out, expected, atol=1e-12)
    np.testing.assert_allclose(out.mean(axis=0), X.mean(), atol=1e-12)
    new = model.transform(X.iloc[[3, 1]], metadata=metadata.iloc[[3, 1]])
    np.testing.assert_allclose(new, out[[3, 1]], atol=1e-12)
    again = pickle.loads(pickle.dumps(model)).transform(X, metadata=metadata)
    np.testing.assert_array_equal(again, out)
    constant = X.assign(gene_0=1.0)
    untouched = model.fit_transform(constant, metadata=metadata)
    np.testing.assert_array_equal(untouched[:, 0], 1)
    with pytest.raises(ValueError, match="not seen these levels of `Batch`: 'z'"):
        model.transform(X.iloc[:1], metadata=metadata.iloc[:1].assign(Batch="z"))
    with pytest.raises(ValueError, match="1 of 48 samples lack a value"):
        gap = metadata.assign(Batch=metadata["Batch"].where(metadata.index != "s3"))
        model.transform(X, metadata=gap)


def test_residualizer_random(study):
    """Known levels of new samples have their effects, others none."""
    X, metadata = study
    model = MixedEffectsResidualizer("~ (1|g)", ["g"]).fit(X, metadata=metadata)
    out = model.transform(X, metadata=metadata)
    result = jaxvp.fit(X, "~ (1|g)", metadata, progress=False)
    np.testing.assert_allclose(out, result.residuals().T + result.coefficients.to_numpy()[:, 0])
    effects = result.random_effects(format="wide")["effect"]["g"]
    new = pd.DataFrame({"g": ["g3", "unknown", None]}, index=["a", "b", "c"])
    X_new = pd.DataFrame(np.ones((3, 8)), new.index, X.columns)
    found = model.transform(X_new, metadata=new)
    np.testing.assert_allclose(found, [1 - effects["g3"], np.ones(8), np.ones(8)])


@pytest.mark.parametrize("formula", [CROSSED, "~ Age + (1|Individual)", "~ Age"])
def test_held_out_density(formula):
    """The conditional normal density by dense algebra, with known and unknown levels."""
    expression, metadata, _ = references.sample("crossed")
    y = expression[metadata.index].to_numpy()
    new = metadata.iloc[70:].copy()
    new.iloc[0, new.columns.get_loc("Individual")] = "unknown"
    new.iloc[1:3, new.columns.get_loc("Batch")] = "unknown"
    new.iloc[3, new.columns.get_loc("Individual")] = None
    design = build(Formula.parse(formula), metadata.iloc[:70])
    rng = np.random.default_rng(0)
    theta = rng.uniform(0, 1.5, (len(y), len(design.codes)))
    sigma, b = np.full(len(y), 0.8), rng.normal(size=(len(y), 2))
    result = result_at(design, theta, sigma, b)
    # The residual's variance of this result is any: its measurements need not be known again.
    everything = pd.concat([metadata.iloc[:70], new])
    everything.loc[new.index[3], "Individual"] = "nobody else"
    X = np.column_stack([np.ones(len(everything)), everything["Age"]])
    for g in range(len(y)):
        V = np.eye(len(everything))
        for t, name in zip(theta[g], design.random_names, strict=True):
            codes = pd.factorize(everything[name])[0]
            V += t**2 * (codes[:, None] == codes)
        V *= sigma[g] ** 2
        rest = y[g] - X @ b[g]
        carried = V[70:, :70] @ np.linalg.inv(V[:70, :70])
        mean, cov = carried @ rest[:70], V[70:, 70:] - carried @ V[:70, 70:]
        expected = scipy.stats.multivariate_normal(mean, cov).logpdf(rest[70:]) / 30
        one = result_at(design, theta[[g]], _sigma_of(design, theta[g], rest[:70]), b[[g]])
        # At the sigma that belongs to these data, the same density is another number: use it.
        scale = one.sigma.iloc[0] / sigma[g]
        expected = scipy.stats.multivariate_normal(mean, cov * scale**2).logpdf(rest[70:]) / 30
        measured = jaxvp.expression.Expression(
            _Source(y[[g], :70].T), pd.Index(design.samples), one.sigma.index
        )
        object.__setattr__(one, "measurements", measured)
        found = held_out(one, y[[g], 70:].T, new)
        np.testing.assert_allclose(found, [expected], rtol=1e-9)
    assert result.sigma.iloc[0] == 0.8


class _Source:
    def __init__(self, values):
        self.values, self.n_samples = values, len(values)

    def read(self, rows, start, stop):
        return self.values[rows, start:stop]


def _sigma_of(design, theta, rest):
    """The sigma with which these residuals are those of the fit."""
    V = np.eye(design.n)
    for t, codes in zip(theta, design.codes, strict=True):
        V += t**2 * (codes[:, None] == codes)
    size = design.n if len(theta) else design.n - design.p
    return [np.sqrt(rest @ np.linalg.solve(V, rest) / size)]


def test_bic_counts_parameters(study):
    X, metadata = study
    result = jaxvp.fit(X, "~ Batch + Age", metadata)
    expected = -2 * result.log_likelihood + np.log(48) * 5
    np.testing.assert_allclose(bic(result), expected)
    model = VariancePartition("~ Batch + Age", criterion="bic").fit(X, metadata=metadata)
    np.testing.assert_allclose(model.score(X), -expected.mean())


# Pipelines and searches


def test_pipeline(study, routing):
    X, metadata = study
    steps = (
        VariancePartition("~ Batch").set_fit_request(metadata=True),
        MixedEffectsResidualizer("~ Batch", ["Batch"])
        .set_fit_request(metadata=True)
        .set_transform_request(metadata=True),
        VarianceSelector(component="Batch", below=0.5).set_params(formula="~ Batch"),
        PCA(2),
    )
    steps[2].set_fit_request(metadata=True)
    pipeline = make_pipeline(*steps).set_output(transform="pandas")
    out = pipeline.fit(X, metadata=metadata).transform(X, metadata=metadata)
    assert list(out) == ["pca0", "pca1"] and out.notna().all(axis=None)
    assert pipeline[2].fractions_["Batch"].max() < 1e-12
    same = clone(pipeline).fit(X, metadata=metadata).transform(X, metadata=metadata)
    pd.testing.assert_frame_equal(same, out)
    again = pickle.loads(pickle.dumps(pipeline)).transform(X, metadata=metadata)
    pd.testing.assert_frame_equal(again, out)


FORMULAS = ["~ 1", "~ Batch", "~ Noise"]


@pytest.mark.parametrize("criterion", ["held_out", "bic"])
def test_search_over_formulas(study, routing, criterion):
    X, metadata = study
    model = VariancePartition(criterion=criterion)
    model.set_fit_request(metadata=True).set_score_request(metadata=True)
    everything = np.arange(len(X))
    cv = (
        [(everything, everything)] if criterion == "bic" else KFold(3, shuffle=True, random_state=0)
    )
    search = GridSearchCV(model, {"formula": FORMULAS}, cv=cv)
    search.fit(X, metadata=metadata)
    assert search.best_params_ == {"formula": "~ Batch"}
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert list(search.best_estimator_.fractions_) == ["Batch", "Residuals"]


def test_restricted_likelihoods_of_other_fixed_parts_are_refused(study):
    X, metadata = study
    model = VariancePartition("~ Age + (1|g)", reml=True, criterion="bic")
    with pytest.raises(ValueError, match="only among formulas with the same fixed part: name it"):
        model.fit(X, metadata=metadata)
    model.set_params(fixed_part="~ 1")
    with pytest.raises(ValueError, match=r"the fixed part of '~ Age \+ \(1\|g\)' is not '~ 1'"):
        model.fit(X, metadata=metadata)
    for same in ("~ Age", "~ Age + (1|Batch)", "~ 1 + Age"):
        model.set_params(fixed_part=same)._check_comparable()


# Bad input


def test_wrong_metadata(study):
    X, metadata = study
    model = VariancePartition("~ Batch")
    for wrong, what in (
        (metadata.iloc[:9], "inconsistent numbers of samples"),
        (metadata.iloc[::-1], r"not in the same order.*metadata\.loc\[X\.index\]"),
        (metadata[["Age"]], "not a column of the metadata: `Batch`"),
        (None, r"No metadata was passed: fit\(X, metadata=...\)"),
    ):
        with pytest.raises(ValueError, match=what):
            model.fit(X, metadata=wrong)
    with pytest.raises(TypeError, match="pandas DataFrame, one row a sample"):
        model.fit(X, metadata=metadata.to_numpy())


def test_wrong_x(study):
    X, metadata = study
    model = VariancePartition("~ Batch")
    with pytest.raises(TypeError, match="[Ss]parse"):
        model.fit(scipy.sparse.csr_array(X.to_numpy()), metadata=metadata)
    for wrong in (X.iloc[:0], X.iloc[:1], X.iloc[:, :0], X.replace(X.iloc[0, 0], np.inf)):
        with pytest.raises(ValueError):
            model.fit(wrong, metadata=metadata.iloc[: len(wrong)])
    one = model.fit(X.iloc[:, :1], metadata=metadata)
    assert one.fractions_.shape == (1, 2)
    with pytest.raises(ValueError, match="[Ff]eature"):
        one.transform(X)
    with pytest.raises(sklearn.exceptions.NotFittedError):
        clone(model).transform(X)


def test_wrong_parameters(study):
    X, metadata = study
    for estimator, what in (
        (VariancePartition("~ Batch", criterion="aic"), "held_out, bic"),
        (VariancePartition("Batch ~"), "formula|response|~"),
        (VarianceSelector(component="Bach", formula="~ Batch"), "did you mean 'Batch'"),
        (VarianceSelector(component="Bach"), "give the formula"),
        (VarianceSelector(component="Batch", below=10), "between 0 and 1"),
        (MixedEffectsResidualizer("~ Batch", ["Bach"]), "did you mean 'Batch'"),
    ):
        with pytest.raises(ValueError, match=what):
            estimator.fit(X, metadata=metadata)
    constant = VariancePartition("~ Batch").fit(X * 0 + 1, metadata=metadata)
    with pytest.raises(ValueError, match="no feature has a fit"):
        constant.score(X, metadata=metadata)


def test_import_is_lazy_and_says_what_is_missing():
    code = (
        "import sys, jaxvp; assert 'sklearn' not in sys.modules; sys.modules['sklearn'] = None\n"
        "try: jaxvp.sklearn\n"
        "except ModuleNotFoundError as error: print(error)"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "pip install 'jaxvp[sklearn]'" in done.stdout
