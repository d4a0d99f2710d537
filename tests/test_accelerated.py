"""Programs as an accelerator gets them, run on the CPU: other kernels, the same numbers."""

import jax
import numpy as np
import pytest

import jaxvp
from jaxvp.batch import block_genes
from jaxvp.design import build
from jaxvp.formula import Formula
from jaxvp.likelihood import SWEEP_COLUMNS
from jaxvp.solver import prepare_many, solve, solve_slopes, surface
from jaxvp.statistics import compress, compress_slopes, statistics
from jaxvp.target import accelerated, traced_for

GENES = 16
CASES = [
    pytest.param({"g": 12}, False, True, id="one term"),
    pytest.param({"g": 12, "h": 5, "i": 3}, True, True, id="three terms"),
    pytest.param({"g": 40, "h": 35, "i": 33}, False, True, id="large", marks=pytest.mark.slow),
    pytest.param({"g": 75, "h": 66}, True, False, id="factored", marks=pytest.mark.slow),
]


def prepared(levels, reml):
    study = jaxvp.simulate(GENES, 150, levels, zero_probability=0.4, imbalance=0.5, seed=2)
    compression = compress(build(Formula.parse(study.formula), study.metadata))
    gene = statistics(compression, study.expression.to_numpy().T, helpers=2, larger=4).gene
    return compression, gene, prepare_many("newton", compression, reml, surface.ENOUGH_GENES)


def both(run, *arguments):
    """What the programs for a CPU and for an accelerator give."""
    with jax.enable_x64(True):
        found = (jax.jit(run, static_argnums=0)(kind, *arguments) for kind in ("cpu", "cuda"))
        return [jax.tree.map(np.asarray, one) for one in found]


@pytest.mark.parametrize("levels, reml, tabled", CASES)
def test_the_numbers_are_those_of_the_cpu(levels, reml, tabled):
    compression, gene, table = prepared(levels, reml)
    assert compression.shared.n_columns > SWEEP_COLUMNS or tabled
    table = table if tabled else None

    def run(kind, *system):
        return solve("newton", GENES, reml, kind, *system)

    wanted, limit = np.ones(GENES, bool), np.int32(100)
    one, other = both(run, compression.shared, gene, wanted, limit, table)
    assert (one.violation <= np.maximum(1e-6, one.tolerance)).all()
    for mine, its in zip(jax.tree.leaves(other), jax.tree.leaves(one), strict=True):
        np.testing.assert_allclose(mine, its, rtol=1e-8, atol=1e-8)


@pytest.mark.slow
def test_slopes_too():
    study = jaxvp.simulate(GENES, 80, {"g": 16}, seed=3)
    metadata = study.metadata.assign(t=np.tile(np.arange(5.0), 16))
    compression = compress_slopes(build(Formula.parse("~ t + (t|g)"), metadata))
    gene = statistics(compression, study.expression.to_numpy().T).gene

    def run(kind, *system):
        return solve_slopes(GENES, True, kind, *system)

    wanted, limit = np.ones(GENES, bool), np.int32(100)
    one, other = both(run, compression.shared, gene, wanted, limit)
    np.testing.assert_allclose(other.deviations, one.deviations, rtol=1e-6, atol=1e-6)
    likelihoods = (found.estimates.log_likelihood for found in (other, one))
    np.testing.assert_allclose(*likelihoods, rtol=1e-9)


def test_the_target_is_what_is_asked_for():
    assert not accelerated()
    with traced_for("cuda"):
        assert accelerated()
        with traced_for("cpu"):
            assert not accelerated()
        assert accelerated()
    assert not accelerated()


def test_blocks_of_an_accelerator_are_larger():
    metadata = jaxvp.simulate(1, 400, {"g": 30, "h": 5}, seed=1).metadata
    shared = compress(build(Formula.parse("~ 1 + (1|g) + (1|h)"), metadata)).shared
    sizes = [block_genes(shared, n, 20_000, "cuda") for n in (100, 10_000, 1_000_000, 100_000_000)]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] > block_genes(shared, 100, 20_000)
    assert all(size & (size - 1) == 0 for size in sizes)


def test_programs_differ():
    """Or nothing above would be compared with anything."""
    compression, gene, _ = prepared({"g": 12}, False)

    def run(kind, *system):
        return solve("newton", GENES, False, kind, *system)

    system = (compression.shared, gene, np.ones(GENES, bool), np.int32(100), None)
    with jax.enable_x64(True):
        traced = jax.make_jaxpr(run, static_argnums=0)
        cpu, cuda = (str(traced(kind, *system)) for kind in ("cpu", "cuda"))
    assert "optimization_barrier" in cuda and "optimization_barrier" not in cpu
