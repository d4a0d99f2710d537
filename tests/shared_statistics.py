"""Genes that share their products, and genes of every kind, for other ways to form these."""

import jax
import numpy as np

import jaxvp
from jaxvp.design import build
from jaxvp.formula import Formula
from jaxvp.statistics import compress, compress_slopes, statistics


def formed_by_numpy(genes, levels, others):
    """A compression, measurements (samples x genes, genes as rows in memory) and NumPy's products.

    ``others`` may be n (80), a formula, and whether samples have weights.
    """
    n, formula = others.get("n", 80), others.get("formula")
    study = jaxvp.simulate(genes, n, levels, zero_probability=0.4, imbalance=0.5, seed=4)
    metadata = study.metadata.assign(t=np.tile(np.arange(5.0), n // 5))
    design = build(Formula.parse(formula or study.formula), metadata)
    weights = np.random.default_rng(4).gamma(2, 0.5, n) if "weights" in others else None
    compression = (compress_slopes if design.slopes else compress)(design, weights)
    y = np.ascontiguousarray(study.expression.to_numpy() + 20.0).T
    return compression, y, statistics(compression, y)


def are_those_of(found, host, genes=slice(None)):
    """Products, scales and least squares, of these genes, are those of a host's block."""
    expected = (host.gene, host.scale, host.ols)
    for mine, its in zip(jax.tree.leaves(found[:3]), jax.tree.leaves(expected), strict=True):
        mine, its = mine[..., genes], its[..., genes]
        assert mine.shape == its.shape
        np.testing.assert_allclose(mine, its, rtol=1e-11, atol=1e-11 * np.abs(its).max(initial=0))


def of_every_kind(genes, n=60, levels=None, steep=1e4):
    """A study of n samples, some of whose genes are no ordinary ones.

    Of one the levels of a term explain all but what is ``steep`` times less.
    """
    study = jaxvp.simulate(genes, n, levels or {"g": 8, "h": 4}, zero_probability=0.4, seed=5)
    table, rng = study.expression.copy(), np.random.default_rng(5)
    table.iloc[3] = 7.0
    table.iloc[5, 2] = np.inf
    table.iloc[9] *= 1e-200
    table.iloc[11] = np.repeat(table.iloc[11, :8].to_numpy(), n // 8 + 1)[:n]
    level = study.metadata["g"].astype("category").cat.codes.to_numpy()
    table.iloc[13] = steep * level + rng.normal(size=n)
    return table, study.formula, study.metadata
