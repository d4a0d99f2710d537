"""Products of genes with weights of their own and random slopes against n x n algebra.

Nothing is compiled here.
"""

import numpy as np
import pytest
from test_slope_likelihood import MODELS, study

from jaxvp.design import build
from jaxvp.formula import Formula
from jaxvp.statistics import (
    compress_slopes,
    own_slopes,
    room_for_slopes,
    slope_structure,
    statistics,
    sums,
)
from jaxvp.statistics.slopes import elimination_order, orthonormal

GENES = 4


def weights(table):
    """Of four genes: any; some zero; two subjects lost, and one of a third's samples left."""
    rng = np.random.default_rng(0)
    w = rng.gamma(3, 1, (len(table), GENES))
    w[rng.random(len(table)) < 0.2, 1] = 0
    lost = table["Subject"].isin(["p0", "p7"]) | (table["Subject"] == "p3")
    w[lost & ~(table.index == np.flatnonzero(table["Subject"] == "p3")[2]), 2] = 0
    return w


def covariances(design, rng):
    """Of every block of the eliminated factor, one with an eigenvalue of zero."""
    found = []
    for number in elimination_order(design)[0]:
        c = len(design.blocks[number])
        root = rng.normal(size=(c, c)) * (np.arange(c) < max(c - 1, 1))
        found.append(root @ root.T)
    return found


def dense(design, here, w, blocks):
    """V of the eliminated factor, and the columns U, of the samples that are there."""
    first, others = elimination_order(design)
    V = np.diag(1 / w)
    for number, covariance in zip(first, blocks, strict=True):
        z, codes = orthonormal(design, number)[0][here], design.codes[design.blocks[number][0]]
        same = codes[here][:, None] == codes[here][None]
        V = V + (z @ covariance @ z.T) * same
    columns = []
    for number in others:
        codes = design.codes[design.blocks[number][0]]
        for one in orthonormal(design, number)[0].T:
            columns.append((np.eye(codes.max() + 1)[codes] * one[:, None])[here])
    return V, columns


def eliminated(own, gene, j, blocks, K):
    """U'V^-1 U, bordered by y, and log|V_1|, from the products of a gene."""
    c = sum(len(b) for b in blocks)
    covariance, start = np.zeros((c, c)), 0
    for block in blocks:
        end = start + len(block)
        covariance[start:end, start:end] = block
        start = end
    roots, counts = own.roots[..., j], own.counts[:, j]
    inner = np.eye(c) + roots @ covariance @ roots.swapaxes(1, 2)
    w, log_det = np.linalg.inv(inner), (counts * np.linalg.slogdet(inner)[1]).sum()
    uu, uy, yy = own.within[..., j].copy(), gene.within_uy[:, j].copy(), gene.within_yy[j]
    F, a = own.cross[..., j], gene.level_sums[..., j]
    uu += np.einsum("jak,jab,jbl->kl", F, w, F)
    uy += np.einsum("jak,jab,jb->k", F, w, a)
    yy += np.einsum("ja,jab,jb->", a, w, a)
    assert uu.shape == (K, K)
    return uu, uy, yy, log_det


@pytest.mark.filterwarnings("ignore:categorical fixed effects")
@pytest.mark.parametrize("formula", MODELS)
def test_products(formula):
    table, _ = study()
    y = np.random.default_rng(1).normal(size=(len(table), GENES)) * 3 + 7
    design = build(Formula.parse(formula), table)
    shared = compress_slopes(design).shared
    s, w = slope_structure(design, shared), weights(table)
    found = sums(s, y, w)
    room = room_for_slopes(s, GENES + 1)
    own_slopes(s, found, room)  # twice: what the first one left must not matter
    gene = own_slopes(s, found, room)
    rng = np.random.default_rng(2)
    for j in range(GENES):
        here = w[:, j] > 0
        relative = w[here, j] / w[here, j].mean()
        blocks = covariances(design, rng)
        V, columns = dense(design, here, relative, blocks)
        X = design.X[here]
        b = np.zeros(0)
        if X.shape[1]:
            root = np.sqrt(relative)[:, None]
            b = np.linalg.lstsq(root * X, root[:, 0] * y[here, j], rcond=None)[0]
        rest = (y[here, j] - X @ b) / found.scale[j]
        U = np.hstack([*columns, X @ shared.r_inverse])
        uu, uy, yy, log_det = eliminated(gene.own, gene, j, blocks, U.shape[1])
        inverse = np.linalg.inv(V)
        np.testing.assert_allclose(uu, U.T @ inverse @ U, atol=1e-10)
        np.testing.assert_allclose(uy, U.T @ inverse @ rest, atol=1e-10)
        assert yy == pytest.approx(rest @ inverse @ rest, rel=1e-11)
        want = np.linalg.slogdet(V)[1] + np.log(relative).sum()
        assert log_det == pytest.approx(want, abs=1e-11)
        assert gene.own.n[j] == here.sum()


@pytest.mark.filterwarnings("ignore:categorical fixed effects")
@pytest.mark.parametrize("formula", MODELS)
def test_weights_of_all_genes_are_rows_times_their_roots(formula):
    """The same products by `compress_slopes(design, weights)`, which knows no gene."""
    table, _ = study()
    y = np.random.default_rng(1).normal(size=(len(table), 1)) + 7
    design = build(Formula.parse(formula), table)
    plain = compress_slopes(design).shared
    s = slope_structure(design, plain)
    for w in weights(table).T[:3]:
        found = sums(s, y, w[:, None])
        gene = own_slopes(s, found, room_for_slopes(s, 1))
        compression = compress_slopes(design, w)
        shared = compression.shared
        ours = statistics(compression, y[compression.weighting.rows])
        K = shared.n_columns
        turn = np.eye(K)
        q = K - shared.p
        turn[q:, q:] = np.linalg.inv(plain.r_inverse) @ shared.r_inverse  # another basis of X
        blocks = covariances(design, np.random.default_rng(3))

        class Shared:
            within, cross = shared.within[..., None], shared.cross[..., None]
            roots, counts = shared.roots[..., None], shared.counts[:, None]

        uu, uy, yy, log_det = eliminated(gene.own, gene, 0, blocks, K)
        vv, vy, zz, log_det2 = eliminated(Shared, ours.gene, 0, blocks, K)
        np.testing.assert_allclose(vv, turn.T @ uu @ turn, atol=1e-10)
        np.testing.assert_allclose(vy, turn.T @ uy, atol=1e-10)
        assert zz == pytest.approx(yy, rel=1e-10)
        assert log_det2 == pytest.approx(log_det, abs=1e-10)
        assert ours.scale[0] == pytest.approx(found.scale[0], rel=1e-11)


def test_what_a_gene_s_samples_determine():
    """By hand: levels of a slope's factor, times of every person, one time for all."""
    table, _ = study("same")
    design = build(Formula.parse("~ Time + (Time|Subject) + (0 + Tissue|Plate)"), table)
    s = slope_structure(design, compress_slopes(design).shared)
    n = len(table)
    time, tissue = table["Time"].to_numpy(), table["Tissue"].to_numpy()
    w = np.ones((n, 6))
    w[tissue == "skin", 1] = 0  # a component without samples
    w[time != table["Subject"].str[1:].astype(int) % 5, 2] = 0  # one time a person
    w[time > 1, 3] = 0  # two times a person: enough
    w[time != 2, 4] = 0  # one time for all
    w[time > 3, 5] = 1e-9  # a weight is a weight
    assert s.determined(w).tolist() == [True, False, False, True, False, True]
