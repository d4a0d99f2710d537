"""Canonical correlations of pairs of variables, against R's cancor and dense algebra."""

import warnings

import numpy as np
import pandas as pd
import pytest
import references
from hypothesis import given
from hypothesis import strategies as st

import jaxvp
from jaxvp import DataError, DesignError, FormulaError
from jaxvp.formula import Formula

CASES = list(
    pd.read_csv(references.HERE / "canonical.csv").groupby(["data", "formula"], sort=False)
)


def correlations(formula, metadata):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return jaxvp.canonical_correlations(formula, metadata)


def study(seed=0, n=40):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "x": rng.normal(size=n),
            "y": rng.normal(size=n) + rng.integers(0, 2, n),
            "a": rng.choice(list("pqrs"), n),
            "b": rng.choice(["u", "v", "w"], n, p=[0.6, 0.3, 0.1]),
            "c": rng.integers(1, 6, n),
        },
        index=[f"s{i}" for i in range(n)],
    )


def dense(one, other):
    """By n x r bases of the centred columns and the singular values of their product."""

    def basis(columns):
        columns = columns - columns.mean(axis=0)
        u, s, _ = np.linalg.svd(columns, full_matrices=False)
        return u[:, s > 1e-9 * s.max()]

    rho = np.linalg.svd(basis(one).T @ basis(other), compute_uv=False)
    return np.sqrt(np.mean(rho**2))


def columns(values):
    values = pd.Series(values)
    if values.dtype.kind == "f":
        return values.to_numpy()[:, None]
    return pd.get_dummies(values).to_numpy(float)


# Values


@pytest.mark.parametrize("case, rows", CASES, ids=[f"{d} {f}" for (d, f), _ in CASES])
def test_agrees_with_cancor(case, rows):
    data, formula = case
    metadata = pd.read_csv(references.HERE / "samples" / f"{data}.metadata.csv", index_col="sample")
    found = correlations(formula, metadata)
    # R calls the inner factor of (1|a/b) a:b, and so on.
    names = {frozenset(name.split(":")): name for name in found.columns}
    assert len(rows) == len(names) * (len(names) - 1) / 2
    for row in rows.itertuples():
        one, other = (names[frozenset(name.split(":"))] for name in (row.one, row.other))
        assert found.loc[one, other] == pytest.approx(row.value, rel=0, abs=1e-10)
    np.testing.assert_array_equal(found, found.T)
    np.testing.assert_array_equal(np.diag(found), 1)


@given(st.integers(0, 10_000))
def test_agrees_with_dense_algebra(seed):
    table = study(seed)
    found = correlations("~ x + a + (1|b) + (1|c) + (1|a:c)", table)
    assert list(found) == ["x", "a", "b", "c", "a:c"]
    sets = {
        **{
            name: columns(table[name].astype(str) if name == "c" else table[name])
            for name in "xabc"
        }
    }
    for one in sets:
        for other in sets:
            if one != other:
                expected = dense(sets[one], sets[other])
                assert found.loc[one, other] == pytest.approx(expected, abs=1e-10)


def test_an_interaction_alone_is_its_groups():
    """Without its main effects, a:b is the factor of the combinations that are there."""
    table = study()
    pairs = table["a"] + "/" + table["b"]
    found = correlations("~ x + (1|a:b)", table).loc["x", "a:b"]
    assert found == pytest.approx(dense(columns(table["x"]), columns(pairs)), abs=1e-12)
    table["pairs"] = pairs
    assert correlations("~ x + pairs", table).loc["x", "pairs"] == pytest.approx(found, abs=1e-15)


def test_two_numbers_two_factors_and_both():
    table = study()
    found = correlations("~ x + y + a + b", table)
    assert found.loc["x", "y"] == pytest.approx(abs(np.corrcoef(table.x, table.y)[0, 1]), abs=1e-14)
    counts = pd.crosstab(table.a, table.b).to_numpy()
    expected = np.outer(counts.sum(1), counts.sum(0)) / counts.sum()
    chi2 = ((counts - expected) ** 2 / expected).sum()
    cramer = np.sqrt(chi2 / counts.sum() / (min(counts.shape) - 1))
    assert found.loc["a", "b"] == pytest.approx(cramer, abs=1e-14)
    groups = table.groupby("a")["x"]
    between = (groups.size() * (groups.mean() - table.x.mean()) ** 2).sum()
    r2 = between / ((table.x - table.x.mean()) ** 2).sum()
    assert found.loc["x", "a"] == pytest.approx(np.sqrt(r2), abs=1e-14)


def test_independent_factors_are_exactly_zero():
    """Counts are whole numbers: no rounding is left that a root would make large."""
    table = pd.DataFrame({"a": list("pqr") * 14, "b": np.repeat(["u", "v"], 21)})
    assert correlations("~ a + b", table).loc["a", "b"] == 0


def test_random_slopes_count_as_variables():
    found = correlations("~ y + (1 + x|a)", study())
    assert set(found) == {"y", "x", "a"}
    plain = correlations("~ y + x + a", study())
    pd.testing.assert_frame_equal(found.loc[list(plain), list(plain)], plain)


def test_missing_values_are_dropped_by_pair():
    table = study()
    table.loc["s3", "x"] = np.nan
    table.loc[["s5", "s9"], "a"] = None
    found = correlations("~ x + y + a", table)
    for one, other in [("x", "y"), ("x", "a"), ("y", "a")]:
        pair = table[[one, other]].dropna()
        expected = correlations(f"~ {one} + {other}", pair).loc[one, other]
        assert found.loc[one, other] == expected


@pytest.mark.parametrize("offset", [0.0, 1e6, -3e9])
@pytest.mark.parametrize("scale", [1.0, 2.0**-700, 2.0**500])
def test_units_do_not_matter(offset, scale):
    table = study()
    table["x"] = np.round(table["x"] * 1024) / 1024  # so that adding the offset is exact
    other = table.assign(x=(table["x"] + offset) * scale)
    plain, moved = (correlations("~ x + y + a + x:a", data) for data in (table, other))
    rows = ["x", "y", "a"]  # x:a is another variable when x has another zero
    np.testing.assert_allclose(moved.loc[rows, rows], plain.loc[rows, rows], atol=1e-10)


def test_whole_numbers_far_from_zero():
    """Where the mean itself is off by a rounding error: time stamps, for example."""
    table = study()
    table["x"] = np.round(table["x"] * 20)
    moved = table.assign(x=table["x"] + 8e15)
    plain, found = (correlations("~ x + y + a", data) for data in (table, moved))
    np.testing.assert_allclose(found, plain, atol=1e-12)


def test_a_nearly_dependent_column_is_no_dimension():
    """poly and its own columns: the rank counts, not the number of columns."""
    table = study()
    found = correlations("~ poly(x, 2) + I(x + 1e-12 * y) + a", table)
    assert found.loc["poly(x, 2)", "I(x + 1e-12 * y)"] == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize(
    "dtype", ["category", "string", "object", pd.ArrowDtype(__import__("pyarrow").string())]
)
def test_any_dtype_of_categories(dtype):
    expected = correlations("~ x + a + c", study())
    table = study().assign(a=study()["a"].astype(dtype), c=study()["c"].astype("Int64"))
    pd.testing.assert_frame_equal(correlations("~ x + a + c", table), expected)


def test_unused_levels_do_not_count():
    table = study()
    table["a"] = pd.Categorical(table["a"], categories=list("zpqrsy"))
    pd.testing.assert_frame_equal(
        correlations("~ x * a + b", table), correlations("~ x * a + b", study())
    )


# Invariance


@given(st.permutations(["x", "y", "a", "(1|b)", "(1|c)"]))
def test_order_of_variables(terms):
    expected = correlations("~ x + y + a + (1|b) + (1|c)", study())
    found = correlations("~ " + " + ".join(terms), study())
    names = [term.strip("(1|)") for term in terms]
    assert list(found) == names
    np.testing.assert_allclose(found, expected.loc[names, names], atol=1e-14)


@given(st.randoms(use_true_random=False))
def test_order_of_samples_and_names_of_levels(random):
    table = study()
    expected = correlations("~ x + y + a + (1|b) + (1|a:c)", table)
    order = list(range(len(table)))
    random.shuffle(order)
    table = table.iloc[order]
    for name in "abc":
        levels = sorted(set(table[name]))
        names = [f"level {i}" for i in range(len(levels))]
        random.shuffle(names)
        table[name] = table[name].map(dict(zip(levels, names, strict=True)))
    found = correlations("~ x + y + a + (1|b) + (1|a:c)", table)
    # a:c beside a is coded as in R, on the first level of c.
    rows = ["x", "y", "a", "b"]
    np.testing.assert_allclose(found.loc[rows, rows], expected.loc[rows, rows], atol=1e-13)


# Warnings and errors


def test_warns_of_pairs_that_say_the_same():
    table = study().assign(copy=lambda t: 3 - 2 * t["x"], A=lambda t: t["a"].str.upper())
    with pytest.warns(UserWarning) as caught:
        jaxvp.canonical_correlations("~ x + copy + a + (1|A) + y", table)
    (warning,) = caught
    assert "`x` and `copy`; `a` and `A`" in str(warning.message) and "`y`" not in str(
        warning.message
    )


def test_no_warning_below(recwarn):
    found = jaxvp.canonical_correlations("~ x + y + a", study())
    assert found.to_numpy()[np.triu_indices(3, 1)].max() < 0.999
    assert not recwarn.list


def test_a_pair_without_common_samples_is_nan():
    table = study()
    table.loc[table.index[:20], "x"] = np.nan
    table.loc[table.index[20:], "a"] = None
    with pytest.warns(UserWarning, match="`x` and `a`"):
        found = jaxvp.canonical_correlations("~ x + a + y", table)
    assert np.isnan(found.loc["x", "a"]) and np.isfinite(found.loc["x", "y"])


@pytest.mark.parametrize(
    "formula, error, message",
    [
        ("~ x", DesignError, "two variables or more in the formula, and it has one, `x`"),
        ("~ 1", DesignError, "it has none"),
        ("~ x + aa", DesignError, "`aa` \\(did you mean a\\?\\)"),
        ("~ x + same + flat", DesignError, "same in all samples.*: `same`, `flat`. Leave"),
        ("~ x + empty", DesignError, "`empty` is missing in all 40 samples"),
        ("~ x + log(y)", DesignError, "the term `log\\(y\\)`: `y` must be positive"),
        ("~ x + when", DesignError, "dates or times"),
        ("~ half:other", DesignError, "no sample has a value of `half` and `other`"),
        ("x + y", FormulaError, "starts with `~`"),
    ],
)
def test_errors_name_the_culprit(formula, error, message):
    table = study().assign(same="z", flat=2.0, empty=np.nan, half=1.5, other="o")
    table["when"] = pd.Timestamp("2024-01-01")
    table["half"] = table["half"].where(np.arange(40) < 20)
    table["other"] = table["other"].where(np.arange(40) >= 20)
    with pytest.raises(error, match=message):
        jaxvp.canonical_correlations(formula, table)


def test_metadata_must_have_samples():
    with pytest.raises(DataError, match="one sample, 's0'"):
        jaxvp.canonical_correlations("~ x + y", study().iloc[:1])


def test_takes_a_parsed_formula():
    formula = Formula.parse("~ x + (1|a)")
    pd.testing.assert_frame_equal(
        jaxvp.canonical_correlations(formula, study()),
        jaxvp.canonical_correlations("~ x + (1|a)", study()),
    )


def test_many_levels_cost_what_is_there():
    """100,000 by 100,000 cells, 200,000 of them filled: nothing of that size is ever made."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {"a": rng.permutation(200_000) // 2, "b": rng.permutation(200_000) // 2, "x": 0.0}
    )
    table["x"] = rng.normal(size=len(table))
    found = correlations("~ x + (1|a) + (1|b)", table)
    # A random pairing: each dimension has half of its variance in the other factor.
    assert found.loc["a", "b"] == pytest.approx(np.sqrt(0.5), abs=1e-2)
    assert found.loc["x", "a"] == pytest.approx(np.sqrt(0.5), abs=1e-2)
