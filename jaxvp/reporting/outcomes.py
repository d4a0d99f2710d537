"""What became of the genes: shares of the components, status by status, singular fits.

The meaning of a status is the solver's (`jaxvp.solver.Status`); here stands what to do about it.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import numpy as np
import pandas as pd

from jaxvp.fractions import RESIDUALS
from jaxvp.plots import palette
from jaxvp.results import Results, by_median
from jaxvp.solver import Status

ADVICE = {
    Status.CONVERGED: "Nothing: these are the results.",
    Status.MAX_ITERATIONS: "Rare. Look at the gene's measurements for outliers; if there are none, "
    "report it as a bug.",
    Status.ZERO_VARIANCE: "Leave such genes out before the fit: nothing varies that could be "
    "partitioned.",
    Status.ZERO_RESIDUAL: "Look whether the gene is a copy of a variable, or has as many levels as "
    "values.",
    Status.NON_FINITE: "Log of zero is infinite, log(x + 1) is not.",
    Status.BAD_WEIGHTS: "Mend the weights of these genes: zero or more, one of them above zero.",
    Status.SINGLE_LEVEL: "Fit these genes with a formula without that factor.",
    Status.RANK_DEFICIENT: "Fit these genes with a formula with fewer fixed terms.",
    Status.TOO_FEW_OBSERVATIONS: "Leave these genes out, or use fewer terms.",
}


class Overview(NamedTuple):
    """The counts at the top of a report."""

    genes: int
    samples: int | None
    fitted: int
    failed: int
    singular: int
    mixed: bool
    method: str


class Component(NamedTuple):
    """How the shares of a component are distributed over the fitted genes; NaN if there is none."""

    name: str
    colour: str
    median: float
    mean: float
    lower: float
    upper: float
    zero: float
    """share of the genes in which it is exactly zero"""


class Outcome(NamedTuple):
    """The genes of one status."""

    status: str
    genes: int
    meaning: str
    advice: str


def overview(result: Results) -> Overview:
    """How many genes there are, and how they fared."""
    fitted = int(_fitted(result).sum())
    genes = len(result.fractions)
    mixed = result.theta.shape[1] > 0
    return Overview(
        genes=genes,
        samples=None if result.design is None else result.design.n,
        fitted=fitted,
        failed=genes - fitted,
        singular=int(singular(result).sum()),
        mixed=mixed,
        method=("REML" if result.reml else "ML") if mixed else "least squares",
    )


def components(result: Results) -> list[Component]:
    """Components by their median, ``Residuals`` last, as in the figures."""
    names = by_median(result.fractions)
    colours = palette(map(str, names))
    rows = result.summary().loc[names].to_dict("records")
    zero = (result.fractions.dropna() == 0).mean().to_dict()
    return [
        Component(
            str(name),
            colours[str(name)],
            median=row["median"],
            mean=row["mean"],
            lower=row["25%"],
            upper=row["75%"],
            zero=zero[name],
        )
        for name, row in zip(names, rows, strict=True)
    ]


def outcomes(result: Results) -> list[Outcome]:
    """Every status that there is, in the order of the solver's list."""
    counts = Counter(map(str, result.diagnostics["status"]))
    return [
        Outcome(status.label, counts[status.label], status.meaning, ADVICE[status])
        for status in Status
        if counts[status.label]
    ]


def singular(result: Results) -> np.ndarray:
    """Whether a variance component of a gene is exactly zero; False where there is no fit."""
    column = pd.Series(result.diagnostics.get("singular", False), index=result.fractions.index)
    return column.to_numpy(bool) & _fitted(result)


def explained(component: Component) -> bool:
    """Whether it is a variable, and not what is left."""
    return component.name != RESIDUALS


def _fitted(result: Results) -> np.ndarray:
    return ~result.fractions.isna().any(axis=1).to_numpy()
