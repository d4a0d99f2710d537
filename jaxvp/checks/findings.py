"""What deserves attention in a design, and what to do about it.

One function a question. Each reads the structure and yields findings; the advice names the change
to the formula. The numbers that separate a note from a warning are rules of thumb and stand here,
at the top.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from jaxvp.collinearity import HIGH
from jaxvp.design import Design
from jaxvp.design.variables import kind_of, to_numbers
from jaxvp.formula import Formula, Variable

from .structure import Structure, pairs_above

# Of the samples: dropping more than this deserves a warning.
MUCH_DROPPED = 0.2
# A variance estimated from fewer levels than this is imprecise.
FEW_LEVELS = 5
# Of the levels of a factor: with more of them seen once it is hard to tell from the residual.
MANY_SEEN_ONCE = 0.5
# Nested factors whose numbers of levels differ by less than this part are hard to tell apart.
ALMOST_IDENTICAL = 0.2
# Fewer samples a parameter than this.
SAMPLES_PER_PARAMETER = 5
# A number with as few values, all of them whole, may be a code; one with more is no group.
FEW_VALUES = 10

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """One thing to know about a design."""

    severity: Severity
    """``"error"``: refused by `jaxvp.fit`; ``"warning"``: seldom meant; ``"note"``"""
    kind: str
    """such as ``"nested"``: the same for all findings of one kind"""
    about: tuple[str, ...]
    """the variables or terms concerned"""
    message: str
    advice: str


def find(
    formula: Formula, structure: Structure, design: Design | None, refused: Exception | None
) -> tuple[Finding, ...]:
    """All findings, the most severe first."""
    found: list[Finding] = []
    if refused is not None:
        found.append(
            Finding(
                "error",
                "refused",
                (),
                str(refused),
                "`jaxvp.fit` stops with this message: do as it says, then check again",
            )
        )
    for question in (_samples, _mixture, _identical, _nested, _absorbed, _collinear):
        found += question(formula, structure)
    for question in (_levels, _kinds, _within, _counts, _intercept):
        found += question(formula, structure)
    return tuple(sorted(found, key=lambda finding: SEVERITIES.index(finding.severity)))


def _samples(formula: Formula, s: Structure) -> Iterator[Finding]:
    if not s.dropped:
        return
    total = s.kept + len(s.dropped)
    where = ", ".join(f"`{name}` ({count})" for name, count in s.missing.items())
    most = max(s.missing, key=s.missing.__getitem__)
    yield Finding(
        "warning" if len(s.dropped) > MUCH_DROPPED * total else "note",
        "dropped",
        tuple(s.missing),
        f"{len(s.dropped)} of {total} samples are dropped for missing values in {where}",
        f"fill in what is known, or leave out `{most}`, which has the most gaps",
    )


def _mixture(formula: Formula, s: Structure) -> Iterator[Finding]:
    if s.random and s.fixed_factors:
        names = [name for name in s.fixed_factors if name in s.groupings]
        terms = " + ".join(_random(s, name) for name in names)
        yield Finding(
            "warning",
            "categorical_fixed",
            s.fixed_factors,
            f"categorical fixed effects beside random terms: {_listed(s.fixed_factors)}. Fractions "
            "of fixed and of random terms are not comparable",
            "make all categorical variables random or none (variancePartition)"
            + (f": write {terms}" if terms else ""),
        )


def _identical(formula: Formula, s: Structure) -> Iterator[Finding]:
    for one, other in s.identical:
        yield Finding(
            "warning",
            "identical",
            (one, other),
            f"`{one}` and `{other}` group the samples in the same way: their shares cannot be told "
            "apart",
            f"leave out one of them, `{other}` or `{one}`",
        )


def _nested(formula: Formula, s: Structure) -> Iterator[Finding]:
    for inner, outer in s.nested:
        if outer in s.absorbed:
            continue  # said there
        one, other = s.groupings[inner], s.groupings[outer]
        levels, outer_levels = len(one.sizes), len(other.sizes)
        message = (
            f"`{inner}` ({levels} levels) is nested in `{outer}` ({outer_levels} levels): each "
            f"level of `{inner}` lies in one of `{outer}`"
        )
        severity: Severity = "note"
        if one.role == other.role == "fixed":
            severity = "warning"
            advice = (
                f"leave out `{outer}`, which `{inner}` contains, or make both random: "
                f"{_random(s, outer)} + {_random(s, inner)}"
            )
        elif other.role == "fixed":
            advice = (
                f"nothing to change; but the effect of `{outer}` rests on differences between the "
                f"{levels} levels of `{inner}`, not on {s.kept} samples"
            )
        elif levels - outer_levels < ALMOST_IDENTICAL * outer_levels:
            severity = "warning"
            advice = (
                f"most levels of `{outer}` have one level of `{inner}` each, so that the two "
                "shares can hardly be told apart: leave one of the two out"
            )
        else:
            advice = (
                f"nothing to change: `{outer}` gets what the levels of `{inner}` in it have in "
                f"common, estimated from {outer_levels} levels"
            )
        yield Finding(severity, "nested", (inner, outer), message, advice)


def _absorbed(formula: Formula, s: Structure) -> Iterator[Finding]:
    same = {name for pair in s.identical for name in pair}
    for name in s.absorbed:
        if name in same:
            continue  # said there
        yield Finding(
            "warning",
            "absorbed",
            (name,),
            f"the fixed part explains every difference between the levels of `{name}`: nothing is "
            "left for its random term, whose share will be zero or arbitrary",
            f"leave {_random(s, name)} out, or make the fixed factors random as well",
        )


def _collinear(formula: Formula, s: Structure) -> Iterator[Finding]:
    said = {frozenset(pair) for pair in (*s.nested, *s.identical, *s.constant_within)}
    for one, other in pairs_above(s.correlations, HIGH):
        parts = [set(name.split(":")) for name in (one, other)]
        if frozenset((one, other)) in said or parts[0] < parts[1] or parts[1] < parts[0]:
            continue
        yield Finding(
            "warning",
            "collinear",
            (one, other),
            f"`{one}` and `{other}` say the same or almost the same (canonical correlation above "
            f"{HIGH})",
            f"leave out one of them, `{other}` or `{one}`",
        )


def _levels(formula: Formula, s: Structure) -> Iterator[Finding]:
    for name, group in s.groupings.items():
        levels, once = len(group.sizes), int((group.sizes == 1).sum())
        if once and levels < s.kept:
            many = once > MANY_SEEN_ONCE * levels
            yield Finding(
                "warning" if many and group.role == "random" else "note",
                "seen_once",
                (name,),
                f"{once} of {levels} levels of `{name}` are seen in one sample only",
                f"with most levels seen once, `{name}` is hard to tell from the residual: add "
                "repeats, or leave it out"
                if many
                else "nothing to change; these samples say nothing about the residual",
            )
    few = {
        name: len(group.sizes)
        for name, group in s.groupings.items()
        if group.role == "random" and 1 < len(group.sizes) < FEW_LEVELS
    }
    if few:
        counts = ", ".join(f"`{name}` ({levels} levels)" for name, levels in few.items())
        yield Finding(
            "note",
            "few_levels",
            tuple(few),
            f"variances that are estimated from few levels: {counts}",
            "nothing to change; but expect imprecise shares, often exactly zero",
        )


def _kinds(formula: Formula, s: Structure) -> Iterator[Finding]:
    for name in {name: None for term in formula.random for name in term.group}:
        if name not in s.table or kind_of(s.table[name]) != "numeric":
            continue
        values = to_numbers(s.table[name])
        distinct = len(np.unique(values))
        if distinct > FEW_VALUES and (np.mod(values, 1).any() or distinct > s.kept / 4):
            yield Finding(
                "warning",
                "numeric_group",
                (name,),
                f"the grouping factor `{name}` is numeric with {distinct} different values",
                f"if it is a measurement, use it as a fixed effect: {Variable(name).text} in place "
                f"of (1|{Variable(name).text})",
            )
    for name in s.numeric:
        if name not in s.table:
            continue
        values = np.unique(to_numbers(s.table[name]))
        if 2 < len(values) <= FEW_VALUES and not np.mod(values, 1).any():
            yield Finding(
                "note",
                "code",
                (name,),
                f"`{name}` is numeric with {len(values)} different values, and enters as a slope",
                f"if these are codes of groups, write (1|{Variable(name).text}), or "
                f"C({Variable(name).text}) in a fixed model",
            )


def _within(formula: Formula, s: Structure) -> Iterator[Finding]:
    for name, group in s.constant_within:
        levels = len(s.groupings[group].sizes)
        yield Finding(
            "note",
            "constant_within",
            (name, group),
            f"`{name}` is the same in all samples of a level of `{group}`",
            f"nothing to change; but the effect of `{name}` rests on differences between the "
            f"{levels} levels of `{group}`, not on {s.kept} samples",
        )


def _counts(formula: Formula, s: Structure) -> Iterator[Finding]:
    if s.columns is None:
        return
    parameters = s.columns + len(s.random) + 1
    if s.kept < SAMPLES_PER_PARAMETER * parameters:
        yield Finding(
            "warning",
            "few_samples",
            (),
            f"{parameters} parameters for {s.kept} samples: fewer than {SAMPLES_PER_PARAMETER} "
            "samples for each, and the fixed part will explain much by chance",
            "leave out terms, above all interactions, or make factors with many levels random",
        )


def _intercept(formula: Formula, s: Structure) -> Iterator[Finding]:
    if not formula.intercept:
        yield Finding(
            "note",
            "no_intercept",
            (),
            "the model has no intercept",
            "variancePartition refuses such models: leave out the 0 (or -1) unless it is meant",
        )


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _random(s: Structure, name: str) -> str:
    """A factor as a random term of a formula."""
    return f"(1|{':'.join(Variable(variable).text for variable in s.groupings[name].variables)})"
