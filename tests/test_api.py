"""What `jaxvp.fit` does beside numbers: the bar, the log, the gene names.

Fixed models compile nothing and tell as much of it as mixed ones.
"""

import logging
import sys

import numpy as np
import pandas as pd
import pytest

import jaxvp


@pytest.fixture(scope="module")
def study():
    return jaxvp.simulate(2500, 20, {"Tissue": 3})


class Terminal:
    """Standard error as a person sees it."""

    def __init__(self):
        self.shown = ""

    def write(self, text):
        self.shown += text

    def flush(self):
        pass

    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("delay", "watched", "progress", "bar"),
    [
        (0, True, None, True),
        (0, False, None, False),
        (0, True, False, False),
        (60, True, None, False),  # gone before it can be read
        (60, False, True, True),
    ],
)
def test_a_bar_where_a_person_watches(study, monkeypatch, capsys, delay, watched, progress, bar):
    monkeypatch.setattr("jaxvp.progress.DELAY", delay)
    terminal = Terminal()
    terminal.isatty = lambda: watched
    monkeypatch.setattr(sys, "stderr", terminal)
    jaxvp.fit(study.expression.iloc[:100], "~ 1", study.metadata, progress=progress)
    if bar:
        assert "jaxvp: 100%" in terminal.shown and "gene/s" in terminal.shown
    else:
        assert terminal.shown == ""
    assert capsys.readouterr().out == ""


def test_no_bar_without_a_standard_error(study, monkeypatch):
    """As in a windowed program."""
    monkeypatch.setattr(sys, "stderr", None)
    assert len(jaxvp.fit(study.expression, "~ 1", study.metadata).sigma) == 2500


def test_failed_genes_are_logged_and_not_printed(study, caplog, capsys):
    spoilt = study.expression.iloc[:6].copy()
    spoilt.iloc[[1, 2]], spoilt.iloc[4, 0] = 7.0, np.inf
    with caplog.at_level(logging.INFO, "jaxvp"):
        result = jaxvp.fit(spoilt, "~ 1", study.metadata)
    assert list(result.diagnostics["status"].iloc[[1, 2, 4]]) == [
        *("zero_variance", "zero_variance", "non_finite")
    ]
    (record,) = caplog.records
    assert record.name == "jaxvp" and record.levelno == logging.INFO
    assert record.message == "3 of 6 genes were not fitted: 2 zero_variance, 1 non_finite"
    assert capsys.readouterr() == ("", "")


def test_failed_genes_are_named_where_they_are_an_error(study):
    spoilt = study.expression.iloc[:8].copy()
    spoilt.iloc[1:7] = 7.0
    with pytest.raises(
        jaxvp.FitError, match="6 of 8 genes could not be fitted: gene_2 .zero_v.*"
    ) as e:
        jaxvp.fit(spoilt, "~ 1", study.metadata, on_error="raise")
    assert "gene_6" in str(e.value) and "gene_7" not in str(e.value)
    assert 'on_error="status"' in str(e.value)


@pytest.mark.parametrize(
    "names", [pd.RangeIndex(4), pd.Index([3, 1, 4, 5]), pd.Index(list("dbca"), name="symbol")]
)
def test_gene_names_come_back(study, names):
    expression = study.expression.iloc[:4].set_axis(names)
    result = jaxvp.fit(expression, "~ Tissue", study.metadata)
    for table in (result.fractions, result.sigma, result.diagnostics, result.theta):
        pd.testing.assert_index_equal(table.index, names)
