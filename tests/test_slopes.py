"""Fits with random slopes: lme4's tables, exact boundaries, any unit, what follows from the fit."""

import functools
import warnings
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest
import references
from references import classic_data

import jaxvp
from jaxvp import DataError, DesignError
from jaxvp.design import build
from jaxvp.formula import Formula
from jaxvp.solver import solve_slopes
from jaxvp.statistics import compress_slopes, statistics

FOLDER = Path(__file__).parent / "reference" / "slopes"
DAYS = "~ Days + (Days|Subject)"


@functools.cache
def study(data):
    if data == "sleepstudy":
        metadata = classic_data("sleepstudy").astype({"Subject": str})
        return pd.DataFrame([metadata["Reaction"]], ["Reaction"]), metadata.drop(columns="Reaction")
    return (
        pd.read_csv(FOLDER / f"{data}.expression.csv", index_col="gene"),
        pd.read_csv(FOLDER / f"{data}.metadata.csv", index_col="sample"),
    )


def days_genes():
    """Sleepstudy, and genes on its samples: ordinary, singular in three ways, nothing random."""
    expression, metadata = study("sleepstudy")
    rng = np.random.default_rng(3)
    person, day = pd.factorize(metadata["Subject"])[0], metadata["Days"].to_numpy()
    genes = {"Reaction": expression.loc["Reaction"].to_numpy()}
    for name, root in {
        "ordinary": [[1, 0], [0.1, 0.3]],
        "no_slope": [[1, 0], [0, 0]],
        "no_intercept": [[0, 0], [0.3, 0]],
        "perfect": [[1, 0], [-0.3, 0]],
        "nothing": [[0, 0], [0, 0]],
        "large": [[300, 0], [30, 100]],
    }.items():
        u = rng.standard_normal((18, 2)) @ np.array(root, dtype=float).T
        y = u[person, 0] + u[person, 1] * day
        genes[name] = 7 + y + rng.standard_normal(len(day))
    return pd.DataFrame(genes, index=metadata.index).T, metadata


@functools.cache
def fitted(data, formula, reml):
    expression, metadata = days_genes() if data == "sleepstudy" else study(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return jaxvp.fit(expression, formula, metadata, reml=reml)


def table():
    return pd.read_csv(FOLDER / "lme4.csv")


def cases():
    for (data, formula, reml), rows in table().groupby(["data", "formula", "reml"], sort=False):
        quick = (data, formula, reml) == ("sleepstudy", DAYS, False)
        mark = () if quick else (pytest.mark.slow,)
        yield pytest.param(data, formula, bool(reml), rows, marks=mark, id=f"{formula}-{reml}")


def certified(result):
    return (result.diagnostics["status"] == "converged").all() and (
        result.diagnostics["gradient"] <= 1e-6
    ).all()


@pytest.mark.parametrize("data, formula, reml, rows", list(cases()))
def test_lme4(data, formula, reml, rows):
    result = fitted(data, formula, reml)
    assert certified(result)
    for gene, own in rows.groupby("gene"):
        want = own.set_index("quantity")["value"]
        # At least as good as the best of lme4's starts, and the same function.
        gain = result.log_likelihood[gene] - want["log_likelihood"]
        assert gain > -1e-6
        if gain > 1e-6:  # lme4 stopped short of this one: its numbers are of another point
            continue
        references.same_slopes(result, gene, want)


@pytest.mark.slow
def test_the_tables_have_what_they_should():
    """Boundaries of every kind are in them, or the tests above would say little."""
    growth = fitted("growth", "~ Time + (Time|Subject)", False)
    assert 2 <= growth.diagnostics["singular"].sum() < len(growth.diagnostics)
    correlation = growth.covariance("Subject", correlation=True)["(Intercept)"].xs("Time", level=1)
    assert (correlation.abs() == 1).any()
    tissues = fitted("tissues", "~ (Tissue + 0|Individual)", False)
    assert tissues.diagnostics["singular"].any()


def test_sleepstudy_is_published():
    """Bates et al. (2015), table and text: REML 1743.628, ML 1751.939 (-2 log L)."""
    result = fitted("sleepstudy", DAYS, False)
    assert -2 * result.log_likelihood["Reaction"] == pytest.approx(1751.939, abs=1e-3)
    theta = result.theta.loc["Reaction"]
    assert list(theta.index) == ["Subject.(Intercept)", "Subject.Days.(Intercept)", "Subject.Days"]
    np.testing.assert_allclose(theta, [0.92923, 0.01817, 0.22264], atol=1e-5)


def test_exact_boundaries():
    result = fitted("sleepstudy", DAYS, False)
    singular = result.diagnostics["singular"]
    assert not singular["Reaction"] and not singular["ordinary"]
    assert singular["nothing"] and singular[["no_slope", "no_intercept", "perfect"]].any()
    diagonal = result.theta[["Subject.(Intercept)", "Subject.Days"]]
    assert (diagonal >= 0).all(axis=None)
    assert (singular == (diagonal == 0).any(axis=1)).all()
    correlation = result.covariance("Subject", correlation=True)["Days"].xs(
        "(Intercept)", level="coefficient"
    )
    both = (diagonal["Subject.(Intercept)"] > 0) & singular
    both &= result.theta["Subject.Days.(Intercept)"] != 0
    assert both.any() and (correlation[both].abs() == 1).all()
    assert (correlation[~singular].abs() < 1).all()


def test_fractions():
    """variancePartition's: the variance of every coefficient, and of the fixed columns."""
    result = fitted("sleepstudy", DAYS, False)
    assert list(result.fractions) == ["Subject", "Subject.Days", "Days", "Residuals"]
    covariance = result.covariance("Subject").loc["Reaction"]
    parts = np.array(
        [
            *np.diag(covariance),
            result.coefficients.loc["Reaction", "Days"] ** 2 * np.var(np.arange(10)),
            result.sigma["Reaction"] ** 2,
        ]
    )
    np.testing.assert_allclose(result.fractions.loc["Reaction"], parts / parts.sum(), rtol=1e-12)
    np.testing.assert_allclose(result.variances.loc["Reaction"], parts, rtol=1e-12)
    np.testing.assert_allclose(result.fractions.sum(axis=1), 1, rtol=1e-12)


def test_fractions_at():
    result = fitted("sleepstudy", DAYS, False)
    days = pd.DataFrame({"Days": [0.0, 4.0, 9.0]}, index=["first", "fifth", "last"])
    found = result.fractions_at(days)
    assert found.index.names == ["gene", "row"] and list(found) == ["Subject", "Days", "Residuals"]
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-12)
    assert (found["Days"] == 0).all()
    covariance, sigma = result.covariance("Subject"), result.sigma
    for gene in ("Reaction", "no_slope", "perfect"):
        for row, day in days["Days"].items():
            z = np.array([1.0, day])
            between = z @ covariance.loc[gene].to_numpy() @ z
            share = between / (between + sigma[gene] ** 2)
            assert found.loc[(gene, row), "Subject"] == pytest.approx(share, rel=1e-10)
    with pytest.raises(DataError, match="a DataFrame with a column for every variable"):
        result.fractions_at({"Days": [0]})
    with pytest.raises(DataError, match="has no rows"):
        result.fractions_at(days.iloc[:0])


def test_unknown_group():
    result = fitted("sleepstudy", DAYS, False)
    with pytest.raises(DataError, match="no grouping factor 'Subjects' .did you mean 'Subject'"):
        result.covariance("Subjects")


def test_saved(tmp_path):
    result = fitted("sleepstudy", DAYS, False)
    result.save(tmp_path / "result.zip")
    again = jaxvp.load(tmp_path / "result.zip")
    pd.testing.assert_frame_equal(again.theta, result.theta)
    pd.testing.assert_frame_equal(again.covariance("Subject"), result.covariance("Subject"))
    days = pd.DataFrame({"Days": [3.0]})
    pd.testing.assert_frame_equal(again.fractions_at(days), result.fractions_at(days))
    assert again.design.blocks == ((0, 1),) and again.design.multipliers[0] is None


UNITS = {
    "hours": (lambda d: 24 * d, lambda c: c / 24),
    "a million": (lambda d: 1e6 * d, lambda c: c / 1e6),
    "a millionth": (lambda d: 1e-6 * d, lambda c: c * 1e6),
    "since 1970": (lambda d: d + 20_000.0, lambda c: c),
    "far away": (lambda d: d + 1e6, lambda c: c),
}


@pytest.mark.parametrize("unit", UNITS)
def test_units_and_origins_do_not_matter(unit):
    """The same compiled program; the slope's variance in its own unit."""
    change, back = UNITS[unit]
    expression, metadata = days_genes()
    result = fitted("sleepstudy", DAYS, False)
    moved = metadata.assign(Days=change(metadata["Days"].astype(float)))
    found = jaxvp.fit(expression, DAYS, moved)
    assert certified(found)
    np.testing.assert_allclose(found.log_likelihood, result.log_likelihood, atol=1e-6)
    np.testing.assert_allclose(found.sigma, result.sigma, rtol=1e-6)
    assert (found.diagnostics["singular"] == result.diagnostics["singular"]).all()
    days = pd.DataFrame({"Days": [0.0, 4.5, 9.0]})
    there = found.fractions_at(change(days))
    np.testing.assert_allclose(there, result.fractions_at(days), atol=1e-6)
    slope = found.covariance("Subject")["Days"].xs("Days", level="coefficient") ** 0.5
    want = result.covariance("Subject")["Days"].xs("Days", level="coefficient") ** 0.5
    np.testing.assert_allclose(slope, back(want), rtol=1e-4, atol=1e-5 * back(1.0))


def test_every_gene_is_its_own():
    """Alone, among others or after genes that cannot be fitted: the same fit, with a status."""
    expression, metadata = days_genes()
    result = fitted("sleepstudy", DAYS, False)
    odd = pd.DataFrame(
        [np.full(180, 5.0), np.full(180, np.inf), 3 + 2.0 * metadata["Days"].to_numpy()],
        ["constant", "infinite", "explained"],
        metadata.index,
    )
    found = jaxvp.fit(pd.concat([odd, expression]), DAYS, metadata)
    status = found.diagnostics["status"]
    assert list(status.iloc[:3]) == ["zero_variance", "non_finite", "zero_residual"]
    assert found.theta.iloc[:3].isna().all(axis=None)
    assert found.covariance("Subject").iloc[:6].isna().all(axis=None)
    assert found.fractions_at(pd.DataFrame({"Days": [1]})).iloc[:3].isna().all(axis=None)
    np.testing.assert_allclose(found.theta.iloc[3:], result.theta, atol=1e-9)
    tiny = jaxvp.fit(1e-150 * expression, DAYS, metadata)
    np.testing.assert_allclose(tiny.theta, result.theta, rtol=1e-6, atol=1e-7)


def test_no_better_point_nearby():
    """The certificate is of the deviance itself: random covariances around it are no better."""
    from test_slope_likelihood import dense

    expression, metadata = days_genes()
    result = fitted("sleepstudy", DAYS, False)
    X = np.column_stack([np.ones(180), metadata["Days"]])
    rng = np.random.default_rng(1)
    blocks = [("1 + Days", "Subject")]
    for gene in ("Reaction", "perfect", "nothing"):
        y = expression.loc[gene].to_numpy()
        here = result.covariance("Subject").loc[gene].to_numpy() / result.sigma[gene] ** 2
        best = dense(metadata, X, blocks, [here], y, False)[0]
        assert -2 * result.log_likelihood[gene] == pytest.approx(best, rel=1e-9)
        for size in (1e-3, 0.1):
            for _ in range(3):
                step = size * rng.standard_normal((2, 2)) * [[1], [0.3]]
                root = np.linalg.cholesky(here + 1e-12 * np.eye(2)) + step
                assert dense(metadata, X, blocks, [root @ root.T], y, False)[0] > best - 1e-7


def test_optax_says_what_it_cannot():
    expression, metadata = days_genes()
    with pytest.raises(DataError, match="random slopes need solver="):
        jaxvp.fit(expression, DAYS, metadata, solver="optax")


def test_no_search_goes_round_in_circles():
    """Genes that were not done after 200 evaluations, or 15 to 20, when a null vector was turned.

    Nearly nothing varies, in one direction: its variance is small and others are punished.
    """
    import mixedlm

    rng = np.random.default_rng(0)
    people = np.repeat(np.arange(80), 5)
    age, _ = rng.normal(size=400), rng.integers(0, 10, 400)
    y = rng.normal(size=(400, 2048)) + rng.normal(size=(80, 2048))[people] * rng.integers(
        0, 2, 2048
    )
    metadata = pd.DataFrame({"Age": age, "Ind": people.astype(str)})
    genes = [1682, 853, 466, 1111, 1349, 0, 1, 2]
    found = jaxvp.fit(y[:, genes], "~ Age + (Age|Ind)", metadata)
    assert (found.diagnostics["status"] == "converged").all()
    assert found.diagnostics["iterations"].max() <= 20
    for gene, ours in zip(y[:, genes[:2]].T, found.log_likelihood, strict=False):
        model = mixedlm.lmer("y ~ Age + (Age|Ind)", metadata.assign(y=gene), REML=False)
        assert ours >= model.logLik() - 1e-6


def test_single_precision_stays_single():
    """Traced, not run: one constant in double precision makes the loop's state another type."""
    expression, metadata = days_genes()
    compression = compress_slopes(build(Formula.parse(DAYS), metadata))
    y = np.tile(expression.to_numpy().T[:, :1], 8)
    arguments = (compression.shared, statistics(compression, y).gene)
    single = jax.tree.map(lambda a: np.asarray(a, np.float32), arguments)
    wanted = np.ones(8, bool)
    with jax.enable_x64(True):
        found = jax.eval_shape(partial(solve_slopes, 8, True, "cpu"), *single, wanted, np.int32(9))
    kinds = {leaf.dtype for leaf in jax.tree.leaves(found)}
    assert np.dtype("float64") not in kinds


def test_no_effective_sample_size():
    with pytest.raises(DesignError, match="one correlation within groups.*see fractions_at"):
        fitted("sleepstudy", DAYS, False).effective_sample_size()


@pytest.mark.slow
def test_swept_factor_of_many_levels():
    """More columns than are swept: matrices of one gene; the same optimum as mixedlm's."""
    import mixedlm

    rng = np.random.default_rng(8)
    n, people, batches = 400, 60, 70
    metadata = pd.DataFrame(
        {
            "Time": rng.uniform(0, 3, n),
            "Subject": [f"p{i}" for i in np.arange(n) % people],
            "Batch": [f"b{i}" for i in rng.permutation(np.arange(n) % batches)],
        },
        index=[f"s{i}" for i in range(n)],
    )
    person, batch = np.arange(n) % people, metadata["Batch"].str[1:].astype(int).to_numpy()
    u = rng.standard_normal((people, 2)) * [1, 0.5]
    y = u[person, 0] + u[person, 1] * metadata["Time"] + 0.5 * rng.standard_normal(batches)[batch]
    y = y + rng.standard_normal(n)
    formula = "~ Time + (Time|Subject) + (1|Batch)"
    result = jaxvp.fit(pd.DataFrame([y], ["gene"]), formula, metadata)
    assert certified(result)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = mixedlm.lmer(f"y {formula}", metadata.assign(y=y), REML=False)
    assert result.log_likelihood["gene"] > peer.logLik().value - 1e-6
    assert result.log_likelihood["gene"] == pytest.approx(peer.logLik().value, abs=1e-4)


@pytest.mark.slow
def test_a_second_start_finds_no_better():
    """Many small, noisy genes: the best of ten starts of mixedlm is reached by every one."""
    import mixedlm

    rng = np.random.default_rng(21)
    n, people = 40, 8
    metadata = pd.DataFrame(
        {"Time": np.tile(np.arange(5.0), people), "Subject": np.repeat(list("abcdefgh"), 5)},
        index=[f"s{i}" for i in range(n)],
    )
    expression = pd.DataFrame(
        rng.standard_normal((12, n)), [f"g{i}" for i in range(12)], metadata.index
    )
    formula = "~ Time + (Time|Subject)"
    result = jaxvp.fit(expression, formula, metadata)
    assert certified(result)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for gene, y in expression.iterrows():
            model = mixedlm.lmer(f"y {formula}", metadata.assign(y=y), REML=False)
            for _ in range(4):
                start = np.array([rng.gamma(1), rng.normal(), rng.gamma(1)])
                peer = model.refit(y.to_numpy(), start=start).logLik().value
                assert result.log_likelihood[gene] > peer - 1e-6
