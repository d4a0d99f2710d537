"""The design check of a result: of its metadata where that is given, else of the design it keeps.

`jaxvp.fit` drops samples that only one of the two tables has. The metadata given here may hold
them still; they are counted and left out, so that the check is of what was fitted.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import pandas as pd

from jaxvp.checks import DesignCheck, Finding, check_design, check_fitted
from jaxvp.checks.text import factor_table, facts, verdict
from jaxvp.expression import DataError
from jaxvp.expression.metadata import find_metadata
from jaxvp.formula import Formula
from jaxvp.results import Results


class DesignPart(NamedTuple):
    """What a report says about the design; empty where the result has none."""

    verdict: str
    facts: list[tuple[str, str]]
    factors: list[tuple[str, ...]]
    """the header first; empty without factors"""
    findings: tuple[Finding, ...]
    remarks: list[str]
    """what this check cannot know, or which samples it leaves out"""
    correlations: pd.DataFrame | None

    @property
    def warnings(self) -> int:
        """How many of the findings are warnings, or worse."""
        return sum(finding.severity != "note" for finding in self.findings)


def describe(result: Results, metadata: Any = None) -> DesignPart:
    """The design check of a result.

    Raises
    ------
    DataError
        If the metadata is no table of samples, or lacks samples of the result.
    """
    if metadata is not None:
        check, remarks = _of_metadata(result, find_metadata(metadata, None))
    elif result.design is not None:
        check = check_fitted(result.design)
        remarks = [
            "This check was made from the design that was fitted: samples that were dropped before "
            "(no measurements, missing values) are not counted. With the metadata, "
            "jaxvp.report(..., metadata=...), they are."
        ]
    else:
        remark = (
            "This result has no design, so that nothing can be said about samples and variables. "
            "With the metadata, jaxvp.report(..., metadata=...), the design is checked again."
        )
        return DesignPart("not known", [], [], (), [remark], None)
    factors = factor_table(check) if len(check.factors) else []
    return DesignPart(
        verdict(check), facts(check), factors, check.findings, remarks, check.correlations
    )


def _of_metadata(result: Results, metadata: pd.DataFrame) -> tuple[DesignCheck, list[str]]:
    formula = Formula.parse(result.formula)
    check = check_design(formula, metadata)
    if result.design is None:
        return check, []
    names = metadata.index.map(str)
    known = set(names)
    lost = [name for name in result.design.samples if name not in known]
    if lost:
        raise DataError(
            f"{len(lost):,} of the {result.design.n:,} samples of the result are not in the "
            f"metadata, the first is {lost[0]!r}: pass the table that was fitted to"
        )
    there = set(result.design.samples) | set(check.dropped)
    kept = names.isin(there)
    if kept.all():
        return check, []
    absent = int((~kept).sum())
    remark = f"{absent:,} more samples of the metadata had no measurements and are not counted."
    return check_design(formula, metadata.loc[kept]), [remark]


def largest(correlations: pd.DataFrame) -> list[tuple[str, str, float]]:
    """Pairs of variables, the most correlated first; pairs without a correlation are left out."""
    names, values = list(correlations.columns), correlations.to_numpy()
    pairs = [
        (str(names[i]), str(names[j]), float(values[i, j]))
        for i in range(len(names))
        for j in range(i + 1, len(names))
        if values[i, j] == values[i, j]
    ]
    return sorted(pairs, key=lambda pair: -pair[2])
