"""The report of many genes: seconds to write it, its size, milliseconds until a browser shows it.

    python -m benchmarks.report            # 20,000 genes, seven loads
    python -m benchmarks.report --genes 500 --loads 1

The result is of design A (`configs/bench/designs.toml`), fitted as ever. Every load is a browser of
its own with an empty profile, so that nothing is left of the one before; the browser's own clock
counts from the start of the navigation to the load event, and to the moment when the table of
genes is drawn and answers (``genes-ready``). Sorting and searching are timed in the same page.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import browser

LOADED = """
const [page] = performance.getEntriesByType("navigation");
const [ready] = performance.getEntriesByName("genes-ready");
return [page.loadEventEnd, ready.startTime];
"""
# Milliseconds of one click on the heading of a number, of one on that of the names, of a search.
WORKED = """
const now = () => performance.now();
const timed = (work) => { const start = now(); work(); return now() - start; };
const press = (kind) => document.querySelector(`th[data-sort=${kind}] button`).click();
const search = document.getElementById("search");
const type = () => { search.value = "1"; search.dispatchEvent(new Event("input")); };
return [timed(() => press("share")), timed(() => press("name")), timed(type)];
"""


def measure(result: Any, folder: Path, loads: int) -> dict[str, Any]:
    """Write the report of a result and open it so many times.

    Returns
    -------
    dict
        ``write`` (seconds, first and next), ``bytes``, ``load``, ``ready``, ``sort number``, ``sort
        names``, ``search`` (each a list of milliseconds), ``browser`` (its version); the lists are
        empty where there is no browser.
    """
    import jaxvp

    path, written = folder / "report.html", []
    for _ in range(2):
        start = time.perf_counter()
        jaxvp.report(result, path)
        written.append(time.perf_counter() - start)
    names = ("load", "ready", "sort number", "sort names", "search")
    found: dict[str, Any] = {name: [] for name in names}
    found |= {"write": written, "bytes": path.stat().st_size, "browser": browser.missing()}
    for _ in range(0 if browser.missing() else loads):
        with browser.browser() as driver:
            found["browser"] = "Chromium " + driver.capabilities["browserVersion"]
            driver.get(path.as_uri())
            times = [*driver.execute_script(LOADED), *driver.execute_script(WORKED)]
        for name, milliseconds in zip(names, times, strict=True):
            found[name].append(milliseconds)
    return found


def lines(found: dict[str, Any], genes: int) -> dict[str, tuple[str, float, str]]:
    """What was measured, by name: words, value, unit."""
    what = f"report of {genes:,} genes"
    first, again = found["write"]
    shown = {
        "first": (f"{what}: write, the first", first, "s"),
        "next": (f"{what}: write, the next", again, "s"),
        "size": (f"{what}: size", found["bytes"] / 1e6, "MB"),
    }
    if not found["load"]:
        return shown | {"load": (f"{what}: open ({found['browser']})", float("nan"), "s")}
    words = {
        "load": f"open in {found['browser']}, median of {len(found['load'])}",
        "ready": "until its table answers",
        "sort number": "sort by a component",
        "sort names": "sort by name",
        "search": "search",
    }
    return shown | {
        name: (f"{what}: {text}", median(found[name]) / 1000, "s") for name, text in words.items()
    }


def main(arguments: list[str] | None = None) -> None:
    """Make a result, measure, print."""
    from benchmarks import data, machine, settings
    from benchmarks.ours import timed

    options = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    options.add_argument("--genes", type=int, default=20_000)
    options.add_argument("--loads", type=int, default=7)
    given = options.parse_args(arguments)
    design = dataclasses.replace(settings.designs("full")["A"], genes=given.genes)
    with tempfile.TemporaryDirectory(prefix="jaxvp-bench-") as name:
        folder = Path(name)
        data.make(design, folder)
        expression, metadata, formula = data.read(folder)
        result, _ = timed(expression, formula, metadata)
        found = measure(result, folder, given.loads)
    print(", ".join(f"{name} {value}" for name, value in machine.describe().items()))
    print(", ".join(f"{name} {value}" for name, value in machine.versions().items()))
    for words, value, unit in lines(found, len(result.fractions)).values():
        print(f"{words}: {value:.3g} {unit}")


if __name__ == "__main__":
    main()
