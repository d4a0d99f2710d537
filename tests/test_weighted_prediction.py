"""Effects, residuals, predictions and scores of weighted fits and of random slopes.

lme4's tables and dense algebra, at given estimates: nothing is fitted.
"""

import functools
from dataclasses import replace

import numpy as np
import oracles
import pandas as pd
import pytest
import references
import scipy.linalg
from test_prediction import CLOSE, CROSSED, dense_effects, lme4, result_at

import jaxvp
from jaxvp.collinearity import effective_sample_size
from jaxvp.design import build
from jaxvp.formula import Formula

SLOPES = "~ Age + (Age|Individual) + (1|Tissue)"
DAYS = "~ Days + (Days|Subject)"
GENES = 6


def columns_of(design):
    """Z, a column for every level of every component, block by block, and their places."""
    parts, places = [], {}
    start = 0
    for block in design.blocks or [(i,) for i in range(len(design.codes))]:
        levels, codes = len(design.levels[block[0]]), design.codes[block[0]]
        for j, i in enumerate(block):
            multiplier = design.multipliers[i] if design.slopes else None
            one = np.ones(design.n) if multiplier is None else multiplier
            parts.append(np.eye(levels)[codes] * one[:, None])
            places[i] = slice(start + j * levels, start + (j + 1) * levels)
        start += len(block) * levels
    return np.hstack([np.zeros((design.n, 0)), *parts]), [places[i] for i in sorted(places)]


def factor_of(design, theta):
    """Lambda in the order of these columns."""
    parts, start = [], 0
    for block in design.blocks or [(i,) for i in range(len(design.codes))]:
        c = len(block)
        column, row = np.triu_indices(c)
        own = np.zeros((c, c))
        own[row, column] = theta[start : start + len(row)]
        start += len(row)
        parts.append(np.kron(own, np.eye(len(design.levels[block[0]]))))
    return scipy.linalg.block_diag(*parts)


@functools.cache
def study():
    expression, metadata, _ = references.sample("crossed")
    return expression.iloc[:GENES], metadata


@functools.cache
def made(formula, what, rescale=True, reml=False):
    """A result at some theta with the sigma and coefficients that belong to it, and its weights."""
    expression, metadata = study()
    design = build(Formula.parse(formula), metadata, reml)
    y = expression[list(design.samples)].to_numpy().copy()
    rng = np.random.default_rng(3)
    w = np.ones(y.shape)
    if what in ("table", "holes and table"):
        w = rng.gamma(3, 1, y.shape)
        w[1, metadata["Individual"] == metadata["Individual"].iloc[0]] = 0
    elif what in ("sample", "holes and sample"):
        w[:] = rng.gamma(3, 1, design.n)
        w[:, 4] = 0
    if "holes" in what:
        y[2:, rng.permutation(design.n)[:9]] = np.nan
    here = np.isfinite(y) & (w > 0)
    used = w / (w * here).sum(axis=1, keepdims=True) * here.sum(axis=1, keepdims=True)
    used = used if rescale else w
    theta = rng.uniform(0.3, 2, (GENES, len(design.theta_names)))
    if formula == CROSSED:
        theta[3, 0] = 0
    theta = theta * ([1, 0.02, 0.05, 1] if formula == SLOPES else 1)
    Z, _ = columns_of(design)
    sigma, beta = [], []
    for g, at in enumerate(here):
        root = factor_of(design, theta[g])
        Zs = [Z[at] @ root] if root.size else []
        fit = oracles.dense_fit(
            y[g, at], design.X[at], Zs, [1.0] * len(Zs), reml or not Zs, used[g, at]
        )
        sigma.append(fit.sigma)
        beta.append(fit.beta)
    names = expression.index
    plain = result_at(
        design, theta[:, : len(design.random_names)], sigma, np.array(beta), reml,
        names,
    )  # fmt: skip
    result = replace(
        plain,
        theta=pd.DataFrame(theta, names, list(design.theta_names)),
        weighted=what != "holes",
        options={"rescale_weights": rescale},
    )
    result.diagnostics["n_obs"] = here.sum(axis=1)
    data = pd.DataFrame(y, names, metadata.index)
    weights = None
    if what != "holes":
        weights = pd.DataFrame(w, names, metadata.index)
        weights = weights.iloc[0] if what.endswith("sample") else weights
    return result, data, weights, used * here


KINDS = ["table", "sample", "holes and table", "holes and sample"]


@pytest.mark.parametrize("what, rescale", [*((kind, True) for kind in KINDS), ("table", False)])
@pytest.mark.parametrize("formula", [CROSSED, SLOPES, "~ Age"])
@pytest.mark.parametrize("reml", [False, True])
def test_dense(formula, what, rescale, reml):
    result, y, weights, used = made(formula, what, rescale, reml and formula != "~ Age")
    design = result.design
    Z, places = columns_of(design)
    wide = result.random_effects(y, weights=weights, format="wide")
    fitted = result.fitted(y, weights=weights)
    rest = result.residuals(y, weights=weights)
    pearson = result.residuals(y, weights=weights, kind="pearson", scaled=True)
    for g, name in enumerate(y.index):
        here, sigma = used[g] > 0, result.sigma.iloc[g]
        fixed = design.X @ result.coefficients.iloc[g].to_numpy()
        u, v = np.zeros(0), np.zeros(0)
        if design.codes:
            u, v = dense_effects(
                Z[here],
                factor_of(design, result.theta.iloc[g].to_numpy()),
                (y.iloc[g].to_numpy() - fixed)[here],
                used[g, here],
            )
            order = np.concatenate([np.arange(len(u))[place] for place in places])
            np.testing.assert_allclose(wide["effect"].loc[name], u[order], atol=1e-10)
            np.testing.assert_allclose(
                wide["variance"].loc[name], v[order] * sigma**2, rtol=1e-9, atol=1e-12
            )
        expected = fixed + Z @ u
        np.testing.assert_allclose(fitted.loc[name], expected, atol=1e-10)
        measured = np.isfinite(y.iloc[g].to_numpy())
        want = (y.iloc[g] - expected)[measured]
        np.testing.assert_allclose(rest.loc[name][measured], want, atol=1e-10)
        scaled = want * np.sqrt(used[g, measured]) / sigma
        np.testing.assert_allclose(pearson.loc[name][measured], scaled, atol=1e-9)
        assert rest.loc[name][~measured].isna().all()


@pytest.mark.parametrize("formula", [CROSSED, SLOPES])
def test_parts_add_up(formula):
    result, y, weights, _ = made(formula, "table")
    _, metadata = study()
    names = ["Intercept", *result.design.terms, *result.design.random_names]
    parts = [result.fitted(y, weights=weights, terms=[name]) for name in names]
    whole = result.fitted(y, weights=weights)
    pd.testing.assert_frame_equal(sum(parts), whole)
    predicted = result.predict(metadata, expression=y, weights=weights)
    pd.testing.assert_frame_equal(predicted, whole)
    removed = result.remove(y, names[-2:], weights=weights)
    pd.testing.assert_frame_equal(removed, y - parts[-1] - parts[-2])
    effects = result.random_effects(y, weights=weights)
    assert list(effects["term"].cat.categories) == list(result.design.random_names)


def test_wherever_the_weights_come_from():
    """Any order and side, after load and from the fit; missing, wrong or superfluous ones."""
    result, y, weights, _ = made(CROSSED, "table")
    want = result.fitted(y, weights=weights)
    rng = np.random.default_rng(0)
    mixed = weights.iloc[rng.permutation(GENES), rng.permutation(weights.shape[1])]
    for given in (mixed, mixed.T, weights.to_numpy().T):
        pd.testing.assert_frame_equal(result.fitted(y, weights=given), want)
    pd.testing.assert_frame_equal(result.fitted(y.iloc[::-1], weights=mixed), want)
    known = replace(result, weights=expression_of(weights))
    pd.testing.assert_frame_equal(known.fitted(y.iloc[::-1]), want)
    one, z, series, _ = made(CROSSED, "sample")
    again = one.fitted(z, weights=series)
    for given in (series.to_numpy(), series.sample(frac=1, random_state=0)):
        pd.testing.assert_frame_equal(one.fitted(z, weights=given), again)
    for call, what in (
        (lambda: result.fitted(y), "depend on the weights of the fit.*pass weights="),
        (lambda: result.fitted(y, weights=weights + 1), "are not those of the fit"),
        (lambda: result.fitted(y, weights=weights.iloc[1:]), "the weights lacks 1 of the 6 genes"),
        (lambda: one.fitted(z, weights=series.iloc[1:]), "no value for 1 of 100 samples"),
        (lambda: one.fitted(z, weights=series.to_numpy()[1:]), "99 weights, and the fit had 100"),
        (lambda: replace(one, weighted=False).fitted(z, weights=series), "had no weights"),
    ):
        with pytest.raises(jaxvp.DataError, match=f"(?s){what}"):
            call()


def expression_of(table):
    from jaxvp.expression import align

    return align(table, study()[1])[0]


def test_a_fit_remembers_its_weights():
    expression, metadata = study()
    _, _, weights, _ = made(CROSSED, "table")
    for given in (weights, weights.iloc[0]):
        result = jaxvp.fit(expression, "~ Age", metadata, weights=given)
        pd.testing.assert_frame_equal(
            result.residuals(), result.residuals(expression, weights=given), check_names=False
        )
        assert result.collinearity_score().between(0, 1).all()


# lme4


def test_lme4_with_weights():
    """As lme4 has them, not divided by their mean."""
    expression, metadata, _ = references.sample("crossed")
    numbers = lme4("crossed weighted")
    design = build(Formula.parse(CROSSED), metadata, True)
    theta = [numbers["theta"][f"{name}.(Intercept)", ""] for name in design.random_names]
    result = replace(
        result_at(
            design,
            [theta],
            [numbers["sigma"].iloc[0]],
            numbers["beta"].to_numpy()[None],
            True,
            pd.Index(["gene_4"]),
        ),  # fmt: skip
        weighted=True,
        options={"rescale_weights": False},
    )
    y = expression.loc[["gene_4"]]
    weights = pd.Series(np.resize([0.5, 1, 1.5, 2], len(metadata)), metadata.index)
    effects = result.random_effects(y, weights=weights)
    keys = [
        (f"{t}.(Intercept)", level)
        for t, level in zip(effects["term"], effects["level"], strict=True)
    ]
    for quantity in ("effect", "variance"):
        np.testing.assert_allclose(effects[quantity], numbers[quantity].loc[keys], **CLOSE)
    samples = list(design.samples)
    for quantity, options in (
        ("response", {}),
        ("pearson", {"kind": "pearson"}),
        ("scaled", {"kind": "pearson", "scaled": True}),
    ):
        found = result.residuals(y, weights=weights, **options).loc["gene_4", samples]
        want = numbers[quantity].droplevel("name").loc[samples]
        np.testing.assert_allclose(found, want, **CLOSE)


def test_lme4_with_slopes():
    data, numbers = references.classic_data("sleepstudy"), lme4("sleepstudy")
    metadata = data.astype({"Subject": str})
    design = build(Formula.parse(DAYS), metadata)
    theta = [numbers["theta"][name, ""] for name in design.theta_names]
    names = pd.Index(["Reaction"])
    sigma, beta = numbers["sigma"].to_numpy(), numbers["beta"].to_numpy()[None]
    plain = result_at(design, [theta[:2]], sigma, beta, genes=names)
    result = replace(plain, theta=pd.DataFrame([theta], names, list(design.theta_names)))
    y = pd.DataFrame([data["Reaction"].to_numpy(float)], names, metadata.index)
    effects = result.random_effects(y)
    in_r = {"Subject": "Subject.(Intercept)", "Subject.Days": "Subject.Days"}
    keys = [(in_r[t], level) for t, level in zip(effects["term"], effects["level"], strict=True)]
    assert len(keys) == 36
    for quantity in ("effect", "variance"):
        np.testing.assert_allclose(
            effects[quantity], numbers[quantity].loc[keys], rtol=1e-8, atol=1e-8
        )
    np.testing.assert_allclose(result.fitted(y).iloc[0], numbers["fitted"], rtol=1e-9)
    new = metadata.iloc[[2, 0, 6]].copy()
    new.index = ["a", "b", "c"]
    new["Days"] += 5
    new.loc["c", "Subject"] = "new"
    for name, expected in numbers["predict"].groupby("name"):
        terms = {"": None, "fixed": ["Intercept", "Days"]}.get(name, ["Subject", "Subject.Days"])
        found = result.predict(new, terms, expression=y, unknown_levels="population")
        want = expected.droplevel("name")[found.columns]
        np.testing.assert_allclose(found.iloc[0], want, rtol=1e-8, atol=1e-8)


# Scores


SCORED = [
    "~ Age + Dose + (1|Batch) + (1|Individual)",
    "~ Age + Dose",
    "~ Age + Dose + (Age|Individual)",
    "~ Age + Dose + (0 + Tissue|Batch) + (Age|Individual) + (0 + Dose|Individual)",
]


@pytest.mark.parametrize(
    "what, rescale", [("table", True), ("table", False), ("holes", True), ("ones", True)]
)
@pytest.mark.parametrize("formula", SCORED)
def test_collinearity_score(formula, what, rescale, monkeypatch):
    expression, metadata = study()
    dose = np.random.default_rng(9).normal(size=len(metadata)) + 0.05 * metadata["Age"]
    monkeypatch.setattr(f"{__name__}.study", lambda: (expression, metadata.assign(Dose=dose)))
    result, y, weights, used = made.__wrapped__(formula, what, rescale)
    if what == "ones":  # the statistics that all genes share
        result, weights = replace(result, weighted=False), None
    scores = result.collinearity_score(expression=y, weights=weights)
    apart = result.collinearity_score(expression=y, weights=weights, intercept=False)
    Z, _ = columns_of(result.design)
    for g in range(GENES):
        here = used[g] > 0
        V = np.diag(1 / used[g, here])
        if result.design.codes:
            half = Z[here] @ factor_of(result.design, result.theta.iloc[g].to_numpy())
            V = V + half @ half.T
        X = result.design.X[here]
        covariance = np.linalg.inv(X.T @ np.linalg.solve(V, X))
        root = np.sqrt(np.diag(covariance))
        correlation = np.abs(covariance / root / root[:, None])
        want = correlation[np.triu_indices(3, 1)].max()
        assert scores.iloc[g] == pytest.approx(want, rel=1e-8)
        assert apart.iloc[g] == pytest.approx(correlation[1, 2], rel=1e-8)


# Figures


def covariance_of(result, used, gene):
    """Of the samples that count for a gene, over sigma^2, and these."""
    here = np.flatnonzero(used[gene])
    root = factor_of(result.design, result.theta.iloc[gene].to_numpy())
    half = columns_of(result.design)[0][here] @ root
    return half @ half.T + np.diag(1 / used[gene, here]), here


@pytest.mark.parametrize("what", KINDS)
@pytest.mark.parametrize("formula", [CROSSED, SLOPES])
def test_correlation_structure(formula, what):
    result, y, weights, used = made(formula, what)
    given = {"expression": y, "weights": weights, "sort": False}
    for gene in (1, 3):
        V, _ = covariance_of(result, used, gene)
        want = V / np.sqrt(np.outer(V.diagonal(), V.diagonal()))
        ax = jaxvp.pl.correlation_structure(result, y.index[gene], **given)
        np.testing.assert_allclose(ax.images[0].get_array(), want, atol=1e-10)
    if what == "sample":
        medians = result.theta.copy()
        medians[:] = result.theta.median().to_numpy()
        V, _ = covariance_of(replace(result, theta=medians), used, 0)
        want = V / np.sqrt(np.outer(V.diagonal(), V.diagonal()))
        ax = jaxvp.pl.correlation_structure(result, **given)
        np.testing.assert_allclose(ax.images[0].get_array(), want, atol=1e-10)


def test_correlation_structure_of_some_components():
    """Their own covariances, over all of the variance; the title has shares of variances."""
    result, y, weights, used = made(SLOPES, "table")
    Z, places = columns_of(result.design)
    root = factor_of(result.design, result.theta.iloc[2].to_numpy())
    V, here = covariance_of(result, used, 2)
    own = np.concatenate([np.arange(Z.shape[1])[places[i]] for i in (0, 1)])
    part = (Z[here][:, own] @ (root @ root.T)[np.ix_(own, own)]) @ Z[here][:, own].T
    want = part / np.sqrt(np.outer(V.diagonal(), V.diagonal()))
    np.fill_diagonal(want, 1)
    given = {"expression": y, "weights": weights}
    names = ["Individual", "Individual.Age"]
    ax = jaxvp.pl.correlation_structure(result, y.index[2], names, sort=False, **given)
    np.testing.assert_allclose(ax.images[0].get_array(), want, atol=1e-10)
    with pytest.raises(jaxvp.DataError, match="no random term 'Individual.Ag' .*Individual.Age"):
        jaxvp.pl.correlation_structure(result, y.index[2], "Individual.Ag", **given)
    slope = slice(places[1].start, places[1].stop)
    each = ((Z[here][:, slope] @ root[slope]) ** 2).sum(axis=1) / V.diagonal()
    ax = jaxvp.pl.correlation_structure(result, y.index[2], "Individual.Age", **given)
    assert f"Individual.Age {each.mean():.0%}" in ax.get_title(loc="left")


@pytest.mark.parametrize("what", [*KINDS, "holes"])
@pytest.mark.parametrize(
    "formula, shown, kept",
    [
        (CROSSED, "Individual", ["Individual"]),
        (SLOPES, "Individual", ["Individual"]),
        (SLOPES, "Tissue", ["Tissue"]),
    ],
)
def test_adjusted_values(formula, shown, kept, what):
    """Residuals, and the parts of the terms that stay; the others leave their means."""
    from jaxvp.plots.effects import adjust

    result, y, weights, used = made(formula, what)
    _, metadata = study()
    design = result.design
    Z, places = columns_of(design)
    for gene in (1, 4):
        here = used[gene] > 0
        beta = result.coefficients.iloc[gene].to_numpy()
        root = factor_of(design, result.theta.iloc[gene].to_numpy())
        rest = y.iloc[gene].to_numpy() - design.X @ beta
        u, _ = dense_effects(Z[here], root, rest[here], used[gene, here])
        want = rest - Z @ u + beta[0]
        for place, name in zip(places, design.random_names, strict=True):
            part = Z[:, place] @ u[place]
            want += part if name in kept else part.mean()
        want += sum((design.X[:, j] * beta[j]).mean() for j in range(1, design.p))
        found = adjust(expression_of(y), result, y.index[gene], [shown], metadata, weights)
        np.testing.assert_allclose(found[here], want[here], atol=1e-9)
        assert np.isnan(found[~here]).all()
    ax = jaxvp.pl.stratify(
        y, metadata, y.index[1], shown, result=result, adjusted=True, weights=weights
    )
    drawn = [line for line in ax.lines if line.get_marker() == "o"]
    assert sum(len(line.get_xdata()) for line in drawn) == (used[1] > 0).sum()
    with pytest.raises(jaxvp.DataError, match="are not those of the fit"):
        adjust(expression_of(y + 1e3), result, y.index[1], [shown], metadata, weights)


def test_effective_sample_size_of_genes_that_lack_samples():
    result, y, _, used = made(CROSSED, "holes")
    names = list(result.design.random_names)
    rng = np.random.default_rng(0)
    shares = pd.DataFrame(rng.dirichlet(np.ones(4), GENES), y.index, [*names, "Residuals"])
    result = replace(result, fractions=shares, variances=shares)
    for method in ("full", "approximate"):
        found = result.effective_sample_size(method, expression=y)
        for g in range(GENES):
            some = build(Formula.parse(CROSSED), study()[1].iloc[np.flatnonzero(used[g])])
            want = effective_sample_size(some, shares[names].to_numpy()[[g]], method)
            np.testing.assert_allclose(found.iloc[g], want[0], rtol=1e-12)
    weighted, *_ = made(CROSSED, "table")
    with pytest.raises(jaxvp.DataError, match="counts samples that are all worth the same"):
        weighted.effective_sample_size()
    with pytest.raises(jaxvp.DataError, match="pass expression="):
        result.effective_sample_size()
