"""Large systems: tabulated determinants, what a gene adds, and polynomials, on small designs."""

import threading
import tracemalloc
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxvp
from jaxvp import threads
from jaxvp.batch import fitter, program
from jaxvp.batch import shared as shared_genes
from jaxvp.batch.fitted import at_optimum
from jaxvp.design import build
from jaxvp.formula import Formula
from jaxvp.likelihood.differences import Classes, Levels
from jaxvp.likelihood.inverse import inverse
from jaxvp.likelihood.iterated_part import Preconditioner, iterated_part
from jaxvp.likelihood.own_part import own_part
from jaxvp.likelihood.system import class_weights, spread
from jaxvp.solver import determinant, elimination, nodes, polynomial, solve, surface
from jaxvp.solver.confounded import Confounded
from jaxvp.solver.loop import iterate
from jaxvp.solver.table import coarse
from jaxvp.statistics import LevelRows, PerGene, Records, compress, statistics

DESIGNS = {"2 terms": {"g": 12, "h": 5}, "3 terms": {"g": 12, "h": 7, "i": 3}}
GENES = 16


@pytest.fixture(scope="module", params=DESIGNS)
def design(request):
    """Unequal levels, half of the components zero."""
    study = jaxvp.simulate(
        GENES, 90, DESIGNS[request.param], imbalance=1.0, zero_probability=0.5, seed=2
    )
    compression = compress(build(Formula.parse(study.formula), study.metadata))
    block = statistics(compression, study.expression.to_numpy().T)
    return study, compression, block


def dense(study, shared, gene, gamma, reml):
    """Deviance of one gene from n x n algebra; gamma in elimination order."""
    X, Zs, _ = oracles.design(study.formula, study.metadata)
    theta = np.empty(len(gamma))
    theta[list(shared.order)] = np.sqrt(gamma)
    return oracles.dense_deviance(study.expression.iloc[gene].to_numpy(), X, Zs, theta, reml)


def points(shared, count=5):
    """Random x inside of the nodes, one of them with an exact zero."""
    top = np.log1p(determinant.LARGEST_GAMMA * shared.samples_per_level)[:, None]
    x = top * np.random.default_rng(1).uniform(0, 0.8, (len(shared.levels), count))
    x[0, 0] = 0
    return x


@pytest.mark.parametrize("reml", [False, True], ids=["ML", "REML"])
def test_deviance_of_determinant_and_own_part_is_dense_algebra_s(design, reml):
    study, shared, block = design[0], design[1].shared, design[2]
    x = points(shared)
    gamma = np.expm1(x) / shared.samples_per_level[:, None]
    gene = jax.tree.map(lambda a: a[..., : x.shape[1]], block.gene)
    with jax.enable_x64(True):
        tabulated = determinant.tabulate(design[1], reml)
        log_det = np.asarray(jax.jit(lambda d, x: d(x))(tabulated, x)[0])
        rss = np.asarray(jax.jit(own_part)(gamma, shared, gene).rss)
    size = size_of(shared, reml)
    for i in range(x.shape[1]):
        ours = log_det[i] + size * np.log(rss[i])
        ours += size * (1 + np.log(2 * np.pi / size) + 2 * np.log(block.scale[i]))
        ours += 2 * reml * shared.log_det_r
        expected = dense(study, shared, i, gamma[:, i], reml)
        # Of each gene a point of its own: both parts are theirs.
        assert ours == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("reml", [False, True], ids=["ML", "REML"])
def test_derivatives_are_those_of_finite_differences(design, reml):
    shared, block = design[1].shared, design[2]
    x = points(shared, GENES)[:, 1:]
    gene = jax.tree.map(lambda a: a[..., 1:], block.gene)
    m = shared.samples_per_level[:, None]
    step = 1e-5
    with jax.enable_x64(True):
        tabulated = determinant.tabulate(design[1], reml)
        of_determinant = jax.jit(lambda x: tabulated(x))
        curvature = jax.jit(lambda x: tabulated.axes.curvature(tabulated.values, x))
        own = jax.jit(lambda x: own_part(jnp.expm1(x) / m, shared, gene))
        _, score = of_determinant(x)
        hessian = curvature(x)[2]
        alone = jax.jit(lambda x: tabulated.main(x))
        first = own(x).first * np.exp(x) / m
        for i in range(len(x)):
            e = np.zeros_like(x)
            e[i] = step
            up, down = of_determinant(x + e), of_determinant(x - e)
            np.testing.assert_allclose(score[i], (up[0] - down[0]) / (2 * step), atol=1e-6)
            change = (curvature(x + e)[1] - curvature(x - e)[1]) / (2 * step)
            np.testing.assert_allclose(hessian[:, i], change, atol=1e-6)
            change = (alone(x + e)[1] - alone(x - e)[1]) / (2 * step)
            np.testing.assert_allclose(alone(x)[2][i], change[i], atol=1e-6)
            rss = (own(x + e).rss - own(x - e).rss) / (2 * step)
            np.testing.assert_allclose(first[i], rss, rtol=1e-6, atol=1e-9)


def test_main_terms_are_plain_sums():
    """Of terms with one size of level and with many, beside the sums over all levels."""
    rng = np.random.default_rng(4)
    sizes = (np.full(40, 7.0), rng.integers(1, 60, 300) * 0.7, np.array([1.0, 500.0, 20.0]))
    mean = np.array([n.mean() for n in sizes])
    x = np.vstack([np.zeros(3), rng.uniform(0, 9, (5, 3))]).T
    with jax.enable_x64(True):
        value, score, second = map(np.asarray, determinant.MainTerms.of(sizes, mean)(jnp.array(x)))
    gamma = np.expm1(x) / mean[:, None]
    total = 0.0
    for n, m, g, here, first, bent in zip(sizes, mean, gamma, x, score, second, strict=True):
        n = n[:, None]
        total = total + np.log1p(n * g).sum(0)
        slope = n / (1 + n * g)
        jacobian = np.exp(here) / m
        np.testing.assert_allclose(first, slope.sum(0) * jacobian, rtol=1e-12)
        expected = slope.sum(0) * jacobian - (slope**2).sum(0) * jacobian**2
        np.testing.assert_allclose(bent, expected, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(value, total, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("fixed", ["~ Age", "~ 0 + Low + High"])
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
def test_what_large_variances_leave_of_the_intercept_keeps_its_digits(fixed, weighted, monkeypatch):
    """With the intercept in the fixed part, and in its span.

    By differences the score was off by 2e-7 here, by 4e-7 for 10,000 samples: no surface.
    """
    rng = np.random.default_rng(3)
    n, levels = 4_000, {"g": 60, "h": 12, "i": 4}
    metadata = pd.DataFrame({name: rng.integers(0, q, n).astype(str) for name, q in levels.items()})
    low = rng.integers(0, 2, n)
    metadata = metadata.assign(Age=rng.standard_normal(n), Low=low, High=1 - low)
    formula = fixed + "".join(f" + (1|{name})" for name in levels)
    weights = rng.uniform(0.5, 2, n) if weighted else None
    compression = compress(build(Formula.parse(formula), metadata), weights)
    shared = compression.shared
    top = np.log1p(determinant.LARGEST_GAMMA * shared.samples_per_level)
    corners = top * np.array(
        [[0.0, 0.6, 0.95], [0.0, 0.95, 0.9], [0.3, 0.6, 0.95], [0.9, 0.9, 0.9]]
    )
    corners[:2, 0] = 1e-4  # where a polynomial's slope is worst
    monkeypatch.setattr(determinant, "_points", lambda shared: corners)
    monkeypatch.setattr(determinant, "_ERRORS", (1e-10,))
    for reml in (False, True):
        assert determinant.tabulate(compression, reml).error < 1e-8


FIXED = ["~ 0", "~ Late", "~ Site", "~ 0 + Site + Late", "~ Late + a + b + c + d + e"]


@pytest.mark.parametrize("fixed", FIXED)
@pytest.mark.parametrize("reml", [False, True], ids=["ML", "REML"])
def test_the_score_at_points_is_that_of_direct_inverses(fixed, reml):
    """Without a fixed part, with covariates that are constant within levels, with all levels."""
    study = jaxvp.simulate(1, 70, {"g": 14, "h": 6}, imbalance=1.0, seed=7)
    level, site = (study.metadata[name].astype("category").cat.codes for name in "gh")
    every = {name: (site == i) * 1.0 for i, name in enumerate("abcde")}
    metadata = study.metadata.assign(Late=(level % 3 - 1.0) * 4, Site=site % 2 + 0.5, **every)
    formula = f"{fixed} + (1|g) + (1|h)"
    compression = compress(build(Formula.parse(formula), metadata))
    shared = compression.shared
    places = np.array([[0.4, 1.1], [3.0, 1e-4], [1e-4, 2.0]])
    score, covariance = determinant._dense(shared, Confounded.of(compression), places, reml)
    X, Zs, _ = oracles.design(formula, metadata)
    Zs = [Zs[i] for i in np.argsort(shared.order)]
    gammas = np.expm1(places) / shared.samples_per_level
    for gamma, place, ours, found in zip(gammas, places, score, covariance, strict=True):
        V = np.eye(len(X)) + sum(g * Z @ Z.T for g, Z in zip(gamma, Zs, strict=True))
        inverse = np.linalg.inv(V)
        of_fixed = np.linalg.inv(X.T @ inverse @ X)
        P = inverse - inverse @ X @ of_fixed @ X.T @ inverse if reml else inverse
        expected = [np.trace(Z.T @ P @ Z) for Z in Zs] * np.exp(place) / shared.samples_per_level
        # By REML a term whose levels are all in the fixed part has no slope: zero, not nearly.
        expected = np.where(abs(expected) < 1e-12, 0.0, expected)
        np.testing.assert_allclose(ours, expected, rtol=1e-9)
        if X.shape[1]:
            found = shared.r_inverse @ found @ shared.r_inverse.T
            np.testing.assert_allclose(found, of_fixed, rtol=1e-9, atol=1e-12)
    assert determinant.tabulate(compression, reml).error <= determinant.PRECISE


@pytest.mark.parametrize("reml", [False, True], ids=["ML", "REML"])
def test_separated_nodes_are_the_same_table(design, reml):
    """Sums of few products in place of all nodes of gamma_2, beside a table that has them all."""
    _, compression, block = design
    shared = compression.shared
    if len(shared.levels) == 2:
        pytest.skip("a table of two terms has nothing to separate")
    gammas = [np.append(0.0, np.geomspace(1e-4, 200, 15))] * len(shared.levels[1:])
    first = np.array([0.0, 0.05, 3.0])
    system = elimination.rotated(shared, first)
    residuals, log_dets = [], []
    for large in (False, True):
        levels, fixed, log_det = elimination.others(
            system, np.zeros(3), gammas, shared.levels[1:], reml, large
        )
        assert (levels[0].couple.shape[1] < 16) == large
        log_det = log_det.reshape(3, *map(len, gammas))
        whole = elimination.Eliminated(
            elimination.weights_at(shared, first), levels, fixed, log_det
        )
        for of_table in [whole, coarse(whole)] if large else [whole]:
            with jax.enable_x64(True):
                residuals.append(np.asarray(jax.jit(surface.residual)(of_table, block.gene)))
        log_dets.append(log_det)
    np.testing.assert_allclose(residuals[1], residuals[0], rtol=1e-6)
    # Its large products in float32, and nothing else.
    assert residuals[2].dtype == np.float64 and (residuals[2] != residuals[1]).any()
    np.testing.assert_allclose(residuals[2], residuals[1], rtol=0, atol=2e-7 * float(shared.n))
    np.testing.assert_allclose(log_dets[1], log_dets[0], rtol=1e-7, atol=1e-7)


@settings(max_examples=20, deadline=None)
@given(
    low=st.floats(1e-6, 10),
    wide=st.floats(1, 1e3),
    confounded=st.booleans(),
    nodes=st.integers(2, 20),
    top=st.floats(1e-2, 1e3),
)
def test_what_is_separated_keeps_its_digits(low, wide, confounded, nodes, top):
    roots = np.stack([np.geomspace(low, low * wide, 40), np.full(40, low)])
    roots[:, 0] *= not confounded  # a combination of no information at all
    gamma = np.append(0.0, np.geomspace(top * 1e-6, top, nodes - 1))
    factor = gamma[:, None] / (1 + gamma[:, None] * roots[:, None])
    combine, shares = elimination._separated(factor)
    assert combine.shape[2] == shares.shape[1] <= nodes
    np.testing.assert_allclose(combine @ shares, factor, rtol=1.01 * elimination._SEPARATED)


@pytest.mark.parametrize("reml", [False, True], ids=["ML", "REML"])
def test_starts_where_a_polynomial_curves_down_end_at_an_optimum(design, reml):
    """Next to zero; where they end, dense algebra finds next to nothing to be gained."""
    study, compression, block = design
    shared, size = compression.shared, size_of(compression.shared, reml)
    low = np.full((len(shared.levels), GENES), 0.05)
    with jax.enable_x64(True):
        found = surface.build(compression, reml, True)
        assert found is not None

        def run(gene):
            of_table = found.table.eliminated
            smooth = of_table.log_det[..., None] + size * jnp.log(surface.residual(of_table, gene))
            hessian = found.at(smooth, jnp.asarray(low))[2]
            return hessian, surface._refine(found, shared, smooth, jnp.asarray(low))

        hessian, near = jax.tree.map(np.asarray, jax.jit(run)(block.gene))
    concave = np.flatnonzero(np.linalg.eigvalsh(hessian.T).min(axis=1) < 0)
    assert len(concave)
    X, Zs, _ = oracles.design(study.formula, study.metadata)
    for gene in concave:
        gamma = np.empty(len(shared.levels))
        gamma[list(shared.order)] = np.expm1(near.x[:, gene]) / shared.samples_per_level
        y = study.expression.iloc[gene].to_numpy()
        here = oracles.dense_deviance(y, X, Zs, np.sqrt(gamma), reml)
        best = oracles.polish(y, X, Zs, np.sqrt(gamma), reml)[1].deviance
        assert here - best < 0.02


@pytest.mark.parametrize("paired", [True, False])
def test_pairs_of_columns_are_those_of_their_matrix(design, paired, monkeypatch):
    """What a preconditioner's complement takes; where columns are many, without pairs."""
    _, compression, _ = design
    shared, gamma = compression.shared, np.array([0.1, 0.7])
    rest = shared.n_columns - shared.levels[1]
    monkeypatch.setattr(nodes, "_PAIRED", rest if paired else rest - 1)
    monkeypatch.setattr(nodes, "_EVERY", {Levels: 1})
    known = elimination.rotated(shared, gamma)
    of = LevelRows.of(compression.grouping)
    room = nodes._entries(Levels, shared, len(of.rows), 2) + rest * (rest + 1) * shared.levels[1]
    found = nodes.nodes(gamma, known, shared, of, 5.0, Levels, room)
    assert (found.pairs is not None) == paired
    assert nodes.nodes(gamma, known, shared, of, 5.0, Levels, room - 1).pairs is None
    weights = np.random.default_rng(0).random((shared.levels[1], 4))
    with jax.enable_x64(True):
        ours = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), found).squared(weights)
    expected = [known.couple[0] * w @ known.couple[0].T for w in weights.T]
    np.testing.assert_allclose(np.moveaxis(ours, -1, 0), expected, rtol=1e-12, atol=1e-12)


def go(way, monkeypatch):
    """Choose the way that a gene's own system is solved: what `surface.build` is told."""
    monkeypatch.setattr(nodes, "_ITERATIONS", np.inf if way == "factored" else 0)
    monkeypatch.setattr(nodes, "_RANK", 0)  # classes wherever they are allowed
    return way == "classes"


@pytest.mark.parametrize(
    "way", [pytest.param("factored", marks=pytest.mark.slow), "levels", "classes"]
)
def test_the_optimum_is_dense_algebra_s(design, way, monkeypatch):
    study, compression, block = design
    shared = compression.shared
    reml = len(shared.levels) == 3
    classes = go(way, monkeypatch)
    wanted = np.ones(GENES, bool)
    wanted[3] = False
    with jax.enable_x64(True):
        run = jax.jit(solve, static_argnums=(0, 1, 2, 3))
        table = surface.build(compression, reml, classes)
        assert table is not None and (table.nodes is None) == (way == "factored")
        found = run("newton", GENES, reml, "cpu", shared, block.gene, wanted, np.int32(100), table)
        found = jax.tree.map(np.asarray, found)
    assert at_optimum(found)[wanted].mean() > 0.9  # others are beyond the nodes
    assert (found.evaluations[~wanted] == 0).all()
    here = np.flatnonzero(wanted & at_optimum(found))
    assert found.evaluations[here].mean() < 4
    X, Zs, _ = oracles.design(study.formula, study.metadata)
    for gene in here:
        theta = np.empty(len(shared.levels))
        theta[list(shared.order)] = np.sqrt(found.gamma[:, gene])
        y = study.expression.iloc[gene].to_numpy()
        best, fit, _ = oracles.polish(y, X, Zs, theta, reml)
        np.testing.assert_allclose(theta, best, atol=1e-5)
        ours = found.estimates.log_likelihood[gene] - size_of(shared, reml) * np.log(
            block.scale[gene]
        )
        assert ours == pytest.approx(fit.log_likelihood, abs=1e-7)
        sigma = found.estimates.sigma[gene] * block.scale[gene]
        assert sigma == pytest.approx(fit.sigma, rel=1e-6)


def test_nodes_that_do_not_fit_are_made_in_the_other_way_or_not_at_all(monkeypatch):
    """Of many columns, levels of term 1 take less room than combinations of class sums."""
    codes = [np.arange(60) % count for count in (30, 20)]
    metadata = pd.DataFrame({"Age": np.sin(np.arange(60.0)), "g": codes[0], "h": codes[1]})
    metadata = metadata.iloc[np.r_[:60, :7]].astype({"g": "category", "h": "category"})
    shared = compress(build(Formula.parse("~ Age + (1|g) + (1|h)"), metadata)).shared
    classes = go("classes", monkeypatch)
    by_levels, by_classes = (
        nodes._entries(way, shared, 30, 9) for way in (nodes.Levels, nodes.Classes)
    )

    def way(room, classes=classes):
        return nodes.way_of(shared, 30, 9, room, classes)

    assert by_levels < by_classes
    assert way(by_classes) is nodes.Classes and way(by_classes, False) is nodes.Levels
    assert way(by_classes - 1) is nodes.Levels and way(by_levels - 1) is None


def size_of(shared, reml):
    return shared.n - reml * shared.p


def test_a_surface_whose_determinants_are_not_exact_is_not_used(design, monkeypatch):
    compression = design[1]
    monkeypatch.setattr(determinant, "_ERRORS", (1e-2,))
    with jax.enable_x64(True):
        assert determinant.tabulate(compression, False).error > determinant.PRECISE
        assert surface.build(compression, False, True) is None


def test_too_few_nodes_are_made_more_before_a_surface_is_given_up(design, monkeypatch):
    with jax.enable_x64(True):
        wanted = determinant.tabulate(design[1], False)
        monkeypatch.setattr(determinant, "_ERRORS", (1e-2, determinant._ERRORS[0]))
        again = determinant.tabulate(design[1], False)
    assert again.error <= determinant.PRECISE
    assert again.values.shape == wanted.values.shape
    np.testing.assert_array_equal(again.values, wanted.values)


@pytest.mark.parametrize(
    "samples, levels, imbalance, seed",
    [
        (827, {"g": 281, "h": 85}, 1.0, 21),
        (977, {"g": 206, "h": 92, "i": 10}, 2.0, 23),
    ],
)
def test_unequal_levels_are_tabulated(samples, levels, imbalance, seed, monkeypatch):
    """Those for 5e-10 are not nodes enough of these."""
    study = jaxvp.simulate(1, samples, levels, imbalance=imbalance, seed=seed)
    compression = compress(build(Formula.parse(study.formula), study.metadata))
    with jax.enable_x64(True):
        assert determinant.tabulate(compression, False).error <= determinant.PRECISE
        monkeypatch.setattr(determinant, "_ERRORS", determinant._ERRORS[:-1])
        assert determinant.tabulate(compression, False).error > determinant.PRECISE


def test_what_is_held_at_once_is_bounded_and_decides_the_same_on_every_machine(monkeypatch):
    study = jaxvp.simulate(1, 700, {"g": 120, "h": 60, "i": 33}, seed=2)
    compression = compress(build(Formula.parse(study.formula), study.metadata))
    shared = compression.shared
    axes, counts = determinant.grid(shared, 1e-4)
    used = []

    def each(work, pieces, threads):
        used.append(threads)
        for piece in pieces:
            work(piece)

    monkeypatch.setattr(elimination.threads, "each", each)
    monkeypatch.setattr(elimination.threads, "cores", lambda: 1)
    bound = surface._bytes(shared)
    tracemalloc.start()
    determinant._tabulated(shared, Confounded.of(compression), False, axes, counts)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    tables = (3 + 2 * shared.p + 3 * shared.p**2) * np.prod(counts)
    held = determinant.held(shared, counts)
    assert peak <= 8 * (held + tables)

    monkeypatch.setattr(elimination.threads, "cores", lambda: 64)
    assert surface._bytes(shared) == bound
    monkeypatch.setattr(determinant, "_MOST_HELD", 3 * held + 1)
    determinant._tabulated(shared, Confounded.of(compression), False, axes, counts)
    assert used == [1, 3]


@pytest.mark.parametrize("way", ["levels", "classes"])
def test_iterations_give_what_a_factor_gives(design, way, monkeypatch):
    """At zero, near the node and far from it; fixed part and covariance beside dense algebra."""
    _, compression, block = design
    shared = compression.shared
    classes = go(way, monkeypatch)
    x = points(shared, GENES) / 2
    x[1, 1] = x[-1, 2] = 0
    gamma = np.expm1(x) / shared.samples_per_level[:, None]
    with jax.enable_x64(True):
        found = surface.build(compression, False, classes)
        assert found is not None and found.nodes is not None
        factored = jax.jit(lambda g: own_part(g, shared, block.gene))
        expected = factored(gamma)

        @jax.jit
        def iterated(node, gamma, begin, goal, asked):
            near = Preconditioner.of(node, gamma, shared)
            return iterated_part(gamma, shared, near, block.gene, begin, goal, asked)

        begin, asked = np.zeros((shared.n_columns, GENES)), np.ones(GENES, bool)
        goal = np.full(GENES, 1e-11)
        for number in (0, 3):
            node = jax.tree.map(lambda leaf, i=number: np.asarray(leaf)[i], found.nodes)
            part, solved = jax.tree.map(np.asarray, iterated(node, gamma, begin, goal, asked))
            np.testing.assert_allclose(part.rss, expected.rss, rtol=1e-11)
            np.testing.assert_allclose(part.first, expected.first, rtol=1e-8, atol=1e-10)
            np.testing.assert_allclose(part.beta, expected.beta, atol=1e-9)
            assert np.asarray(part.error).max() < 1e-11
            # All of them at the node itself: there is no difference to be multiplied by.
            there = np.vstack([np.full(GENES, found.nodes.gamma[number]), gamma[1:]])
            part, _ = jax.tree.map(np.asarray, iterated(node, there, begin, goal, asked))
            at_node = factored(there)
            np.testing.assert_allclose(part.rss, at_node.rss, rtol=1e-11)
            np.testing.assert_allclose(part.first, at_node.first, rtol=1e-8, atol=1e-10)
            # Beside one that is not, they are what they were, to the last bit.
            there[0, 0] = gamma[0, 0]
            beside, _ = jax.tree.map(np.asarray, iterated(node, there, begin, goal, asked))
            np.testing.assert_array_equal(beside.rss[1:], part.rss[1:])
            np.testing.assert_array_equal(beside.first[:, 1:], part.first[:, 1:])
        # To fewer digits: it says how many there are, and y'Py has twice as many.
        rough, _ = iterated(node, gamma, begin, goal * 1e7, asked)
        off = abs(np.asarray(rough.rss) / expected.rss - 1)
        assert 1e-11 < np.asarray(rough.error).max() <= 1e-4 and off.max() < 1e-6
        # Begun where it ended it is there already; who is not asked stays where it was.
        again, same = iterated(node, gamma, solved, goal, asked)
        np.testing.assert_allclose(again.rss, expected.rss, rtol=1e-11)
        np.testing.assert_allclose(same, solved, atol=1e-10)
        asked[0] = False
        _, waited = iterated(node, gamma, begin, goal, asked)
        assert (np.asarray(waited)[:, 0] == 0).all()


def test_products_in_float32_give_the_digits_that_are_asked_for(design, monkeypatch):
    """And where more are, it is float64's that are used, whoever else is in the tile."""
    _, compression, block = design
    shared = compression.shared
    go("levels", monkeypatch)
    x = points(shared, GENES) / 2
    x[1, 1] = 0
    gamma = np.expm1(x) / shared.samples_per_level[:, None]
    with jax.enable_x64(True):
        found = surface.build(compression, False, False)
        assert found is not None and found.nodes is not None
        expected = jax.jit(lambda g: own_part(g, shared, block.gene))(gamma)

        @jax.jit
        def iterated(node, begin, goal):
            near = Preconditioner.of(node, gamma, shared)
            asked = np.ones(GENES, bool)
            return iterated_part(gamma, shared, near, block.gene, begin, goal, asked)

        node, single = (
            jax.tree.map(lambda leaf: np.asarray(leaf)[3], nodes)
            for nodes in (found.nodes, surface.for_cpu(found).nodes)
        )
        assert single.single is not None and single.single.rows.dtype == np.float32
        nowhere, goal = np.zeros((shared.n_columns, GENES)), np.full(GENES, 1e-11)
        few, many = 1e5 * goal, goal
        exact, _ = iterated(node, nowhere, many)
        rough, near = iterated(single, nowhere, few)
        assert (np.asarray(rough.error) <= few).all()
        # Products of float64 would end there, too, but not at the same numbers.
        assert (np.asarray(near) != np.asarray(iterated(node, nowhere, few)[1])).any(0).all()
        # y'Py has twice as many digits, for all of float32's products; its slope has as many.
        np.testing.assert_allclose(rough.rss, expected.rss, rtol=1e-11)
        np.testing.assert_allclose(rough.first, expected.first, rtol=1e-5, atol=1e-8)
        # From there on float32's are enough of what is left.
        ended, _ = iterated(single, near, np.full(GENES, 1e-9))
        assert (np.asarray(ended.error) <= 1e-9).all()
        np.testing.assert_allclose(ended.rss, expected.rss, rtol=1e-11)
        np.testing.assert_allclose(ended.first, expected.first, rtol=1e-8, atol=1e-9)
        # To the last digits only float64's are: beside others, and alone.
        alone, _ = iterated(single, nowhere, many)
        mixed, _ = iterated(single, nowhere, np.where(np.arange(GENES) % 2, few, many))
        for one, two, mine in zip(alone, rough, mixed, strict=True):
            np.testing.assert_array_equal(mine[..., ::2], one[..., ::2])
            np.testing.assert_array_equal(mine[..., 1::2], two[..., 1::2])
        np.testing.assert_allclose(alone.rss, exact.rss, rtol=1e-12)
        assert (np.asarray(alone.error) <= many).all()


def test_what_float32_loses_is_known(design, monkeypatch):
    """Beside the norm of what is missing, at any gammas, where points may be certified."""
    _, compression, block = design
    shared = compression.shared
    go("levels", monkeypatch)
    others = (np.expm1(points(shared, GENES)) / shared.samples_per_level[:, None])[1:]
    q, rng = shared.n_columns - shared.p, np.random.default_rng(4)
    random = (np.arange(shared.n_columns) < q)[:, None]
    with jax.enable_x64(True):
        found = surface.build(compression, False, False)
        assert found is not None and found.nodes is not None

        @jax.jit
        def iterated(node, gamma, begin, goal):
            near = Preconditioner.of(node, gamma, shared)
            asked, goal = np.ones(GENES, bool), jnp.full(GENES, goal)
            return iterated_part(gamma, shared, near, block.gene, begin, goal, asked)

        @jax.jit
        def norm(node, gamma, z):
            root = jnp.sqrt(spread(gamma, shared, gamma[0]))
            root = jnp.concatenate([root, jnp.ones((shared.p, GENES))])
            weights = class_weights(shared, gamma[0])[0]
            size = (weights * block.gene.between_yy).sum(0) + block.gene.within_yy
            v, change = root * z, node.difference.weights(node.gamma, gamma[0])[0]
            image = node.image(v) + node.difference.image(change, node.difference.parts(v))
            return jnp.sqrt((z * (root * image + random * z)).sum(0) / size)

        differ = 0
        for number in (2, 3, 4):
            node, single = (
                jax.tree.map(lambda leaf, i=number: np.asarray(leaf)[i], nodes)
                for nodes in (found.nodes, surface.for_cpu(found).nodes)
            )
            gamma = np.vstack([node.gamma * rng.uniform(0.5, 2, GENES), others])
            _, solved = iterated(node, gamma, np.zeros((shared.n_columns, GENES)), 1e-14)
            off = rng.normal(size=solved.shape)
            begin = solved + 1e-5 * off / norm(node, gamma, off)
            part, ours = iterated(single, gamma, begin, 1e-11)
            assert (np.asarray(part.error) <= 1e-11).all()
            differ += (np.asarray(ours) != iterated(node, gamma, begin, 1e-11)[1]).any(0).sum()
            # (What is solved to the last digits in float64 is uncertain by some 1e-13.)
            assert (norm(node, gamma, ours - solved) <= part.error + 1e-12).all()
        assert differ > GENES


def test_combinations_of_classes_are_exact_about_their_node_and_say_where_not():
    """Beside sums over all classes, of sizes from 1 to 60, at a node in the middle."""
    sizes, near = np.arange(1.0, 61.0), 0.1
    gamma = np.array([0.05, 0.1, 0.17, 0.2, 1e-6, 5.0])
    rng = np.random.default_rng(5)
    sums, v = rng.normal(size=(60, 4, 4)), rng.normal(size=(4, 6))
    directions, rank = nodes._spanned(sizes, near, np.linspace(0.04, 0.25, 60))
    assert rank < 20
    basis = directions[:rank]
    with jax.enable_x64(True):
        difference = Classes(np.tensordot(basis, sums, 1), basis, sizes)
        parts = difference.parts(jnp.asarray(v))
        change, bent, exact = difference.weights(jnp.asarray(near), jnp.asarray(gamma))
        image = np.asarray(difference.image(change, parts))
        quadratic = np.asarray(difference.quadratic(bent, parts, jnp.asarray(v)))
    np.testing.assert_array_equal(exact, [True, True, True, True, False, False])
    for gene in range(4):
        weight, at_node = (1 / (1 + g * sizes) for g in (gamma[gene], near))
        expected = np.tensordot(weight - at_node, sums, 1) @ v[:, gene]
        np.testing.assert_allclose(image[:, gene], expected, atol=1e-9)
        slope = np.tensordot(-sizes * weight**2, sums, 1)
        expected = v[:, gene] @ slope @ v[:, gene]
        assert quadratic[gene] == pytest.approx(expected, rel=1e-9)


def test_the_covariance_of_fixed_effects_is_dense_algebra_s(design):
    study, compression, _ = design
    shared = compression.shared
    x = points(shared)
    with jax.enable_x64(True):
        table = determinant.tabulate(compression, False)
        found = np.asarray(jax.jit(lambda d, x: d.covariance(x, shared.p))(table, x))
    X, Zs, _ = oracles.design(study.formula, study.metadata)
    for i, gamma in enumerate((np.expm1(x) / shared.samples_per_level[:, None]).T):
        in_order = np.empty(len(gamma))
        in_order[list(shared.order)] = gamma
        V = np.eye(len(X)) + sum(g * Z @ Z.T for g, Z in zip(in_order, Zs, strict=True))
        expected = np.linalg.inv(X.T @ np.linalg.solve(V, X))
        # Of X = Q R, the table's is that of Q.
        ours = shared.r_inverse @ found[..., i] @ shared.r_inverse.T
        np.testing.assert_allclose(ours, expected, rtol=1e-6, atol=1e-9 * abs(expected).max())


@pytest.mark.slow
@pytest.mark.parametrize("way", ["factored", "levels"])
def test_a_large_system_without_fixed_part(way, monkeypatch):
    go(way, monkeypatch)
    study = jaxvp.simulate(8, 400, {"g": 80, "h": 70}, seed=4)
    formula = "~ 0 + (1|g) + (1|h)"
    result = jaxvp.fit(study.expression, formula, study.metadata)
    assert (result.diagnostics["status"] == "converged").all() and not len(result.coefficients.T)
    X, Zs, names = oracles.design(formula, study.metadata)
    for gene in study.expression.index:
        y = study.expression.loc[gene].to_numpy()
        found = oracles.polish(y, X, Zs, result.theta.loc[gene, names].to_numpy(), False)
        assert result.log_likelihood[gene] >= found[1].log_likelihood - 1e-8


def test_inverses_of_many_matrices_are_numpy_s():
    rng = np.random.default_rng(0)
    half = rng.normal(size=(5, 37, 60))
    many = half @ half.swapaxes(1, 2)
    with jax.enable_x64(True):
        found, pivots = jax.jit(inverse)(np.moveaxis(many, 0, -1))
    np.testing.assert_allclose(np.moveaxis(found, -1, 0), np.linalg.inv(many), rtol=1e-8)
    roots = np.linalg.cholesky(many)
    np.testing.assert_allclose(pivots.T, np.diagonal(roots, axis1=1, axis2=2) ** 2, rtol=1e-10)


class Counting(NamedTuple):
    """Searches that end after as many steps as each needs."""

    left: jax.Array
    tiles: jax.Array  # of which group the tile was, each time
    entered: jax.Array  # the same, said once a burst
    done: jax.Array


@pytest.mark.parametrize("ordered", [False, True])
def test_searches_of_two_groups_are_never_in_one_tile(ordered):
    rng = np.random.default_rng(3)
    order = rng.permutation(32) if ordered else None
    group = rng.integers(0, 5, 32)
    needs = rng.integers(0, 9, 32)
    never = jnp.full(32, -1)
    start = Counting(jnp.asarray(needs), never, never, jnp.asarray(needs) == 0)

    def stepped(number, state):
        left = jnp.where(state.done, state.left, state.left - 1)
        tiles = jnp.where(state.done, state.tiles, number)
        return Counting(left, tiles, state.entered, left <= 0)

    def run(state, group):
        records, limit = Records.of(state), jnp.int32(20)
        own = {"group": group, "groups": 5, "order": order, "common": lambda number: number}
        own["enter"] = lambda _, state, number: (
            number,
            state._replace(entered=jnp.full_like(state.left, number)),
        )
        return iterate(stepped, 8, group, records, limit, **own).tree()

    found = jax.jit(run)(start, jnp.asarray(group))
    assert np.asarray(found.done).all()
    np.testing.assert_array_equal(found.left, 0)
    np.testing.assert_array_equal(found.tiles, np.where(needs > 0, group, -1))
    np.testing.assert_array_equal(found.entered, found.tiles)


def test_derivatives_in_x_are_those_of_the_value():
    """The map between x and the place among the nodes, beside JAX's own derivatives."""
    axes = polynomial.Axes.of((np.array([3.0, 9.0]), np.array([5.0])), np.array([4.0, 5.0]), 100.0)
    rng = np.random.default_rng(3)
    values = rng.normal(size=(6, 7))
    x = np.log1p(rng.uniform(0, 60, size=(2, 5)))
    with jax.enable_x64(True):
        of_each = np.repeat(values[..., None], 5, -1)
        value, score, hessian = jax.jit(lambda v, x: axes.curvature(v, x))(of_each, x)
        same, again = jax.jit(lambda v, x: axes.score(v, x))(values.T, x)  # of one for all

        def one(x):
            return axes.values(values.T[None], x[:, None])[0, 0]

        genes = jax.jit(jax.vmap(lambda x: (one(x), jax.grad(one)(x), jax.hessian(one)(x))))(x.T)
        np.testing.assert_allclose(value, genes[0], rtol=1e-12)
        np.testing.assert_allclose(score.T, genes[1], rtol=1e-10)
        np.testing.assert_allclose(np.moveaxis(hessian, -1, 0), genes[2], rtol=1e-9)
        np.testing.assert_allclose(same, value, rtol=1e-12)
        np.testing.assert_allclose(again, score, rtol=1e-12)
        gammas = axes.gammas((6, 7))
        assert gammas[0][0] == gammas[1][0] == 0 and (np.diff(gammas[0]) > 0).all()
        nodes = [np.log1p(m * g) for m, g in zip(axes.mean, gammas, strict=True)]
        at_nodes = np.stack(np.meshgrid(*nodes, indexing="ij")).reshape(2, -1)
        found = jax.jit(lambda v, x: axes.values(v, x))(values.T[None], at_nodes)[0]
        np.testing.assert_allclose(found, values.ravel(), atol=1e-9)
        assert axes.inside(at_nodes).sum() >= 30
        assert not axes.inside(jnp.full((2, 1), np.log1p(1000.0))).any()


def test_a_polynomial_and_its_derivatives_are_exact():
    """Degrees below the number of nodes: interpolation is exact."""
    count = (4, 5)
    a, b = (polynomial._points(n) for n in count)
    values = np.outer(a**3 - a, 1 + b**4)
    z = np.array([[0.3], [0.8]])
    with jax.enable_x64(True):
        of_each = jnp.asarray(np.repeat(values[..., None], 3, -1))
        many = polynomial.derivatives(of_each, np.tile(z, 3), 2)
        one = polynomial.derivatives(jnp.asarray(values.T), np.tile(z, 3), 2)
    a, b = z[:, 0]
    p, q = a**3 - a, 1 + b**4
    for value, gradient, hessian in (many, one):
        np.testing.assert_allclose(value, p * q, rtol=1e-12)
        np.testing.assert_allclose(gradient[:, 0], [(3 * a**2 - 1) * q, p * 4 * b**3], rtol=1e-9)
        mixed = (3 * a**2 - 1) * 4 * b**3
        np.testing.assert_allclose(
            hessian[..., 0], [[6 * a * q, mixed], [mixed, p * 12 * b**2]], rtol=1e-9
        )


@pytest.mark.slow
def test_a_gene_beyond_the_nodes_is_solved_by_the_plain_way():
    study = jaxvp.simulate(
        8,
        400,
        {"g": 80, "h": 70},
        fractions={"g": 0.99996, "h": 0.00001, "Age": 0.0},
        seed=4,
    )
    result = jaxvp.fit(study.expression, study.formula, study.metadata)
    assert (result.diagnostics["status"] == "converged").all()
    assert result.diagnostics["iterations"].max() <= 24  # of both ways: the first gives up early
    assert (result.theta["g"] ** 2 > determinant.LARGEST_GAMMA).any()
    for gene in study.expression.index:
        y = study.expression.loc[gene].to_numpy()
        X, Zs, names = oracles.design(study.formula, study.metadata)
        found = oracles.polish(y, X, Zs, result.theta.loc[gene, names].to_numpy(), False)
        assert result.log_likelihood[gene] >= found[1].log_likelihood - 1e-8


def test_genes_of_a_large_system_do_not_depend_on_their_order():
    """Those at a node, beside others or not, too."""
    study = jaxvp.simulate(40, 400, {"g": 80, "h": 70}, zero_probability=0.5, seed=6)
    backwards = study.expression.iloc[::-1]
    one, other = (
        jaxvp.fit(expression, study.formula, study.metadata)
        for expression in (study.expression, backwards)
    )
    assert (one.diagnostics["status"] == "converged").all() and (one.theta["g"] == 0).any()
    other = other.fractions.loc[one.fractions.index]
    np.testing.assert_allclose(one.fractions, other, rtol=1e-9, atol=1e-12)


def test_blocks_are_formed_while_nodes_are_tabulated(monkeypatch):
    """An error there ends the call; nobody waits for what will not come."""
    study = jaxvp.simulate(40, 400, {"g": 80, "h": 70}, zero_probability=0.5, seed=6)
    formed, form = threading.Event(), shared_genes.statistics

    def tabulate(*arguments):
        assert formed.wait(60)
        raise MemoryError("no room for nodes")

    def statistics_first(*arguments):
        found = form(*arguments)
        formed.set()
        return found

    monkeypatch.setattr(shared_genes, "statistics", statistics_first)
    monkeypatch.setattr(fitter, "prepare_many", tabulate)
    with pytest.raises(MemoryError, match="no room for nodes"):
        jaxvp.fit(study.expression, study.formula, study.metadata)


def test_an_error_in_a_block_waits_for_no_nodes(monkeypatch):
    """What they are tabulated for is over."""
    study = jaxvp.simulate(40, 400, {"g": 80, "h": 70}, zero_probability=0.5, seed=6)
    ended, waiting, form = threading.Event(), threading.Event(), fitter.fit_block
    tabulated = []

    def tabulate(*arguments):
        tabulated.append(ended.wait(10))

    def fail_first(work, *arguments):
        if arguments[1][0, 0] == study.expression.iloc[0, 0]:
            assert waiting.wait(60)
            raise OSError("no such file any more")
        waiting.set()
        return form(work, *arguments)

    monkeypatch.setattr(threads, "cores", lambda: 2)
    monkeypatch.setattr(fitter, "fit_block", fail_first)
    monkeypatch.setattr(fitter, "prepare_many", tabulate)
    with pytest.raises(OSError, match="no such file"):
        jaxvp.fit(study.expression, study.formula, study.metadata, block_size=20)
    assert not tabulated
    ended.set()


@pytest.mark.slow
def test_determinants_that_are_not_exact_enough_are_not_taken(monkeypatch):
    """Genes whose statistics were made for them are factored, one by one."""
    study = jaxvp.simulate(40, 400, {"g": 80, "h": 70}, zero_probability=0.5, seed=6)
    fit = partial(jaxvp.fit, study.expression, study.formula, study.metadata)
    expected = fit()
    monkeypatch.setattr(surface, "PRECISE", -1.0)
    kinds, run = [], program._run
    monkeypatch.setattr(program, "_run", lambda *a: kinds.append(type(a[1])) or run(*a))
    found = fit()
    assert kinds == [PerGene]
    assert (found.diagnostics["status"] == "converged").all()
    np.testing.assert_allclose(found.fractions, expected.fractions, rtol=1e-6, atol=1e-9)
