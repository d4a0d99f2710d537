"""Logarithm and cosine beside NumPy's in long double."""

import jax
import numpy as np
import pytest

from jaxvp.likelihood.elementary import cosine, log, log1p
from jaxvp.target import traced_for

EPS = np.finfo(float).eps


def compiled(function, *arguments, platform="cpu"):
    with jax.enable_x64(True), traced_for(platform):
        return np.asarray(jax.jit(function)(*arguments))


def test_logarithms_are_right_to_two_units_in_the_last_place():
    rng = np.random.default_rng(0)
    x = np.concatenate([np.exp(rng.uniform(-700, 700, 4000)), rng.uniform(0.5, 2, 4000)])
    x = np.append(x, [1.0, np.sqrt(0.5), np.sqrt(2), np.finfo(float).tiny, np.finfo(float).max])
    exact = np.log(x.astype(np.longdouble))
    assert (abs(compiled(log, x) - exact) <= 2 * EPS * abs(exact)).all()
    assert (abs(compiled(log1p, x) - np.log1p(x.astype(np.longdouble))) <= 2 * EPS * 710).all()
    small = np.geomspace(1e-300, 1, 1000)
    assert abs(compiled(log1p, small) - np.log1p(small)).max() <= EPS


def test_where_there_is_no_logarithm():
    x = np.array([0.0, -0.0, -1.0, np.inf, -np.inf, np.nan])
    with np.errstate(all="ignore"):
        expected = np.log(x)
    np.testing.assert_array_equal(compiled(log, x), expected)


def test_derivatives_of_logarithms():
    x = np.geomspace(1e-3, 1e3, 20)
    np.testing.assert_allclose(compiled(jax.vmap(jax.grad(log)), x), 1 / x, rtol=1e-14)
    second = compiled(jax.vmap(jax.grad(jax.grad(log))), x)
    np.testing.assert_allclose(second, -1 / x**2, rtol=1e-14)


def test_cosines_are_right_to_rounding():
    rng = np.random.default_rng(1)
    angle = np.concatenate([rng.uniform(-10, 10, 4000), rng.uniform(0, 1000 * np.pi, 4000)])
    angle = np.append(angle, np.pi * np.arange(0, 500) / 2)
    exact = np.cos(angle.astype(np.longdouble))
    assert abs(compiled(cosine, angle) - exact).max() <= 2 * EPS


@pytest.mark.parametrize("function, theirs", [(log, np.log), (log1p, np.log1p), (cosine, np.cos)])
def test_single_precision_and_an_accelerator_have_jax_s_own(function, theirs):
    x = np.geomspace(1e-6, 1e3, 50)
    np.testing.assert_allclose(compiled(function, x, platform="cuda"), theirs(x), rtol=1e-12)
    single = compiled(function, x.astype(np.float32))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, theirs(x), rtol=1e-4, atol=1e-4)
