"""Figures of results that hold little, of names that are unknown, of what is no result.

One table: every figure that takes a result meets every poor one. More of single figures:
`test_plots.py`, `test_figures.py`.
"""

import dataclasses
import inspect

import numpy as np
import pandas as pd
import pytest
from fractions_to_draw import results, table
from matplotlib.figure import Figure
from reports import metadata, study

import jaxvp

pl = jaxvp.pl
GOOD = study(20)
EMPTY = dataclasses.replace(
    GOOD,
    **{
        field.name: getattr(GOOD, field.name).iloc[:0]
        for field in dataclasses.fields(GOOD)
        if hasattr(getattr(GOOD, field.name), "iloc")
    },
)


def all_failed():
    nothing = GOOD.fractions * np.nan
    status = GOOD.diagnostics.assign(status="zero_variance")
    return dataclasses.replace(
        GOOD,
        fractions=nothing,
        variances=nothing,
        theta=GOOD.theta * np.nan,
        sigma=GOOD.sigma * np.nan,
        diagnostics=status,
    )


# What each figure is called with, of a result.
FIGURES = {
    "violins": lambda result: plain(pl.violins)(result),
    "bars": lambda result: plain(pl.bars)(result),
    "top_genes": lambda result: plain(pl.top_genes)(result, "Tissue"),
    "compare": lambda result: plain(pl.compare)(result, GOOD),
    "compare, the other": lambda result: plain(pl.compare)(GOOD, result),
    "components_against_mean": lambda result: plain(pl.components_against_mean)(result),
    "correlation_structure": lambda result: plain(pl.correlation_structure)(result),
}


def plain(function):
    """Without the checks of annotations that only tests have: they would speak first."""
    return inspect.unwrap(function)


@pytest.mark.parametrize("figure", FIGURES)
def test_an_empty_result(figure):
    with pytest.raises(jaxvp.DataError, match="no rows: there is no gene|has no gene"):
        FIGURES[figure](EMPTY)


@pytest.mark.parametrize("figure", FIGURES)
def test_a_result_in_which_all_failed(figure):
    with pytest.raises(jaxvp.DataError, match="none of the 20 genes could be fitted"):
        FIGURES[figure](all_failed())


@pytest.mark.parametrize("figure", FIGURES)
def test_what_is_no_result(figure):
    with pytest.raises(TypeError, match="not dict"):
        FIGURES[figure]({"Tissue": [0.5]})


@pytest.mark.parametrize(
    "draw",
    [
        lambda one: pl.violins(one),
        lambda one: pl.bars(one),
        lambda one: pl.top_genes(one, "Residuals"),
        lambda one: pl.compare(one, one),
        lambda one: pl.components_against_mean(one, pd.Series(2.0, index=one.fractions.index)),
        lambda one: pl.correlations(pd.DataFrame([[1.0]], index=["Age"], columns=["Age"])),
    ],
    ids=["violins", "bars", "top_genes", "compare", "means", "correlations"],
)
def test_one_component_is_drawn(draw):
    made = draw(results(pd.DataFrame({"Residuals": np.ones(4)}, index=list("abcd"))))
    figure = made if isinstance(made, Figure) else made.figure
    figure.canvas.draw()
    assert any(ax.has_data() for ax in figure.axes)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pl.bars(GOOD, ["g99x"]), r"no gene 'g99x' \(did you mean"),
        (lambda: pl.top_genes(GOOD, "Tisue"), r"did you mean 'Tissue'\?"),
        (lambda: pl.correlation_structure(GOOD, "G1"), r"no gene 'G1' \(did you mean 'g1'"),
        (lambda: pl.correlation_structure(GOOD, "g1", "Subjct"), "no random term .*Subject"),
        (lambda: pl.stratify(*measured(), "g_1", "Tissue"), r"no gene 'g_1' \(did you mean 'g1'"),
        (lambda: pl.stratify(*measured(), "g1", "tissue"), "did you mean Tissue"),
        (lambda: pl.simpson(*measured(), "g_1", "Age", "Batch"), r"no gene 'g_1' \(did you mean"),
        (lambda: pl.simpson(*measured(), "g1", "age", "Batch"), "did you mean Age"),
        (lambda: pl.simpson(*measured(), "g1", "Age", "batch"), "did you mean Batch"),
    ],
)
def test_unknown_names_have_close_matches(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def measured():
    samples = metadata()
    values = np.random.default_rng(0).normal(size=(3, len(samples)))
    return pd.DataFrame(values, index=["g1", "g2", "g3"], columns=samples.index), samples


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pl.stratify("no.csv", metadata(), "g1", "Tissue"), "no.csv"),
        (
            lambda: plain(pl.stratify)(measured()[0], [1], "g1", "Tissue"),
            "must be a pandas DataFrame",
        ),
        (
            lambda: plain(pl.stratify)(*measured(), "g1", "Tissue", result=GOOD.fractions),
            "stratify needs a jaxvp.Results.*not DataFrame",
        ),
        (lambda: pl.stratify(measured()[0].iloc[:0], metadata(), "g1", "Tissue"), "no gene"),
        (lambda: pl.simpson({}, metadata(), "g1", "Age", "Batch"), "must be a DataFrame or"),
        (lambda: pl.correlations(table(3)), "must have the same variables"),
    ],
)
def test_what_are_no_measurements(call, message):
    with pytest.raises((ValueError, TypeError, OSError), match=message):
        call()
