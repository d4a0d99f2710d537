"""Random effects, fitted values, residuals and predictions: lme4's tables and dense algebra.

Results are made here at given estimates, those of the tables or any others, so that nothing is
fitted and what is compared is exact.
"""

import copy
import dataclasses
import pickle

import numpy as np
import oracles
import pandas as pd
import pytest
import references

import jaxvp
from jaxvp.design import build
from jaxvp.formula import Formula
from jaxvp.prediction import random_effects
from jaxvp.prediction.structure import Term, arrange
from jaxvp.results import Results

CROSSED = "~ Age + (1|Batch) + (1|Individual) + (1|Tissue)"
POLY = "~ poly(Age, 2) + Tissue + (1|Individual)"
# Of the table's cases: data, gene, formula, REML.
CASES = {
    "crossed ML": ("crossed", "gene_4", CROSSED, False),
    "crossed REML": ("crossed", "gene_2", CROSSED, True),
    "crossed poly": ("crossed", "gene_4", POLY, False),
    "nested ML": ("nested", "gene_5", "~ (1|batch) + (1|cask:batch)", False),
}
CLOSE = {"rtol": 0, "atol": 1e-8}


def lme4(case):
    """The numbers of a case: one series a quantity, by name and level."""
    table = pd.read_csv(references.HERE / "predictions.csv", keep_default_na=False)
    rows = table[table["case"] == case]
    return {
        quantity: part.set_index(["name", "level"])["value"]
        for quantity, part in rows.groupby("quantity")
    }


def result_at(design, theta, sigma, coefficients, reml=False, genes=None, status=None):
    """A result with these estimates, genes in rows, and nothing else of meaning."""
    genes = pd.Index([f"g{i}" for i in range(len(sigma))]) if genes is None else genes
    some = pd.DataFrame(1.0, genes, ["Residuals"])
    sigma = np.asarray(sigma, float)
    status = np.where(np.isnan(sigma), "zero_variance", "converged")
    return Results(
        fractions=some,
        variances=some,
        coefficients=pd.DataFrame(coefficients, genes, list(design.columns)),
        standard_errors=pd.DataFrame(coefficients, genes, list(design.columns)),
        theta=pd.DataFrame(theta, genes, list(design.random_names)),
        sigma=pd.Series(sigma, genes, name="sigma"),
        log_likelihood=pd.Series(0.0, genes, name="log_likelihood"),
        diagnostics=pd.DataFrame({"status": status, "n_obs": design.n}, index=genes),
        design=design,
        formula=design.formula.text,
        reml=reml,
        block_size=4,
        versions={},
    )


def at_the_fit(design, y, theta, reml=False):
    """The result with the best sigma and coefficients at some theta: by dense algebra."""
    Zs = [
        np.eye(len(levels))[codes]
        for levels, codes in zip(design.levels, design.codes, strict=True)
    ]
    fits = [
        oracles.dense_fit(v, design.X, Zs, t, reml or not Zs) for v, t in zip(y, theta, strict=True)
    ]
    sigma, beta = [f.sigma for f in fits], [f.beta for f in fits]
    return result_at(design, theta, sigma, np.array(beta), reml), Zs


def dense_effects(Z, factor, residual, weights=None):
    """u and its conditional covariance over sigma^2, all columns at once."""
    root = np.sqrt(np.ones(len(Z)) if weights is None else weights)
    augmented = np.concatenate([root[:, None] * Z @ factor, np.eye(Z.shape[1])])
    Q, R = np.linalg.qr(augmented)  # squares no condition number
    scaled = np.linalg.solve(R, Q.T @ np.concatenate([root * residual, np.zeros(Z.shape[1])]))
    half = np.linalg.solve(R.T, factor.T)
    return factor @ scaled, (half**2).sum(axis=0)


def lme4_result(case):
    data, gene, formula, reml = CASES[case]
    expression, metadata, _ = references.sample(data)
    design = build(Formula.parse(formula), metadata, reml)
    numbers = lme4(case)
    theta = [numbers["theta"][f"{name}.(Intercept)", ""] for name in design.random_names]
    sigma, beta = numbers["sigma"].iloc[0], numbers["beta"].to_numpy()
    if formula == POLY:  # lme4 has the columns of poly first, as we do
        assert list(design.columns)[1] == "poly(Age, 2)[1]"
    made = result_at(design, [theta], [sigma], beta[None], reml, pd.Index([gene]))
    return made, expression.loc[[gene]], metadata, numbers


# lme4


@pytest.mark.filterwarnings("ignore:categorical fixed effects")
@pytest.mark.parametrize("case", CASES)
def test_lme4(case):
    result, y, metadata, numbers = lme4_result(case)
    effects = result.random_effects(y)
    for quantity in ("effect", "variance"):
        expected = numbers[quantity]
        assert len(effects) == len(expected)
        keys = [
            (f"{t}.(Intercept)", level)
            for t, level in zip(effects["term"], effects["level"], strict=True)
        ]
        np.testing.assert_allclose(effects[quantity], expected.loc[keys], **CLOSE)
    samples = list(result.design.samples)
    expected = numbers["fitted"].droplevel("name").loc[samples]
    np.testing.assert_allclose(result.fitted(y).loc[:, samples].iloc[0], expected, **CLOSE)
    np.testing.assert_allclose(
        result.residuals(y).iloc[0], y[samples].iloc[0] - expected.to_numpy(), **CLOSE
    )

    new = metadata.iloc[[2, 0, 6]].copy()
    new.index = ["a", "b", "c"]
    for name in set(new.columns) & {"Age"}:
        new[name] += 5
    for name in set(new.columns) & {"Batch", "Individual", "batch"}:
        new.loc["c", name] = "new"
    fixed = ["Intercept", *result.design.terms]
    for name, expected in numbers["predict"].groupby("name"):
        terms = {"": None, "fixed": fixed}.get(name, [name])
        found = result.predict(new, terms, expression=y, unknown_levels="population")
        np.testing.assert_allclose(
            found.iloc[0], expected.droplevel("name")[found.columns], **CLOSE
        )


def test_lme4_with_weights():
    """The arrays of a weighted fit: effects, their variances, residuals."""
    expression, metadata, _ = references.sample("crossed")
    numbers, n = lme4("crossed weighted"), len(metadata)
    design = build(Formula.parse(CROSSED), metadata)
    terms = [
        Term(c, np.ones((n, 1)), len(v)) for c, v in zip(design.codes, design.levels, strict=True)
    ]
    y = expression.loc["gene_4", list(design.samples)].to_numpy()
    weights = np.resize([0.5, 1, 1.5, 2], n)[:, None]
    factors = [
        np.full((1, 1, 1), numbers["theta"][f"{name}.(Intercept)", ""])
        for name in design.random_names
    ]
    residual = (y - design.X @ numbers["beta"].to_numpy())[:, None]
    found = random_effects(arrange(terms), residual, factors, weights, variances=True)
    sigma = numbers["sigma"].iloc[0]
    for i, name in enumerate(design.random_names):
        keys = [(f"{name}.(Intercept)", level) for level in design.levels[i]]
        np.testing.assert_allclose(found.values[i][:, 0], numbers["effect"].loc[keys], **CLOSE)
        variances = found.variances[i][:, 0] * sigma**2
        np.testing.assert_allclose(variances, numbers["variance"].loc[keys], **CLOSE)
    rest = residual[:, 0] - sum(
        t.matrix() @ u[:, 0] for t, u in zip(terms, found.values, strict=True)
    )
    response = numbers["response"].droplevel("name").loc[list(design.samples)]
    np.testing.assert_allclose(rest, response, **CLOSE)


def test_lme4_with_slopes():
    """Two correlated columns a level: lme4's sleepstudy."""
    data, numbers = references.classic_data("sleepstudy"), lme4("sleepstudy")
    codes, levels = pd.factorize(data["Subject"])
    days = data["Days"].to_numpy(float)
    columns = np.column_stack([np.ones(len(days)), days])
    theta = numbers["theta"].droplevel("level")
    names = ["Subject.(Intercept)", "Subject.Days"]
    factor = np.array([[theta[names[0]], 0], [theta["Subject.Days.(Intercept)"], theta[names[1]]]])
    residual = data["Reaction"].to_numpy(float) - columns @ numbers["beta"].to_numpy()
    structure = arrange([Term(codes, columns, len(levels))])
    found = random_effects(structure, residual[:, None], [factor[None]], variances=True)
    sigma = numbers["sigma"].iloc[0]
    for quantity, values in (("effect", found.values), ("variance", found.variances)):
        for j, name in enumerate(names):
            unit = 1 if quantity == "effect" else sigma**2
            expected = numbers[quantity].loc[[(name, str(level)) for level in levels]]
            np.testing.assert_allclose(values[0][j::2, 0] * unit, expected, rtol=1e-8, atol=1e-8)
    fitted = columns @ numbers["beta"].to_numpy()
    fitted += structure.terms[0].matrix() @ found.values[0][:, 0]
    np.testing.assert_allclose(fitted, numbers["fitted"], rtol=1e-9)


# Dense algebra


@pytest.mark.parametrize("kinds", ["1", "11", "111", "21", "12", "2", "112", "123"])
@pytest.mark.parametrize("weighted", [False, True])
def test_any_columns_and_weights(kinds, weighted):
    """A digit a term: how many columns a level. Weights of zero are among the weights."""
    rng = np.random.default_rng(len(kinds))
    n, genes = 40, 3
    terms, factors = [], []
    for i, width in enumerate(map(int, kinds)):
        levels = (5, 9, 3)[i]
        terms.append(Term(rng.integers(0, levels, n), rng.normal(size=(n, width)), levels))
        factors.append(np.tril(rng.normal(size=(genes, width, width))))
    factors[0][1] = 0.0
    residual = rng.normal(size=(n, genes))
    weights = rng.uniform(0, 2, (n, genes)) * (rng.random((n, genes)) > 0.2) if weighted else None
    structure = arrange(terms)
    found = random_effects(structure, residual, factors, weights, variances=True)
    alone = random_effects(structure, residual, factors, weights)
    Z = np.hstack([term.matrix().toarray() for term in terms])
    for g in range(genes):
        blocks = [np.kron(np.eye(t.levels), f[g]) for t, f in zip(terms, factors, strict=True)]
        w = np.ones(n) if weights is None else weights[:, g]
        u, v = dense_effects(Z, oracles.scipy.linalg.block_diag(*blocks), residual[:, g], w)
        np.testing.assert_allclose(np.concatenate(found.values)[:, g], u, atol=1e-12)
        np.testing.assert_allclose(np.concatenate(alone.values)[:, g], u, atol=1e-12)
        np.testing.assert_allclose(np.concatenate(found.variances)[:, g], v, atol=1e-12)
        np.testing.assert_allclose(found.explained[g], u @ Z.T @ (w * residual[:, g]), atol=1e-11)


@pytest.mark.parametrize("formula", [CROSSED, "~ Age + (1|Individual)", "~ (1|Batch/Tissue)"])
@pytest.mark.parametrize("reml", [False, True])
def test_dense(formula, reml):
    expression, metadata, _ = references.sample("crossed")
    design = build(Formula.parse(formula), metadata, reml)
    y = expression[list(design.samples)].to_numpy()
    rng = np.random.default_rng(1)
    theta = rng.uniform(0, 2, (len(y), len(design.codes)))
    theta[0, 0], theta[1], theta[2] = 0, 0, 1e3
    result, Zs = at_the_fit(design, y, theta, reml)
    data = pd.DataFrame(y, result.sigma.index, list(design.samples))
    wide = result.random_effects(data, format="wide")
    fitted, rest = result.fitted(data), result.residuals(data, scaled=True)
    for g, name in enumerate(result.sigma.index):
        factor = np.diag(np.repeat(theta[g], [Z.shape[1] for Z in Zs]))
        fixed = design.X @ result.coefficients.iloc[g].to_numpy()
        u, v = dense_effects(np.hstack(Zs), factor, y[g] - fixed)
        scale = 1 if theta[g].max() < 100 else 1e3
        np.testing.assert_allclose(wide["effect"].loc[name], u, atol=1e-11 * scale)
        v = v * result.sigma.iloc[g] ** 2
        np.testing.assert_allclose(wide["variance"].loc[name], v, rtol=1e-9, atol=1e-11 * scale)
        expected = fixed + np.hstack(Zs) @ u
        np.testing.assert_allclose(fitted.loc[name], expected, atol=1e-11 * scale)
        residual = (y[g] - expected) / result.sigma.iloc[g]
        np.testing.assert_allclose(rest.loc[name], residual, atol=1e-10 * scale)


@pytest.fixture
def crossed():
    """Result, measurements (genes x samples), metadata; the last gene has no fit."""
    expression, metadata, _ = references.sample("crossed")
    metadata = metadata.assign(Tissue=metadata["Tissue"].astype("category"))
    design = build(Formula.parse(CROSSED), metadata)
    y = expression[list(design.samples)].to_numpy()
    theta = np.random.default_rng(2).uniform(0, 2, (len(y), 3))
    result, _ = at_the_fit(design, y, theta)
    for table in (result.sigma, result.theta, result.coefficients):
        table.iloc[-1] = np.nan
    return result, pd.DataFrame(y, result.sigma.index, metadata.index), metadata


def test_parts_add_up(crossed):
    result, y, metadata = crossed
    names = ["Intercept", "Age", "Batch", "Individual", "Tissue"]
    parts = [result.fitted(y, terms=[name]) for name in names]
    pd.testing.assert_frame_equal(sum(parts), result.fitted(y))
    pd.testing.assert_frame_equal(result.fitted(y) + result.residuals(y), y.where(parts[0].notna()))
    pd.testing.assert_frame_equal(result.predict(metadata, expression=y), result.fitted(y))
    removed = result.remove(y, ["Batch", "Age"])
    pd.testing.assert_frame_equal(removed, y - parts[1] - parts[2])
    whole = result.remove(y, terms=names)
    pd.testing.assert_frame_equal(whole, result.residuals(y))
    centred = result.remove(y, ["Batch", "Age"], center=True)
    np.testing.assert_allclose(centred.mean(axis=1)[:-1], y.mean(axis=1)[:-1])
    assert centred.sub(removed).std(axis=1)[:-1].max() < 1e-12
    assert y.shape == removed.shape and removed.iloc[-1].isna().all()
    pd.testing.assert_frame_equal(
        result.residuals(y, kind="pearson", scaled=True), result.residuals(y).div(result.sigma, 0)
    )


def test_long_and_wide_say_the_same(crossed):
    result, y, _ = crossed
    long = result.random_effects(y)
    wide = result.random_effects(y, format="wide")
    assert list(long["gene"][:32]) == ["g0"] * 32 and len(long) == 32 * len(y)
    for quantity in ("effect", "variance"):
        turned = long.pivot(index="gene", columns=["term", "level"], values=quantity)
        np.testing.assert_array_equal(turned.loc[wide.index], wide[quantity][turned.columns])
    batch = result.random_effects(y, terms=["Batch"], format="wide")
    pd.testing.assert_frame_equal(batch["effect"]["Batch"], wide["effect"]["Batch"])
    assert result.random_effects(y, terms=[]).empty


@pytest.mark.parametrize("turned", [False, True])
def test_measurements_are_found_by_name(crossed, turned):
    """Whatever the order, the side of the genes and what else is there."""
    result, y, _ = crossed
    rng = np.random.default_rng(0)
    more = y.assign(other=1.0).loc[rng.permutation(y.index)]
    more.loc["more"] = 0.0
    more = more[rng.permutation(more.columns)]
    pd.testing.assert_frame_equal(result.fitted(more.T if turned else more), result.fitted(y))
    removed = result.remove(more.T if turned else more, ["Batch"])
    expected = result.remove(y, ["Batch"])
    pd.testing.assert_frame_equal(removed.T if turned else removed, expected)


def test_arrays_go_by_position(crossed):
    result, y, _ = crossed
    values = result.fitted(y).to_numpy()
    unnamed = y.T.to_numpy()
    np.testing.assert_array_equal(result.fitted(unnamed).to_numpy(), values)
    np.testing.assert_array_equal(result.fitted(np.asfortranarray(unnamed)).to_numpy(), values)
    removed = result.remove(unnamed, ["Batch"])
    assert removed.shape == unnamed.shape and list(removed.index) == list(y.columns)
    for wrong, what in (
        (y.to_numpy(), "its .T"),
        (unnamed[:, :2], "2 columns"),
        (unnamed[:50], "50 rows"),
    ):
        with pytest.raises(jaxvp.DataError, match=what):
            result.fitted(wrong)


def test_samples_that_the_fit_dropped():
    """A sample without a value is no sample of the fit; an array has its row or has not."""
    expression, metadata, _ = references.sample("crossed")
    metadata.loc["sample_3", "Age"] = np.nan
    expression = expression[metadata.index]
    with pytest.warns(UserWarning, match="dropped"):
        design = build(Formula.parse(CROSSED), metadata)
    y = expression[list(design.samples)]
    result, _ = at_the_fit(design, y.to_numpy(), np.ones((len(y), 3)))
    for table in (result.fractions, result.sigma, result.theta, result.coefficients):
        table.index = y.index
    expected = result.fitted(expression)
    assert list(expected.columns) == list(y.columns)
    for array in (expression.T.to_numpy(), y.T.to_numpy()):
        np.testing.assert_array_equal(result.fitted(array), expected)
    predicted = result.predict(metadata, expression=expression)
    assert predicted["sample_3"].isna().all()
    assert predicted.drop(columns="sample_3").notna().all(axis=None)
    by_random = result.predict(metadata, ["Batch"], expression=expression)
    assert by_random.notna().all(axis=None)


@pytest.mark.parametrize("formula", [CROSSED, "~ Age + (1|Individual)", "~ Age"])
def test_missing_measurements(formula):
    """A gene is that of its own samples, whatever it has lost; others are not changed."""
    expression, metadata, _ = references.sample("crossed")
    design = build(Formula.parse(formula), metadata)
    y = expression[list(design.samples)].to_numpy().copy()
    rng = np.random.default_rng(3)
    y[1, rng.permutation(100)[:30]] = np.nan
    y[4, design.X[:, 1] > np.median(design.X[:, 1])] = np.nan
    theta = rng.uniform(0.3, 2, (len(y), len(design.codes)))
    Zs = [
        np.eye(len(levels))[codes]
        for levels, codes in zip(design.levels, design.codes, strict=True)
    ]
    seen = np.isfinite(y)
    fits = [
        oracles.dense_fit(v[s], design.X[s], [Z[s] for Z in Zs], t, not Zs)
        for v, s, t in zip(y, seen, theta, strict=True)
    ]
    beta = np.array([fit.beta for fit in fits])
    result = result_at(design, theta, [fit.sigma for fit in fits], beta)
    result.diagnostics["n_obs"] = seen.sum(axis=1)
    data = pd.DataFrame(y, result.sigma.index, metadata.index)
    rest, fitted = result.residuals(data).to_numpy(), result.fitted(data).to_numpy()
    effects = result.random_effects(data, format="wide")
    np.testing.assert_array_equal(np.isnan(rest), ~seen)
    for g, s in enumerate(seen):
        fixed, Z = design.X @ beta[g], np.hstack([np.zeros((100, 0)), *Zs])
        factor = np.diag(np.repeat(theta[g], [Z.shape[1] for Z in Zs]))
        u, v = dense_effects(Z[s], factor, (y[g] - fixed)[s])
        if Zs:
            np.testing.assert_allclose(effects["effect"].iloc[g], u, atol=1e-11)
            expected = v * fits[g].sigma ** 2
            np.testing.assert_allclose(effects["variance"].iloc[g], expected, atol=1e-11)
        np.testing.assert_allclose(fitted[g], fixed + Z @ u, atol=1e-11)
        np.testing.assert_allclose(rest[g, s], (y[g] - fixed - Z @ u)[s], atol=1e-11)
    more = data.copy()
    more.iloc[1, np.flatnonzero(seen[1])[0]] = np.nan
    with pytest.raises(jaxvp.DataError, match="'g1' are not those of the fit"):
        result.fitted(more)


# Other samples


@pytest.mark.filterwarnings("ignore:categorical fixed effects")
@pytest.mark.parametrize(
    "formula",
    [
        "~ scale(Age) + Tissue * poly(Dose, 3) + (1|Individual)",
        "~ 0 + C(Site) + bs(Age, df=5) + center(log(Dose)) + (1|Tissue/Individual)",
        "~ poly(Age, 2, raw=True) * Tissue + I(scale(Dose) ^ 2)",
    ],
)
def test_other_samples_are_coded_as_those_of_the_fit(formula, tmp_path):
    """A few samples, whatever the rest, get their rows of the fit; from a file, too."""
    rng = np.random.default_rng(0)
    n = 60
    metadata = pd.DataFrame(
        {
            "Age": rng.uniform(20, 80, n),
            "Dose": rng.uniform(1, 9, n),
            "Tissue": rng.choice(list("abc"), n),
            "Site": rng.integers(0, 4, n),
            "Individual": rng.integers(0, 7, n),
        },
        index=[f"s{i}" for i in range(n)],
    )
    design = build(Formula.parse(formula), metadata)
    y = rng.normal(size=(3, n))
    result, _ = at_the_fit(design, y, np.ones((3, len(design.codes))))
    result.save(tmp_path / "r.vp")
    data = pd.DataFrame(y, result.sigma.index, metadata.index)
    whole = result.fitted(data)
    for some in (slice(None), [5], [7, 3, 7], []):
        for made in (result, jaxvp.load(tmp_path / "r.vp")):
            found = made.predict(metadata.iloc[some], expression=data)
            np.testing.assert_allclose(found, whole.iloc[:, some], rtol=1e-11, atol=1e-11)
    as_text = metadata.astype({"Site": str, "Individual": "category"})
    np.testing.assert_allclose(result.predict(as_text, expression=data), whole, rtol=1e-11)


def test_beyond_the_ends_of_a_spline():
    metadata = pd.DataFrame({"x": np.arange(30.0)}, index=[f"s{i}" for i in range(30)])
    design = build(Formula.parse("~ bs(x, df=4)"), metadata)
    y = metadata["x"].to_numpy()[None] ** 2
    b = np.linalg.lstsq(design.X, y[0])[0]
    result = result_at(design, np.zeros((1, 0)), [1.0], b[None])
    with pytest.warns(UserWarning, match="2 of 3 samples are outside"):
        found = result.predict(pd.DataFrame({"x": [-2.0, 3.0, 33.0]}))
    np.testing.assert_allclose(found.iloc[0], [4, 9, 33**2], rtol=1e-9)


# Without a mixed model, without a source


def test_fixed_model():
    expression, metadata, _ = references.sample("crossed")
    design = build(Formula.parse("~ Age * Tissue"), metadata)
    y = expression[list(design.samples)].to_numpy()
    b = np.linalg.lstsq(design.X, y.T)[0].T
    rest = y - b @ design.X.T
    sigma = np.sqrt((rest**2).sum(axis=1) / (design.n - design.p))
    result = result_at(design, np.zeros((len(y), 0)), sigma, b, genes=expression.index)
    np.testing.assert_allclose(result.residuals(expression), rest, atol=1e-11)
    np.testing.assert_allclose(result.fitted(expression), b @ design.X.T, atol=1e-11)
    fixed = result.predict(metadata.iloc[:4], ["Tissue", "Age:Tissue"])
    assert fixed.shape == (len(y), 4)
    tissue = result.remove(expression, ["Tissue"])
    columns = [i for i, name in enumerate(design.columns) if name.startswith("Tissue")]
    np.testing.assert_allclose(tissue, y - b[:, columns] @ design.X[:, columns].T, atol=1e-11)
    assert result.random_effects(expression).empty


def test_numbers_of_any_size(crossed):
    """1e200 and 1e-200 are data, and so is a mean beside which the spread is small."""
    result, y, _ = crossed
    for unit in (1e-200, 1e150):
        scaled = copy.copy(result)
        for name in ("coefficients", "sigma"):
            object.__setattr__(scaled, name, getattr(result, name) * unit)
        found = scaled.residuals(y * unit) / unit
        np.testing.assert_allclose(found, result.residuals(y), atol=1e-12)


def test_pickle_leaves_the_measurements(crossed):
    result, y, _ = crossed
    again = pickle.loads(pickle.dumps(result))
    assert again.measurements is None
    pd.testing.assert_frame_equal(again.fitted(y), result.fitted(y))
    with pytest.raises(jaxvp.DataError, match="pass expression="):
        again.residuals()


def test_after_a_fit_the_source_is_read_again():
    expression, metadata, _ = references.sample("one_factor")
    # A fixed model: nothing is compiled. `test_sklearn` reads that of a random term again.
    result = jaxvp.fit(expression, "~ Age", metadata, progress=False)
    again = result.fitted(expression)
    pd.testing.assert_frame_equal(result.fitted(), again, check_names=False)
    assert list(result.fitted().columns) == list(metadata.index)
    sorted_ = result.sort_columns()
    pd.testing.assert_frame_equal(sorted_.fitted(), result.fitted())
    gap = metadata.iloc[:40].copy()
    gap.loc["sample_5", "Age"] = np.nan
    with pytest.warns(UserWarning, match="dropped"):
        some = jaxvp.fit(expression[gap.index].T.to_numpy(), "~ Age", gap)
    assert some.residuals().shape == (len(expression), 39)


class Watched:
    """Measurements that remember which genes were asked for."""

    def __init__(self, values):
        self.values, self.n_samples, self.asked = values, len(values), []

    def read(self, rows, start, stop):
        self.asked.append((start, stop))
        return self.values[rows, start:stop]


@pytest.mark.parametrize(
    "call",
    [
        lambda result: result.random_effects(),
        lambda result: result.random_effects(format="wide"),
        lambda result: result.fitted(),
        lambda result: result.residuals(),
        lambda result: result.remove(terms=["Batch"]),
        lambda result: result.predict(pd.DataFrame({"Batch": ["Batch_3"]}), ["Batch"]),
    ],
    ids=["long", "wide", "fitted", "residuals", "remove", "predict"],
)
def test_measurements_are_read_in_blocks(crossed, call):
    """Once each, and never more than a block of the fit at a time."""
    result, y, _ = crossed
    source = Watched(np.ascontiguousarray(y.T))
    samples = pd.Index(result.design.samples)
    measured = jaxvp.expression.Expression(source, samples, result.sigma.index)
    result = dataclasses.replace(result, measurements=measured)
    call(result)
    size = result.block_size
    blocks = [(i, min(i + size, len(y))) for i in range(0, len(y), size)]
    assert len(blocks) > 1 and sorted(source.asked) == blocks


# Bad input


def test_other_measurements_are_found_out(crossed):
    result, y, _ = crossed
    for wrong in (
        y * 1.1,
        y - y.mean(),
        y.sample(frac=1, axis=1, random_state=0).set_axis(y.columns, axis=1),
    ):
        with pytest.raises(jaxvp.DataError, match="not those of the fit"):
            result.residuals(wrong)
    missing = y.copy()
    missing.iloc[0, 0] = np.nan
    with pytest.raises(jaxvp.DataError, match="'g0' are not those"):
        result.fitted(missing)


def test_bad_arguments(crossed):
    result, y, metadata = crossed
    other = metadata.assign(Batch="new")
    for call, what in (
        (lambda: result.fitted(), "pass expression="),
        (lambda: result.fitted(y, terms=["batch"]), "did you mean 'Batch'"),
        (lambda: result.remove(y, "Batch"), r"\['Batch'\]"),
        (lambda: result.remove(y, ["Residuals"]), "no term 'Residuals'"),
        (lambda: result.random_effects(y, terms=["Age"]), "no random term 'Age'"),
        (lambda: result.random_effects(y, format="tall"), '"wide"'),
        (lambda: result.residuals(y, kind="working"), '"pearson"'),
        (lambda: result.predict({"Age": 1}), "DataFrame"),
        (lambda: result.predict(metadata, unknown_levels="zero"), '"population"'),
        (lambda: result.predict(other, expression=y), "`Batch` has levels .* in 100 of 100"),
        (lambda: result.fitted(y.iloc[1:]), "lacks 1 of the 6 genes of the fit, such as 'g0'"),
        (lambda: result.fitted(y.iloc[:, 1:]), "lacks 1 of the 100 samples of the fit"),
        (lambda: result.fitted(y.astype(object).replace(y.iloc[0, 0], "x")), "must be numbers"),
    ):
        with pytest.raises(jaxvp.DataError, match=what):
            call()
    for call, what in (
        (lambda: result.predict(metadata.drop(columns="Age"), expression=y), "`Age`"),
        (lambda: result.predict(metadata[["Age"]], ["Batch"]), "`Batch`"),
        (lambda: result.predict(metadata.assign(Age="old")), "the fixed term `Age`: numbers"),
    ):
        with pytest.raises(jaxvp.DesignError, match=what):
            call()


@pytest.mark.filterwarnings("ignore:categorical fixed effects")
def test_a_fixed_effect_has_no_estimate_for_other_levels():
    expression, metadata, _ = references.sample("crossed")
    design = build(Formula.parse("~ Tissue + (1|Batch)"), metadata)
    result = result_at(design, [[1.0]], [1.0], np.ones((1, 3)))
    new = metadata.iloc[:2].assign(Tissue=["Tissue_1", "Liver"])
    with pytest.raises(jaxvp.DesignError, match="not seen these levels of `Tissue`: 'Liver'"):
        result.predict(new, ["Tissue"])
