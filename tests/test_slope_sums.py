"""Sums over levels in all their forms: the same deviance and derivatives, of a gene and of many.

The reference is one gene of a design with times of everybody's own, which `test_slope_likelihood`
compares with dense algebra.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_slope_likelihood import QUICK, study

from jaxvp.design import build
from jaxvp.formula import Formula
from jaxvp.likelihood.slope_sums import inner, summed
from jaxvp.likelihood.slopes import evaluate_slopes
from jaxvp.statistics import (
    compress_slopes,
    own_slopes,
    room_for_slopes,
    slope_levels,
    slope_structure,
    statistics,
    sums,
)

FORMULAS = [QUICK, pytest.param("~ Time + (Time|Subject) + (Tissue|Plate)", marks=pytest.mark.slow)]


def prepared(formula, times="own"):
    table, y = study(times)
    design = build(Formula.parse(formula), table)
    compression = compress_slopes(design)
    return design, compression, y


def somewhere(shared, genes):
    """Eigenvalues and eigenvectors of covariances, the same for all genes."""
    rng = np.random.default_rng(3)
    gamma = rng.gamma(1, 0.5, sum(block.size for block in shared.blocks))
    gamma[0] = 0.0
    bases = [np.linalg.qr(rng.normal(size=(block.size,) * 2))[0] for block in shared.blocks]
    if genes is None:
        return jnp.asarray(gamma), tuple(map(jnp.asarray, bases))
    at = (gamma, tuple(bases))
    return jax.tree.map(lambda a: jnp.repeat(jnp.asarray(a)[..., None], genes, -1), at)


def evaluated(shared, gene, many=True):
    genes = gene.within_yy.shape[-1] if many else None
    gamma, basis = somewhere(shared, genes)
    run = jax.jit(lambda g, e, s, one: evaluate_slopes(g, e, s, one, reml=True))
    return jax.tree.map(np.asarray, run(gamma, basis, shared, jax.tree.map(jnp.asarray, gene)))


def the_same(found, expected, digits=1e-9):
    for mine, its in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        scale = np.abs(its).max(initial=0)
        np.testing.assert_allclose(mine, its, rtol=digits, atol=digits * scale)


@pytest.mark.parametrize("formula", FORMULAS)
def test_one_gene_and_many_all_forms(formula, monkeypatch):
    design, compression, y = prepared(formula)
    shared, gene = compression.shared, statistics(compression, y).gene
    assert shared.cross is not None and len(shared.between)
    with jax.enable_x64(True):
        alone = [
            evaluated(shared, jax.tree.map(lambda leaf, j=j: leaf[..., j], gene), many=False)
            for j in range(2)
        ]
        expected = jax.tree.map(lambda *leaves: np.stack(leaves, -1), *alone)
        expected = expected._replace(rounding=None)  # depends on how sums are formed
        the_same(evaluated(shared, gene)._replace(rounding=None), expected)

        none = dataclasses.replace(shared, between=shared.between[:0])
        the_same(evaluated(none, gene)._replace(rounding=None), expected)
        by_class = by_classes(monkeypatch, design)
        assert by_class.shared.cross is None
        gene = statistics(by_class, y).gene
        the_same(evaluated(by_class.shared, gene)._replace(rounding=None), expected)

        s = slope_structure(design, shared)
        found = sums(s, y, np.ones_like(y))
        own = own_slopes(s, found, room_for_slopes(s, 2))
        the_same(evaluated(shared, own)._replace(rounding=None), expected)


def by_classes(monkeypatch, design):
    """A class of every level, and class sums: as if few levels were alone in theirs."""
    monkeypatch.setattr(slope_levels, "_MOSTLY_ALONE", 2.0)
    return compress_slopes(design)


def test_forms_are_chosen_by_what_levels_share():
    for times, by_level in (("own", True), ("same", False)):
        _, compression, y = prepared(QUICK, times)
        gene = statistics(compression, y).gene
        assert (compression.shared.cross is not None) == by_level
        assert (gene.level_sums is not None) == by_level
        numbers = sum(leaf[..., 0].size for leaf in jax.tree.leaves(gene))
        assert compression.shared.numbers_of_gene >= numbers


@pytest.mark.parametrize("classes", [1, 7, 8, 9, 64, 65, 80, 130, 376, 3001])
def test_chunks_fill_their_classes(classes):
    room = slope_levels.chunked(classes)
    chunks = -(-room // slope_levels.CHUNK)
    assert classes <= room < classes + chunks
    assert room % chunks == 0


@pytest.mark.parametrize("terms", [1, 8, 31, 33, 64, 81, 169, 240, 1025])
def test_sums_of_any_length(terms):
    a, b = np.random.default_rng(terms).normal(size=(2, terms, 3))
    with jax.enable_x64(True):
        np.testing.assert_allclose(inner(jnp.asarray(a), jnp.asarray(b), 1), (a * b).sum(0))
        np.testing.assert_allclose(summed(jnp.asarray(a)), a.sum(0))


def test_systems_of_the_host(monkeypatch):
    """For weights of the classes, with and without class sums."""
    _, compression, _ = prepared(QUICK)
    shared = compression.shared
    w = np.random.default_rng(1).normal(size=(3, *shared.roots.shape))
    w = w + w.swapaxes(-1, -2)
    F = np.asarray(shared.cross)
    expected = shared.within + np.einsum("jak,gjab,jbl->gkl", F, w, F)
    np.testing.assert_allclose(shared.systems(w), expected, atol=1e-11)
    none = dataclasses.replace(shared, between=shared.between[:0])
    np.testing.assert_allclose(none.systems(w), expected, atol=1e-11)
