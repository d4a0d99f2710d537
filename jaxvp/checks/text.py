"""A design check as text: the model in a few lines, a table of the factors, the findings."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxvp.checks import DesignCheck

WIDTH = 98
NAMED = 5  # samples or variables that are listed; of more, the number


def describe(check: DesignCheck) -> str:
    """Everything, in lines that fit a terminal."""
    lines = [check.formula.strip(), verdict(check), "", *_model(check)]
    if len(check.factors):
        lines += ["", *_factors(check)]
    if check.findings:
        lines.append("")
    for finding in check.findings:
        lines += _wrapped(f"{finding.severity}: {finding.message}", "")
        lines += _wrapped(f"-> {finding.advice}", "    ")
    if not check.findings:
        lines += ["", "Nothing to remark."]
    return "\n".join(lines)


def verdict(check: DesignCheck) -> str:
    """Whether it can be fitted, and how many warnings there are."""
    if not check.can_be_fitted:
        return "cannot be fitted"
    count = len(check.warnings)
    remarks = f", with {count} warning{'s' if count > 1 else ''}" if count else ""
    return f"can be fitted, as a {check.model} model{remarks}"


def facts(check: DesignCheck) -> list[tuple[str, str]]:
    """What is fitted to what: names and values."""
    samples = f"{check.kept} of {check.samples}"
    if check.dropped:
        gaps = ", ".join(f"{name} ({count})" for name, count in check.missing.items())
        samples += f"; without a value of {gaps}: {_some(check.dropped)}"
    numbers = [*check.numeric, *(f"{name} (categorical)" for name in check.fixed_factors)]
    rows = [("samples", samples), ("fixed", _some(numbers, 20) or "the intercept alone")]
    rows.append(("random", _some(check.random, 20) or "none: ordinary least squares"))
    if check.columns is not None:
        rank = "unknown" if check.rank is None else str(check.rank)
        rows.append(("fixed columns", f"{check.columns}, of rank {rank}"))
        count = (check.parameters or 0, check.kept / (check.parameters or 1))
        what = f"{check.columns} fixed columns and {len(check.random) + 1} variances"
        rows.append(("parameters", f"{count[0]}: {what}; {count[1]:.1f} samples for each"))
    return rows


def factor_table(check: DesignCheck) -> list[tuple[str, ...]]:
    """The factors with their levels, the header first."""
    header = ("factor", "role", "levels", "smallest", "median", "largest", "seen once")
    rows = zip(check.factors.index, *(check.factors[name] for name in check.factors), strict=True)
    shown = [tuple(f"{x:g}" if isinstance(x, float) else str(x) for x in row) for row in rows]
    return [header, *shown]


def _model(check: DesignCheck) -> list[str]:
    rows = facts(check)
    width = max(len(name) for name, _ in rows)
    return [
        line
        for name, value in rows
        for line in _wrapped(value, f"{name:<{width}}  ", " " * (width + 2))
    ]


def _factors(check: DesignCheck) -> list[str]:
    table = factor_table(check)
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    return [
        "  ".join(
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in table
    ]


def _some(names: tuple[str, ...] | list[str], most: int = NAMED) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _wrapped(text: str, first: str, rest: str = "    ") -> list[str]:
    """Lines of one item; names are never broken."""
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )
