"""`simulate`: the design asked for, the truth it reports, and what it refuses."""

import numpy as np
import pandas as pd
import pytest

from jaxvp.simulation import RESIDUALS, simulate


def realised(study, component):
    """Share of the sample variance between the levels of a factor (eta squared), per gene."""
    groups = [study.metadata[part] for part in component.split(":")]
    y = study.expression.T
    fitted = y.groupby(groups).transform("mean")
    return ((fitted - fitted.mean()) ** 2).sum() / ((y - y.mean()) ** 2).sum()


def test_shapes_names_and_order():
    expression, metadata, truth = study = simulate(7, 60, covariates=["Age", "Dose"], seed=3)
    assert expression.shape == (7, 60)
    assert list(metadata.columns) == ["Individual", "Tissue", "Batch", "Age", "Dose"]
    assert list(expression.columns) == list(metadata.index)
    assert list(truth.columns) == ["Batch", "Individual", "Tissue", "Age", "Dose", RESIDUALS]
    assert list(truth.index) == list(expression.index)
    assert study.formula == "~ Age + Dose + (1|Batch) + (1|Individual) + (1|Tissue)"
    np.testing.assert_allclose(truth.sum(axis=1), 1, atol=1e-14)


def test_seed_decides_and_more_genes_change_nothing():
    few, many = simulate(30, 50, seed=5), simulate(700, 50, seed=5)
    pd.testing.assert_frame_equal(few.metadata, many.metadata)
    pd.testing.assert_frame_equal(few.truth, many.truth.iloc[:30])
    pd.testing.assert_frame_equal(few.expression, many.expression.iloc[:30], rtol=1e-12)
    pd.testing.assert_frame_equal(few.expression, simulate(30, 50, seed=5).expression)
    assert not np.allclose(few.expression, simulate(30, 50, seed=6).expression)
    assert many.expression.iloc[0].corr(many.expression.iloc[512]) < 0.6  # blocks differ


def test_balanced_levels_are_even_and_imbalance_is_not():
    even = simulate(0, 103, {"a": 10}, covariates=()).metadata["a"].value_counts()
    assert set(even) == {10, 11}
    uneven = simulate(0, 103, {"a": 10}, covariates=(), imbalance=1.0).metadata["a"].value_counts()
    assert len(uneven) == 10 and uneven.max() > 3 * uneven.min() and uneven.sum() == 103


def test_nested_labels_repeat_and_interactions_follow():
    study = simulate(2, 60, {"cask:batch": 3, "batch": 10}, covariates=())
    assert study.formula == "~ (1|batch) + (1|cask:batch)"
    assert study.metadata["cask"].nunique() == 3
    sizes = study.metadata.groupby(["batch", "cask"]).size()
    assert len(sizes) == 30 and set(sizes) == {2}

    crossed = simulate(2, 200, {"a": 4, "b": 5, "a:b": None}, covariates=())
    assert list(crossed.metadata.columns) == ["a", "b"]
    assert list(crossed.truth.columns) == ["a", "a:b", "b", RESIDUALS]

    deep = simulate(1, 100, {"a": 2, "b:a": 3, "c:b:a": 4}, covariates=())
    assert len(deep.metadata.drop_duplicates()) == 24


def test_shared_fractions_are_realised():
    wanted = {"a": 0.5, "Age": 0.2, "b": 0.1}
    study = simulate(400, 900, {"a": 300, "b": 30}, fractions=wanted, mean=3, scale=2, seed=1)
    assert np.allclose(study.truth[list(wanted)], list(wanted.values()))
    assert np.allclose(study.truth[RESIDUALS], 0.2)
    # The population variance is 4, and the mean is 3.
    assert study.expression.var(axis=1).mean() == pytest.approx(4, rel=0.03)
    assert study.expression.mean(axis=1).mean() == pytest.approx(3, abs=0.03)
    # The covariate has exactly its share of the population variance: beta^2 var(x) = 0.2 * 4.
    x = study.metadata["Age"].to_numpy()
    assert x.mean() == pytest.approx(0, abs=1e-12) and x.var() == pytest.approx(1)
    slope = study.expression.to_numpy() @ x / len(x)
    assert set(np.round(np.abs(slope).mean(), 1)[None]) == {0.9}  # sqrt(0.8) and noise
    assert 0.3 < (slope > 0).mean() < 0.7
    # Between the 300 levels: their share, and 300/900 of what else varies.
    assert realised(study, "a").mean() == pytest.approx(0.5 + 0.5 * 299 / 899, abs=0.02)


def test_fractions_of_each_gene():
    truth = pd.DataFrame({"a": [1.0, 0.0, 0.3], "Age": [0.0, 1.0, 0.3]})
    study = simulate(3, 40, {"a": 8}, fractions=truth, scale=[1.0, 1.0, 0.0])
    assert np.allclose(study.truth["Residuals"], [0, 0, 0.4])
    within = study.expression.T.groupby(study.metadata["a"]).std().max()
    assert within.iloc[0] < 1e-12 < 1e-3 < within.iloc[1]  # gene 1: nothing but a
    correlation = np.corrcoef(study.expression.iloc[1], study.metadata["Age"])[0, 1]
    assert abs(correlation) == pytest.approx(1)
    assert (study.expression.iloc[2] == 8).all()  # scale 0: a constant gene


def test_zero_probability():
    study = simulate(4000, 20, {"a": 4, "b": 3}, zero_probability={"a": 0.6, "Age": 1.0})
    zeros = (study.truth == 0).mean()
    assert zeros["a"] == pytest.approx(0.6, abs=0.03)
    assert zeros["Age"] == 1 and zeros["b"] == 0 and zeros[RESIDUALS] == 0
    everywhere = simulate(4000, 20, {"a": 4, "b": 3}, zero_probability=0.25).truth
    assert np.allclose((everywhere == 0).mean(), [0.25, 0.25, 0.25, 0], atol=0.03)


def test_heavy_tails_have_the_variance_asked_for():
    shares = {RESIDUALS: 1.0}
    study = simulate(500, 400, {"a": 4}, fractions=shares, student_t=5, scale=3, seed=2)
    normal = simulate(500, 400, {"a": 4}, fractions=shares, scale=3, seed=2)
    z, reference = (s.expression.to_numpy() - 8 for s in (study, normal))
    assert (z**2).mean() == pytest.approx(9, rel=0.03)
    # Student t, 5 degrees of freedom: P(|z| > 4 sd) is 25 times the normal's.
    assert (np.abs(z) > 12).mean() > 10 * (np.abs(reference) > 12).mean()


def test_float32_and_no_genes():
    assert (simulate(3, 20, {"a": 3}, dtype="float32").expression.dtypes == "float32").all()
    none = simulate(0, 20, {"a": 3})
    assert none.expression.shape == (0, 20) and none.truth.shape == (0, 3)
    assert simulate(2, 20, {}, covariates=()).formula == "~ 1"


@pytest.mark.parametrize(
    "arguments, culprit",
    [
        (dict(n_genes=-1), "n_genes=-1"),
        (dict(n_samples=1), "n_samples=1"),
        (dict(levels={"a": 30}, n_samples=20), "'a' has 30 levels, for 20 samples"),
        (dict(levels={"a": 9, "b:a": 9}, n_samples=20), "'b:a' has 9 levels in each of 9"),
        (dict(levels={"a": 0}), "'a': 0 is not"),
        (dict(levels={"a": None}), "'a': None is not"),
        (dict(levels={"b:a": 3}), "nested in 'a'"),
        (dict(levels={"a": 3, "b": 3, "a:b": 3}), "'a:b' is the interaction"),
        (dict(levels={"Age": 3}), "'Age' names two"),
        (dict(levels={RESIDUALS: 3}), "'Residuals' names two"),
        (dict(covariates=[f"x{i}" for i in range(100)]), "100 covariates"),
        (dict(fractions={"Tisue": 0.5}), "'Tisue'; this design has"),
        (dict(fractions={"Tissue": -0.5}), "'Tissue'] is negative"),
        (dict(fractions={"Tissue": [0.5, 0.5]}), "'Tissue'\\]: one finite number, or one for each"),
        (dict(fractions={"Tissue": 0.6, "Batch": 0.5}), "add up to 1.1"),
        (dict(fractions={"Tissue": 0.6, RESIDUALS: 0.1}), "add up to 0.7"),
        (dict(fractions={"Tissue": 0.6}, zero_probability=0.5), "zero_probability is for drawn"),
        (dict(zero_probability={"Tisue": 0.5}), "'Tisue'"),
        (dict(zero_probability=1.5), "is 1.5"),
        (dict(imbalance=-1), "imbalance=-1"),
        (dict(student_t=2), "student_t=2"),
        (dict(scale=-1.0), "scale must not be negative"),
        (dict(mean=np.nan), "mean: one finite"),
        (dict(dtype="int64"), "dtype='int64'"),
    ],
)
def test_what_is_refused_is_named(arguments, culprit):
    with pytest.raises(ValueError, match=culprit):
        simulate(**({"n_genes": 5} | arguments))
