"""What stands left of a bar: components, their names, and what makes them unfit."""

import warnings

import numpy as np
import pandas as pd
import pytest

from jaxvp.design import DesignError, build, multipliers_at
from jaxvp.formula import Formula

N = 60


def metadata():
    rng = np.random.default_rng(1)
    person = np.repeat(np.arange(10), 6)
    return pd.DataFrame(
        {
            "Time": np.tile(np.arange(6) * 1.0, 10),
            "Dose": rng.uniform(1, 2, N),
            "Age": np.linspace(20, 60, 10)[person],
            "Subject": [f"p{i}" for i in person],
            "Plate": [f"q{i}" for i in rng.integers(0, 5, N)],
            "Tissue": np.tile(["brain", "liver", "skin"], 20),
            "Kept": pd.Categorical(np.tile(["a", "b"], 30), categories=["a", "b", "gone"]),
            "Own": [f"s{i}" for i in range(N)],
            "Pair": [f"pair{i // 2}" for i in range(N)],
            "Gap": np.where(np.arange(N) == 3, np.nan, rng.normal(size=N)),
        },
        index=[f"s{i}" for i in range(N)],
    )


def built(formula, table=None):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return build(Formula.parse(formula), metadata() if table is None else table)


CASES = [
    (
        "~ Time + (Time|Subject)",
        ["Subject", "Subject.Time"],
        ["Subject.(Intercept)", "Subject.Time.(Intercept)", "Subject.Time"],
    ),
    ("~ (1 + Time|Subject)", ["Subject", "Subject.Time"], None),
    ("~ (0 + Time|Subject)", ["Subject.Time"], ["Subject.Time"]),
    ("~ (Time||Subject)", ["Subject", "Subject.Time"], ["Subject", "Subject.Time"]),
    (
        "~ (1|Plate) + (0 + Time|Subject)",
        ["Plate", "Subject.Time"],
        ["Plate", "Subject.Time"],
    ),
    (
        "~ (Tissue + 0|Subject)",
        ["Subject.Tissuebrain", "Subject.Tissueliver", "Subject.Tissueskin"],
        [
            "Subject.Tissuebrain",
            "Subject.Tissueliver.Tissuebrain",
            "Subject.Tissueskin.Tissuebrain",
            "Subject.Tissueliver",
            "Subject.Tissueskin.Tissueliver",
            "Subject.Tissueskin",
        ],
    ),
    ("~ (Tissue|Subject)", ["Subject", "Subject.Tissueliver", "Subject.Tissueskin"], None),
    ("~ (scale(Dose)|Subject)", ["Subject", "Subject.scale(Dose)"], None),
    (
        "~ (Time:Dose|Plate)",
        ["Plate", "Plate.Time:Dose"],
        ["Plate.(Intercept)", "Plate.Time:Dose.(Intercept)", "Plate.Time:Dose"],
    ),
    (
        "~ (Time|Kept:Plate)",
        ["Kept:Plate", "Kept:Plate.Time"],
        ["Kept:Plate.(Intercept)", "Kept:Plate.Time.(Intercept)", "Kept:Plate.Time"],
    ),
]


@pytest.mark.parametrize("formula, components, theta", CASES)
def test_names(formula, components, theta):
    design = built(formula)
    assert list(design.random_names) == components
    if theta is not None:
        assert list(design.theta_names) == theta
    assert len(design.theta_diagonal) == len(design.theta_names)
    assert design.theta_diagonal.sum() == len(components)
    assert set(design.groups) <= {"Subject", "Plate", "Kept:Plate"}


def test_groups_of_two_factors_are_the_pairs_that_occur():
    """`(x|a:b)` is the term of a column that holds both names."""
    table = metadata()
    table["Both"] = table["Kept"].astype(str) + ":" + table["Plate"]
    found, want = built("~ (Time|Kept:Plate)"), built("~ (Time|Both)", table)
    for codes, others in zip(found.codes, want.codes, strict=True):
        pairs = set(zip(codes.tolist(), others.tolist(), strict=True))
        assert len(pairs) == len(set(codes.tolist())) == table["Both"].nunique()
    np.testing.assert_array_equal(found.multipliers[1], want.multipliers[1])
    assert found.blocks == want.blocks


def test_multipliers_are_the_columns():
    design, table = built("~ (Time|Subject) + (0 + Tissue|Plate)"), metadata()
    assert design.multipliers[0] is None
    np.testing.assert_array_equal(design.multipliers[1], table["Time"])
    for level, column in zip(["brain", "liver", "skin"], design.multipliers[2:], strict=True):
        np.testing.assert_array_equal(column, table["Tissue"] == level)
    assert design.blocks == ((0, 1), (2, 3, 4))


def test_intercepts_alone_are_as_they_were():
    design = built("~ Time + (1|Subject) + (1|Plate)")
    assert not design.slopes and design.multipliers == () and design.blocks == ()
    assert design.theta_names == design.random_names == ("Subject", "Plate")


@pytest.mark.parametrize(
    "formula", ["~ (Time|Subject) + (0 + Tissue|Plate)", "~ (Tissue:Time|Subject)", "~ (1|Plate)"]
)
def test_multipliers_at_the_samples_are_the_design_s(formula):
    design = built(formula)
    found = multipliers_at(design, metadata())
    columns = design.multipliers or [None] * len(design.random_names)
    for column, own in zip(found.T, columns, strict=True):
        np.testing.assert_array_equal(column, 1.0 if own is None else own)


GIVEN = [
    ({"Dose": [1.0]}, "`Time`, a slope of .* is not a column"),
    ({"Time": [np.nan]}, "`Time` has missing values"),
    ({"Time": [1.0], "Tissue": ["heart"]}, "no level 'heart' in the design; it has brain, liver"),
    ({"Time": [1.0], "Tissue": ["skin"]}, "depends on all samples .*column named 'scale.Dose.'"),
]


@pytest.mark.parametrize("values, message", GIVEN)
def test_what_is_given_must_be_there(values, message):
    design = built("~ (Time + Tissue + scale(Dose)|Subject)")
    with pytest.raises(DesignError, match=message):
        multipliers_at(design, pd.DataFrame(values))
    given = pd.DataFrame({"Time": [2.0], "Tissue": ["skin"], "scale(Dose)": [0.5]})
    np.testing.assert_array_equal(multipliers_at(design, given), [[1, 2, 0, 1, 0.5]])


UNFIT = [
    ("~ (Age|Subject)", "`Age` is constant within every level of `Subject`.*fixed effect, `Age`"),
    ("~ (0 + Age|Subject)", "`Age` is constant within every level of `Subject`"),
    ("~ (Time|Pair)", r"\(1 \+ Time\|Pair\) has 60 random effects .2 in each of 30 levels.*60 sam"),
    ("~ (Kept + 0|Subject)", "`Kept`.* has levels that no sample has .*`Subject`: 'gone'.*remove_"),
    ("~ (Tissue:Plate:Kept|Subject)", "levels that no sample has"),
    ("~ (Time + I(2 * Time)|Subject)", r"`I\(2 \* Time\)`.* is a combination of `Time`"),
    ("~ (1|Subject) + (Time|Subject)", "both have a random intercept of `Subject`: leave it out"),
    ("~ (0 + Time|Subject) + (Time|Subject)", "both have `Time` of `Subject`"),
    ("~ (Own|Subject)", r"the slope `Own` of \(1 \+ Own\|Subject\): it has a level for each"),
    ("~ (log(Time)|Subject)", r"the slope `log\(Time\)` of .* must be positive"),
    ("~ (Tme|Subject)", "`Tme` .did you mean Time"),
    ("~ Subject + (Time|Subject)", "is a fixed effect and also the grouping factor"),
    ("~ (Time|Own)", "as many levels as there are samples"),
]


@pytest.mark.parametrize("formula, message", UNFIT, ids=[case[0] for case in UNFIT])
def test_unfit(formula, message):
    with pytest.raises(DesignError, match=f"(?s){message}"):
        built(formula)


def test_a_combination_that_no_sample_has():
    table = metadata()
    table["Kept"] = np.where(table["Tissue"] == "brain", "a", table["Kept"].astype(str))
    with pytest.raises(DesignError, match="`Tissuebrain:Keptb`.* is zero in all samples"):
        built("~ (0 + Tissue:Kept|Subject)", table)


def test_samples_without_the_slope_are_dropped():
    with pytest.warns(UserWarning, match="1 of 60 samples are dropped .*`Gap` .1."):
        design = build(Formula.parse("~ (Gap|Subject)"), metadata())
    assert design.n == 59


def test_one_factor_of_two_terms_is_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build(Formula.parse("~ (1|Subject) + (0 + Time|Subject)"), metadata())


def test_a_fixed_effect_may_stand_left_of_a_bar():
    """Alone it would be the same effect twice; there it is another one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a categorical fixed effect
        design = build(Formula.parse("~ Tissue + (Tissue+0|Subject)"), metadata())
    assert design.p == 3 and design.slopes
