"""Products of genes with weights of their own against n x n algebra."""

import jax
import numpy as np
import oracles
import pandas as pd
import pytest

from jaxvp.batch import own_products
from jaxvp.design import build
from jaxvp.formula import Formula
from jaxvp.statistics import compress, needed_nodes, statistics, structure, sums, triangle
from jaxvp.statistics.nodes import (
    chebyshev,
    class_counts,
    ends,
    from_unit,
    interpolated,
    log_range,
    node_counts,
    nodes_of,
    to_unit,
)

GENES = 4
FORMULAS = [
    "~ Age + Dose + (1|Small) + (1|Large) + (1|Middle)",
    "~ Age + (1|Large)",
    "~ 0 + (1|Small) + (1|Large)",
]


@pytest.fixture(scope="module")
def study():
    """Weights that differ fourfold; in the last two genes some are zero and levels are lost."""
    rng = np.random.default_rng(4)
    n = 90
    metadata = pd.DataFrame(
        {
            "Age": rng.normal(50, 9, n),
            "Dose": rng.uniform(size=n),
            **{
                name: [
                    f"{name}{i:02}"
                    for i in np.r_[np.arange(levels), rng.integers(0, levels, n - levels)]
                ]
                for name, levels in (("Small", 4), ("Large", 40), ("Middle", 6))
            },
        }
    )
    w = 10 ** rng.uniform(-0.3, 0.3, (n, GENES))
    w[rng.random(n) < 0.2, 2] = 0
    w[metadata["Large"].isin(["Large00", "Large07"]) | (metadata["Small"] == "Small02"), 3] = 0
    return metadata, rng.normal(size=(n, GENES)) * 3 + 7, w


def eliminated(own, weights, gene):
    """U'V_1^-1 U of a gene."""
    within = own.within[..., gene]
    return within + (own.packed[..., gene] @ weights)[triangle(len(within))]


@pytest.mark.parametrize("formula", FORMULAS)
def test_products(study, formula):
    metadata, y, w = study
    design = build(Formula.parse(formula), metadata)
    shared = compress(design).shared
    s = structure(design, shared)
    found = sums(s, y, w)
    X, Zs = oracles.design(formula, metadata)[:2]
    first, *others = [Zs[i] for i in shared.order]
    needed = needed_nodes(s, found)
    assert (needed < s.levels).any(), "interpolation is not tested"
    U = np.concatenate([*others, X @ shared.r_inverse], axis=1)
    for nodes in (int(needed.max()), s.levels):
        gene = own_products(s, found, nodes)
        for j in range(GENES):
            here = w[:, j] > 0
            weights = w[here, j] / w[here, j].mean()
            assert found.n[j] == here.sum()
            root = np.sqrt(weights)
            b = np.linalg.lstsq(root[:, None] * X[here], root * y[here, j], rcond=None)[0]
            residual = y[here, j] - X[here] @ b
            scale = np.sqrt((weights * residual**2).mean())
            assert found.scale[j] == pytest.approx(scale, rel=1e-12)
            np.testing.assert_allclose(shared.r_inverse @ found.ols[:, j], b, rtol=1e-9)
            assert found.half_log[j] == pytest.approx(0.5 * np.log(weights).sum(), rel=1e-12)
            for gamma in (0.0, 0.3, 7.0, 1e6):
                V = np.diag(1 / weights) + gamma * first[here] @ first[here].T
                inverse, Uh, r = np.linalg.inv(V), U[here], residual / scale
                c = 1 / (1 + gamma * gene.own.sizes[:, j])
                uu = eliminated(gene.own, c, j)
                np.testing.assert_allclose(uu, Uh.T @ inverse @ Uh, atol=1e-8)
                uy = gene.within_uy[:, j] + c @ gene.between_uy[..., j]
                np.testing.assert_allclose(uy, Uh.T @ inverse @ r, atol=1e-8)
                yy = gene.within_yy[j] + c @ gene.between_yy[:, j]
                assert yy == pytest.approx(r @ inverse @ r, rel=1e-9)
                size = gene.own.level_sizes[:, j]
                log_det = np.log1p(gamma * size).sum() - 2 * found.half_log[j]
                assert log_det == pytest.approx(np.linalg.slogdet(V)[1], rel=1e-9, abs=1e-9)


def test_a_gene_has_its_bits_whoever_is_beside_it(study):
    """One whose ends are classes of their own, too."""
    metadata, y, w = study
    design = build(Formula.parse(FORMULAS[0]), metadata)
    s = structure(design, compress(design).shared)
    extreme = w.copy()
    extreme[metadata["Large"] == metadata["Large"].iloc[-1], 3] = 1e-6
    nodes = int(needed_nodes(s, sums(s, y, w)).max())
    plain, beside = (own_products(s, sums(s, y, v), nodes) for v in (w, extreme))
    for one, other in zip(jax.tree.leaves(plain), jax.tree.leaves(beside), strict=True):
        np.testing.assert_array_equal(one[..., :3], other[..., :3])
    assert not np.array_equal(plain.own.sizes[:, 3], beside.own.sizes[:, 3])


def test_weights_of_all_genes_are_rows_times_their_roots(study):
    """The same products by `compress(design, weights)`, which knows no gene."""
    metadata, y, w = study
    design = build(Formula.parse(FORMULAS[0]), metadata)
    plain = compress(design).shared
    for j in (0, 3):
        compression = compress(design, w[:, j])
        shared, rows = compression.shared, compression.weighting.rows
        gene = statistics(compression, y[rows]).gene
        s = structure(design, plain)
        alone = sums(s, y[:, [j]], w[:, [j]])
        its = own_products(s, alone, s.levels)
        turn = np.eye(len(shared.within))
        turn[-3:, -3:] = np.linalg.inv(plain.r_inverse) @ shared.r_inverse  # another basis of X
        for gamma in (0.0, 0.7, 1e3):
            c = 1 / (1 + gamma * shared.sizes)
            d = 1 / (1 + gamma * its.own.sizes[:, 0])
            uu = eliminated(its.own, d, 0)
            ours = shared.within + np.tensordot(c, shared.between, 1)
            np.testing.assert_allclose(ours, turn.T @ uu @ turn, atol=1e-9)
            uy = its.within_uy[:, 0] + d @ its.between_uy[..., 0]
            ours = gene.within_uy[:, j] + c @ gene.between_uy[..., j]
            np.testing.assert_allclose(ours, turn.T @ uy, atol=1e-9)
        assert compression.weighting.half_log == pytest.approx(alone.half_log[0], rel=1e-12)


@pytest.mark.parametrize("ratio", [1.5, 10, 100, 1e4])
def test_nodes_are_enough(ratio):
    """The interpolated function at sizes between the nodes, for all gamma."""
    half = np.log(ratio) / 2
    count = int(node_counts(np.array([half]), 10_000, 1000)[0])
    knots, barycentric = chebyshev(count)
    t = np.linspace(-half, half, 501) + 1e-7
    z = to_unit(t, half)
    weights = barycentric[:, None] / (z - knots[:, None])
    weights /= weights.sum(axis=0)
    for gamma in 10.0 ** np.arange(-8, 9):
        exact = 1 / (1 + gamma * np.exp(t))
        found = (1 / (1 + gamma * np.exp(from_unit(knots, half)))) @ weights
        np.testing.assert_allclose(found, exact, atol=3e-10)


def test_levels_far_from_the_others_are_classes():
    """Two ends, a lost level: as few classes as without the ends, and these exact."""
    sizes = np.exp(np.random.default_rng(0).normal(0, 0.5, (300, 1)))
    sizes[3], sizes[7], sizes[9] = 1e-3, 400, 0
    half = log_range(sizes)[1]
    classes = int(class_counts(sizes, 1000)[0])
    assert ends(sizes[:, 0], 1000)[1:] == (1, 1) and classes < node_counts(half, 300, 1000)[0]
    at = nodes_of(sizes, classes, 1000)
    with jax.enable_x64(True):
        shares = np.asarray(interpolated(sizes, at))[..., 0].T
    nodes = at.sizes[:, 0]
    there = sizes[:, 0] > 0
    for gamma in 10.0 ** np.arange(-8, 9):
        exact = 1 / (1 + gamma * sizes[there, 0])
        found = (1 / (1 + gamma * nodes)) @ shares
        np.testing.assert_allclose(found[there], exact, atol=3e-10)
        np.testing.assert_allclose(found[[3, 7]], exact[[3, 7]], rtol=1e-14)


@pytest.mark.parametrize("levels", [2, 12, 13])
def test_few_levels_are_a_class_each(levels):
    """No more nodes than levels; a count is a shape, hence whole."""
    counts = node_counts(np.array([1e-3, 0.4, 20.0]), levels, 90)
    assert np.issubdtype(counts.dtype, np.integer)
    assert counts.max() == levels
