"""Weights and missing values: dense algebra from several starts, samples dropped by hand, statuses.

All fits have one design, so that few programs are compiled.
"""

import functools

import numpy as np
import oracles
import pandas as pd
import pytest
from weighted_study import WeightedStudy

import jaxvp
from jaxvp import DataError

GENES, N = 12, 60
MIXED, FIXED = "~ Age + Tissue + (1|Individual) + (1|Batch)", "~ Age + Tissue"

# Programs of their own to compile: not in the quick tests.
SLOW_REML = pytest.param(True, marks=pytest.mark.slow)
SLOW_MIXED = pytest.param(MIXED, marks=pytest.mark.slow)


@functools.cache
def study():
    """Expression (genes x samples), metadata."""
    made = jaxvp.simulate(
        GENES, N, {"Individual": 14, "Tissue": 3, "Batch": 4}, zero_probability=0.3, seed=1
    )
    return made.expression, made.metadata


@functools.cache
def weighted():
    """In the second gene one individual and some samples are lost."""
    expression, metadata = study()
    lost = metadata["Individual"] == metadata["Individual"].iloc[0]
    return WeightedStudy(expression, metadata, lost | (np.arange(N) < 7))


def table():
    return weighted().table


def per_sample():
    return weighted().per_sample


def fitted(formula, reml, what):
    return weighted().fitted(formula, what, reml=reml)


@pytest.fixture(autouse=True)
def no_advice(recwarn):
    """A categorical fixed effect beside random terms is meant here."""


@pytest.mark.parametrize("what", ["own", "sample", "holes", "both"])
@pytest.mark.parametrize("reml", [False, SLOW_REML])
def test_mixed_against_dense_algebra(what, reml):
    result = fitted(MIXED, reml, what)
    X, Zs, names = oracles.design(MIXED, study()[1])
    columns = ["Intercept", *in_patsy_s_order(X)]
    for gene in result.fractions.index[:5]:
        y, w, here = weighted().given(what).observed(gene)
        parts = [Z[here][:, Z[here].any(axis=0)] for Z in Zs]
        found = [oracles.polish(y, X[here], parts, t, reml, w) for t in oracles.starts(2)]
        theta, fit, _ = min(found, key=lambda one: one[1].deviance)
        assert result.diagnostics.loc[gene, "status"] == "converged"
        assert result.diagnostics.loc[gene, "n_obs"] == len(y)
        assert result.log_likelihood[gene] == pytest.approx(fit.log_likelihood, rel=1e-10)
        np.testing.assert_allclose(result.theta.loc[gene, names], theta, atol=1e-7)
        assert result.sigma[gene] == pytest.approx(fit.sigma, rel=1e-8)
        np.testing.assert_allclose(
            result.coefficients.loc[gene, columns], fit.beta, rtol=1e-7, atol=1e-9
        )
        np.testing.assert_allclose(
            result.standard_errors.loc[gene, columns], fit.standard_errors, rtol=1e-7
        )
        spread = w / w.sum() @ (X[here] * fit.beta - w / w.sum() @ (X[here] * fit.beta)) ** 2
        whole = X[here] @ fit.beta
        whole = w / w.sum() @ (whole - w / w.sum() @ whole) ** 2
        expected = pd.Series(
            [
                *(fit.sigma * theta) ** 2,
                *(spread[1:] * whole / spread[1:].sum()),
                fit.sigma**2,
            ],
            [*names, *columns[1:], "Residuals"],
        )
        ours = result.variances.loc[gene, expected.index]
        np.testing.assert_allclose(ours, expected, rtol=1e-6, atol=1e-9)
    assert np.abs(result.fractions.sum(axis=1) - 1).max() < 1e-12


def in_patsy_s_order(X):
    """Names of the fixed columns of patsy, which puts factors first."""
    _, metadata = study()
    columns = {
        "Age": metadata["Age"].to_numpy(),
        **{
            f"Tissue[T.{level}]": (metadata["Tissue"] == level).to_numpy(float)
            for level in sorted(metadata["Tissue"].unique())[1:]
        },
    }
    return [
        next(name for name, values in columns.items() if np.array_equal(values, X[:, j]))
        for j in range(1, X.shape[1])
    ]


@pytest.mark.parametrize("what", ["own", "sample", "holes", "both"])
def test_fixed_against_statsmodels(what):
    result = fitted(FIXED, False, what)
    for gene in result.fractions.index[:5]:
        y, w, here = weighted().given(what).observed(gene)
        fractions, wls = oracles.ols_fractions(y, FIXED, study()[1].iloc[here], w)
        ours = result.fractions.loc[gene, fractions.index]
        np.testing.assert_allclose(ours, fractions, atol=1e-10)
        assert result.sigma[gene] == pytest.approx(np.sqrt(wls.scale), rel=1e-10)
        assert result.log_likelihood[gene] == pytest.approx(wls.llf, rel=1e-10)
        squares = np.sum(w * np.asarray(wls.resid) ** 2) / len(y)
        assert result.variances.loc[gene, "Residuals"] == pytest.approx(squares, rel=1e-10)
        for frame, want in ((result.coefficients, wls.params), (result.standard_errors, wls.bse)):
            np.testing.assert_allclose(
                np.sort(frame.loc[gene]), np.sort(np.asarray(want)), rtol=1e-8, atol=1e-11
            )
    assert result.weighted == (what != "holes")


@pytest.mark.parametrize("formula", [SLOW_MIXED, FIXED])
def test_dropping_by_hand_gives_the_same(formula):
    """Zero weights, missing values and a zero of all genes: the same as a smaller study."""
    expression, metadata = study()
    lost = metadata["Individual"] == metadata["Individual"].iloc[0]
    lost.iloc[5:9] = True
    by_hand = jaxvp.fit(expression.loc[:, ~lost], formula, metadata[~lost])
    ways = {
        "missing": jaxvp.fit(expression.where(~lost, axis=1), formula, metadata),
        "zero": jaxvp.fit(
            expression.where(~lost, np.inf, axis=1),
            formula,
            metadata,
            weights=pd.DataFrame([1.0 * ~lost] * GENES, expression.index),
        ),
        "zero for all": jaxvp.fit(
            expression.where(~lost, np.nan, axis=1), formula, metadata, weights=1.0 * ~lost
        ),
    }
    for way, result in ways.items():
        for name in ("fractions", "variances", "coefficients", "standard_errors"):
            ours, want = getattr(result, name), getattr(by_hand, name)
            pd.testing.assert_frame_equal(ours, want, rtol=1e-8, atol=1e-9, obj=f"{way} {name}")
        np.testing.assert_allclose(result.log_likelihood, by_hand.log_likelihood, rtol=1e-10)
        np.testing.assert_allclose(result.theta, by_hand.theta, atol=1e-7)
        assert (result.diagnostics["n_obs"] == (~lost).sum()).all()


@pytest.mark.slow
def test_common_patterns_share(monkeypatch):
    """Genes that lack the same samples, by statistics that they share and by each one's own."""
    expression, metadata = study()
    lost = metadata["Batch"] == metadata["Batch"].iloc[0]
    some = expression.copy()
    some.iloc[2:9, lost.to_numpy()] = np.nan
    alone = jaxvp.fit(some, MIXED, metadata)
    monkeypatch.setattr("jaxvp.batch.patterns._ENOUGH", 5)
    calls = []
    original = jaxvp.batch.patterns._fit_common
    monkeypatch.setattr(
        "jaxvp.batch.patterns._fit_common", lambda *a: (calls.append(len(a[4])), original(*a))[1]
    )
    shared = jaxvp.fit(some, MIXED, metadata)
    assert calls == [7]
    pd.testing.assert_frame_equal(shared.fractions, alone.fractions, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(shared.log_likelihood, alone.log_likelihood, rtol=1e-10)
    whole = jaxvp.fit(expression, MIXED, metadata)
    complete = [0, 1, 9, 10, 11]
    np.testing.assert_allclose(
        shared.fractions.iloc[complete], whole.fractions.iloc[complete], rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize(
    "formula, enough",
    [
        pytest.param(MIXED, 1, id="mixed-shared", marks=pytest.mark.slow),
        pytest.param(MIXED, 64, id="mixed-own"),
        pytest.param(FIXED, 1, id="fixed-shared"),
        pytest.param(FIXED, 64, id="fixed-own"),
    ],
)
def test_statuses(formula, enough, monkeypatch):
    monkeypatch.setattr("jaxvp.batch.patterns._ENOUGH", enough)
    expression, metadata = study()
    tissues, batches = metadata["Tissue"], metadata["Batch"]
    y = expression.copy()
    y.iloc[0, 3] = np.inf
    y.iloc[1, 4:] = np.nan
    y.iloc[2] = np.nan
    y.iloc[3, (tissues == tissues.iloc[0]).to_numpy()] = np.nan  # a fixed level is lost
    y.iloc[4, (batches != batches.iloc[0]).to_numpy()] = np.nan
    first = ~metadata["Individual"].duplicated()
    y.iloc[5, ~first.to_numpy()] = np.nan  # one observation an individual
    y.iloc[6] = y.iloc[6].where(np.arange(N) > 9).mask(np.arange(N) > 9, 7.0)
    fitted_part = 3 + 0.1 * metadata["Age"] + (tissues == tissues.unique()[1])
    y.iloc[7] = fitted_part.where(np.arange(N) > 9)
    # Every gene lacks something: none goes with the shared statistics, whose program is another.
    lacking = expression.copy()
    lacking.iloc[:, 8] = np.nan  # one of the samples that are looked at
    y.iloc[[0, *range(8, GENES)], 8] = np.nan
    result = jaxvp.fit(y, formula, metadata)
    mixed = formula == MIXED
    expected = [
        "non_finite",
        "too_few_observations",
        "too_few_observations",
        "rank_deficient",
        "single_level" if mixed else "converged",
        "too_few_observations" if mixed else "converged",
        "zero_variance",
        "zero_residual",
        *["converged"] * 4,
    ]
    assert list(result.diagnostics["status"]) == expected
    failed = np.array(expected) != "converged"
    assert result.fractions[failed].isna().all(axis=None)
    assert result.log_likelihood[failed].isna().all()
    assert list(result.diagnostics["n_obs"].iloc[[1, 2, 8]]) == [4, 0, N - 1]
    plain = jaxvp.fit(lacking, formula, metadata)
    np.testing.assert_allclose(
        result.fractions.iloc[9:], plain.fractions.iloc[9:], rtol=1e-9, atol=1e-12
    )
    with pytest.raises(jaxvp.FitError, match=r"gene_1 \(non_finite\)"):
        jaxvp.fit(y, formula, metadata, on_error="raise")


def test_bad_weights_of_a_gene():
    expression, metadata = study()
    w = table().copy()
    w.iloc[3, 2], w.iloc[4, 5], w.iloc[5], w.iloc[6, 0] = -1, np.nan, 0, np.inf
    result = jaxvp.fit(expression, MIXED, metadata, weights=w)
    assert list(result.diagnostics["status"][3:7]) == ["bad_weights"] * 4
    others = [0, 1, 2, *range(7, GENES)]
    good = fitted(MIXED, False, "own").fractions.iloc[others]
    np.testing.assert_allclose(result.fractions.iloc[others], good, rtol=1e-9, atol=1e-12)


def test_a_large_mean_and_units_do_no_harm():
    expression, metadata = study()
    plain = fitted(MIXED, False, "own")
    rounded = (expression + 1e8) - 1e8
    shifted = jaxvp.fit(expression + 1e8, MIXED, metadata, weights=table())
    again = jaxvp.fit(rounded, MIXED, metadata, weights=table())
    pd.testing.assert_frame_equal(shifted.fractions, again.fractions, atol=1e-6, rtol=0)
    for factor in (1e-150, 1e150):
        scaled = jaxvp.fit(factor * expression, MIXED, metadata, weights=table())
        pd.testing.assert_frame_equal(scaled.fractions, plain.fractions, rtol=1e-7, atol=1e-9)


def test_nothing_is_tabulated_that_nobody_takes(monkeypatch):
    """Starting points that all genes share are of no use to genes with weights of their own."""
    monkeypatch.setattr("jaxvp.batch.fitter.prepare_many", None)
    expression, metadata = study()
    found = jaxvp.fit(expression, MIXED, metadata, weights=table())
    pd.testing.assert_frame_equal(found.fractions, fitted(MIXED, False, "own").fractions)


def test_weights_that_stay_as_they_are():
    """The same model in other units: sigma is that of a weight of one."""
    expression, metadata = study()
    plain = fitted(MIXED, False, "own")
    kept = jaxvp.fit(expression, MIXED, metadata, weights=100 * table(), rescale_weights=False)
    mean = (100 * table()).where(table() > 0).mean(axis=1)
    np.testing.assert_allclose(kept.log_likelihood, plain.log_likelihood, rtol=1e-10)
    np.testing.assert_allclose(kept.sigma, plain.sigma * np.sqrt(mean), rtol=1e-9)
    random = ["Individual", "Batch", "Age"]
    np.testing.assert_allclose(
        kept.variances[random], plain.variances[random], rtol=1e-8, atol=1e-12
    )
    fixed = jaxvp.fit(expression, FIXED, metadata, weights=100 * table(), rescale_weights=False)
    pd.testing.assert_frame_equal(
        fixed.fractions, fitted(FIXED, False, "own").fractions, rtol=1e-9, atol=1e-12
    )
    np.testing.assert_allclose(
        fixed.variances["Age"], fitted(FIXED, False, "own").variances["Age"] * mean, rtol=1e-9
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda w: w.T,
        lambda w: w.to_numpy(),
        lambda w: w.to_numpy().T,
        lambda w: w.iloc[::-1, ::-1],
        lambda w: w.iloc[[5, 0, 1, 2, 3, 4, *range(6, GENES)]].sample(
            frac=1, axis=1, random_state=1
        ),
    ],
)
def test_containers_of_weights(change):
    expression, metadata = study()
    result = jaxvp.fit(expression, MIXED, metadata, weights=change(table()), block_size=5)
    want = fitted(MIXED, False, "own")
    pd.testing.assert_frame_equal(result.fractions, want.fractions, rtol=1e-9, atol=1e-12)


def test_samples_that_only_one_table_has():
    """Weights go with their samples where some of these are dropped."""
    expression, metadata = study()
    order = np.random.default_rng(3).permutation(N)[: N - 8]
    some = metadata.iloc[order].copy()
    some.iloc[2, some.columns.get_loc("Age")] = np.nan
    by_name = jaxvp.fit(expression, FIXED, some, weights=per_sample())
    by_place = jaxvp.fit(expression, FIXED, some, weights=per_sample().to_numpy())
    tables = pd.DataFrame([per_sample()] * GENES, expression.index)
    by_table = jaxvp.fit(expression, FIXED, some, weights=tables.to_numpy())
    kept = some.dropna(subset="Age").index
    want = jaxvp.fit(expression[kept], FIXED, some.loc[kept], weights=per_sample()[kept])
    for found in (by_name, by_place, by_table):
        pd.testing.assert_frame_equal(found.fractions, want.fractions, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (lambda w: w.iloc[0].iloc[:-2], "no value for 2 of 60 samples, the first is"),
        (lambda w: w.iloc[:, 0], "no value for 60 of 60 samples"),
        (lambda w: w.iloc[0].to_numpy()[:9], "one for each of the 60 samples .* this one has 9"),
        (
            lambda w: w.iloc[:-1],
            "lacks 1 of the 12 genes of the expression, the first is 'gene_12'",
        ),
        (lambda w: w.iloc[:, 2:], "lacks 2 of the 60 samples of the expression"),
        (lambda w: w.rename(columns=str.upper), "lacks 60 of the 60 samples"),
        (lambda w: w.to_numpy()[:5], r"shape \(5, 60\) fit neither the 12 genes and 60 samples"),
        (lambda w: w.iloc[0].where(np.arange(N) != 3, -1.0), "zero or more.* 1 of 60 .* with -1"),
        (lambda w: w.iloc[0].where(np.arange(N) != 3), "zero or more.* 1 of 60 .* with nan"),
        (lambda w: 0 * w.iloc[0], "all weights are zero"),
        (lambda w: -w, "no gene has weights that can be used.*'gene_1' they are negative"),
        (lambda w: 0 * w, "no gene has weights that can be used.*zero everywhere"),
        (lambda w: w.assign(sample_4=np.nan), "no gene has weights that can be used.*NaN"),
        (lambda w: w.astype(object).assign(sample_4="x"), "weights must be numbers"),
        (lambda w: "heavy", "heavy"),
        (lambda w: 3.0, "two axes|makes none"),
    ],
)
@pytest.mark.parametrize("formula", [MIXED, "~ (Age|Batch)"], ids=["intercepts", "slopes"])
def test_weights_that_cannot_be_used(formula, weights, message, monkeypatch):
    def fail(*args, **options):
        raise AssertionError("a fit was begun")

    monkeypatch.setattr("jaxvp.batch.fit_all", fail)
    expression, metadata = study()
    with pytest.raises((DataError, FileNotFoundError), match=f"(?s){message}"):
        jaxvp.fit(expression, formula, metadata, weights=weights(table()))


def test_transforms_stay_those_of_all_samples():
    """A gene that lacks samples has fewer rows, not columns of another scale."""
    expression, metadata = study()
    kept = np.arange(N) % 4 != 1
    holes = expression.mask(np.broadcast_to(~kept, expression.shape))
    result = jaxvp.fit(holes, "~ scale(Age)", metadata)
    age = metadata["Age"]
    scaled = metadata.assign(Scaled=(age - age.mean()) / age.std())
    want = jaxvp.fit(expression.loc[:, kept], "~ Scaled", scaled[kept])
    np.testing.assert_allclose(result.coefficients, want.coefficients, rtol=1e-8)
    np.testing.assert_allclose(result.fractions, want.fractions, rtol=1e-8, atol=1e-10)
    other = jaxvp.fit(expression.loc[:, kept], "~ scale(Age)", metadata[kept])
    assert not np.allclose(result.coefficients, other.coefficients, rtol=1e-3)


def only(kept):
    return lambda y, metadata: y.where(np.asarray(kept(metadata)))


# What a gene has left, its status, and what a study of these samples alone says: an error of the
# design, or (None) the same status.
LOSSES = {
    "infinite": (lambda y, _: y.mask(np.arange(N) == 9, np.inf), "non_finite", None),
    "four": (only(lambda _: np.arange(N) < 4), "too_few_observations", "as many levels as there"),
    "one batch": (
        only(lambda m: m["Batch"] == m["Batch"].iloc[0]),
        "single_level",
        "`Batch` has one level",
    ),
    "one a person": (
        only(lambda m: ~m["Individual"].duplicated()),
        "too_few_observations",
        "`Individual` has as many levels as there are samples",
    ),
    "same age": (only(lambda _: np.arange(N) >= 20), "rank_deficient", "rank-deficient: `Late`"),
    "constant": (lambda y, _: 0 * y + 7, "zero_variance", None),
    "explained": (lambda _, m: 3 + 0.1 * m["Late"], "zero_residual", None),
}


@pytest.mark.parametrize("case", LOSSES)
def test_a_status_is_what_dropping_by_hand_says(case):
    """Nothing is compiled: no gene can be fitted."""
    change, status, error = LOSSES[case]
    expression, metadata = study()
    metadata = metadata.assign(Late=metadata["Age"].where(np.arange(N) < 20, 50.0))
    formula = "~ Late + (1|Individual) + (1|Batch)"
    y = change(expression.iloc[0], metadata).mask(np.arange(N) == 33)
    result = jaxvp.fit(y.to_frame().T, formula, metadata)
    assert list(result.diagnostics["status"]) == [status]
    there = y.notna().to_numpy() | (np.arange(N) == 33) * (error is None)
    left = y[there].to_frame().T
    if error is None:
        by_hand = jaxvp.fit(left, formula, metadata[there])
        assert list(by_hand.diagnostics["status"]) == [status]
    else:
        with pytest.raises(jaxvp.DesignError, match=error):
            jaxvp.fit(left, formula, metadata[there])
