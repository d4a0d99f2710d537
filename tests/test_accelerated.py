"""Programs as an accelerator gets them, run on the CPU: other kernels, the same numbers."""

import jax
import numpy as np
import pytest
from shared_statistics import are_those_of, formed_by_numpy, of_every_kind

import jaxvp
from jaxvp.batch import block_genes, compiled, shared
from jaxvp.batch.devices import Devices
from jaxvp.design import build
from jaxvp.formula import Formula
from jaxvp.likelihood import SWEEP_COLUMNS
from jaxvp.solver import prepare_many, solve, solve_slopes, surface
from jaxvp.statistics import (
    SharedPlan,
    compress,
    compress_slopes,
    shared_products,
    statistics,
)
from jaxvp.target import accelerated, traced_for

GENES = 16
KINDS = ("cpu", "cuda")
LARGE = {"g": 40, "h": 35, "i": 33}
CASES = [
    pytest.param({"g": 12}, False, True, id="one term"),
    pytest.param({"g": 24, "h": 14, "i": 3}, True, True, id="three terms", marks=pytest.mark.slow),
    pytest.param(LARGE, False, True, id="large", marks=pytest.mark.slow),
    pytest.param({"g": 75, "h": 66}, True, False, id="factored", marks=pytest.mark.slow),
]


def prepared(levels, reml):
    study = jaxvp.simulate(GENES, 150, levels, zero_probability=0.4, imbalance=0.5, seed=2)
    compression = compress(build(Formula.parse(study.formula), study.metadata))
    gene = statistics(compression, study.expression.to_numpy().T, helpers=2, larger=4).gene
    tables = [
        prepare_many("newton", compression, reml, surface.ENOUGH_GENES, kind) for kind in KINDS
    ]
    return compression, gene, tables


def both(run, *arguments, own=((), ())):
    """What the programs for a CPU and for an accelerator give; each may have its own arguments."""
    with jax.enable_x64(True):
        program = jax.jit(run, static_argnums=0)
        found = (program(kind, *arguments, *its) for kind, its in zip(KINDS, own, strict=True))
        return [jax.tree.map(np.asarray, one) for one in found]


@pytest.mark.parametrize("levels, reml, tabled", CASES)
def test_the_numbers_are_those_of_the_cpu(monkeypatch, levels, reml, tabled):
    """Of the same tables: those of a CPU are not float32."""
    monkeypatch.setattr(surface, "for_cpu", lambda surface: surface)
    compression, gene, (table, _) = prepared(levels, reml)
    assert compression.shared.n_columns > SWEEP_COLUMNS or tabled
    table = table if tabled else None

    def run(kind, *system):
        return solve("newton", GENES, reml, kind, *system)

    wanted, limit = np.ones(GENES, bool), np.int32(100)
    one, other = both(run, compression.shared, gene, wanted, limit, table)
    assert (one.violation <= np.maximum(1e-6, one.tolerance)).all()
    if isinstance(table, surface.Surface):
        # What steps have told of the Hessian: last digits of scores, divided by small steps.
        np.testing.assert_allclose(other.hessian, one.hessian, rtol=1e-7, atol=1e-7)
        one, other = (found._replace(hessian=None) for found in (one, other))
    for mine, its in zip(jax.tree.leaves(other), jax.tree.leaves(one), strict=True):
        np.testing.assert_allclose(mine, its, rtol=1e-8, atol=1e-8)


@pytest.mark.slow
def test_searches_of_large_systems_end_where_an_accelerator_s_do():
    """Each by its own tables and its own way; an accelerator would multiply in fewer digits."""
    compression, gene, tables = prepared(LARGE, False)
    of_cpu, of_cuda = (table.table.eliminated.levels[0] for table in tables)
    assert of_cpu.rotate.dtype == of_cpu.couple.dtype == np.float32
    assert of_cuda.rotate.dtype == of_cuda.couple.dtype == np.float64
    assert tables[1].nodes is None or tables[1].nodes.single is None

    def run(kind, *system):
        return solve("newton", GENES, False, kind, *system)

    own = [(np.int32(100), table) for table in tables]
    one, other = both(run, compression.shared, gene, np.ones(GENES, bool), own=own)
    for found in (one, other):
        assert (found.violation <= np.maximum(1e-6, found.tolerance)).all()
    for name in ("gamma", "estimates"):
        leaves = (jax.tree.leaves(getattr(found, name)) for found in (other, one))
        for mine, its in zip(*leaves, strict=True):
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


def as_an_accelerator(monkeypatch):
    """From here on fits take a CPU for an accelerator."""
    alike = Devices.alike

    def called_so(devices):
        groups = alike(devices)
        for group in groups:
            group.platform = "cuda"
        return groups

    monkeypatch.setattr(Devices, "alike", called_so)


SHARED = [
    pytest.param({"g": 12}, {}, id="one term"),
    pytest.param({"g": 12, "h": 5, "i": 3}, {}, id="three terms"),
    pytest.param({"g": 12}, {"formula": "~ 0 + (1|g)"}, id="no columns are left"),
    pytest.param({"g": 12, "h": 5}, {"weights": True}, id="weights of samples"),
    pytest.param({"g": 16, "h": 3}, {"formula": "~ t + (t|g) + (1|h)"}, id="slopes"),
    pytest.param({"g": 60}, {"n": 2400}, id="interpolated classes", marks=pytest.mark.slow),
    pytest.param({"g": 16}, {"formula": "~ 0 + (t|g)"}, id="slopes alone", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("levels, others", SHARED)
@pytest.mark.parametrize("genes_are_rows", [True, False], ids=["genes first", "samples first"])
def test_products_are_those_of_the_host(levels, others, genes_are_rows):
    compression, y, host = formed_by_numpy(GENES, levels, others)
    plan = SharedPlan.of(compression, "cuda")
    sent = np.ascontiguousarray(y.T if genes_are_rows else y)

    def run(kind, *arguments):
        return shared_products(kind, genes_are_rows, *arguments)

    for found in both(run, plan, sent):
        assert found.plain.all()
        are_those_of(found, host)


@pytest.mark.parametrize("container", ["genes x samples", "samples x genes", "float32"])
def test_fits_form_them_there(monkeypatch, container):
    """Blocks that are not full, and genes of every kind: the same as on a CPU."""
    table, formula, metadata = of_every_kind(40)
    table.iloc[20:30] = np.nan
    if container == "samples x genes":
        table = table.T.copy()
    elif container == "float32":
        table = table.astype(np.float32)

    def fit():
        with np.errstate(all="ignore"):
            return jaxvp.fit(table, formula, metadata, block_size=16, progress=False)

    one, formed = fit(), []
    as_an_accelerator(monkeypatch)
    form = shared.form_block
    monkeypatch.setattr(shared, "form_block", lambda *a: formed.append(a) or form(*a))
    other = fit()
    assert len(formed) == 3
    known = set(compiled._compiled)
    fit()
    assert compiled._compiled == known  # or programs would be forgotten, in time
    assert (one.diagnostics["status"] == other.diagnostics["status"]).all()
    assert one.diagnostics["status"].nunique() > 3
    for name in ("fractions", "log_likelihood", "coefficients", "sigma", "theta"):
        mine, its = getattr(other, name), getattr(one, name)
        np.testing.assert_allclose(mine, its, rtol=1e-6, atol=1e-8, err_msg=name)


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
