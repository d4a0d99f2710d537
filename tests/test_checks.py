"""Design checks: they agree with fit, find what is wrong, and never raise on a bad model."""

import re
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jaxvp
from jaxvp import DataError, DesignError, FormulaError
from jaxvp.cli import main
from jaxvp.design import build
from jaxvp.formula import Formula

N = 60


def study(seed=0):
    rng = np.random.default_rng(seed)
    person = np.arange(N) % 12
    return pd.DataFrame(
        {
            "Age": rng.normal(50, 9, 12)[person],
            "dose": rng.gamma(2, 2, N),
            "Person": [f"p{k:02}" for k in person],
            "Clinic": [f"c{k // 4}" for k in person],
            "Twin": [f"t{max(k, 1)}" for k in person],
            "Tissue": rng.choice(list("abc"), N),
            "Batch": rng.integers(1, 5, N),
            "Run": [f"r{k}" if k < 20 else "last" for k in range(N)],
            "name": [f"n{k}" for k in range(N)],
            "same": "x",
            "empty": np.nan,
            "Body Weight": rng.normal(70, 5, N).round(1),
            "when": pd.date_range("2020-01-01", periods=N),
        },
        index=[f"s{k}" for k in range(N)],
    ).assign(Label=lambda table: table["Person"].str.upper(), twice=lambda table: 2 * table["dose"])


STUDY = study()


def check(formula, table=STUDY):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # everything is in the report, nothing is warned of
        return jaxvp.check_design(formula, table)


def found(report, kind):
    return [finding for finding in report.findings if finding.kind == kind]


# What would be fitted


def test_attributes_of_a_mixed_model():
    table = STUDY.copy()
    table.loc[["s1", "s2"], "Age"] = np.nan
    table.loc["s2", "Tissue"] = None
    report = check("~ Age + dose + (1|Person) + (1|Tissue)", table)
    assert (report.model, report.can_be_fitted, report.errors) == ("mixed", True, ())
    assert (report.samples, report.kept, report.dropped) == (N, N - 2, ("s1", "s2"))
    assert report.missing == {"Age": 2, "Tissue": 1}
    assert (report.numeric, report.fixed_factors) == (("Age", "dose"), ())
    assert report.random == ("Person", "Tissue")
    assert (report.columns, report.rank, report.parameters) == (3, 3, 6)
    kept = table.drop(["s1", "s2"])
    for name in ("Person", "Tissue"):
        counts = kept[name].value_counts()
        row = report.factors.loc[name]
        assert row["role"] == "random" and row["seen_once"] == (counts == 1).sum()
        sizes = (len(counts), counts.min(), counts.median(), counts.max())
        assert tuple(row[["levels", "least", "median", "most"]]) == sizes
    with pytest.warns(UserWarning, match="`Age` and `Person`"):
        expected = jaxvp.canonical_correlations("~ Age + dose + Person + Tissue", table)
    pd.testing.assert_frame_equal(report.correlations, expected)


def test_attributes_of_a_fixed_model():
    report = check("~ dose * Tissue + C(Batch)")
    assert (report.model, report.can_be_fitted, report.random) == ("fixed", True, ())
    assert report.numeric == ("dose",)
    assert report.fixed_factors == ("Tissue", "C(Batch)", "dose:Tissue")
    assert list(report.factors.index) == ["Tissue", "C(Batch)"]
    assert report.columns == report.rank == 1 + 1 + 2 + 3 + 2
    assert not found(report, "categorical_fixed")


@pytest.mark.parametrize("formula", ["~ 1", "~ 0 + (1|Tissue)", "~ dose", "~ (1|Tissue)"])
def test_small_models(formula):
    report = check(formula)
    assert report.can_be_fitted and report.columns == int("0" not in formula) + ("dose" in formula)
    assert (report.correlations is None) and str(report)


def test_text_says_it_all():
    table = STUDY.copy()
    table.loc["s3", "dose"] = np.nan
    text = str(check("~ dose + Tissue + (1|Person) + (1|Label)", table))
    assert repr(check("~ dose")) == str(check("~ dose"))
    for words in [
        "can be fitted, as a mixed model, with 2 warnings",
        "59 of 60; without a value of dose (1): s3",
        "dose, Tissue (categorical)",
        "Person, Label",
        "4, of rank 4",
        "7: 4 fixed columns and 3 variances; 8.4 samples for each",
        "Person  random      12         4       5        5          0",
        "warning: `Person` and `Label` group the samples in the same way",
        "    -> leave out one of them, `Label` or `Person`",
        "note: 1 of 60 samples are dropped for missing values in `dose` (1)",
    ]:
        assert words in text, words
    assert max(map(len, text.splitlines())) <= 100
    assert "Nothing to remark." in str(check("~ dose + (1|Person)"))


# What deserves attention


@pytest.mark.parametrize(
    "formula, kind, severity, about, message, advice",
    [
        (
            "~ dose + Tissue + (1|Person)",
            *("categorical_fixed", "warning", ("Tissue",)),
            *("not comparable", r"write \(1\|Tissue\)"),
        ),
        (
            "~ C(Batch):Tissue + (1|Person)",
            *("categorical_fixed", "warning", ("C(Batch):Tissue",)),
            *("not comparable", r"write \(1\|Batch:Tissue\)"),
        ),
        (
            "~ (1|Person) + (1|Label)",
            *("identical", "warning", ("Person", "Label")),
            *("the same way", "leave out one"),
        ),
        (
            "~ dose + (1|Person) + (1|Clinic)",
            *("nested", "note", ("Person", "Clinic")),
            *(r"`Person` \(12 levels\) is nested in `Clinic` \(3 levels\)", "from 3 levels"),
        ),
        (
            "~ dose + (1|Person) + (1|Twin)",
            *("nested", "warning", ("Person", "Twin")),
            *("nested in `Twin`", "hardly be told apart"),
        ),
        (
            "~ Clinic + (1|Person)",
            *("nested", "note", ("Person", "Clinic")),
            *("nested", "12 levels of `Person`, not on 60 samples"),
        ),
        (
            "~ Person + Clinic",
            *("nested", "warning", ("Person", "Clinic")),
            *("nested", r"leave out `Clinic`.*\(1\|Clinic\) \+ \(1\|Person\)"),
        ),
        (
            "~ Person + (1|Clinic)",
            *("absorbed", "warning", ("Clinic",)),
            *("nothing is left", r"leave \(1\|Clinic\) out"),
        ),
        (
            "~ Age + dose + (1|Person)",
            *("constant_within", "note", ("Age", "Person")),
            *("the same in all samples of a level of `Person`", "12 levels of `Person`"),
        ),
        (
            "~ dose + I(dose + 1e-6*Age) + (1|Tissue)",
            *("collinear", "warning", ("dose", "I(dose + 1e-06 * Age)")),
            *("above 0.999", "leave out one"),
        ),
        (
            "~ dose + (1|Run)",
            *("seen_once", "warning", ("Run",)),
            *("20 of 21 levels", "hard to tell from the residual"),
        ),
        (
            "~ dose + (1|Tissue) + (1|Clinic) + (1|Person)",
            *("few_levels", "note", ("Tissue", "Clinic")),
            *(r"`Tissue` \(3 levels\), `Clinic` \(3 levels\)", "imprecise"),
        ),
        (
            "~ dose + (1|`Body Weight`)",
            *("numeric_group", "warning", ("Body Weight",)),
            *("different values", r"`Body Weight` in place of \(1\|`Body Weight`\)"),
        ),
        (
            "~ dose + Batch + (1|Tissue)",
            *("code", "note", ("Batch",)),
            *("numeric with 4 different values", r"\(1\|Batch\), or C\(Batch\)"),
        ),
        (
            "~ dose + Tissue*C(Batch)",
            *("few_samples", "warning", ()),
            *("14 parameters for 60 samples", "leave out terms"),
        ),
        (
            "~ 0 + dose + (1|Tissue)",
            *("no_intercept", "note", ()),
            *("no intercept", "variancePartition refuses"),
        ),
    ],
)
def test_findings(formula, kind, severity, about, message, advice):
    report = check(formula)
    (finding,) = [f for f in found(report, kind) if f.about == about]
    assert finding.severity == severity
    assert re.search(message, finding.message) and re.search(advice, finding.advice), finding
    assert finding.message.split("`")[0][:30] in str(report)


def test_a_plain_design_has_no_findings():
    report = check("~ dose + (1|Person)")
    assert report.findings == ()


def test_relations_are_attributes_too():
    report = check("~ Age + Clinic + (1|Person) + (1|Label) + (1|Tissue)")
    assert report.identical == (("Person", "Label"),)
    assert report.nested == (("Person", "Clinic"), ("Label", "Clinic"))
    assert report.constant_within == (("Age", "Person"), ("Age", "Label"))
    assert check("~ Person + (1|Clinic)").absorbed == ("Clinic",)
    # what the names say already is no finding
    assert check("~ (1|Clinic/Person)").nested == ()


@pytest.mark.parametrize("share, severity", [(0.1, "note"), (0.5, "warning")])
def test_many_dropped_samples(share, severity):
    table = STUDY.copy()
    table.iloc[: int(share * N), table.columns.get_loc("dose")] = np.nan
    (finding,) = found(check("~ dose + (1|Person)", table), "dropped")
    assert finding.severity == severity and "leave out `dose`" in finding.advice


def test_findings_are_ordered_by_severity():
    report = check("~ 0 + Person + Clinic + Batch + (1|Twin)")
    severities = [finding.severity for finding in report.findings]
    assert severities == sorted(severities, key=["error", "warning", "note"].index)
    assert report.errors == report.findings[:1]
    assert report.warnings and set(report.warnings) < set(report.findings)


# Models that fit refuses


REFUSED = [
    ("~ Agee + (1|Person)", r"`Agee` \(did you mean Age\?\)", (None, None)),
    ("~ same + dose", "it has one level, 'x'", (2, 2)),
    ("~ dose + twice", "`twice` is a combination of `dose`", (3, 2)),
    ("~ 0 + dose + twice", "`twice` is a combination of `dose`", (2, 1)),
    ("~ Person + Clinic", "rank-deficient", (14, 12)),
    ("~ 0 + Person + Clinic", "rank-deficient", (14, 12)),
    ("~ name + dose", "a level for each of the 60 samples", (61, 60)),
    ("~ dose + (1|name)", "as many levels as there are samples", (2, 2)),
    ("~ dose + empty", "`empty` is missing in all 60 samples", (None, None)),
    ("~ when + dose", "dates or times", (None, None)),
    ("~ log(dose - 100)", "must be positive", (None, None)),
    ("~ (1 + Clinic|Person)", "constant within every level of `Person`", (1, 1)),
    ("~ Person + (1|Person)", "keep one of the two", (12, 12)),
    ("~ Tissue*Person*C(Batch)", "fewer columns are needed", None),
]


@pytest.mark.parametrize("formula, message, size", REFUSED, ids=[case[0] for case in REFUSED])
def test_a_refused_model_is_reported(formula, message, size):
    report = check(formula)
    with pytest.raises((DesignError, NotImplementedError), match=message) as error:
        build(Formula.parse(formula), STUDY)
    assert not report.can_be_fitted
    (finding,) = report.errors
    assert finding.kind == "refused" and finding.message == str(error.value)
    assert "cannot be fitted" in str(report)
    if size is not None:
        assert (report.columns, report.rank) == size


def test_what_can_be_looked_at_is():
    report = check("~ Agee + Tissue + (1|Person) + (1|Label)")
    assert report.identical == (("Person", "Label"),)
    assert list(report.factors.index) == ["Tissue", "Person", "Label"]


TERMS = [
    *("Age", "dose", "twice", "Person", "Clinic", "Tissue", "Batch", "same", "empty", "name"),
    *("C(Batch)", "poly(dose, 2)", "scale(Age)", "log(dose - 3)", "when", "Tissue:dose"),
    *("Tissue*Clinic", "`Body Weight`", "nowhere", "0", "(1|Person)", "(1|Clinic/Person)"),
    *("(1|Tissue:Batch)", "(1|Batch)", "(1|name)", "(1|same)", "(1|dose)", "(1|when)"),
    *("(dose|Person)", "(1|empty)", "(1|nowhere)", "(1|Label)"),
]


@given(
    st.lists(st.sampled_from(TERMS), min_size=1, max_size=5),
    st.integers(2, N),
    st.lists(st.tuples(st.integers(0, N - 1), st.sampled_from(list(STUDY))), max_size=8),
)
def test_says_what_fit_would_do_and_never_raises(terms, n, gaps):
    table = STUDY.copy()
    for row, name in gaps:
        table.loc[table.index[row], name] = None
    table = table.iloc[:n]
    formula = "~ " + " + ".join(terms)
    try:
        parsed = Formula.parse(formula)
    except FormulaError:
        return
    report = check(formula, table)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            design = build(parsed, table)
    except (DesignError, NotImplementedError) as error:
        assert not report.can_be_fitted and report.errors[0].message == str(error)
    else:
        assert report.can_be_fitted and not report.errors
        assert (report.kept, report.columns, report.rank) == (design.n, design.p, design.p)
        # whatever build warns of is a finding
        kinds = {"dropped": "dropped", "categorical fixed": "categorical_fixed"}
        kinds["identically"] = "identical"
        for warning in caught:
            (kind,) = [kind for words, kind in kinds.items() if words in str(warning.message)]
            assert found(report, kind)
    assert str(report)


@pytest.mark.parametrize(
    "formula, table, error",
    [
        ("dose + Age", STUDY, FormulaError),
        ("~ dose +", STUDY, FormulaError),
        ("~ dose", STUDY.iloc[:0], DataError),
    ],
)
def test_what_is_no_model_raises(formula, table, error):
    with pytest.raises(error):
        jaxvp.check_design(formula, table)


# The command


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    STUDY.rename_axis("sample").to_csv("m.csv")
    moved = STUDY.rename_axis("run").reset_index()
    moved[[*moved.columns[1:], "run"]].to_csv("moved.tsv", sep="\t", index=False)
    return tmp_path


def test_command_prints_the_report(folder, capsys):
    formula = "~ dose + Age + (1|Person) + (1|Clinic)"
    assert main(["check", "-m", "m.csv", "-f", formula]) == 0
    out, err = capsys.readouterr()
    assert out == f"{check(formula)}\n" and err == ""
    assert main(["check", "-m", "moved.tsv", "--sample-column", "run", "-f", formula]) == 0
    assert capsys.readouterr().out == out


def test_command_takes_a_config_file_and_bundled_data(folder, capsys):
    (folder / "study.toml").write_text(
        'metadata = "m.csv"\nexpression = "x.csv"\nformula = "~ dose + (1|Person)"\nout = "results"'
    )
    assert main(["check", "--config", "study.toml"]) == 0
    assert capsys.readouterr().out == f"{check('~ dose + (1|Person)')}\n"
    assert main(["check", "--config", "study.toml", "-f", "~ dosis"]) == 3
    assert main(["check", "--dataset", "influenza", "-f", "~ Age + (1|Subject)"]) == 0


def test_command_exits_with_3_where_fit_would_not(folder, capsys):
    assert main(["check", "-m", "m.csv", "-f", "~ dose + twice"]) == 3
    out, err = capsys.readouterr()
    assert "cannot be fitted" in out and "rank-deficient" in out and err == ""


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "--metadata, --formula must be given"),
        (["-m", "m.csv"], "--formula must be given"),
        (["-m", "none.csv", "-f", "~ a"], "no such file: none.csv"),
        (["-m", "m.csv", "-f", "dose"], "a formula starts with `~`"),
        (["-m", "m.csv", "-f", "~ dose", "--dataset", "influenza"], "--dataset takes the place"),
        (["-m", "m.csv", "-f", "~ dose", "--sample-column", "nowhere"], "nowhere"),
    ],
)
def test_wrong_usage_is_2(folder, capsys, arguments, message):
    assert main(["check", *arguments]) == 2
    out, err = capsys.readouterr()
    assert message in err and out == ""
