"""The deviance with random slopes against n x n algebra, its derivatives against finite ones.

The dense side is written here from the formula of the model alone: patsy's columns left of the bar,
`V = I + sum Z Gamma Z'`, `slogdet` and `solve`.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from jaxvp.design import build
from jaxvp.formula import Formula
from jaxvp.likelihood.slope_terms import entries
from jaxvp.likelihood.slopes import evaluate_slopes
from jaxvp.solver.eigen import eigen
from jaxvp.statistics import compress_slopes, statistics

CORRELATED = [("1 + Time", "Subject")]
# (columns left of the bar as patsy writes them, grouping factor) of every correlated block.
MODELS = {
    "~ Time + (Time|Subject)": CORRELATED,
    "~ Time + (Time||Subject) + (1|Plate)": [
        ("1", "Subject"),
        ("0 + Time", "Subject"),
        ("1", "Plate"),
    ],
    "~ Time + (1|Subject) + (0 + Tissue|Plate)": [("1", "Subject"), ("0 + Tissue", "Plate")],
    "~ 0 + (Time|Subject)": CORRELATED,
    "~ 0 + Time + (0 + Time|Plate) + (Time|Subject)": [("0 + Time", "Plate"), *CORRELATED],
}
QUICK = "~ Time + (Time||Subject) + (1|Plate)"


def study(times="own", n=60):
    rng = np.random.default_rng(5)
    table = pd.DataFrame(
        {
            "Subject": [f"p{i}" for i in np.repeat(np.arange(12), 5)],
            "Plate": [f"q{i}" for i in rng.integers(0, 4, n)],
            "Tissue": rng.choice(["brain", "liver", "skin"], n),
            "Time": rng.uniform(0, 4, n) if times == "own" else np.tile(np.arange(5.0), 12),
        }
    )
    return table, rng.normal(size=(n, 2)) * 3 + 7


def dense(table, X, blocks, covariances, y, reml, weights=None):
    import patsy

    n = len(table)
    V = np.diag(np.ones(n) if weights is None else 1 / weights)
    for (columns, group), covariance in zip(blocks, covariances, strict=True):
        Z = np.asarray(patsy.dmatrix(columns, table))
        same = table[group].to_numpy()[:, None] == table[group].to_numpy()[None]
        V = V + (Z @ covariance @ Z.T) * same
    information = X.T @ np.linalg.solve(V, X)
    beta = np.linalg.solve(information, X.T @ np.linalg.solve(V, y))
    rest = y - X @ beta
    size = n - X.shape[1] * reml
    r2 = rest @ np.linalg.solve(V, rest)
    deviance = np.linalg.slogdet(V)[1] + size * (1 + np.log(2 * np.pi * r2 / size))
    return deviance + reml * np.linalg.slogdet(information)[1], beta, np.sqrt(r2 / size)


def prepared(formula, times):
    table, y = study(times)
    compression = compress_slopes(build(Formula.parse(formula), table))
    return table, y, compression, statistics(compression, y)


def point(compression, blocks, rng):
    """Eigenvalues (one is zero) and eigenvectors of Gamma by block, and Gamma of the columns."""
    gamma, basis, covariances = [], [], {}
    for block, transform in zip(
        compression.shared.blocks, compression.slopes.transforms, strict=True
    ):
        values = rng.gamma(1, 0.5, block.size)
        vectors = np.linalg.qr(rng.normal(size=(block.size, block.size)))[0]
        if block.size > 1:
            values[0] = 0.0
        gamma.append(values)
        basis.append(vectors)
        inner = transform @ vectors
        covariances[block.design[0]] = inner * values @ inner.T
    order = sorted(covariances)
    return np.concatenate(gamma), basis, [covariances[place] for place in order]


def cases():
    for formula in MODELS:
        for times in ("own", "same"):
            for reml in (False, True):
                quick = formula == QUICK and times == "own" and reml
                mark = () if quick else (pytest.mark.slow,)
                yield pytest.param(formula, times, reml, marks=mark)


@pytest.mark.filterwarnings("ignore:categorical fixed effects")
@pytest.mark.parametrize("formula, times, reml", list(cases()))
def test_dense_algebra_and_finite_differences(formula, times, reml):
    table, y, compression, block = prepared(formula, times)
    shared, rng = compression.shared, np.random.default_rng(2)
    gamma, basis, covariances = point(compression, MODELS[formula], rng)
    columns = [np.ones(len(y))] * ("0 +" not in formula[:5]) + [table["Time"]]
    X = np.column_stack(columns[: shared.p]) if shared.p else np.zeros((len(y), 0))
    want, beta, sigma = dense(table, X, MODELS[formula], covariances, y[:, 0], reml)
    each = entries(shared.blocks)
    with jax.enable_x64(True):
        gene = jax.tree.map(lambda leaf: jnp.asarray(leaf[..., 0]), block.gene)
        run = jax.jit(lambda g, e: evaluate_slopes(g, e, shared, gene, reml=reml))
        found = run(jnp.asarray(gamma), tuple(map(jnp.asarray, basis)))
        scale, size = block.scale[0], shared.n - reml * shared.p
        deviance = -2 * (float(found.estimates.log_likelihood) - size * np.log(scale))
        assert deviance == pytest.approx(want, rel=1e-11)
        assert float(found.estimates.sigma) * scale == pytest.approx(sigma, rel=1e-10)
        raw = block.ols[:, 0] + scale * np.asarray(found.estimates.coefficients)
        np.testing.assert_allclose(shared.r_inverse @ raw, beta, rtol=1e-9, atol=1e-9)

        def moved(delta):
            """The evaluation where entries of E'Gamma E have moved, turned back into this basis."""
            values, turns, k = [], [], 0
            for number, b in enumerate(shared.blocks):
                inner = np.diag(gamma[k : k + b.size])
                for e, d in zip(each, delta, strict=True):
                    if e.block == number:
                        inner[e.i, e.j] += d
                        inner[e.j, e.i] = inner[e.i, e.j]
                k += b.size
                w, v = np.linalg.eigh(inner)
                values.append(w)
                turns.append(v)
            bases = [e @ v for e, v in zip(basis, turns, strict=True)]
            out = run(jnp.asarray(np.concatenate(values)), tuple(map(jnp.asarray, bases)))
            score = []
            for number, v in enumerate(turns):
                own = [
                    (e, float(s)) for e, s in zip(each, out.score, strict=True) if e.block == number
                ]
                full = np.zeros_like(v)
                for e, s in own:
                    full[e.i, e.j] = full[e.j, e.i] = s if e.i == e.j else s / 2
                full = v @ full @ v.T
                score += [full[e.i, e.j] * (1 if e.i == e.j else 2) for e, _ in own]
            return float(out.deviance), np.array(score)

        h = 1e-5
        unit = np.eye(len(each))
        # From zero on a variance may only grow: forward differences of second order there.
        for place, direction in enumerate(unit):
            e = each[place]
            at_zero = gamma[sum(b.size for b in shared.blocks[: e.block]) + e.i] == 0
            if at_zero and e.i == e.j:
                f0, f1, f2 = (moved(k * h * direction) for k in (0, 1, 2))
                slope = (-3 * f0[0] + 4 * f1[0] - f2[0]) / (2 * h)
                bend = (-3 * f0[1] + 4 * f1[1] - f2[1]) / (2 * h)
            elif at_zero:
                continue  # no covariance matrix on the one side
            else:
                up, down = moved(h * direction), moved(-h * direction)
                slope, bend = (up[0] - down[0]) / (2 * h), (up[1] - down[1]) / (2 * h)
            assert float(found.score[place]) == pytest.approx(slope, rel=1e-5, abs=1e-4)
            np.testing.assert_allclose(found.hessian[place], bend, rtol=1e-3, atol=1e-2)
        assert np.linalg.eigvalsh(np.asarray(found.fisher)).min() > -1e-8


@pytest.mark.parametrize("n", [1, 2, 3, 6])
def test_eigenvalues_are_numpy_s(n):
    matrix = np.random.default_rng(n).normal(size=(n, n, 5))
    matrix = matrix + matrix.swapaxes(0, 1)
    matrix[..., 0] = 0
    with jax.enable_x64(True):
        values, vectors = map(np.asarray, jax.jit(eigen)(matrix))
    want = np.linalg.eigvalsh(np.moveaxis(matrix, -1, 0)).T
    np.testing.assert_allclose(np.sort(values, axis=0), want, atol=1e-13)
    back = np.einsum("ijg,jg,kjg->ikg", vectors, values, vectors)
    np.testing.assert_allclose(back, matrix, atol=1e-13)
