"""Designs: columns, codes and names; what is refused before any fit; what is warned of.

Oracles: formulaic's own evaluation of the same text, patsy, NumPy, exact rank of integer matrices.
"""

import builtins
import datetime
import decimal
import pickle
import warnings

import formulaic
import jax
import numpy as np
import pandas as pd
import patsy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import jaxvp.design.fixed
from jaxvp.design import DesignError, build
from jaxvp.design.rank import dependent_columns
from jaxvp.formula import Formula

N = 40


def study(n=N, seed=0):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "Age": rng.normal(50, 10, n),
            "count": rng.integers(0, 6, n),
            "dose": rng.gamma(2, 2, n),
            "Body Weight": rng.normal(70, 9, n),
            "flag": rng.random(n) < 0.5,
            "Tissue": pd.Categorical(rng.choice(list("ABC"), n), categories=list("CAXB")),
            "Sex": rng.choice(["m", "f"], n),
            "Individual": [f"i{k % 10}" for k in range(n)],
            "Batch": rng.integers(1, 5, n),
            "constant": 2.5,
            "same": "x",
            "name": [f"n{k}" for k in range(n)],
            "number": np.arange(n),
            "empty": np.nan,
            "when": pd.date_range("2020-01-01", periods=n),
        },
        index=[f"s{k}" for k in range(n)],
    )


STUDY = study()


def design(text, metadata=STUDY, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return build(Formula.parse(text), metadata, **options)


# Fixed columns

ALIKE = [
    "1",
    "0 + Tissue",
    "Age + count + Batch",
    "`Body Weight`",
    "flag",
    "Tissue*Age",
    "Tissue*Sex",
    "Tissue:Sex",
    "Sex + Tissue:Sex",
    "0 + Sex*Tissue",
    "(Age + Sex + flag)^2",
    "Sex/Age",
    "flag:Tissue",
    "C(count)",
    "C(Batch)*Age",
    "scale(Age) + center(dose)",
    "scale(log(dose + 1)) + log2(dose)",
    "poly(Age, 3)",
    "poly(Age, degree=2, raw=True)",
    "bs(Age, df=5)",
    "bs(dose, 6, degree=2)*Sex",
    "I(Age**2 / (1 + dose)) + I(-Age*2)",
    "log(`Body Weight`)",
]


@pytest.mark.parametrize("text", ALIKE)
def test_columns_are_formulaics(text):
    """Names and values, where formulaic reads the text itself."""
    mine = design(f"~ {text}")
    its = formulaic.model_matrix(
        text, STUDY.assign(Tissue=STUDY.Tissue.cat.remove_unused_categories())
    )
    assert list(mine.columns) == list(its.columns)
    np.testing.assert_array_equal(mine.X, its.to_numpy(dtype=float))
    assert mine.X.dtype == np.float64
    assert (mine.n, mine.p) == its.shape
    owners = [
        -1 if str(t) == "1" else i
        for i, (t, _, c) in enumerate(its.model_spec.structure)
        for _ in c
    ]
    shift = 1 if mine.formula.intercept else 0
    assert mine.term_of_column == tuple(o if o == -1 else o - shift for o in owners)


@pytest.mark.parametrize(
    "text", ["Tissue*Sex", "C(Batch)*Age", "bs(Age, df=5)", "bs(dose, df=4, degree=2)"]
)
def test_columns_are_patsys(text):
    its = patsy.dmatrix(text, STUDY.assign(Tissue=STUDY.Tissue.cat.remove_unused_categories()))
    mine = design(f"~ {text}")
    np.testing.assert_allclose(mine.X, np.asarray(its), atol=1e-12)


def one_column(text, metadata=STUDY):
    return design(f"~ 0 + {text}", metadata).X[:, 0]


def test_transforms_are_numpys():
    age, dose = STUDY["Age"].to_numpy(), STUDY["dose"].to_numpy()
    np.testing.assert_array_equal(one_column("log(dose)"), np.log(dose))
    np.testing.assert_array_equal(one_column("log2(dose)"), np.log2(dose))
    np.testing.assert_array_equal(one_column("log1p(count)"), np.log1p(STUDY["count"]))
    np.testing.assert_array_equal(one_column("sqrt(dose)"), np.sqrt(dose))
    np.testing.assert_array_equal(one_column("I(Age^2)"), age**2)
    np.testing.assert_array_equal(one_column("I(Age**2)"), age**2)
    np.testing.assert_array_equal(one_column("I(2^-dose)"), 2**-dose)
    np.testing.assert_array_equal(
        one_column("I(3 - (Age - dose)/2*flag)"), 3 - (age - dose) / 2 * STUDY["flag"]
    )
    np.testing.assert_allclose(one_column("center(Age)"), age - age.mean(), rtol=1e-12)
    np.testing.assert_allclose(
        one_column("scale(Age)"), (age - age.mean()) / age.std(ddof=1), rtol=1e-12
    )
    np.testing.assert_allclose(one_column("scale(Age, scale=False)"), age - age.mean(), rtol=1e-12)
    np.testing.assert_allclose(
        one_column("scale(Age, FALSE)"), age / np.sqrt((age**2).sum() / (N - 1)), rtol=1e-12
    )


def test_poly_is_orthonormal_and_spans_the_powers():
    mine = design("~ poly(dose, 3)")
    np.testing.assert_allclose(mine.X[:, 1:].T @ mine.X[:, 1:], np.eye(3), atol=1e-12)
    np.testing.assert_allclose(mine.X[:, 1:].sum(axis=0), 0, atol=1e-12)
    powers = np.vander(STUDY["dose"], 4)
    left = powers - mine.X @ np.linalg.lstsq(mine.X, powers, rcond=None)[0]
    assert np.abs(left).max() < 1e-9 * np.abs(powers).max()


ARITHMETIC = st.recursive(
    st.sampled_from(["Age", "dose", "count", "2", "0.5"]),
    lambda inner: st.one_of(
        st.builds("{} {} {}".format, inner, st.sampled_from("+-*"), inner),
        st.builds("({})".format, inner),
        st.builds("-{}".format, inner),
        st.builds("({})**2".format, inner),
    ),
    max_leaves=6,
)


@given(ARITHMETIC)
def test_arithmetic_is_pythons(text):
    variables = {name: STUDY[name].to_numpy(dtype=float) for name in ("Age", "dose", "count")}
    expected = eval(text, {}, variables) + variables["Age"] / 3
    try:
        found = one_column(f"I({text} + Age/3)")
    except DesignError as error:  # -Age + ... + Age/3 may happen to be zero
        assert "zero in all samples" in str(error) and not expected.any()
    else:
        np.testing.assert_array_equal(found, expected)


def test_terms_own_their_columns():
    mine = design("~ Tissue:Age + poly(dose, 2) + factor(Batch)")
    assert mine.terms == ("poly(dose, 2)", "factor(Batch)", "Tissue:Age")
    assert mine.columns == (
        *("Intercept", "poly(dose, 2)[1]", "poly(dose, 2)[2]"),
        *("factor(Batch)[T.2]", "factor(Batch)[T.3]", "factor(Batch)[T.4]"),
        *("Tissue[C]:Age", "Tissue[A]:Age", "Tissue[B]:Age"),
    )
    assert mine.term_of_column == (-1, 0, 0, 1, 1, 1, 2, 2, 2)


def test_no_fixed_columns():
    mine = design("~ 0 + (1|Batch)")
    assert mine.X.shape == (N, 0)
    assert mine.columns == mine.terms == mine.term_of_column == ()


def test_nothing_is_evaluated_by_formulaic(monkeypatch):
    def evaluated(*args, **kwargs):
        raise AssertionError("evaluated")

    text = "scale(log(dose))*Tissue + poly(Age, 2) + bs(count, 4) + I(dose^2) + C(Batch)"
    with monkeypatch.context() as patch:
        patch.setattr(builtins, "eval", evaluated)
        patch.setattr(formulaic.materializers.base, "stateful_eval", evaluated)
        assert build(Formula.parse(f"~ {text}"), STUDY).p == 16


def test_names_of_functions_are_no_values():
    """A column may be called like a function; without the column there is nothing of that name."""
    metadata = STUDY.rename(columns={"Age": "log", "dose": "np"})
    assert design("~ log + log(np)", metadata).columns == ("Intercept", "log", "log(np)")
    for name in ("np", "contr", "hashed", "__builtins__", "_state"):
        with pytest.raises(DesignError, match="not a column"):
            design(f"~ {name}")


# Grouping factors


def test_codes_are_the_levels():
    mine = design("~ (1|Tissue) + (1|Batch) + (1|Individual)")
    assert mine.levels[:2] == (("C", "A", "B"), ("1", "2", "3", "4"))  # order of the categories
    for codes, levels, name in zip(mine.codes, mine.levels, mine.random_names, strict=True):
        assert codes.dtype == np.int32
        assert [levels[code] for code in codes] == STUDY[name].astype(str).tolist()
        assert sorted(set(codes)) == list(range(len(levels)))
    assert mine.samples == tuple(STUDY.index)
    assert mine.kept.tolist() == list(range(N))


def test_interactions_number_the_combinations_present():
    metadata = pd.DataFrame({"a": list("yxxyzz"), "b": [2, 2, 1, 1, 3, 3]})
    mine = design("~ (1|a/b) + (1|b)", metadata)
    assert mine.random_names == ("a", "b:a", "b")
    assert [term.group for term in mine.formula.random] == [("a",), ("b", "a"), ("b",)]
    assert mine.levels[1] == ("1:x", "1:y", "2:x", "2:y", "3:z")
    assert mine.codes[1].tolist() == [3, 2, 0, 1, 4, 4]


def test_interactions_of_many_large_factors_do_not_overflow():
    n, rng = 3000, np.random.default_rng(1)
    metadata = pd.DataFrame({f"f{k}": rng.permutation(n) // 2 for k in range(8)})
    metadata = pd.concat([metadata, metadata], ignore_index=True)
    mine = design("~ (1|" + ":".join(metadata.columns) + ")", metadata)
    groups = metadata.groupby(list(metadata.columns)).ngroup()
    assert mine.codes[0].tolist() == groups.tolist()


# Types of columns

NUMBERS = {
    "int8": pd.array([3, 1, 2, 1, 5, 3], dtype="int8"),
    "uint64": np.array([3, 1, 2, 1, 5, 3], dtype=np.uint64),
    "float32": np.array([3, 1, 2, 1, 5, 3], dtype=np.float32),
    "Int64": pd.array([3, 1, 2, 1, 5, 3], dtype="Int64"),
    "Float32": pd.array([3, 1, 2, 1, 5, 3], dtype="Float32"),
    "arrow": pd.array([3, 1, 2, 1, 5, 3], dtype="int64[pyarrow]"),
    "objects": np.array([3, 1.0, np.int8(2), 1, 5, 3], dtype=object),
    "decimals": [decimal.Decimal(k) for k in (3, 1, 2, 1, 5, 3)],
    "sparse": pd.arrays.SparseArray([3.0, 1, 2, 1, 5, 3]),
}
BOOLS = {
    "bool": [True, False, False, True, True, False],
    "boolean": pd.array([True, False, False, True, True, False], dtype="boolean"),
    "objects": np.array([True, False, False, True, True, False], dtype=object),
    "arrow": pd.array([True, False, False, True, True, False], dtype="bool[pyarrow]"),
}
TEXTS = {
    "str": pd.array(list("bacbba"), dtype="str"),
    "string": pd.array(list("bacbba"), dtype="string"),
    "object": np.array(list("bacbba"), dtype=object),
    "arrow": pd.array(list("bacbba"), dtype="string[pyarrow]"),
    "category": pd.Categorical(list("bacbba")),
    "unused": pd.Categorical(list("bacbba"), categories=list("abcd")),
    "ordered": pd.Categorical(list("bacbba"), categories=list("abc"), ordered=True),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_numeric_columns(name):
    metadata = pd.DataFrame({"x": NUMBERS[name]})
    mine = design("~ x", metadata)
    assert mine.columns == ("Intercept", "x")
    assert mine.X[:, 1].tolist() == [3, 1, 2, 1, 5, 3]
    grouped = design("~ (1|x)", metadata)
    assert grouped.codes[0].tolist() == [2, 0, 1, 0, 3, 2]
    assert [float(level) for level in grouped.levels[0]] == [1, 2, 3, 5]


@pytest.mark.parametrize("name", BOOLS)
def test_bool_columns_are_zero_and_one(name):
    metadata = pd.DataFrame({"x": BOOLS[name]})
    mine = design("~ x", metadata)
    assert mine.columns == ("Intercept", "x")
    assert mine.X[:, 1].tolist() == [1, 0, 0, 1, 1, 0]
    grouped = design("~ (1|x)", metadata)
    assert grouped.codes[0].tolist() == [1, 0, 0, 1, 1, 0]
    assert grouped.levels == (("False", "True"),)
    assert design("~ C(x)", metadata).columns == ("Intercept", "C(x)[T.True]")


@pytest.mark.parametrize("name", TEXTS)
def test_text_and_category_columns(name):
    metadata = pd.DataFrame({"x": TEXTS[name]})
    mine = design("~ x", metadata)
    assert mine.columns == ("Intercept", "x[T.b]", "x[T.c]")
    assert mine.X[:, 1:].tolist() == [[1, 0], [0, 0], [0, 1], [1, 0], [1, 0], [0, 0]]
    grouped = design("~ (1|x)", metadata)
    assert grouped.codes[0].tolist() == [1, 0, 2, 1, 1, 0]
    assert grouped.levels == (("a", "b", "c"),)


@pytest.mark.parametrize("ordered", [False, True])
def test_the_order_of_categories_is_the_users(ordered):
    values = pd.Categorical(list("bacbba"), categories=list("cdab"), ordered=ordered)
    metadata = pd.DataFrame({"x": values})
    assert design("~ x", metadata).columns == ("Intercept", "x[T.a]", "x[T.b]")
    assert design("~ (1|x)", metadata).levels == (("c", "a", "b"),)


def test_dates_group():
    days = [datetime.date(2020, 1, d) for d in (2, 1, 2, 1)]
    for column in (days, pd.to_datetime(days)):
        mine = design("~ (1|day)", pd.DataFrame({"day": column}))
        assert mine.codes[0].tolist() == [1, 0, 1, 0]
        assert mine.levels[0][0].startswith("2020-01-01")


def test_labels_that_are_no_text_are_found_by_their_text():
    metadata = pd.DataFrame({1: [1.0, 2, 4, 9, 3], "y": list("aabbb")})
    assert design("~ `1`*y", metadata).columns == ("Intercept", "1", "y[T.b]", "1:y[T.b]")


# Missing values


def missing_study():
    metadata = study()
    metadata["Age"] = metadata["Age"].mask(np.arange(N) < 3)
    metadata["Sex"] = metadata["Sex"].mask(np.isin(np.arange(N), [2, 10]))
    metadata["Batch"] = pd.array([None, *metadata["Batch"][1:]], dtype="Int64")
    metadata["flag"] = pd.array([*metadata["flag"][:-1], None], dtype="boolean")
    metadata["dose"] = metadata["dose"].astype("Float64").mask(np.arange(N) == 20)
    metadata["other"] = np.nan
    return metadata


@pytest.mark.parametrize(
    "text, lost, where",
    [
        ("~ Age", [0, 1, 2], "`Age` (3)"),
        ("~ Age + (1|Sex)", [0, 1, 2, 10], "`Age` (3), `Sex` (2)"),
        ("~ flag + dose + (1|Batch)", [0, 20, N - 1], "`flag` (1), `dose` (1), `Batch` (1)"),
        ("~ scale(Age) + (1|Individual)", [0, 1, 2], "`Age` (3)"),
    ],
)
def test_samples_without_a_value_are_dropped_with_one_warning(text, lost, where):
    metadata = missing_study()
    with pytest.warns(UserWarning) as caught:
        mine = build(Formula.parse(text), metadata)
    (warning,) = caught
    assert f"{len(lost)} of {N} samples are dropped" in str(warning.message)
    assert str(warning.message).endswith(where)
    kept = [k for k in range(N) if k not in lost]
    assert mine.kept.tolist() == kept
    assert mine.samples == tuple(metadata.index[kept])
    alone = design(text, metadata.iloc[kept])  # transforms are those of the kept samples
    np.testing.assert_array_equal(mine.X, alone.X)
    assert mine.levels == alone.levels
    for codes, expected in zip(mine.codes, alone.codes, strict=True):
        np.testing.assert_array_equal(codes, expected)


@pytest.mark.parametrize("dtype", ["Float64", "float64[pyarrow]"])
def test_nan_is_missing_in_every_type(dtype):
    """Zero divided by zero is NaN and, in some types and versions of pandas, not NA."""
    x = pd.Series([0.0, 1, 2, 4], dtype=dtype)
    with pytest.warns(UserWarning, match="1 of 4 samples"):
        assert build(Formula.parse("~ x"), pd.DataFrame({"x": x * (x / x)})).n == 3


def test_missing_values_elsewhere_do_not_matter():
    assert design("~ count + (1|Individual)", missing_study()).n == N


def test_levels_that_lose_all_samples_are_gone():
    metadata = pd.DataFrame({"x": [1, 2, 4, 8, None], "g": pd.Categorical(list("babac"))})
    with pytest.warns(UserWarning, match="1 of 5"):
        assert build(Formula.parse("~ x + (1|g)"), metadata).levels == (("a", "b"),)


# What is refused

BROKEN = pd.DataFrame(
    {
        "list": [[1], [2], [1], [2]],
        "mixed": [1, "1", "a", "a"],
        "complex": [1j, 2, 3, 4],
        "infinite": [1.0, np.inf, 3, 4],
        "text": ["1", "2", "3", "2"],
        "half": [1.0, np.nan, 2.0, np.nan],
        "other half": [np.nan, 1.0, np.nan, 2.0],
        "nearly": [1.0, np.nan, np.nan, np.nan],
        "zero": [0, 1, 2, 5],
        "big": [1e200, 1e201, 1e202, 1e203],
        "Residuals": [1, 2, 4, 9],
        "g": list("aabb"),
    },
    index=["s1", "s2", "s3", "s4"],
)
REFUSED = [  # formula, metadata, and what the message says
    ("~ Agee", STUDY, "`Agee` (did you mean Age?)"),
    ("~ (1|individual)", STUDY, "did you mean Individual?"),
    ("~ Body.Weight", STUDY, "did you mean `Body Weight`?"),
    ("~ Zzz + (1|Qqq)", STUDY, "`Zzz`; `Qqq`. Its columns are: Age, count"),
    ("~ Age", STUDY[[]], "Its columns are: none"),
    ("~ sample", STUDY.rename_axis("sample"), "it is the index: use metadata.reset_index("),
    ("~ Age", pd.concat([STUDY, STUDY[["Age"]]], axis=1), "more than one column named `Age`"),
    ("~ empty", STUDY, "`empty` is missing in all 40 samples"),
    ("~ Age", STUDY.iloc[:0], "no samples"),
    ("~ Age", STUDY.iloc[:1], "one sample is left of 1"),
    (
        "~ nearly",
        BROKEN,
        "one sample is left of 4 to fit a model on: missing values are in `nearly` (3)",
    ),
    ("~ half + `other half`", BROKEN, "no sample is left of 4"),
    # grouping factors
    ("~ (1|same)", STUDY, "`same` has one level, 'x', in all 40 samples: leave (1|same) out"),
    ("~ (1|name)", STUDY, "as many levels as there are samples, 40; it cannot be told from"),
    ("~ (1|number)", STUDY, "it is numeric: use it as a fixed effect, `number`"),
    ("~ (1|Age)", STUDY, "it is numeric: use it as a fixed effect, `Age`"),
    ("~ (1|Tissue:name)", STUDY, "`Tissue:name` has as many levels"),
    ("~ (1|Sex) + (1|Sex)", STUDY, "(1|Sex) and (1|Sex) are the same"),
    ("~ (1|Sex:Batch) + (1|Batch:Sex)", STUDY, "(1|Sex:Batch) and (1|Batch:Sex) are the same"),
    ("~ (1|Sex/Batch) + (1|Sex)", STUDY, "(1|Sex) and (1|Sex) are the same"),
    ("~ Sex + (1|Sex)", STUDY, "`Sex` is a fixed effect and also the grouping factor of (1|Sex)"),
    ("~ C(Batch) + (1|Batch)", STUDY, "`C(Batch)` is a fixed effect and also"),
    ("~ Batch*Age + (1|Batch)", STUDY, "`Batch` is a fixed effect and also"),
    ("~ (1|list)", BROKEN, "`list` holds values that cannot be levels"),
    ("~ (1|mixed)", BROKEN, "`mixed` has different levels that read the same, '1'"),
    # fixed terms
    ("~ same", STUDY, "`same`: it has one level, 'x'"),
    ("~ name", STUDY, "`name`: it has a level for each of the 40 samples; if these are numbers"),
    ("~ C(number)", STUDY, "`C(number)`: it has a level for each"),
    ("~ constant", STUDY, "`constant` is the same in all samples"),
    ("~ x", STUDY.assign(x=np.where(STUDY["flag"], 0.3, 0.1 + 0.2)), "`x` is the same in all"),
    ("~ center(constant)", STUDY, "`center(constant)` is zero in all samples"),
    ("~ scale(constant)", STUDY, "the fixed term `scale(constant)`: `constant` is the same"),
    ("~ bs(constant)", STUDY, "`constant` is the same in all samples"),
    ("~ poly(count, 6)", STUDY, "degree 6 needs more than 6 different values, and `count` has 6"),
    ("~ Age + I(2*Age + 1)", STUDY, "`I(2 * Age + 1)` is a combination of `Age`"),
    ("~ Age + I(Age * 365.25e6)", STUDY, "`I(Age * 365250000.0)` is a combination of `Age`"),
    ("~ Tissue + C(Tissue)", STUDY, "`C(Tissue)[T.A]` is a combination of `Tissue[T.A]`"),
    ("~ Age + dose + I(Age - dose)", STUDY, "is a combination of `Age`, `dose`"),
    ("~ Individual*Tissue*Sex", STUDY, "columns and there are 40 samples"),
    (
        "~ zero + Residuals + infinite",
        BROKEN.drop(columns="infinite").assign(infinite=[1, 3, 3, 7]),
        "4 columns and there are 4",
    ),
    (
        "~ infinite",
        BROKEN,
        "`infinite` must be finite; in 1 of 4 samples it is not, the first is 's2' with inf",
    ),
    ("~ complex", BROKEN, "`complex` is complex"),
    ("~ when", STUDY, "`when` holds dates or times: make it a number"),
    ("~ log(when)", STUDY, "the fixed term `log(when)`: numbers are needed"),
    ("~ log(text)", BROKEN, "`text` is categorical: if it holds numbers as text"),
    ("~ Age:log(Sex)", STUDY, "the fixed term `log(Sex)`: numbers are needed"),
    ("~ log(zero)", BROKEN, "`log(zero)`: `zero` must be positive (log1p takes zeros); in 1 of 4"),
    ("~ log2(zero - 1)", BROKEN, "`log2(zero - 1)`: `zero - 1` must be positive"),
    ("~ log1p(zero - 1)", BROKEN, "`zero - 1` must be above -1"),
    ("~ sqrt(zero - 1)", BROKEN, "`zero - 1` must be zero or more"),
    ("~ I(1/zero)", BROKEN, "`I(1 / zero)`: `1 / zero` must be finite"),
    (
        "~ I((-2 - zero)^0.5)",
        BROKEN,
        "must be finite; in 4 of 4 samples it is not, the first is 's1' with nan",
    ),
    ("~ scale(log(big^2))", BROKEN, "`big ** 2` must be finite"),
    # names
    ("~ Residuals", BROKEN, "`Residuals` is reserved for results"),
    ("~ (1|Residuals)", pd.DataFrame({"Residuals": list("aabb")}), "`Residuals` is reserved"),
    ("~ 0 + Intercept", pd.DataFrame({"Intercept": [1, 2, 4]}), "`Intercept` is reserved"),
    (
        "~ a:b + (1|a:b)",
        pd.DataFrame({"a": [1, 2, 1, 2, 1, 2], "b": [1, 1, 3, 3, 3, 1]}),
        "`a:b` is the name of two things",
    ),
    (
        "~ x + `x[T.b]`",
        pd.DataFrame({"x": list("aabb"), "x[T.b]": [1, 2, 4, 9]}),
        "`x[T.b]` is the name of two",
    ),
    (
        "~ log(x) + `log(x)`",
        pd.DataFrame({"x": [1, 2, 4], "log(x)": [1, 2, 4]}),
        "two different things are named `log(x)`",
    ),
]


@pytest.mark.parametrize("text, metadata, says", REFUSED, ids=[r[0] for r in REFUSED])
def test_refuses(text, metadata, says):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(DesignError) as caught:
            build(Formula.parse(text), metadata)
    assert says in str(caught.value)


def test_reml_needs_a_random_term():
    with pytest.raises(DesignError, match="REML needs a random term"):
        design("~ Age", reml=True)
    assert design("~ Age + (1|Batch)", reml=True).n == N


def test_too_many_columns_are_counted_before_they_are_made(monkeypatch):
    monkeypatch.setattr(jaxvp.design.fixed, "materialize", None)
    with pytest.raises(DesignError, match="[0-9]+ columns and there are 40 samples"):
        design("~ Individual*Tissue*Sex")


def test_columns_that_only_coding_shows_are_counted_too():
    metadata = pd.DataFrame({"a": list("xxyyzz"), "b": list("ststst")})
    with pytest.raises(DesignError, match="the fixed part has 6 columns and there are 6 samples"):
        design("~ a:b", metadata)


def test_empty_cells_are_named():
    metadata = pd.DataFrame({"a": list("xxyyxxyy"), "b": list("ststssss"), "x": range(8)})
    metadata.loc[3, "b"] = "s"
    with pytest.raises(DesignError, match=r"`a\[T.y\]:b\[T.t\]` is zero in all samples"):
        design("~ a*b", metadata)


# What is warned of


def warned(text, metadata=STUDY):
    with pytest.warns(UserWarning) as caught:
        build(Formula.parse(text), metadata)
    return [str(warning.message) for warning in caught]


@pytest.mark.parametrize("text", ["Sex + Tissue", "C(Batch)", "Sex:Age"])
def test_categorical_fixed_effect_beside_random_terms(text):
    (message,) = warned(f"~ {text} + (1|Individual)")
    assert "variancePartition advises" in message
    assert all(f"`{name}`" in message for name in text.replace(":Age", "").split(" + "))
    assert design(f"~ {text}").p  # alone it is fine


@pytest.mark.parametrize(
    "text, pairs",
    [
        ("(1|Batch) + (1|other)", "`(1|Batch)` and `(1|other)`."),
        ("(1|Batch/Sex) + (1|other:Sex)", "`(1|Sex:Batch)` and `(1|other:Sex)`."),
        ("(1|Batch) + (1|other) + (1|Batch:other)", "`(1|Batch)` and `(1|other)`, `(1|Batch)` and"),
    ],
)
def test_factors_that_group_identically(text, pairs):
    names = dict(zip([1, 2, 3, 4], "dbca", strict=True))
    (message,) = warned(f"~ Age + {text}", STUDY.assign(other=STUDY["Batch"].map(names)))
    assert "identically" in message and pairs in message


@pytest.mark.parametrize("fixed, group", [("C(Batch)", "other"), ("Tissue:Sex", "Tissue:Sex")])
def test_fixed_and_random_factors_that_group_identically(fixed, group):
    metadata = STUDY.assign(other=-STUDY["Batch"])
    categorical, identical = warned(f"~ {fixed} + (1|{group})", metadata)
    assert f"`(1|{group})` and `{fixed}`" in identical


def test_nested_and_crossed_factors_do_not_warn():
    design("~ Age + flag + (1|Individual) + (1|Batch/Sex) + (1|Tissue:Sex)")


def test_every_kind_of_warning_comes_once():
    metadata = missing_study().assign(other=lambda table: table["Batch"])
    dropped, categorical, identical = warned("~ Age + Sex + (1|Batch) + (1|other)", metadata)
    assert "dropped" in dropped and "`Sex`" in categorical and "`(1|other)`" in identical


# Rank


@given(
    hnp.arrays(
        np.int64, st.tuples(st.integers(8, 12), st.integers(1, 5)), elements=st.integers(-2, 2)
    ),
    st.lists(st.integers(-9, 9), min_size=5, max_size=5),
    st.booleans(),
)
def test_rank_is_exact_whatever_the_units(X, powers, intercept):
    names = tuple("abcde"[: X.shape[1]])
    scaled = X * 10.0 ** np.array(powers[: X.shape[1]])
    columns, full = names, scaled
    if intercept:
        columns, full = ("Intercept", *names), np.column_stack([np.ones(len(X)), scaled])
    found = dependent_columns(full, columns, intercept)
    exact = np.column_stack([np.ones(len(X)), X]) if intercept else X
    assert len(columns) - len(found) == np.linalg.matrix_rank(exact)
    for name, others in found.items():  # each is indeed made of those that are named
        assert name not in others and not set(others) & set(found)
        those = full[:, [columns.index(other) for other in others] + [0] * intercept]
        column = full[:, columns.index(name)]
        left = column - those @ np.linalg.pinv(those) @ column if those.size else column
        assert np.abs(left).max() <= 1e-6 * np.abs(column).max()


@pytest.mark.parametrize("factor", [1e-50, 1, 1e50])
def test_units_and_offsets_do_not_make_columns_dependent(factor):
    metadata = STUDY.assign(Age=STUDY["Age"] * factor, year=2e6 + STUDY["dose"])
    assert design("~ Age + I(dose^2) + year + year:flag", metadata).p == 5
    with pytest.raises(DesignError, match="`year` is a combination of `dose`"):
        design("~ Age + dose + year", metadata)


# What must not matter


@given(st.permutations(range(N)))
def test_the_order_of_samples_permutes_rows(order):
    first = build(Formula.parse("~ flag*Tissue + scale(dose) + poly(Age, 2) + C(count)"), STUDY)
    second = build(first.formula, STUDY.iloc[order])
    assert second.columns == first.columns
    np.testing.assert_allclose(second.X, first.X[order], rtol=1e-12, atol=1e-12)
    random = Formula.parse("~ 1 + (1|Individual) + (1|Tissue/Sex) + (1|Batch)")
    first, second = build(random, STUDY), build(random, STUDY.iloc[order])
    assert second.levels == first.levels
    for mine, its in zip(second.codes, first.codes, strict=True):
        np.testing.assert_array_equal(mine, its[order])


@given(st.permutations("ABC"), st.permutations([1, 2, 3, 4]))
def test_the_names_and_order_of_levels_permute_codes(categories, numbers):
    renamed = STUDY.assign(
        Tissue=STUDY["Tissue"].cat.set_categories(categories),
        Batch=STUDY["Batch"].map(dict(zip([1, 2, 3, 4], numbers, strict=True))),
    )
    formula = Formula.parse("~ (1|Tissue) + (1|Batch) + (1|Batch:Tissue)")
    first, second = build(formula, STUDY), build(formula, renamed)
    assert second.levels[0] == tuple(categories)
    for mine, its in zip(second.codes, first.codes, strict=True):
        pairs = set(zip(mine.tolist(), its.tolist(), strict=True))
        assert len(pairs) == len(set(mine.tolist())) == len(set(its.tolist()))
    fixed = Formula.parse("~ Tissue")
    first, second = build(fixed, STUDY).X, build(fixed, renamed).X
    np.testing.assert_allclose(
        first @ np.linalg.pinv(first), second @ np.linalg.pinv(second), atol=1e-12
    )


def test_a_grouping_factor_may_stand_in_fixed_terms_that_are_not_itself():
    assert design("~ scale(Batch) + (1|Batch)").p == 2
    assert design("~ Age:count + (1|count)").p == 2
    warned("~ Age:Sex + (1|Sex)")


def test_designs_travel_between_processes():
    mine = design("~ Age + (1|Individual)")
    again = pickle.loads(pickle.dumps(mine))
    np.testing.assert_array_equal(again.X, mine.X)
    assert (again.formula, again.levels, again.samples) == (mine.formula, mine.levels, mine.samples)


def test_metadata_is_left_alone():
    metadata = missing_study()
    before = metadata.copy(deep=True)
    with pytest.warns(UserWarning):
        build(Formula.parse("~ Age + scale(dose) + (1|Sex)"), metadata)
    pd.testing.assert_frame_equal(metadata, before)


def test_names_are_single_leaves_for_jax():
    """Equinox walks every leaf of a module; 100,000 sample names must not be 100,000 of them."""
    mine = design("~ Age + (1|Individual)")
    assert len(jax.tree_util.tree_leaves([mine.samples, mine.levels])) == 2
    assert len(jax.tree_util.tree_leaves(mine)) == 3  # X, codes, kept


def test_repr_is_short():
    """However many samples and levels: both are named in the tables."""
    found = build(Formula.parse("~ poly(Age, 8) + (1|Individual)"), STUDY)
    lines = repr(found).splitlines()
    assert lines[0] == f"jaxvp.Design: {found.n} samples, ~ poly(Age, 8) + (1|Individual)"
    assert lines[1].startswith("  fixed columns: 9 (Intercept, ") and lines[1].endswith(", ...)")
    assert lines[2:] == [f"  random term Individual: {len(found.levels[0])} levels"]
    assert (
        repr(build(Formula.parse("~ 0 + (1|Individual)"), STUDY)).splitlines()[1]
        == "  fixed columns: 0"
    )


# ---- a likelihood without a maximum --------------------------------------------------------------


def nested_in_fixed():
    rng = np.random.default_rng(0)
    a = np.repeat(list("ABCDEF"), 10)
    return pd.DataFrame(
        {
            "a": a,
            "c": np.where(a < "D", "x", "y"),
            "b": rng.choice(list("pqrst"), 60),
            "Age": rng.normal(size=60),
        }
    )


def test_reml_says_which_term_is_inside_the_fixed_part():
    metadata = nested_in_fixed()
    formula = Formula.parse("~ Age + a + (1|b) + (1|c)")
    with pytest.raises(DesignError, match=r"REML.*\(1\|c\).*combination of the fixed part"):
        build(formula, metadata, reml=True)
    # By ML its variance is zero, exactly; and beside the fixed part there is something to see of b.
    with pytest.warns(UserWarning, match="categorical fixed"):
        build(formula, metadata)
        build(Formula.parse("~ Age + a + (1|b)"), metadata, reml=True)


def test_ml_refuses_a_model_that_explains_any_samples():
    metadata = pd.DataFrame(
        {"g": list("aabbccdd"), "x": np.arange(8.0) ** 2, "h": list("pqpqrsrs")}
    )
    saturated = "~ x + I(x^2) + I(x^3) + I(x^4) + (1|g)"
    full = np.column_stack([metadata["x"] ** k for k in range(5)])
    Z = (metadata["g"].to_numpy()[:, None] == list("abcd")).astype(float)
    assert np.linalg.matrix_rank(np.column_stack([full / full.max(0), Z])) == 8
    with pytest.raises(DesignError, match=r"5 fixed columns and 4 levels.*8 samples.*no maximum"):
        build(Formula.parse(saturated), metadata)
    build(Formula.parse(saturated), metadata, reml=True)
    build(Formula.parse("~ x + I(x^2) + I(x^3) + (1|g)"), metadata)
    # The random terms alone reach rank n nowhere here, the sums of levels are no measure of it.
    build(Formula.parse("~ x + (1|g) + (1|h)"), metadata)
