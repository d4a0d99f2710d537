"""On a GPU the numbers are those of the CPU: a smoke test, skipped where there is none."""

import numpy as np
import pytest

import jaxvp


@pytest.mark.gpu
@pytest.mark.parametrize("reml", [False, True], ids=["ML", "REML"])
def test_a_gpu_agrees_with_the_cpu(gpu, reml):
    import jax

    study = jaxvp.simulate(300, 60, {"Individual": 12, "Tissue": 3}, zero_probability=0.3)
    one, other = (
        jaxvp.fit(study.expression, study.formula, study.metadata, reml=reml, devices=[device])
        for device in (gpu, jax.devices("cpu")[0])
    )
    assert (one.diagnostics["status"] == other.diagnostics["status"]).all()
    for name in ("fractions", "variances", "coefficients", "sigma", "log_likelihood"):
        mine, its = getattr(one, name), getattr(other, name)
        np.testing.assert_allclose(mine, its, rtol=1e-8, atol=1e-8, err_msg=name)
