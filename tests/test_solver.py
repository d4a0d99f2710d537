"""Solvers and the schedule over genes: certified optima, exact zeros, no gene in another's way."""

from functools import partial

import jax
import numpy as np
import pandas as pd
import pytest

import jaxvp
from jaxvp import batch
from jaxvp.design import build
from jaxvp.formula import Formula
from jaxvp.likelihood import SWEEP_COLUMNS
from jaxvp.simulation import simulate
from jaxvp.solver import Status, newton
from jaxvp.solver.loop import for_each
from jaxvp.statistics import compress

FORMULA = "~ Age + (1|Individual) + (1|Tissue)"
# Each criterion is a program of its own, and compiling is what takes time.
ONE_QUICK = pytest.mark.parametrize("reml", [False, pytest.param(True, marks=pytest.mark.slow)])


@pytest.fixture(scope="module")
def study():
    return jaxvp.simulate(60, 48, {"Individual": 12, "Tissue": 3}, zero_probability=0.4, seed=5)


@pytest.fixture(scope="module")
def result(study):
    expression, metadata = study.expression, study.metadata
    return jaxvp.fit(expression, FORMULA, metadata)


def test_every_gene_is_certified(result):
    diagnostics = result.diagnostics
    assert (diagnostics["status"] == "converged").all()
    assert diagnostics["gradient"].max() <= 1e-6
    assert diagnostics["iterations"].max() <= 14
    zero = result.theta == 0
    assert zero.to_numpy().any() and not zero.to_numpy().all()
    assert (diagnostics["singular"] == zero.any(axis=1)).all()


@pytest.mark.parametrize(
    "formula, reml",
    [
        ("~ Age + (1|Individual)", False),
        pytest.param(FORMULA, False, marks=pytest.mark.slow),
        pytest.param(FORMULA, True, marks=pytest.mark.slow),
    ],
)
def test_optax_finds_the_same_optimum(study, formula, reml):
    expression, metadata = study.expression, study.metadata
    genes = expression.iloc[:24]
    ours = jaxvp.fit(genes, formula, metadata, reml=reml)
    optax = jaxvp.fit(genes, formula, metadata, reml=reml, solver="optax")
    assert (optax.diagnostics["status"] == "converged").all()
    np.testing.assert_allclose(optax.log_likelihood, ours.log_likelihood, atol=1e-6, rtol=0)
    np.testing.assert_allclose(optax.fractions, ours.fractions, atol=1e-5)


def test_float32_is_near(study, result):
    expression, metadata = study.expression, study.metadata
    single = jaxvp.fit(expression, FORMULA, metadata, dtype="float32")
    assert (single.diagnostics["status"] == "converged").all()
    gap = (single.fractions - result.fractions).abs().max(axis=None)
    assert gap < 5e-3
    assert single.fractions.dtypes.eq(np.float64).all()


def one_term():
    """The design of a single random term."""
    metadata = pd.DataFrame({"g": np.repeat(["a", "b", "c"], 1 + np.arange(3))})
    return compress(build(Formula.parse("~ 1 + (1|g)"), metadata)).shared


def test_a_trial_that_is_worse_is_refused():
    """A deviance with a narrow valley: from gamma = 1 Newton's first step lands higher up."""
    from jaxvp.likelihood import Evaluation, no_estimates

    shared = one_term()

    def deviance(gamma):
        x = jax.numpy.log1p(gamma[0])

        def value(x):
            return jax.numpy.sqrt(1e-2 + (x - 0.1) ** 2)

        slope = jax.grad(value)(x) / (1 + gamma[0])
        curve = (jax.grad(jax.grad(value))(x) - jax.grad(value)(x)) / (1 + gamma[0]) ** 2
        slope, curve, fisher, zero = (jax.numpy.array([a]) for a in (slope, curve, 1e-3, 0.0))
        nothing = no_estimates(shared)
        return Evaluation(value(x), slope, curve[None], fisher[None], zero, nothing)

    with jax.enable_x64(True):
        one = np.ones(1)
        state = newton.start(shared)
        step = jax.jit(lambda state: newton.step(deviance, one, state))
        deviances = []
        for _ in range(40):
            state = step(state)
            deviances.append(float(state.deviance))
    assert np.all(np.diff(deviances) <= 1e-12)
    assert bool(state.done) and float(state.x[0]) == pytest.approx(0.1, abs=1e-6)


def test_the_hessian_half_way_is_a_cubic_s():
    """Where the step to come goes the way of the last; beside JAX's second derivatives."""
    rng = np.random.default_rng(3)
    tensor, basis = rng.normal(size=(3, 3, 3)), rng.normal(size=(3, 3))
    first, last, share = rng.uniform(2, 3, 3), 0.2 * rng.normal(size=3), 0.3

    def cubic(x, slope):
        bowl = 30 * jax.numpy.sum((basis @ x) ** 2) + 30 * x @ x
        return slope @ x + bowl + jax.numpy.einsum("ijk,i,j,k", tensor, x, x, x)

    def point(x, slope):
        score, hessian = jax.grad(cubic)(x, slope), jax.hessian(cubic)(x, slope)
        zero = jax.numpy.zeros(())
        return newton.Point(x, cubic(x, slope), score, hessian, hessian, zero)

    with jax.enable_x64(True):
        second = first + last
        away = jax.grad(cubic)(second, np.zeros(3))
        slope = -np.asarray(away + share * jax.hessian(cubic)(second, away) @ last)
        there = np.asarray(jax.hessian(cubic)(second + 0.5 * share * last, slope))
        old, new = point(first, slope), point(second, slope)
        taken, refused = (newton._halfway(old, new, np.array(is_so)) for is_so in (True, False))
        nowhere = old._replace(deviance=np.inf, score=-np.inf * np.ones(3))
        begun = newton._halfway(nowhere, new, np.array(True))
        # At zero and pushed there: it has no part in the step, however large its score.
        edge = new._replace(x=new.x * np.array([1, 1, 0]), score=new.score.at[2].set(1e9))
        held = np.asarray(newton._halfway(old, edge, np.array(True)))
        before, after = np.asarray(old.hessian), np.asarray(new.hessian)
        way = (edge.x - old.x) * np.array([1, 1, 0])
        ahead = float(-way @ edge.score / (way @ after @ way))
        # Turned round, the change would leave no curvature.
        lost = newton._halfway(old._replace(hessian=20 * after), new, np.array(True))
    np.testing.assert_allclose(taken, there, rtol=1e-12)
    assert 0.1 < abs(ahead) < 0.5
    np.testing.assert_allclose(held, after + 0.5 * ahead * (after - before), rtol=1e-12)
    for found in (refused, begun, lost):
        np.testing.assert_array_equal(found, after)


def test_what_the_last_step_tells_saves_evaluations():
    rng = np.random.default_rng(4)
    steep, lowest, start = rng.uniform(0.5, 2, 200), rng.uniform(1, 2, 200), rng.uniform(1, 2, 200)

    def evaluate(x):
        off = steep * (x[0] - lowest)
        grown = jax.numpy.exp(off)
        value, slope, bend = grown - off, steep * (grown - 1), steep**2 * grown
        one = jax.numpy.ones((1, 1, 200))
        return value, slope[None], bend * one, one, 0 * value, None

    counts = []
    with jax.enable_x64(True):
        for exact in (True, False):
            nowhere = newton.start(one_term())._replace(beside=None)
            state = for_each(nowhere, 200)._replace(trial=jax.numpy.asarray(start)[None])
            step = jax.jit(partial(newton.step_in_x, evaluate, exact=exact))
            for _ in range(12):
                state = step(state)
            assert state.done.all()
            np.testing.assert_allclose(state.x[0], lowest, atol=1e-9)
            counts.append(float(state.evaluations.mean()))
    assert counts[0] < 0.9 * counts[1]


@pytest.fixture(scope="module")
def hard_and_easy(study):
    """Genes of all fates, side by side."""
    expression, metadata = study.expression, study.metadata
    genes = expression.iloc[:20].copy()
    genes.iloc[3] = 7.0
    genes.iloc[5, 4] = np.inf
    genes.iloc[6, 0] = -np.inf
    genes.iloc[8] = metadata["Individual"].astype("category").cat.codes.to_numpy() * 0.7
    genes.iloc[9] = 3 + 0.25 * metadata["Age"].to_numpy()
    genes.iloc[11] *= 1e-153
    genes.iloc[12] *= 1e200
    return genes, metadata


def test_statuses(hard_and_easy):
    genes, metadata = hard_and_easy
    result = jaxvp.fit(genes, FORMULA, metadata)
    status = result.diagnostics["status"]
    expected = {
        3: "zero_variance",
        5: "non_finite",
        6: "non_finite",
        8: "zero_residual",
        9: "zero_residual",
    }
    for place in range(20):
        assert status.iloc[place] == expected.get(place, "converged"), place
    failed = (status != "converged").to_numpy()
    tables = (
        result.fractions,
        result.variances,
        result.coefficients,
        result.theta,
        result.sigma,
        result.log_likelihood,
    )
    for table in tables:
        assert np.isnan(table.to_numpy()[failed]).all()
        assert not np.isnan(table.to_numpy()[~failed]).any()
    with pytest.raises(jaxvp.FitError, match=f"5 of 20 genes.*{genes.index[3]}.*zero_variance"):
        jaxvp.fit(genes, FORMULA, metadata, on_error="raise")


def test_no_gene_changes_another_s_numbers(hard_and_easy):
    genes, metadata = hard_and_easy
    result = jaxvp.fit(genes, FORMULA, metadata)
    good = result.diagnostics["status"] == "converged"
    alone = jaxvp.fit(genes[good.to_numpy()], FORMULA, metadata)
    pd.testing.assert_frame_equal(result.fractions[good], alone.fractions, rtol=1e-9, atol=1e-12)
    pd.testing.assert_series_equal(result.log_likelihood[good], alone.log_likelihood, rtol=1e-9)


def test_same_call_same_bits(study, result):
    expression, metadata = study.expression, study.metadata
    again = jaxvp.fit(expression, FORMULA, metadata)
    pd.testing.assert_frame_equal(again.fractions, result.fractions, check_exact=True)
    pd.testing.assert_frame_equal(again.theta, result.theta, check_exact=True)


def test_iterations_run_out(study, monkeypatch):
    expression, metadata = study.expression, study.metadata
    monkeypatch.setattr(batch.program, "MAX_ITERATIONS", 2)
    result = jaxvp.fit(expression, FORMULA, metadata)
    left = result.diagnostics["status"] == "max_iterations"
    assert left.any()
    assert result.fractions[left].isna().all(axis=None)
    assert (result.diagnostics["gradient"][left] > 1e-6).all()
    # Two each time that a gene begins again.
    assert result.diagnostics["iterations"][left].isin([2, 4, 6]).all()


def test_blocks_are_a_matter_of_the_design():
    metadata = pd.DataFrame(
        {"g": np.repeat(np.arange(10), 3).astype(str), "h": np.tile(list("abc"), 10)}
    )
    shared = compress(build(Formula.parse("~ 1 + (1|g) + (1|h)"), metadata)).shared
    size = batch.block_genes(shared, 1_000, 10_000)
    assert size == batch.block_genes(shared, 1_000, 10_000) and size % 16 == 0
    assert size == batch.block_genes(shared, 30, 10)  # nor of samples, nor of few genes
    # Of the smallest systems, many genes, unless their samples are many.
    assert batch.block_genes(shared, 30, 20_000) == 4096
    assert batch.block_genes(shared, 100_000, 20_000) == size


@pytest.mark.parametrize("genes", [513, 1_000, 1_100, 1_537, 2_000, 20_000])
def test_two_cores_have_blocks_of_a_large_system(genes):
    metadata = jaxvp.simulate(1, 400, {"g": 60, "h": 50, "i": 40}, seed=1).metadata
    shared = compress(build(Formula.parse("~ (1|g) + (1|h) + (1|i)"), metadata)).shared
    assert shared.n_columns > SWEEP_COLUMNS
    blocks = batch.blocks_of(genes, batch.block_genes(shared, 400, genes))
    first, second = blocks[::2], blocks[1::2]
    assert sum(b - a for a, b in first) - sum(b - a for a, b in second) <= 512
    assert genes < 20_000 or blocks[0] == (0, 1024)


def test_every_status_has_a_meaning():
    assert all(status.meaning and status.label == status.name.lower() for status in Status)


@pytest.mark.gpu
def test_a_gpu_agrees_with_the_cpu(study, gpu):
    expression, metadata = study.expression, study.metadata
    on_gpu = jaxvp.fit(expression, FORMULA, metadata, devices=[gpu])
    on_cpu = jaxvp.fit(expression, FORMULA, metadata, devices=jax.devices("cpu")[:1])
    pd.testing.assert_frame_equal(on_gpu.fractions, on_cpu.fractions, rtol=1e-8, atol=1e-10)
    pd.testing.assert_series_equal(on_gpu.log_likelihood, on_cpu.log_likelihood, rtol=1e-8)


@ONE_QUICK
def test_two_terms_that_group_the_samples_identically(reml):
    """Only the sum of their variances is determined; it is that of one of them alone."""
    expression, metadata, _ = simulate(30, 60, {"a": 12}, seed=9)
    metadata["same"] = "x" + metadata["a"]
    with pytest.warns(UserWarning, match="identically"):
        both = jaxvp.fit(expression, "~ Age + (1|a) + (1|same)", metadata, reml=reml)
    one = jaxvp.fit(expression, "~ Age + (1|a)", metadata, reml=reml)
    assert (both.diagnostics["status"] == "converged").all()
    np.testing.assert_allclose(both.log_likelihood, one.log_likelihood, atol=1e-8)
    np.testing.assert_allclose(
        both.fractions[["a", "same"]].sum(axis=1), one.fractions["a"], atol=1e-7
    )


def explained(share):
    """A gene that `a` explains but for that share, one that `Age` explains, and the metadata."""
    metadata = simulate(1, 60, {"a": 12}, seed=9).metadata
    rng = np.random.default_rng(0)
    noise = np.sqrt(share) * rng.normal(size=60)
    level = rng.normal(size=12)[np.unique(metadata["a"], return_inverse=True)[1]]
    age = metadata["Age"].to_numpy() / metadata["Age"].std()
    return pd.DataFrame([level + noise, age + noise], ["a", "Age"], metadata.index), metadata


@pytest.mark.parametrize("formula", ["~ Age + (1|a)", "~ Age"])
def test_explained_by_the_fixed_part_but_for_less_than_counts(formula):
    expression, metadata = explained(1e-14)
    result = jaxvp.fit(expression.loc[["Age"]], formula, metadata)
    assert result.diagnostics.loc["Age", "status"] == "zero_residual"
    assert result.fractions.isna().all(axis=None)
    expression, metadata = explained(1e-10)
    result = jaxvp.fit(expression.loc[["Age"]], formula, metadata)
    assert result.diagnostics.loc["Age", "status"] == "converged"
    assert 1e-11 < result.fractions.loc["Age", "Residuals"] < 1e-9


@pytest.mark.parametrize("share", [1e-14, 1e-10, 1e-8])
def test_what_float32_cannot_resolve_is_not_called_converged(share):
    expression, metadata = explained(share)
    result = jaxvp.fit(expression.loc[["a"]], "~ Age + (1|a)", metadata, dtype="float32")
    assert result.diagnostics.loc["a", "status"] != "converged"
    assert result.fractions.isna().all(axis=None)


@pytest.mark.slow
@pytest.mark.parametrize("share", [1.5e-2, 6e-4, 1.5e-4])
def test_float32_ends_where_little_is_left(share):
    """The deviance's rounding is then far above a score that still has digits."""
    levels = {"Donor": 16, "Batch": 4, "Condition": 3}
    shares = {"Condition": 1 - share, "Donor": 0.02 * share, "Batch": 0.0}
    study = simulate(300, 80, levels, covariates=(), fractions=shares, seed=1)
    single, double = (
        jaxvp.fit(study.expression, study.formula, study.metadata, dtype=dtype)
        for dtype in ("float32", "float64")
    )
    assert (single.diagnostics["status"] == "converged").all()
    assert single.diagnostics["iterations"].max() <= 25
    gap = (single.fractions - double.fractions).abs().max(axis=None)
    assert gap < 1e-5


@pytest.mark.parametrize("reml", [False, True])
def test_a_residual_that_vanishes_is_zero_whichever_way_rounding_falls(reml):
    """Now and then the residual sum of squares is exactly 0, and no score can be formed."""
    _, metadata, _ = simulate(1, 40, {"a": 8}, imbalance=0.8, seed=3)
    code = np.unique(metadata["a"], return_inverse=True)[1]
    level = np.random.default_rng(7).normal(size=(200, 8))
    expression = pd.DataFrame(level[:, code], columns=metadata.index)
    result = jaxvp.fit(expression, "~ Age + (1|a)", metadata, reml=reml)
    assert (result.diagnostics["status"] == "zero_residual").all()
    assert result.fractions.isna().all(axis=None)


def test_a_residual_share_of_1e_10_takes_few_evaluations():
    """Where deviances are no better than their rounding, steps are taken on the score's word."""
    levels = {"Individual": 25, "Tissue": 3, "Batch": 4}
    study = simulate(200, 100, levels, imbalance=0.5, seed=1)
    rng = np.random.default_rng(7)
    codes = pd.factorize(study.metadata["Individual"])[0]
    effects = rng.standard_normal((200, codes.max() + 1))[:, codes]
    y = study.expression.copy()
    y[:] = effects + 1e-5 * rng.standard_normal(effects.shape)
    found = jaxvp.fit(y, study.formula, study.metadata).diagnostics
    assert (found["status"] == "converged").all()
    assert found["iterations"].max() < 20
