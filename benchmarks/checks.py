"""What is promised beside speed: hard genes, layouts, caches, files, memory, plots, report, demo.

Each check is one function of a study's folder, run in a process of its own, that returns rows for
the last table: what, how much, and the promise with whether it was kept, if there is one.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from typing import Any

from benchmarks.settings import ROOT

CHECKS = ROOT / "configs" / "bench" / "checks.toml"
Row = dict[str, Any]
"""what, value, unit, and of a promise: limit (text), kept"""


def settings(path: Path = CHECKS) -> dict[str, dict[str, Any]]:
    """Check -> its settings."""
    return tomllib.loads(path.read_text(encoding="utf-8"))


def on_study(design: str, size: str, folder: Path, ours: dict[str, Any]) -> list[Row]:
    """The checks that belong to a design, on its study: all in one process, which compiles once."""
    from benchmarks.process import ProcessFailed, call

    wanted = {
        name: options
        for name, options in settings().items()
        if design in options.get("designs", {}).get(size, [])
    }
    rows = [memory(ours, wanted.pop("memory"))] if "memory" in wanted else []
    if wanted:
        try:
            spec = {"checks": wanted, "size": size, "folder": str(folder)}
            rows += call("benchmarks.checks", spec)["rows"]
        except ProcessFailed as error:
            rows.append(row(f"{', '.join(wanted)}: {error}", float("nan"), ""))
    return [one | {"what": f"{design}: {one['what']}"} for one in rows]


def row(what: str, value: float, unit: str, limit: str = "", kept: bool | None = None) -> Row:
    return {"what": what, "value": value, "unit": unit, "limit": limit, "kept": kept}


def memory(ours: dict[str, Any], options: dict[str, Any]) -> Row:
    """Peak memory of `ours` above its input."""
    above, most = (ours["peak"] - ours["input"]) / 2**30, options["most_gb"]
    what = f"peak memory above the input of {ours['input'] / 2**20:,.0f} MiB"
    return row(what, above, "GiB", f"at most {most:g} GiB", above <= most)


def hard(folder: Path, options: dict[str, Any], size: str) -> list[Row]:
    """A study with some hard genes against the study without, in turn."""
    from benchmarks import data
    from benchmarks.hard import harden
    from benchmarks.ours import convergence, timed

    plain, metadata, formula = data.read(folder)
    harder = harden(plain, metadata, options["share"])
    result, _ = timed(harder, formula, metadata)
    tables = {"plain": plain, "hard": harder}
    seconds = _medians(tables, formula, metadata, options["repeats"][size])
    ratio, most = seconds["hard"] / seconds["plain"], options["most"]
    status = ", ".join(f"{n} {name}" for name, n in convergence(result)["status"].items())
    what = f"time with {options['share']:.0%} hard genes against without ({status})"
    return [row(what, ratio, "x", f"at most {most:g} x", ratio <= most)]


def layout(folder: Path, options: dict[str, Any], size: str) -> list[Row]:
    """The study with samples as rows in memory, as AnnData has it, and one of float32, in turn."""
    import numpy as np
    import pandas as pd

    from benchmarks import data

    genes, metadata, formula = data.read(folder)

    def of(values: np.ndarray) -> pd.DataFrame:
        return pd.DataFrame(values, genes.index, genes.columns, copy=False)

    by_genes = np.ascontiguousarray(genes)
    kinds = {
        "genes": of(by_genes),
        "samples": of(np.asfortranarray(by_genes)),
        "samples of float32": of(np.asfortranarray(by_genes, dtype=np.float32)),
    }
    seconds = _medians(kinds, formula, metadata, options["repeats"][size])
    base = seconds.pop("genes")
    return [
        row(f"time with {kind} as rows in memory against genes as rows", took / base, "x")
        for kind, took in seconds.items()
    ]


def _medians(tables: dict[str, Any], formula: str, metadata: Any, repeats: int) -> dict[str, float]:
    """Seconds of warm fits of tables, which take turns."""
    from statistics import median

    from benchmarks.ours import timed

    seconds: dict[str, list[float]] = {name: [] for name in tables}
    for turn in range(1 + repeats):
        for name, table in tables.items():
            took = timed(table, formula, metadata)[1]
            if turn:  # the first one compiles
                seconds[name].append(took)
    return {name: median(some) for name, some in seconds.items()}


def cached(folder: Path, options: dict[str, Any], size: str) -> list[Row]:
    """The first call of a new process that finds an earlier one's compile cache."""
    from benchmarks.process import call

    with tempfile.TemporaryDirectory(prefix="jaxvp-bench-") as cache:
        spec = {"folder": str(folder), "repeats": 1, "cache": cache}
        cold = [call("benchmarks.ours", spec)["cold"] for _ in range(2)][1]
    what, most = "new process to its first result, compile cache of an earlier one", options["most"]
    return [row(what, cold, "s", f"under {most:g} s", cold < most)]


def files(folder: Path, options: dict[str, Any], size: str) -> list[Row]:
    """Read, fit, write: from Parquet and CSV to Parquet and CSV."""
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    from benchmarks import data
    from benchmarks.ours import timed
    from jaxvp.expression import read_table

    expression, metadata, formula = data.read(folder)
    table = pa.Table.from_pandas(expression.reset_index(names="gene"), preserve_index=False)
    shape = " x ".join(f"{size:,}" for size in expression.shape)
    pa.parquet.write_table(table, folder / "expression.parquet")
    pa.csv.write_csv(table, folder / "expression.csv")
    del table, expression
    rows, seconds = [], {}
    for kind in ("parquet", "csv"):
        path = folder / f"expression.{kind}"
        megabytes = path.stat().st_size / 1e6
        start = time.perf_counter()
        expression = read_table(path)
        seconds[kind] = time.perf_counter() - start
        path.unlink()
        rows.append(row(f"read {shape} from {kind} ({megabytes:,.0f} MB)", seconds[kind], "s"))
    timed(expression, formula, metadata)  # compiles
    result, fit = timed(expression, formula, metadata)
    rows.append(row("fit, warm", fit, "s"))
    for kind in ("parquet", "csv"):
        start = time.perf_counter()
        result.write_tables(folder / f"tables-{kind}", format=kind)
        rows.append(row(f"write the tables as {kind}", time.perf_counter() - start, "s"))
    return rows


def violins(folder: Path, options: dict[str, Any], size: str) -> list[Row]:
    """The violin plot, drawn: the first one with matplotlib's import, and the next."""
    import jaxvp
    from benchmarks import data
    from benchmarks.ours import timed

    result, _ = timed(*_in_order(data.read(folder)))
    rows, most = [], options["seconds"]
    for words in ("the first, with imports", "the next"):
        start = time.perf_counter()
        axes = jaxvp.pl.violins(result)
        axes.figure.canvas.draw()
        seconds = time.perf_counter() - start
        what = f"violins of {len(result.fractions):,} genes, {words}"
        rows.append(row(what, seconds, "s", f"under {most:g} s", seconds < most))
    return rows


def report(folder: Path, options: dict[str, Any], size: str) -> list[Row]:
    """The report: written, and opened in a browser if there is one."""
    from benchmarks import data
    from benchmarks import report as page
    from benchmarks.ours import timed

    result, _ = timed(*_in_order(data.read(folder)))
    found = page.measure(result, folder, options["loads"][size])
    rows, most = [], options["seconds"]
    for name, (what, value, unit) in page.lines(found, len(result.fractions)).items():
        promised = name in ("load", "ready") and found["load"]
        limit = (f"under {most:g} s", value < most) if promised else ("", None)
        rows.append(row(what, value, unit, *limit))
    return rows


def _in_order(study: tuple[Any, Any, str]) -> tuple[Any, str, Any]:
    expression, metadata, formula = study
    return expression, formula, metadata


def demo(size: str) -> list[Row]:
    """`jaxvp demo` in new processes: without a compile cache, then with the one that it left."""
    from benchmarks.process import environment

    options = settings()["demo"]
    rows = []
    with tempfile.TemporaryDirectory(prefix="jaxvp-bench-") as folder:
        code = "from jaxvp.cli import main; main()"
        command = [sys.executable, "-c", code, "demo", "--out", os.path.join(folder, "demo")]
        for words in ("no compile cache", "compile cache of an earlier run")[
            : options["runs"][size]
        ]:
            for table in Path(folder, "demo").glob("*.parquet"):
                table.unlink()
            start = time.time()
            done = subprocess.run(
                command, capture_output=True, text=True, env=environment(XDG_CACHE_HOME=folder)
            )
            whole = time.time() - start
            if done.returncode:
                return [row(f"demo failed: {done.stderr.strip()[-200:]}", float("nan"), "")]
            printed = printed_seconds(done.stdout)
            warm = printed["Warm"]
            # Import, read, compile, fit, write: to the last table on disk, seen from outside.
            tables = Path(folder, "demo").glob("*.parquet")
            cold = max((table.stat().st_mtime for table in tables), default=float("nan")) - start
            limit = options["factor"] * warm + options["seconds"]
            terms = f"{options['factor']:g} x warm ({warm:.2f} s) + {options['seconds']:g} s"
            what = f"demo, {words}: start of the process to its tables on disk"
            rows.append(row(what, cold, "s", f"under {terms}", cold < limit))
            rows.append(row(f"demo, {words}: and a second fit and the figure", whole, "s"))
    return rows


def printed_seconds(text: str) -> dict[str, float]:
    """The seconds in the demo's lines "Cold: ... (1.23 s: ...)" and "Warm: ..."."""
    return {
        name: float(seconds.replace(",", ""))
        for name, seconds in re.findall(r"^(Cold|Warm):.*\(([\d.,]+) s", text, re.MULTILINE)
    }


def _measure(spec: dict[str, Any]) -> dict[str, Any]:
    run = {
        "hard": hard,
        "layout": layout,
        "cached": cached,
        "files": files,
        "violins": violins,
        "report": report,
    }
    folder, rows = Path(spec["folder"]), []
    for name, options in spec["checks"].items():
        rows += run[name](folder, options, spec["size"])
    return {"rows": rows}


if __name__ == "__main__":
    from benchmarks.process import main

    main(_measure)
