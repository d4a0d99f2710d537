"""The statistics in pure JAX against the host's, and their derivatives against finite ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from jaxvp.batch import own_products
from jaxvp.design import build
from jaxvp.formula import Formula
from jaxvp.likelihood import evaluate
from jaxvp.statistics import compress, layout, structure, sums, traced_statistics

N, GENES = 40, 3


@pytest.fixture(scope="module")
def prepared():
    rng = np.random.default_rng(5)
    codes = np.r_[np.arange(14), rng.integers(0, 14, N - 14)]
    metadata = pd.DataFrame(
        {
            "Age": rng.normal(50, 9, N),
            "Large": [f"l{i:02}" for i in codes],
            "Small": rng.choice(list("abc"), N),
        }
    )
    design = build(Formula.parse("~ Age + (1|Large) + (1|Small)"), metadata)
    w = rng.uniform(0.6, 1.7, (N, GENES))
    w[codes == 3, 1] = 0  # a level is lost
    y = rng.normal(size=(N, GENES)) + 5
    return design, compress(design).shared, y, w


@pytest.mark.parametrize("nodes", [12, 14])
def test_same_as_on_the_host(prepared, nodes, monkeypatch):
    # Of fewer nodes than it needs the host would take some for extreme levels.
    enough = np.zeros(GENES, dtype=int)
    monkeypatch.setattr("jaxvp.statistics.nodes.node_counts", lambda *_: enough)
    design, shared, y, w = prepared
    s = structure(design, shared)
    found = sums(s, y, w)
    host = own_products(s, found, nodes)
    measured = np.where(w > 0, y, np.nan)
    with jax.enable_x64(True):
        where = layout(design, shared)
        mapped = jax.jit(
            jax.vmap(
                lambda y, w: traced_statistics(where, s.Q, y, w, nodes), in_axes=-1, out_axes=-1
            )
        )
        gene, undo = jax.tree.map(np.asarray, mapped(measured, w))
    row, column = np.triu_indices(shared.n_columns)
    for (name, ours), theirs in zip(
        [*vars(gene.own).items()], vars(host.own).values(), strict=True
    ):
        # On the host packed, the classes of a place side by side.
        ours = ours[:, row, column].swapaxes(0, 1) if name == "between" else ours
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-10)
    for name in ("within_uy", "within_yy", "between_uy", "between_yy"):
        np.testing.assert_allclose(getattr(gene, name), getattr(host, name), rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(undo.scale, found.scale, rtol=1e-12)
    np.testing.assert_allclose(undo.ols, found.ols, rtol=1e-11)
    np.testing.assert_allclose(undo.half_log, found.half_log, rtol=1e-11)
    np.testing.assert_array_equal(undo.n, found.n)


def test_derivatives(prepared):
    """Of the deviance at a given gamma, in y, w and X."""
    design, shared, y, w = prepared
    where, nodes = layout(design, shared), 12
    Q = structure(design, shared).Q
    gamma = (0.7, 0.2)

    with jax.enable_x64(True):

        @jax.jit
        def deviance(y, w, Q):
            gene, undo = traced_statistics(where, Q, y, w, nodes)
            found = evaluate(tuple(map(jnp.asarray, gamma)), shared, gene, reml=False)
            return found.deviance + 2 * undo.n * jnp.log(undo.scale) - 2 * undo.half_log

        point = tuple(jnp.asarray(a) for a in (y[:, 1], w[:, 1], Q))
        gradients = jax.jit(jax.grad(deviance, argnums=(0, 1, 2)))(*point)
        rng = np.random.default_rng(6)
        for i, gradient in enumerate(gradients):
            direction = rng.normal(size=point[i].shape) * (w[:, 1] > 0).reshape(
                (-1,) + (1,) * (point[i].ndim - 1)
            )
            ahead, behind = (
                float(deviance(*(p + h * direction if j == i else p for j, p in enumerate(point))))
                for h in (1e-5, -1e-5)
            )
            slope = (ahead - behind) / 2e-5
            assert float((gradient * direction).sum()) == pytest.approx(slope, rel=1e-6, abs=1e-6)
            assert np.isfinite(gradient).all()
