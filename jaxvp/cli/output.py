"""What the commands write and print about a result.

Tables are the same, byte for byte, from run to run; what is not (time, host) stands in `run.json`
alone. It is removed first and written last: where it is, the tables beside it are whole and belong
to it.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import jaxvp

if TYPE_CHECKING:
    from jaxvp.config import FitConfig
    from jaxvp.results import Results

SUMMARY = "run.json"
REPORT = "report.html"


class Watch:
    """Wall-clock seconds of the stages of a run, by name."""

    def __init__(self) -> None:
        self.started = datetime.now(UTC)
        self.seconds: dict[str, float] = {}
        self._last = perf_counter()

    def lap(self, stage: str) -> float:
        """Seconds since the last lap, noted as those of `stage`."""
        now = perf_counter()
        self.seconds[stage] = round(now - self._last, 3)
        self._last = now
        return self.seconds[stage]

    def total(self) -> float:
        """Seconds of all laps so far."""
        return sum(self.seconds.values())


def write(
    result: Results,
    folder: Path,
    format: Any,
    options: dict[str, Any],
    watch: Watch,
    report: Callable[[Path], Any] | None = None,
) -> None:
    """Write the tables of a result, the report if there is to be one, then the run's summary.

    Without a format there is the summary alone: of a shard, whose blocks are written.
    """
    from jaxvp.results.files import atomic
    from jaxvp.runs.errors import writing

    with writing(folder):
        (folder / SUMMARY).unlink(missing_ok=True)
        if format is not None:
            result.write_tables(folder, format=format)
    watch.lap("write")
    if report is not None:
        with writing(folder):
            report(folder / REPORT)
        watch.lap("report")
    summary = run_summary(result, format, options) | {"host": host(watch)}
    with writing(folder), atomic(folder / SUMMARY) as temporary:
        temporary.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")


def reporter(
    result: Results, config: FitConfig, metadata: Any, expression: Any
) -> Callable[[Path], Any]:
    """What writes the report of a run, with the metadata that an AnnData may have brought."""
    if metadata is None:
        metadata = getattr(expression, "metadata", None)
    return lambda path: jaxvp.report(result, path, metadata=metadata, call=command(config))


def command(config: FitConfig) -> str:
    """The command that does the same from options alone, whatever came from a file."""
    words = ["jaxvp", "fit"]
    for name, value in config.given().items():
        option = "--ml" if (name, value) == ("reml", False) else f"--{name.replace('_', '-')}"
        if option == "--ml" or value is True:
            words.append(option)
        elif value is not False:
            words += [option, str(value)]
    return shlex.join(words)


def run_summary(result: Results, format: str | None, options: dict[str, Any]) -> dict[str, Any]:
    """What was fitted, how, and with what outcome: the same from run to run."""
    return {
        "formula": result.formula,
        "reml": result.reml,
        "options": options,
        "format": format,
        "block_size": result.block_size,
        "genes": len(result.fractions),
        "samples": _samples(result),
        "components": list(result.fractions.columns),
        "status": status_counts(result),
        "singular": _singular(result),
        "versions": result.versions,
    }


def status_counts(result: Results) -> dict[str, int]:
    """How many genes have each status, the most frequent first."""
    return {str(k): int(n) for k, n in result.diagnostics["status"].value_counts().items() if n}


def _samples(result: Results) -> int:
    assert result.design is not None  # a fit always has one
    return result.design.n


def _singular(result: Results) -> int:
    return sum(result.diagnostics["singular"].tolist())


def host(watch: Watch) -> dict[str, Any]:
    """When, where and how long."""
    return {
        "started": watch.started.isoformat(timespec="seconds"),
        "seconds": watch.seconds,
        "node": platform.node(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
    }


def describe(result: Results) -> str:
    """A few lines for a person: the shares of all components, and how the genes fared."""
    genes, samples = len(result.fractions), _samples(result)
    mixed = result.theta.shape[1] > 0
    method = ("REML" if result.reml else "ML") if mixed else "least squares"
    lines = [f"{genes:,} genes x {samples:,} samples, {result.formula}, {method}"]
    if not genes:
        return lines[0]
    width = max(len(name) for name in result.fractions.columns)
    lines += ["", f"  {'component':<{max(width, 9)}}  median    mean"]
    medians, means = result.fractions.median(), result.fractions.mean()
    for name in result.fractions.columns:
        lines.append(f"  {name:<{max(width, 9)}}  {medians[name]:.4f}  {means[name]:.4f}")
    counts = ", ".join(f"{n:,} {status}" for status, n in status_counts(result).items())
    lines += ["", f"Status: {counts}"]
    if mixed:
        singular = _singular(result) / genes
        lines += [f"Singular (a variance component is exactly zero): {singular:.1%} of genes"]
    return "\n".join(lines)
