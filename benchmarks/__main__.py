"""`python -m benchmarks`: run the designs one after another, write the page.

A full run of all designs writes `docs/benchmarks.md`; anything less (`--quick`, some of the
designs, fewer genes, no peers) prints its page and keeps it in `benchmarks/results/`, which git
ignores. The report is saved after every design, so that a run that is cut short has not been for
nothing.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import checks, data, machine, ours, peers, process, settings, table

RESULTS = settings.ROOT / "benchmarks" / "results"
PAGE = settings.ROOT / "docs" / "benchmarks.md"
FIGURE = settings.ROOT / "docs" / "benchmarks.png"


def parser() -> argparse.ArgumentParser:
    """The options."""
    options = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    add = options.add_argument
    add("--quick", action="store_true", help="few genes of the small designs: does it all run?")
    add("--designs", metavar="A,B", help="only these")
    add("--genes", type=int, metavar="N", help="at most so many genes of each design")
    add("--no-peers", action="store_true", help="jaxvp alone")
    add("--no-checks", action="store_true", help="without hard genes, files, violins, demo")
    add("--figures", action="store_true", help="run the sweeps and draw the picture, nothing else")
    add("--out", type=Path, metavar="PAGE", help="write the page there")
    return options


def main(arguments: list[str] | None = None) -> None:
    """Run what the arguments ask for."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parser().parse_args(arguments)
    # Ended from outside it shall end its children and clear its folder, as after Ctrl-C.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    size = "quick" if options.quick else "full"
    if options.figures:
        from benchmarks import figures

        figures.make(size, RESULTS / "benchmarks.png" if options.quick else FIGURE)
        return
    designs = chosen(options, size)
    report = start(size, " ".join(["python -m benchmarks", *arguments]))
    RESULTS.mkdir(exist_ok=True)
    stamp = report["date"].replace(":", "").replace(" ", "-")
    for design in designs:
        entry, rows = measure(design, size, with_checks=not options.no_checks)
        report["designs"].append(entry)
        report["checks"] += rows
        _save(report, RESULTS / f"{size}-{stamp}.json")
    if not options.no_checks:
        say("demo")
        report["checks"] += checks.demo(size)
        _save(report, RESULTS / f"{size}-{stamp}.json")
    page = options.out or (PAGE if complete(options) else RESULTS / f"{size}.md")
    figure = page.with_suffix(".png")
    text = table.markdown(report, figure.name if figure.exists() else None)
    page.write_text(text, encoding="utf-8")
    print(text)


def chosen(options: argparse.Namespace, size: str) -> list[settings.Design]:
    """The designs to run, cut as the options say."""
    found = settings.designs(size)
    names = options.designs.split(",") if options.designs else list(found)
    unknown = [name for name in names if name not in found]
    if unknown:
        raise SystemExit(
            f"no design {unknown[0]!r} in the {size} size; there are {', '.join(found)}"
        )
    designs = [found[name].with_genes(options.genes) for name in names]
    return [design.without_peers() for design in designs] if options.no_peers else designs


def complete(options: argparse.Namespace) -> bool:
    """Whether the run is all that the page of the documentation shows."""
    less = (options.quick, options.designs, options.genes, options.no_peers, options.no_checks)
    return not any(less)


def start(size: str, command: str) -> dict[str, Any]:
    """A report with the machine in it, and no design yet."""
    say("the machine's rates")
    quick = {"order": 1500, "mib": 128, "tries": 3} if size == "quick" else {}
    return {
        "size": size,
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
        "command": command,
        "machine": machine.describe(),
        "rates": process.call("benchmarks.machine", quick),
        "versions": machine.versions(),
        "designs": [],
        "checks": [],
    }


def measure(
    design: settings.Design, size: str, *, with_checks: bool = True
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """One design: its entry in the report, and the rows of its checks."""
    import numpy as np

    entry: dict[str, Any] = {"design": asdict(design), "peers": [], "gaps": {}}
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="jaxvp-bench-") as name:
        folder = Path(name)
        say(f"{design.name}: {design.title}, {design.genes:,} genes")
        study = data.make(design, folder)
        try:
            entry["ours"] = ours.measure(folder, design.repeats)
        except process.ProcessFailed as error:
            entry["failed"] = f"failed: {error}"
            say(f"{design.name}: {entry['failed']}")
        found = []
        for peer, wanted in design.peers.items():
            say(f"{design.name}: {peers.WORDS[peer]}")
            found.append(peers.run(peer, folder, study["genes"], wanted))
        entry["peers"] = [asdict(peer) for peer in found]
        if "ours" in entry:
            reached = np.load(folder / ours.RESULT)
            entry["gaps"] = peers.gaps(reached, found)
            entry["short"] = peers.short(reached, found)
            if with_checks:
                say(f"{design.name}: checks")
                rows = checks.on_study(design.name, size, folder, entry["ours"])
    return entry, rows


def say(words: str) -> None:
    """Where the run is, on standard error."""
    print(f"{time.strftime('%H:%M:%S')} {words}", file=sys.stderr, flush=True)


def _save(report: dict[str, Any], path: Path) -> None:
    path.write_text(json.dumps(report, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
