"""The table of starts of models with random slopes, beside dense algebra and fixed starts."""

import dataclasses
import functools

import jax
import numpy as np
import pandas as pd
import pytest

from jaxvp.design import build
from jaxvp.formula import Formula
from jaxvp.solver import loop, prepare, slope_table, slopes, solve_slopes
from jaxvp.solver.table import residual
from jaxvp.statistics import compress_slopes, statistics

FORMULAS = ["~ Age + (Age|g) + (1|h)", "~ Age + (Age||g) + (1|h)", "~ (1|g) + (Age|h)"]


@functools.cache
def study(genes=64):
    """Ages of each person's own; variances of which any may be zero, correlations up to one."""
    rng = np.random.default_rng(0)
    g, h, age = np.repeat(np.arange(12), 5), rng.integers(0, 4, 60), rng.normal(size=60)
    metadata = pd.DataFrame({"g": g, "h": h, "Age": age}).astype({"g": str, "h": str})
    y = rng.normal(size=(60, genes))
    for gene in y.T:
        a, b, c = rng.gamma(1, 1, 3) * rng.integers(0, 2, 3)
        u, v, r = rng.normal(size=12), rng.normal(size=12), rng.choice([-1, 0, 0.6, 1])
        slope = r * u + np.sqrt(1 - r * r) * v
        gene += np.sqrt(a) * u[g] + np.sqrt(b) * slope[g] * age + c * rng.normal(size=4)[h]
    return metadata, y


def prepared(formula, reml):
    metadata, y = study()
    design = build(Formula.parse(formula), metadata)
    compression = compress_slopes(design)
    return design, compression, statistics(compression, y).gene, y


@pytest.mark.parametrize("reml", [False, True])
@pytest.mark.parametrize("formula", FORMULAS)
def test_deviances_at_nodes_are_dense_algebra(formula, reml):
    design, compression, gene, y = prepared(formula, reml)
    shared = compression.shared
    table = prepare("newton", shared, reml)
    axes = [np.asarray(axis) for axis in table.axes]
    with jax.enable_x64(True):
        if shared.cross is not None:
            gene = slope_table.by_class(shared.cross, gene)
        rss = np.asarray(residual(table.eliminated, gene))
    q = np.linalg.qr(design.X)[0]
    scale = np.linalg.norm(y - q @ (q.T @ y), axis=0) / np.sqrt(len(y))
    rng = np.random.default_rng(1)
    for _ in range(6):
        node = tuple(rng.integers(0, len(axis)) for axis in axes)
        places = [axis[i] for axis, i in zip(axes, node, strict=True)]
        v = _covariance(design, shared, compression, places)
        inverse = np.linalg.inv(v)
        information = q.T @ inverse @ q
        projected = inverse - inverse @ q @ np.linalg.solve(information, q.T @ inverse)
        expected = np.einsum("ng,nm,mg->g", y, projected, y) / scale**2
        np.testing.assert_allclose(rss[node], expected, rtol=1e-9)
        log_det = np.linalg.slogdet(v)[1] + reml * np.linalg.slogdet(information)[1]
        np.testing.assert_allclose(table.eliminated.log_det[node], log_det, rtol=1e-9, atol=1e-9)


def _covariance(design, shared, compression, places):
    """V at a node: Gamma in the units of the columns, ``T Gamma~ T'``."""
    places, v = list(places), np.eye(design.n)
    transforms = compression.slopes.transforms
    for block, m, turn in zip(shared.blocks, shared.samples_per_level, transforms, strict=True):
        gammas = np.array([np.expm1(places.pop(0)) / m for _ in range(block.size)])
        gamma = np.diag(gammas)
        if block.eliminated and block.size == 2:
            gamma[0, 1] = gamma[1, 0] = places.pop(0) * np.sqrt(gammas.prod())
        multipliers = [design.multipliers[i] for i in block.design]
        z = np.stack([np.ones(design.n) if c is None else c for c in multipliers], axis=1)
        codes = np.asarray(design.codes[block.design[0]])
        v += (codes[:, None] == codes) * (z @ turn @ gamma @ turn.T @ z.T)
    return v


@pytest.mark.slow
def test_few_evaluations_find_what_three_starts_do():
    _, compression, gene, _ = prepared(FORMULAS[0], False)
    shared, wanted = compression.shared, np.ones(64, bool)
    with jax.enable_x64(True):
        table = prepare("newton", shared, False)
        arguments = (32, False, "cpu", shared, gene, wanted, np.int32(200))
        one, three = (
            jax.jit(solve_slopes, static_argnums=(0, 1, 2))(*arguments, *more)
            for more in ((table,), ())
        )
    assert (np.asarray(one.violation) <= np.maximum(1e-6, one.tolerance)).all()
    found, expected = one.estimates.log_likelihood, three.estimates.log_likelihood
    assert (np.asarray(found) >= np.asarray(expected) - 1e-9).all()
    assert one.evaluations.mean() < 0.4 * three.evaluations.mean()


@pytest.mark.parametrize("own", [False, True])
def test_searches_are_stepped_in_tiles_of_the_width_that_is_asked_for(monkeypatch, own):
    _, compression, gene, _ = prepared(FORMULAS[0], False)
    widths = []

    def iterate(stepped, width, *rest):
        widths.append(width)
        return loop.iterate(stepped, width, *rest)

    monkeypatch.setattr(slopes, "iterate", iterate)
    with jax.enable_x64(True):
        table = prepare("newton", compression.shared, False)
        gene = dataclasses.replace(gene, plain=gene if own else None)
        rest = (compression.shared, gene, np.ones(64, bool), np.int32(200), table)
        jax.eval_shape(lambda *rest: solve_slopes(32, False, "cpu", *rest), *rest)
    assert set(widths) == {32}


def test_what_has_no_table(monkeypatch):
    metadata, _ = study()
    metadata = metadata.assign(Dose=np.random.default_rng(2).normal(size=60))
    for formula in ("~ Age + (Age + Dose|g)", "~ Age + (Age|g) + (Age|h)"):
        shared = compress_slopes(build(Formula.parse(formula), metadata)).shared
        assert slope_table.build(shared, False) is None
    shared = compress_slopes(build(Formula.parse(FORMULAS[0]), metadata)).shared
    assert slope_table.build(shared, False) is not None
    monkeypatch.setattr(slope_table, "_MOST_WEIGHTS", 100)
    assert slope_table.build(shared, False) is None
