"""What a formula would fit to these samples, told before any gene is looked at.

`check_design` builds the design as `jaxvp.fit` does and looks at it (`structure`): samples,
levels, factors nested in one another, the rank of the fixed part. What deserves attention becomes a
`Finding` (`findings`): an *error* is what `jaxvp.fit` refuses, a *warning* what it fits and is
seldom meant, a *note* what a reader of the results should know. A model that cannot be built is
looked at as far as its parts go. `text` writes it all down for a person.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import pandas as pd

from jaxvp.design import Design, DesignError, build
from jaxvp.design.variables import select
from jaxvp.expression.metadata import check_metadata
from jaxvp.formula import Formula

from .findings import Finding, find
from .fitted import examine_fitted
from .structure import examine
from .text import describe

__all__ = ["DesignCheck", "Finding", "check_design", "check_fitted"]


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class DesignCheck:
    """What would be fitted, and what to think of; ``print`` it, or read its attributes.

    Examples
    --------
    >>> check = jaxvp.check_design("~ Age + (1|Individual) + (1|Tissue)", metadata)
    >>> print(check)
    >>> assert check.can_be_fitted, check.errors
    """

    formula: str
    """as the user wrote it"""
    model: str
    """``"mixed"`` (there is a random term) or ``"fixed"``"""
    can_be_fitted: bool
    """whether `jaxvp.fit` takes it"""
    samples: int
    """in the metadata"""
    kept: int
    """of them, those with a value of every variable"""
    dropped: tuple[str, ...]
    """names of the others"""
    missing: dict[str, int]
    """how many samples have no value, by variable; only variables with gaps"""
    numeric: tuple[str, ...]
    """fixed terms that are numbers"""
    fixed_factors: tuple[str, ...]
    """fixed terms with a categorical variable in them"""
    random: tuple[str, ...]
    """random terms"""
    factors: pd.DataFrame
    """a row a factor, fixed or random; columns ``role``, ``levels``, samples in the smallest, the
    median and the largest level (``least``, ``median``, ``most``), and levels ``seen_once``"""
    nested: tuple[tuple[str, str], ...]
    """pairs (inner, outer): each level of the inner factor lies in one level of the outer one"""
    identical: tuple[tuple[str, str], ...]
    """pairs of factors that group the samples in the same way"""
    constant_within: tuple[tuple[str, str], ...]
    """pairs (number, random term): the number is the same in all samples of a level"""
    absorbed: tuple[str, ...]
    """random terms that the fixed part explains completely"""
    correlations: pd.DataFrame | None
    """`jaxvp.canonical_correlations`; None if there are fewer than two variables"""
    columns: int | None
    """of the fixed part, with the intercept; None where it cannot be built"""
    rank: int | None
    """of the fixed part: the same, if it can be fitted"""
    findings: tuple[Finding, ...]
    """errors first, then warnings, then notes"""

    @property
    def parameters(self) -> int | None:
        """Fixed columns, a variance for each random term, and the residual's."""
        return None if self.columns is None else self.columns + len(self.random) + 1

    @property
    def errors(self) -> tuple[Finding, ...]:
        """What `jaxvp.fit` refuses."""
        return self._of("error")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """What can be fitted and is seldom meant."""
        return self._of("warning")

    def _of(self, severity: str) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.severity == severity)

    def __str__(self) -> str:
        return describe(self)

    __repr__ = __str__


def check_design(formula: str | Formula, metadata: pd.DataFrame) -> DesignCheck:
    """Say what a formula would fit to these samples, and what to change.

    Parameters
    ----------
    formula
        As for `jaxvp.fit`.
    metadata
        Samples x variables.

    Returns
    -------
    DesignCheck
        Also of a model that `jaxvp.fit` refuses: its message is then the first finding.

    Raises
    ------
    FormulaError
        If the text is not a formula.
    DataError
        If the metadata is not a table of samples.

    Notes
    -----
    Where advice repeats a rule of variancePartition (all categorical variables random or none), it
    is that of Hoffman and Schadt (2016), BMC Bioinformatics 17:483, and of its vignette.
    """
    parsed = formula if isinstance(formula, Formula) else Formula.parse(formula)
    check_metadata(metadata)
    design, refused = _build(parsed, metadata)
    structure = examine(parsed, metadata, _known(parsed, metadata), design)
    return DesignCheck(
        formula=parsed.text,
        model="mixed" if parsed.random else "fixed",
        can_be_fitted=design is not None,
        samples=len(metadata),
        **structure.public(),
        findings=find(parsed, structure, design, refused),
    )


def check_fitted(design: Design) -> DesignCheck:
    """The same of a design that was fitted, without its metadata.

    Parameters
    ----------
    design
        `Results.design`.

    Returns
    -------
    DesignCheck
        Samples that were dropped before the fit are not counted, and a grouping factor that held
        numbers is not remarked. An interaction that stands beside its own main effects is
        correlated with all of its levels.
    """
    structure = examine_fitted(design)
    formula = design.formula
    return DesignCheck(
        formula=formula.text,
        model="mixed" if formula.random else "fixed",
        can_be_fitted=True,
        samples=design.n,
        **structure.public(),
        findings=find(formula, structure, design, None),
    )


def _build(formula: Formula, metadata: pd.DataFrame) -> tuple[Design | None, Exception | None]:
    """The design, or why there is none. What `build` warns of is found again, with advice."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return build(formula, metadata), None
    except (DesignError, NotImplementedError) as error:
        return None, error


def _known(formula: Formula, metadata: pd.DataFrame) -> dict[str, pd.Series]:
    """Those variables of the formula that the metadata has."""
    table = {}
    for name in formula.variables:
        try:
            table |= select(metadata, (name,))
        except DesignError:
            continue
    return table
