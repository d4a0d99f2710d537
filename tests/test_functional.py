"""The functional core: the public fit's numbers, derivatives against finite differences of it.

One program gives values, a forward and a reverse derivative; the quick tests share it.
"""

import subprocess
import sys
from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pandas as pd
import pytest

import jaxvp
from jaxvp import functional, solver
from jaxvp.batch import compiled, program
from jaxvp.design import build
from jaxvp.formula import Formula
from jaxvp.functional import optimum
from jaxvp.functional.inputs import checked
from jaxvp.likelihood import conditions, evaluate
from jaxvp.solver import Status
from jaxvp.statistics import compress, layout, traced_statistics

FORMULA = "~ Age + (1|Donor) + (1|Batch)"
N, GENES = 36, 6
OUTPUTS = ("theta", "variances", "fractions", "coefficients", "log_likelihood")


@pytest.fixture(scope="module")
def study():
    """Samples x genes: of five kinds, one with nothing but noise in it."""
    rng = np.random.default_rng(4)
    metadata = pd.DataFrame(
        {
            "Age": rng.normal(50, 9, N),
            "Donor": [f"d{i:02}" for i in np.r_[np.arange(9), rng.integers(0, 9, N - 9)]],
            "Batch": rng.choice(list("abc"), N),
        },
        index=[f"s{i}" for i in range(N)],
    )
    donors, batches = (
        pd.get_dummies(metadata[name]).to_numpy(float) for name in metadata.columns[1:]
    )
    size = np.array([[1.5, 0, 1, 0.9, 0, 1.2], [1, 0.8, 0, 1.3, 0, 0]])
    Y = 8 + 0.02 * metadata["Age"].to_numpy()[:, None] + 0.7 * rng.normal(size=(N, GENES))
    for levels, scale in zip((donors, batches), size, strict=True):
        Y += levels @ (scale * rng.normal(size=(levels.shape[1], GENES)))
    return Y, metadata, rng.uniform(0.4, 2.5, N)


class Around(NamedTuple):
    """A fit, its change along given directions, and the gradients of given sums of it."""

    fit: functional.Fit
    forward: tuple
    reverse: tuple


def around(design):
    """The program of this file, compiled when it is first called."""

    def values(Y, X, w):
        fit = functional.fit_genes(Y, eqx.tree_at(lambda d: d.X, design, X), w)
        return tuple(getattr(fit, name) for name in OUTPUTS), fit

    # Compiled in two thirds of the time; it runs in milliseconds either way.
    options = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}

    @partial(jax.jit, compiler_options=options)
    def program(point, directions, cotangents):
        _, push, fit = jax.linearize(values, *point, has_aux=True)
        pull = jax.linear_transpose(push, *point)
        return Around(fit, push(*directions), pull(cotangents))

    return program


@pytest.fixture(scope="module")
def prepared(study):
    """The program, a point, and random directions and cotangents there."""
    Y, metadata, w = study
    rng = np.random.default_rng(4)
    with jax.enable_x64(True):
        design = functional.design(FORMULA, metadata)
        point = (jnp.asarray(Y), jnp.asarray(design.X), jnp.asarray(w))
        sizes = [2.0, np.array([1.0, 9.0]), 1.0]  # of X: Intercept, Age
        directions = tuple(
            jnp.asarray(rng.normal(size=a.shape)) * s for a, s in zip(point, sizes, strict=True)
        )
        shapes = [(GENES, 2), (GENES, 4), (GENES, 4), (GENES, 2), (GENES,)]
        cotangents = tuple(jnp.asarray(rng.normal(size=shape)) for shape in shapes)
        program = around(design)
        here = jax.tree.map(np.asarray, program(point, directions, cotangents))
    return program, design, point, directions, cotangents, here


def test_values_are_those_of_dense_algebra(study, prepared):
    """Optimum, coefficients and likelihood of `oracles.polish`, n x n, from one tight start."""
    Y, metadata, w = study
    fit = prepared[-1].fit
    X, Zs, _ = oracles.design(FORMULA, metadata)
    w = w / w.mean()
    for gene in range(GENES):
        theta, found, _ = oracles.polish(Y[:, gene], X, Zs, np.full(2, 0.7), weights=w)
        np.testing.assert_allclose(fit.theta[gene], theta, atol=1e-6)
        np.testing.assert_allclose(fit.sigma[gene], found.sigma, rtol=1e-7)
        np.testing.assert_allclose(fit.coefficients[gene], found.beta, rtol=1e-6)
        np.testing.assert_allclose(fit.standard_errors[gene], found.standard_errors, rtol=1e-6)
        np.testing.assert_allclose(fit.log_likelihood[gene], found.log_likelihood, rtol=1e-10)
    assert (fit.status == 0).all() and (fit.gradient <= 1e-6).all()
    zeros = (fit.theta == 0).sum(axis=0)
    assert (zeros > 0).all() and (zeros < GENES).all()  # genes on both sides of the boundary


@pytest.mark.parametrize("which", range(3), ids=["Y", "X", "weights"])
def test_derivatives_are_those_of_the_whole_fit(prepared, which):
    program, _, point, directions, cotangents, _ = prepared
    alone = tuple(d if i == which else jnp.zeros_like(d) for i, d in enumerate(directions))
    with jax.enable_x64(True):

        def moved(h):
            there = tuple(p + h * d for p, d in zip(point, alone, strict=True))
            return [getattr(program(there, alone, cotangents).fit, name) for name in OUTPUTS]

        # Fourth order, so that the step may be large beside the fit's own rounding.
        step = 1e-3
        one, two = (
            [np.subtract(a, b) for a, b in zip(moved(h), moved(-h), strict=True)]
            for h in (step, 2 * step)
        )
        slopes = [(8 * a - b) / (12 * step) for a, b in zip(one, two, strict=True)]
        found = program(point, alone, cotangents).forward
    for name, ours, theirs in zip(OUTPUTS, found, slopes, strict=True):
        size = abs(theirs).max()
        assert size > 1e-3, name
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5 * size, err_msg=name)


def test_forward_and_reverse_agree(prepared):
    *_, here = prepared
    directions, cotangents = (tuple(map(np.asarray, arrays)) for arrays in prepared[3:5])
    forward = sum(float((c * d).sum()) for c, d in zip(cotangents, here.forward, strict=True))
    reverse = sum(float((g * d).sum()) for g, d in zip(here.reverse, directions, strict=True))
    assert forward == pytest.approx(reverse, rel=1e-10)
    assert all(np.isfinite(g).all() and abs(g).max() > 0 for g in here.reverse)


def test_a_component_at_zero_stays_there(prepared):
    theta, moved = prepared[-1].fit.theta, prepared[-1].forward[0]
    assert (moved[theta == 0] == 0).all() and (moved[theta > 0] != 0).all()


def test_a_gene_that_fails_is_alone(prepared):
    """NaN in its values and in its derivative; everybody else as before."""
    program, _, (Y, X, w), directions, cotangents, here = prepared
    with jax.enable_x64(True):
        Y = Y.at[5, 1].set(jnp.nan).at[:, 3].set(2.5).at[7, 4].set(jnp.inf)
        there = jax.tree.map(np.asarray, program((Y, X, w), directions, cotangents))
    status = [0, Status.NON_FINITE, 0, Status.ZERO_VARIANCE, Status.NON_FINITE, 0]
    assert there.fit.status.tolist() == status
    failed = np.array(status) != 0
    for name in OUTPUTS:
        values = getattr(there.fit, name)
        assert np.isnan(values[failed]).all()
        np.testing.assert_allclose(values[~failed], getattr(here.fit, name)[~failed], rtol=1e-9)
    assert np.isnan(there.fit.gradient[failed]).all() and (there.fit.iterations[failed] == 0).all()
    for ours, before in zip(there.forward, here.forward, strict=True):
        assert np.isnan(ours[failed]).all()
        np.testing.assert_allclose(ours[~failed], before[~failed], rtol=1e-6, atol=1e-9)
    in_y, *shared = there.reverse
    assert np.isnan(in_y[:, failed]).all()
    np.testing.assert_allclose(in_y[:, ~failed], here.reverse[0][:, ~failed], rtol=1e-7, atol=1e-12)
    assert all(np.isfinite(gradient).all() for gradient in shared)


def test_weights_that_are_none(prepared):
    program, _, (Y, X, w), directions, cotangents, _ = prepared
    with jax.enable_x64(True):
        for bad, status in [
            (w.at[3].set(-1), Status.BAD_WEIGHTS),
            (w.at[3].set(jnp.nan), Status.BAD_WEIGHTS),
            (w.at[:].set(0), Status.BAD_WEIGHTS),
            (w.at[3:].set(0), Status.TOO_FEW_OBSERVATIONS),
        ]:
            fit = program((Y, X, bad), directions, cotangents).fit
            assert (np.asarray(fit.status) == status).all()
            assert np.isnan(fit.fractions).all()


def explained(study, counts):
    """Ranks of [X Z] and of Z on the samples that count, beside their number."""
    X, Zs, _ = oracles.design(FORMULA, study[1][counts])
    Z = np.concatenate(Zs, axis=1)
    rank = np.linalg.matrix_rank
    return rank(np.concatenate([X, Z], axis=1)), rank(Z), int(counts.sum())


def test_a_likelihood_without_a_maximum(study, prepared):
    """Where X and the random terms explain any measurements of the samples that are left."""
    program, _, (Y, X, w), directions, cotangents, _ = prepared
    rng = np.random.default_rng(2)
    answers = []
    for left in (5, 6, 7, 9, 12, 14) * 2:
        counts = np.zeros(N, bool)
        counts[rng.choice(N, left, replace=False)] = True
        both, random, n = explained(study, counts)
        levels = study[1].loc[counts, ["Donor", "Batch"]].nunique()
        if (levels >= n).any() or (levels == 1).any():
            continue  # another status, whatever the rank
        with jax.enable_x64(True):
            fit = program((Y, X, jnp.where(counts, w, 0)), directions, cotangents).fit
        endless = both == n > random
        assert (np.asarray(fit.status) == Status.TOO_FEW_OBSERVATIONS).all() == endless
        assert np.isnan(fit.fractions).all() == endless
        answers.append(endless)
    assert 2 <= sum(answers) <= len(answers) - 2, answers


def test_weight_zero_is_not_measured(prepared):
    """What stands there does not matter, not even for derivatives."""
    program, _, (Y, X, w), directions, cotangents, _ = prepared
    with jax.enable_x64(True):
        one = program((Y, X, w.at[4].set(0)), directions, cotangents)
        other = program((Y.at[4].set(jnp.nan), X, w.at[4].set(0)), directions, cotangents)
    np.testing.assert_array_equal(one.fit.fractions, other.fit.fractions)
    np.testing.assert_array_equal(one.reverse[0], other.reverse[0])
    assert (np.asarray(one.reverse[0])[4] == 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("reml", [False, True])
def test_conditions_are_those_of_the_deviance(study, reml):
    """Same score and estimates as the solver sees, at zeros too."""
    Y, metadata, w = study
    with jax.enable_x64(True):
        found = build(Formula.parse(FORMULA), metadata)
        shared = compress(found).shared
        gene, _ = traced_statistics(
            layout(found, shared), compress(found).q, jnp.asarray(Y[:, 0]), jnp.asarray(w), 9
        )
        for gamma in ([0.7, 0.2], [0.0, 0.3], [1e4, 0.0]):
            gamma = jnp.asarray(gamma)
            theirs = evaluate(tuple(gamma), shared, gene, reml=reml)
            score, ours = conditions(gamma, shared, gene, reml=reml)
            np.testing.assert_allclose(score, jnp.stack(theirs.score), rtol=1e-8, atol=1e-9)
            for a, b in zip(ours, theirs.estimates, strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-9)


# Without a random term nothing is iterated, and a program is compiled in no time.


@pytest.fixture(scope="module")
def fixed(study):
    return functional.design("~ Age + Batch", study[1])


@pytest.mark.parametrize("weighted", [None, pytest.param(1, marks=pytest.mark.slow), 2])
def test_the_fixed_model(study, fixed, weighted):
    Y, metadata, w = study
    weights = {
        None: None,
        1: w,
        2: w[:, None] * np.linspace(1, 2, GENES) ** np.linspace(-1, 1, N)[:, None],
    }
    weights = weights[weighted]
    result = jaxvp.fit(Y, "~ Age + Batch", metadata, weights=weights)
    with jax.enable_x64(True):
        fit = functional.fit_genes(Y, fixed, weights)
        np.testing.assert_allclose(fit.fractions, result.fractions, rtol=1e-9)
        np.testing.assert_allclose(fit.variances, result.variances, rtol=1e-9)
        np.testing.assert_allclose(fit.standard_errors, result.standard_errors, rtol=1e-9)
        np.testing.assert_allclose(fit.log_likelihood, result.log_likelihood, rtol=1e-11)
    assert fit.theta.shape == (GENES, 0) and fixed.components == ("Age", "Batch", "Residuals")


def test_the_type_is_that_of_the_measurements(study, fixed):
    Y = study[0]
    fit = functional.fit_genes(Y.astype(np.float32), fixed)
    assert all(x.dtype == np.float32 for x in fit[:7])
    with jax.enable_x64(True):
        exact = functional.fit_genes(Y, fixed)
        again = functional.fit_genes(jnp.asarray(Y, jnp.float32), fixed)
        assert exact.fractions.dtype == np.float64 and again.fractions.dtype == np.float32
        assert functional.fit_genes(np.round(Y).astype(int), fixed).fractions.dtype == np.float64
        np.testing.assert_allclose(fit.fractions, exact.fractions, atol=2e-5)


def test_one_loop_is_run_by_both():
    """`jaxvp.fit` compiles the very function that the functional core calls, to the same limit."""
    assert optimum.solve is compiled.solve is solver.solve
    assert optimum.MAX_ITERATIONS is program.MAX_ITERATIONS
    assert compiled.PROGRAMS["intercepts"].__wrapped__ is solver.solve


def test_no_callback_and_no_setting(study, fixed):
    before = dict(jax.config.values)
    text = str(jax.make_jaxpr(functional.fit_genes)(np.float32(study[0]), fixed))
    assert "callback" not in text
    assert before == dict(jax.config.values)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (lambda Y: (Y.T,), "pass Y.T"),
        (lambda Y: (Y[:-1],), "35 x 6 and should be 36 samples x genes: rows of Y"),
        (lambda Y: (Y[:, 0],), "fit_gene takes one gene"),
        (lambda Y: (Y[:, :0],), "no genes"),
        (lambda Y: (Y, Y[:5, 0]), r"weights are \(5,\) and should be \(36,\) or \(36, 6\)"),
        (lambda Y: (Y > 0,), "Y is bool: real numbers"),
        (lambda Y: (Y + 0j,), "complex64: real numbers"),
    ],
)
def test_shapes_and_types_that_do_not_fit(study, fixed, arguments, words):
    """Found while the function is traced, before any work."""
    Y, *weights = arguments(np.float32(study[0]))
    with pytest.raises(jaxvp.DataError, match=words):
        jax.eval_shape(lambda Y: functional.fit_genes(Y, fixed, *weights), Y)


def test_more_that_does_not_fit(study, fixed):
    Y, metadata, _ = study
    with pytest.raises(jaxvp.DataError, match="Y is float64.*enable_x64"):
        functional.fit_genes(Y, fixed)
    with pytest.raises(jaxvp.DataError, match="fit_genes takes a matrix"):
        functional.fit_gene(np.float32(Y), fixed)
    with pytest.raises(jaxvp.DataError, match="design is a DataFrame"):
        checked("Y", np.float32(Y), metadata, None, 2)
    with pytest.raises(jaxvp.DesignError, match=r"\(1 \+ Age\|Donor\) .*jaxvp.fit"):
        functional.design("~ (Age|Donor)", metadata)
    with pytest.raises(jaxvp.DesignError, match="36 x 4.*X is 36 x 1"):
        fixed.with_fixed_columns(fixed.X[:, :1])


def test_a_rank_that_is_lost_is_a_status(study, fixed):
    Y, metadata, _ = study
    X = np.column_stack([fixed.X[:, :3], fixed.X[:, 1] * 2])
    fit = functional.fit_genes(np.float32(Y), fixed.with_fixed_columns(X))
    assert (fit.status == Status.RANK_DEFICIENT).all() and np.isnan(fit.fractions).all()


# What compiles programs of its own.


def same(fit, result, rtol=1e-8):
    for name in ("fractions", "variances", "coefficients", "standard_errors", "log_likelihood"):
        ours, theirs = np.asarray(getattr(fit, name)), getattr(result, name).to_numpy()
        np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=1e-10, err_msg=name)
    np.testing.assert_allclose(fit.theta, result.theta, atol=1e-7)
    np.testing.assert_array_equal(np.asarray(fit.status), 0)


@pytest.mark.slow
@pytest.mark.parametrize("weights", ["none", "samples", "genes"])
@pytest.mark.parametrize("reml", [False, True], ids=["ML", "REML"])
def test_same_as_the_public_fit(study, weights, reml):
    """With derivatives of each kind, along random directions."""
    Y, metadata, w = study
    rng = np.random.default_rng(7)
    w = {"none": None, "samples": w, "genes": w[:, None] * rng.uniform(0.5, 2, Y.shape)}[weights]
    result = jaxvp.fit(Y, FORMULA, metadata, weights=w, reml=reml)
    with jax.enable_x64(True):
        design = functional.design(FORMULA, metadata, reml=reml)
        assert design.components == tuple(result.fractions.columns)
        assert design.random_names == tuple(result.theta.columns)
        point = (Y, design.X) if w is None else (Y, design.X, w)
        sizes = [1.0, np.array([1.0, 9.0]), 0.5]  # of X: Intercept, Age
        steps = [rng.normal(size=a.shape) * s for a, s in zip(point, sizes, strict=False)]
        c = rng.normal(size=(GENES, 5))

        @jax.jit
        @jax.value_and_grad
        def along(h):
            y, X, *w = (p + h * d for p, d in zip(point, steps, strict=True))
            fit = functional.fit_genes(y, eqx.tree_at(lambda d: d.X, design, X), *w)
            return (c[:, :4] * fit.fractions).sum() + c[:, 4] @ fit.log_likelihood

        fit = functional.fit_genes(Y, design, w)
        same(fit, result)
        one, two = (along(h)[0] - along(-h)[0] for h in (1e-3, 2e-3))
        assert float(along(0.0)[1]) == pytest.approx(float(8 * one - two) / 12e-3, rel=1e-5)


@pytest.mark.slow
def test_mapped(study):
    """Responses, responses with weights of their own, and bootstrap weights of a block."""
    Y, metadata, w = study
    weights = np.random.default_rng(8).poisson(1.5, (3, N)).astype(float) + 0.1
    with jax.enable_x64(True):
        design = functional.design(FORMULA, metadata)
        block = functional.fit_genes(Y, design)
        mapped = jax.jit(jax.vmap(functional.fit_gene, in_axes=(1, None)))(Y, design)
        one = functional.fit_gene(Y[:, 0], design)
        own = jax.vmap(functional.fit_gene, in_axes=(1, None, 0))(Y[:, :3], design, weights)
        boot = jax.jit(jax.vmap(functional.fit_genes, in_axes=(None, None, 0)))(Y, design, weights)
        single = [functional.fit_genes(Y, design, w) for w in weights]
        grads = [
            jax.jit(jax.grad(lambda Y, fit=fit: (fit(Y, design).fractions ** 2).sum()))(Y)
            for fit in (functional.fit_genes, jax.vmap(functional.fit_gene, in_axes=(1, None)))
        ]
        draws = jax.jit(
            jax.vmap(jax.grad(lambda w: (functional.fit_genes(Y, design, w).fractions ** 2).sum()))
        )(weights)
    for name in OUTPUTS:
        values = getattr(block, name)
        np.testing.assert_allclose(getattr(mapped, name), values, rtol=1e-7, atol=1e-8)
        np.testing.assert_allclose(getattr(one, name), values[0], rtol=1e-7, atol=1e-8)
        found = getattr(boot, name)
        for i, fit in enumerate(single):
            np.testing.assert_allclose(found[i], getattr(fit, name), rtol=1e-7, atol=1e-8)
            np.testing.assert_allclose(
                getattr(own, name)[i], getattr(fit, name)[i], rtol=1e-7, atol=1e-8
            )
    np.testing.assert_allclose(*grads, rtol=1e-6, atol=1e-9)
    assert draws.shape == weights.shape and np.isfinite(draws).all()


@pytest.mark.slow
def test_float32(study):
    Y, metadata, _ = study
    with jax.enable_x64(True):
        design = functional.design(FORMULA, metadata)
        exact = functional.fit_genes(Y, design)
    fit = functional.fit_genes(np.float32(Y), design)
    assert fit.fractions.dtype == np.float32 and (np.asarray(fit.status) == 0).all()
    np.testing.assert_allclose(fit.fractions, exact.fractions, atol=2e-3)
    gradient = jax.grad(lambda Y: functional.fit_genes(Y, design).fractions[:, 0].sum())
    assert np.isfinite(gradient(jnp.float32(Y))).all()


@pytest.mark.slow
def test_statuses_are_those_of_the_public_fit(study):
    """Weights of each gene's own, most of them zero; and the same as a bootstrap of one gene."""
    Y, metadata, w = study
    rng = np.random.default_rng(6)
    genes = 40
    weights = np.zeros((N, genes))
    for gene, left in enumerate(rng.integers(2, 16, genes)):
        weights[rng.choice(N, left, replace=False), gene] = rng.uniform(0.5, 2, left)
    many = np.repeat(Y[:, :1], genes, axis=1)
    result = jaxvp.fit(many, FORMULA, metadata, weights=weights)
    statuses = result.diagnostics["status"].tolist()
    assert {"too_few_observations", "converged"} <= set(statuses)
    with jax.enable_x64(True):
        design = functional.design(FORMULA, metadata)
        fits = [
            functional.fit_genes(many, design, weights),
            jax.vmap(functional.fit_gene, in_axes=(None, None, 1))(Y[:, 0], design, weights),
        ]
    for fit in fits:
        assert [Status(status).label for status in fit.status.tolist()] == statuses
        np.testing.assert_array_equal(np.isnan(fit.sigma), result.sigma.isna())


SHARDED = """
import jax
jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_enable_x64", True)
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
import jaxvp
from jaxvp import functional
study = jaxvp.simulate(12, 40, {"g": 8, "h": 3}, zero_probability=0.5, seed=1)
Y, design = study.expression.T.to_numpy(), functional.design(study.formula, study.metadata)
mesh = jax.make_mesh((2,), ("genes",), axis_types=(AxisType.Auto,))
def shares(Y):
    return functional.fit_genes(Y, design).fractions
def loss(Y):
    return shares(Y), jax.grad(lambda Y: shares(Y)[:, 0].sum())(Y)
spread = jax.jit(jax.shard_map(loss, mesh=mesh, in_specs=P(None, "genes"),
                               out_specs=(P("genes"), P(None, "genes")), check_vma=False))
placed = jax.device_put(Y, NamedSharding(mesh, P(None, "genes")))
for ours, theirs in zip(spread(placed), jax.jit(loss)(Y)):
    np.testing.assert_allclose(ours, theirs, rtol=1e-7, atol=1e-9)
assert "all-" not in spread.lower(placed).compile().as_text()
second = jax.devices()[1]
there = functional.fit_genes(jax.device_put(Y, second), design)
assert all(leaf.devices() == {second} for leaf in there)
np.testing.assert_allclose(there.fractions, shares(Y), rtol=1e-7, atol=1e-9)
print("same")
"""


@pytest.mark.slow
def test_sharded():
    """Over two devices, without a word between them; and on the device that the arrays are on."""
    done = subprocess.run([sys.executable, "-c", SHARDED], capture_output=True, text=True)
    assert done.stdout == "same\n", done.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("levels", "covariates"), [({"a": 66, "b": 70}, ("Age",)), ({"a": 9}, ())], ids=["large", "one"]
)
def test_other_sizes(levels, covariates):
    """More columns than are swept, and a single random term."""
    study = jaxvp.simulate(3, 150, levels, covariates=covariates, seed=2)
    result = jaxvp.fit(study.expression, study.formula, study.metadata)
    Y = study.expression.T.to_numpy()
    with jax.enable_x64(True):
        design = functional.design(study.formula, study.metadata)
        fit = functional.fit_genes(Y, design)
        same(fit, result)
        U = np.random.default_rng(1).normal(size=Y.shape)
        along = jax.jit(
            jax.value_and_grad(
                lambda h: functional.fit_genes(Y + h * U, design).fractions[:, 0].sum()
            )
        )
        one, two = (along(h)[0] - along(-h)[0] for h in (1e-3, 2e-3))
        assert float(along(0.0)[1]) == pytest.approx(float(8 * one - two) / 12e-3, rel=1e-5)


@pytest.mark.slow
def test_a_longer_search_takes_no_more_memory(study):
    """Nothing of the iterations is kept: reverse mode needs as much for one as for all."""
    Y, metadata, _ = study
    sizes = []
    for limit in (1, 200):
        with jax.enable_x64(True), pytest.MonkeyPatch.context() as patch:
            patch.setattr(optimum, "MAX_ITERATIONS", limit)
            design = functional.design(FORMULA, metadata)
            loss = jax.grad(lambda Y: functional.fit_genes(Y, design).fractions[:, 0].sum())  # noqa: B023
            jax.clear_caches()
            sizes.append(jax.jit(loss).lower(Y).compile().memory_analysis().temp_size_in_bytes)
    assert sizes[0] == sizes[1]
