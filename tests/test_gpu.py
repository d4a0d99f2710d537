"""On a GPU the numbers are those of the CPU: every kind of model, skipped where there is no GPU."""

import jax
import numpy as np
import pandas as pd
import pytest

import jaxvp

TABLES = ("fractions", "variances", "coefficients", "sigma", "log_likelihood")
SMALL = {"Individual": 12, "Tissue": 3}


def simulated(levels, samples=60, genes=300, seed=0):
    return jaxvp.simulate(genes, samples, levels, zero_probability=0.3, imbalance=0.5, seed=seed)


def assert_same(gpu, expression, formula, metadata, rtol=1e-8, **options):
    one, other = (
        jaxvp.fit(expression, formula, metadata, devices=[device], **options)
        for device in (gpu, jax.devices("cpu")[0])
    )
    assert (one.diagnostics["status"] == other.diagnostics["status"]).all()
    assert one.diagnostics["status"].eq("converged").mean() > 0.9
    for name in TABLES:
        mine, its = getattr(one, name), getattr(other, name)
        np.testing.assert_allclose(mine, its, rtol=rtol, atol=rtol, err_msg=name)


@pytest.mark.gpu
@pytest.mark.parametrize("reml", [False, True], ids=["ML", "REML"])
def test_a_gpu_agrees_with_the_cpu(gpu, reml):
    study = simulated(SMALL)
    assert_same(gpu, study.expression, study.formula, study.metadata, reml=reml)


@pytest.mark.gpu
@pytest.mark.parametrize(
    "levels",
    [{"g": 90, "h": 70}, {"g": 90, "h": 50, "i": 40}, {"g": 400, "h": 300, "i": 8}],
    ids=str,
)
def test_large_systems_do(gpu, levels):
    study = simulated(levels, samples=1200, genes=64, seed=1)
    assert_same(gpu, study.expression, study.formula, study.metadata)


@pytest.mark.gpu
def test_many_terms_do(gpu):
    study = simulated(
        {"a": 20, "b": 6, "c": 5, "d": 4, "e": 3, "f": 3}, samples=300, genes=100, seed=2
    )
    assert_same(gpu, study.expression, study.formula, study.metadata)


@pytest.mark.gpu
def test_random_slopes_do(gpu):
    study = simulated({"g": 20}, samples=100, genes=50, seed=3)
    metadata = study.metadata.assign(t=np.tile(np.arange(5.0), 20))
    assert_same(gpu, study.expression, "~ t + (t|g)", metadata, rtol=1e-6)


@pytest.mark.gpu
def test_weights_and_missing_values_do(gpu):
    study = simulated(SMALL, genes=60, seed=4)
    rng = np.random.default_rng(4)
    weights = (
        pd.DataFrame(rng.uniform(0.5, 2, study.expression.shape))
        .set_axis(study.expression.index, axis=0)
        .set_axis(study.expression.columns, axis=1)
    )
    assert_same(gpu, study.expression, study.formula, study.metadata, weights=weights)
    holes = study.expression.mask(rng.uniform(size=study.expression.shape) < 0.1)
    assert_same(gpu, holes, study.formula, study.metadata)


@pytest.mark.gpu
def test_single_precision_is_near(gpu):
    study = simulated(SMALL, seed=5)
    assert_same(gpu, study.expression, study.formula, study.metadata, rtol=1e-3, dtype="float32")


@pytest.mark.gpu
def test_the_functional_core_does(gpu):
    study = simulated(SMALL, genes=20, seed=6)
    model = jaxvp.functional.design(study.formula, study.metadata)
    Y = study.expression.to_numpy().T
    with jax.enable_x64(True):
        found = []
        for device in (gpu, jax.devices("cpu")[0]):
            with jax.default_device(device):
                found.append(jax.jit(lambda y: jaxvp.functional.fit_genes(y, model).fractions)(Y))
    np.testing.assert_allclose(*map(np.asarray, found), atol=1e-8)
