"""Random slopes with weights and missing values: dense algebra, samples dropped by hand.

The quick tests have one slope variance, and all of their genes products of their own, so that one
program is compiled.
"""

import functools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_slope_likelihood import dense
from weighted_study import WeightedStudy

import jaxvp

FOLDER = Path(__file__).parent / "reference" / "slopes"
GENES, N = 12, 60
SLOPE = "~ Time + (0 + Time|Subject)"
BOTH = "~ Time + (Time|Subject)"
BLOCKS = {SLOPE: [("0 + Time", "Subject")], BOTH: [("1 + Time", "Subject")]}
SLOW_BOTH = pytest.param(BOTH, marks=pytest.mark.slow)
SLOW_REML = pytest.param(True, marks=pytest.mark.slow)


@functools.cache
def study():
    """Genes x samples and metadata; slopes of all sizes, none in some genes."""
    rng = np.random.default_rng(7)
    metadata = pd.DataFrame(
        {
            "Subject": [f"p{i:02}" for i in np.repeat(np.arange(12), 5)],
            "Time": rng.uniform(0, 4, N).round(2),
        },
        index=[f"s{i}" for i in range(N)],
    )
    person = pd.factorize(metadata["Subject"])[0]
    genes = {}
    for i in range(GENES):
        a, b = ((1.0, 0.5), (0.0, 0.6), (0.8, 0.0), (0.0, 0.0))[i % 4]
        u = rng.standard_normal((12, 2)) * [a, b]
        genes[f"g{i}"] = 7 + u[person, 0] + u[person, 1] * metadata["Time"]
        genes[f"g{i}"] += 0.5 * rng.standard_normal(N)
    return pd.DataFrame(genes).T, metadata


@functools.cache
def weighted():
    """The second gene has lost a subject and some samples."""
    expression, metadata = study()
    return WeightedStudy(expression, metadata, (metadata["Subject"] == "p03") | (np.arange(N) < 4))


def fitted(formula, reml, what, rescale=True):
    return weighted().fitted(formula, what, reml=reml, rescale_weights=rescale)


SLOW_SAMPLE = pytest.param("sample", marks=pytest.mark.slow)


@pytest.mark.parametrize("what", ["own", SLOW_SAMPLE, "holes", "both"])
@pytest.mark.parametrize("reml", [False, SLOW_REML])
@pytest.mark.parametrize("formula", [SLOPE, SLOW_BOTH])
def test_dense_algebra(formula, reml, what):
    """The same likelihood, coefficients and sigma; and no covariance around is better."""
    result = fitted(formula, reml, what)
    assert (result.diagnostics["status"] == "converged").all()
    metadata, rng = study()[1], np.random.default_rng(5)
    X = np.column_stack([np.ones(N), metadata["Time"]])
    for gene in result.fractions.index[:6]:
        y, w, here = weighted().given(what).observed(gene)
        rows = metadata.iloc[here]

        def at(covariance, rows=rows, y=y, w=w, here=here):
            return dense(rows, X[here], BLOCKS[formula], [covariance], y, reml, w)

        sigma = result.sigma[gene]
        best = result.covariance("Subject").loc[gene].to_numpy() / sigma**2
        deviance, beta, scale = at(best)
        assert result.diagnostics.loc[gene, "n_obs"] == len(y)
        assert -2 * result.log_likelihood[gene] == pytest.approx(deviance, rel=1e-10)
        assert sigma == pytest.approx(scale, rel=1e-8)
        np.testing.assert_allclose(result.coefficients.loc[gene], beta, rtol=1e-7, atol=1e-9)
        for size in (1e-3, 0.1, 1.0):
            root = np.linalg.cholesky(best + 1e-12 * np.eye(len(best)))
            for _ in range(4):
                other = root + size * rng.standard_normal(best.shape)
                assert at(other @ other.T)[0] > deviance - 1e-7
        spread = w / w.sum() @ (X[here, 1] - w / w.sum() @ X[here, 1]) ** 2
        parts = [*np.diag(best) * sigma**2, beta[1] ** 2 * spread, sigma**2]
        np.testing.assert_allclose(result.variances.loc[gene], parts, rtol=1e-7, atol=1e-12)
    assert np.abs(result.fractions.sum(axis=1) - 1).max() < 1e-12


@pytest.mark.parametrize("what", ["own", SLOW_SAMPLE])
@pytest.mark.parametrize("formula", [SLOPE, SLOW_BOTH])
def test_weights_that_stay_as_they_are(formula, what):
    """Sigma is that of a weight of one, theta is relative to it; the model is the same."""
    plain, kept = fitted(formula, False, what), fitted(formula, False, what, rescale=False)
    w = weighted().given(what).weights
    w = w if what == "own" else pd.DataFrame([w] * GENES, study()[0].index)
    mean = w.where(w > 0).mean(axis=1)
    np.testing.assert_allclose(kept.log_likelihood, plain.log_likelihood, rtol=1e-10)
    np.testing.assert_allclose(kept.sigma, plain.sigma * np.sqrt(mean), rtol=1e-9)
    np.testing.assert_allclose(
        kept.covariance("Subject"), plain.covariance("Subject"), rtol=1e-8, atol=1e-12
    )
    np.testing.assert_allclose(kept.coefficients, plain.coefficients, rtol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("formula", [SLOPE, BOTH])
def test_dropping_by_hand_gives_the_same(formula, monkeypatch):
    """Zero weights, missing values, shared or not, and a zero of all genes: a smaller study."""
    expression, metadata = study()
    lost = metadata["Subject"] == "p03"
    lost.iloc[[0, 1, 2, 33]] = True
    by_hand = jaxvp.fit(expression.loc[:, ~lost], formula, metadata[~lost])
    gone = np.broadcast_to(lost, expression.shape)
    ways = {
        "missing": jaxvp.fit(expression.mask(gone), formula, metadata),
        "zero": jaxvp.fit(
            expression.mask(gone, np.inf),
            formula,
            metadata,
            weights=pd.DataFrame(1.0 * ~gone, expression.index, expression.columns),
        ),
        "zero for all": jaxvp.fit(expression.mask(gone), formula, metadata, weights=1.0 * ~lost),
    }
    monkeypatch.setattr("jaxvp.batch.patterns._ENOUGH", 5)
    ways["shared"] = jaxvp.fit(expression.mask(gone), formula, metadata)
    for way, result in ways.items():
        assert (result.diagnostics["status"] == "converged").all(), way
        for name in ("fractions", "variances", "coefficients", "standard_errors"):
            ours, want = getattr(result, name), getattr(by_hand, name)
            pd.testing.assert_frame_equal(ours, want, rtol=1e-7, atol=1e-9, obj=f"{way} {name}")
        np.testing.assert_allclose(result.log_likelihood, by_hand.log_likelihood, rtol=1e-10)
        np.testing.assert_allclose(result.theta, by_hand.theta, atol=1e-7)
        assert (result.diagnostics["n_obs"] == (~lost).sum()).all()


@pytest.mark.parametrize(
    "formula, enough",
    [
        pytest.param(SLOPE, 64, id="own"),
        pytest.param(SLOPE, 1, id="shared", marks=pytest.mark.slow),
        pytest.param(BOTH, 64, id="correlated-own", marks=pytest.mark.slow),
    ],
)
def test_statuses(formula, enough, monkeypatch):
    monkeypatch.setattr("jaxvp.batch.patterns._ENOUGH", enough)
    expression, metadata = study()
    y = expression.copy()
    times = metadata.copy()
    times.loc[times.index[::2], "Time"] = 2.0
    person = metadata["Subject"].to_numpy()
    first = (~metadata["Subject"].duplicated()).to_numpy()
    y.iloc[0, 3] = np.inf
    y.iloc[1, 4:] = np.nan
    y.iloc[2] = np.nan
    y.iloc[3, ~first] = np.nan  # one observation a subject
    y.iloc[4, person != "p02"] = np.nan
    y.iloc[5] = y.iloc[5].where(np.arange(N) > 9).mask(np.arange(N) > 9, 7.0)
    y.iloc[6] = (3 + 0.1 * times["Time"]).where(np.arange(N) > 9)
    # Every gene lacks something: none goes with the shared statistics, whose program is another.
    y.iloc[[0, *range(7, GENES)], 8] = np.nan
    same = (times["Time"] == 2.0).to_numpy()
    y.iloc[8, ~same] = np.nan  # one time for all
    result = jaxvp.fit(y, formula, times)
    expected = [
        "non_finite",
        "single_level",  # four observations of one subject
        *["too_few_observations"] * 2,
        "single_level",
        "zero_variance",
        "zero_residual",
        "converged",
        "rank_deficient",
        *["converged"] * 3,
    ]
    assert list(result.diagnostics["status"]) == expected
    failed = np.array(expected) != "converged"
    assert result.fractions[failed].isna().all(axis=None)
    assert result.theta[failed].isna().all(axis=None)
    assert list(result.diagnostics["n_obs"].iloc[[1, 2, 7]]) == [4, 0, N - 1]
    w = pd.DataFrame(1.0, y.index, y.columns)
    w.iloc[9, 2], w.iloc[10, 5], w.iloc[11] = -1, np.nan, 0
    weighted = jaxvp.fit(y, formula, times, weights=w).diagnostics["status"]
    assert list(weighted) == [*expected[:9], *["bad_weights"] * 3]


def test_zero_weights_of_all_genes_must_leave_the_slopes():
    expression, metadata = study()
    times = metadata.copy()
    times.loc[times.index[::2], "Time"] = 2.0
    with pytest.raises(jaxvp.DataError, match="weights leave 30 of 60 .* columns say the same"):
        jaxvp.fit(expression, "~ (0 + Time|Subject)", times, weights=1.0 * (times["Time"] == 2))


@pytest.mark.slow
def test_slopes_whose_level_a_gene_has_lost():
    """`(Tissue + 0|Individual)`: a component without samples is a status; other genes are not."""
    metadata = pd.read_csv(FOLDER / "tissues.metadata.csv", index_col="sample")
    expression = pd.read_csv(FOLDER / "tissues.expression.csv", index_col="gene")
    formula = "~ (Tissue + 0|Individual)"
    y = expression.copy()
    y.iloc[1, (metadata["Tissue"] == "liver").to_numpy()] = np.nan
    y.iloc[2, 3] = np.nan
    found = jaxvp.fit(y, formula, metadata)
    assert list(found.diagnostics["status"]) == ["converged", "rank_deficient", *["converged"] * 2]
    plain = jaxvp.fit(expression, formula, metadata)
    np.testing.assert_allclose(found.theta.iloc[[0, 3]], plain.theta.iloc[[0, 3]], atol=1e-9)


@pytest.mark.slow
def test_single_precision():
    """Float32 knows the log-likelihood to about 1e-5."""
    expression, metadata = study()
    single = jaxvp.fit(expression, SLOPE, metadata, weights=weighted().table, dtype="float32")
    double = fitted(SLOPE, False, "own")
    good = single.diagnostics["status"] == "converged"
    assert good.mean() > 0.9
    np.testing.assert_allclose(
        single.log_likelihood[good], double.log_likelihood[good], rtol=1e-4, atol=1e-3
    )
    np.testing.assert_allclose(single.fractions[good], double.fractions[good], atol=5e-3)


@pytest.mark.slow
def test_many_columns():
    """More swept columns than tiles of genes have: one gene at a time, the same likelihood."""
    rng = np.random.default_rng(8)
    n, people, batches = 220, 30, 66
    metadata = pd.DataFrame(
        {
            "Time": rng.uniform(0, 3, n),
            "Subject": [f"p{i}" for i in np.arange(n) % people],
            "Batch": [f"b{i}" for i in rng.permutation(np.arange(n) % batches)],
        },
        index=[f"s{i}" for i in range(n)],
    )
    y = pd.DataFrame([rng.standard_normal(n)], ["gene"], metadata.index)
    w = pd.DataFrame(rng.gamma(3, 1, (1, n)), ["gene"], metadata.index)
    result = jaxvp.fit(y, "~ Time + (Time|Subject) + (1|Batch)", metadata, weights=w)
    assert (result.diagnostics["status"] == "converged").all()
    blocks = [("1 + Time", "Subject"), ("1", "Batch")]
    covariances = [
        result.covariance(name).loc["gene"].to_numpy() / result.sigma["gene"] ** 2
        for name in ("Subject", "Batch")
    ]
    X = np.column_stack([np.ones(n), metadata["Time"]])
    relative = w.loc["gene"].to_numpy() / w.loc["gene"].mean()
    want = dense(metadata, X, blocks, covariances, y.loc["gene"].to_numpy(), False, relative)[0]
    assert -2 * result.log_likelihood["gene"] == pytest.approx(want, rel=1e-10)
