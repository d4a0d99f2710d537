"""A report as Markdown: one table a question, and in front of them what they were measured on.

A report is plain data, as `__main__` collects it and as it stands in `results/*.json`:

    size, date, command, machine, rates, versions
    designs   one entry each: design, ours (or failed), peers, gaps, short
    checks    rows of `checks`
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

from benchmarks.floor import Shape
from benchmarks.peers import SHORT, WORDS

GAP = 1e-6
"""what a log-likelihood may lack at most"""
NONE = "–"


def markdown(report: dict[str, Any], figure: str | None = None) -> str:
    """The whole page; `figure` is the picture's file beside it."""
    machine, rates = report["machine"], report["rates"]
    designs = report["designs"]
    fitted = [entry for entry in designs if "ours" in entry]
    parts = [
        "# Benchmarks",
        "Written by the command below; `benchmarks/README.md` says what a row means.",
        "<!-- not run: it takes long, and what it measures depends on the machine -->\n"
        f"```bash\n{report['command']}\n```",
        _lines(
            f"Date: {report['date']}. Size: {report['size']}.",
            f"Machine: {machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']:g} GiB, "
            f"{machine['system']}.",
            f"Its rates, measured in the same run: {rates['flops'] / 1e9:,.0f} GFlop/s (float64 "
            f"matrix product), {rates['bytes_per_second'] / 1e9:,.1f} GB/s (copy, read + written).",
            "Versions: "
            + ", ".join(f"{name} {version}" for name, version in report["versions"].items())
            + ".",
        ),
        "## Time",
        "All cores on both sides. A peer's time is of a sample of the genes, extrapolated per "
        "gene (next table); `12 x` means that the peer takes 12 times as long.",
        _time(designs),
        "## The peers",
        "One single-threaded process a core. `all genes` is extrapolated from the sample. `short` "
        f"counts genes of the sample that ended more than {SHORT:g} below the best log-likelihood "
        "of all, jaxvp's among them, and `by` is what the worst of them lacks: time that did not "
        "buy an optimum is in the ratios as it is. Processes that were started again are those of "
        "`benchmarks/lme4.R` whose fit to start from was stuck.",
        _peers(designs),
        "## First call and memory",
        _first(fitted),
        "## The floor",
        "Operations and bytes counted from the algorithm (`benchmarks/floor.py`), against the "
        "rates above.",
        _floor(fitted, rates),
        "## Exactness",
        "The gap is the best log-likelihood of all peers less jaxvp's, at worst over the genes "
        f"of the samples: positive means that jaxvp is worse; at most {GAP:g} is allowed.",
        _exactness(fitted),
    ]
    if report["checks"]:
        parts += ["## Promises", _checks(report["checks"])]
    if figure:
        parts += ["## Scaling", f"![Time against samples, levels, genes and K]({figure})"]
    return "\n\n".join(parts) + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; bars in cells are escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines
    )


def us_per_gene(ours: dict[str, Any], of: Any = median) -> float:
    """Microseconds a gene of the warm fits."""
    return 1e6 * of(ours["warm"]) / ours["genes"]


def number(value: float) -> str:
    """Three digits, thousands apart."""
    if value is None or not math.isfinite(value):
        return NONE
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def _lines(*sentences: str) -> str:
    return "\n".join(f"- {sentence}" for sentence in sentences)


def _time(designs: list[dict[str, Any]]) -> str:
    named = {peer["name"] for entry in designs for peer in entry["peers"]}
    peers = [name for name in WORDS if name in named]
    head = ["design", "samples", "levels", "genes", "jaxvp us/gene: median", "min", "whole fit, s"]
    rows = []
    for entry in designs:
        if "ours" not in entry:
            rows.append([_title(entry), *[NONE] * 3, entry["failed"], *[NONE] * (2 + len(peers))])
            continue
        ours, found = entry["ours"], {peer["name"]: peer for peer in entry["peers"]}
        us = us_per_gene(ours)
        rows.append(
            [
                _title(entry),
                f"{ours['shape']['n']:,}",
                "/".join(f"{n:,}" for n in entry["design"]["levels"].values()) or NONE,
                f"{ours['genes']:,}",
                number(us),
                number(us_per_gene(ours, min)),
                number(median(ours["warm"])),
                *(_ratio(found.get(name), us) for name in peers),
            ]
        )
    return table([*head, *(WORDS[name] for name in peers)], rows)


def _ratio(peer: dict[str, Any] | None, us: float) -> str:
    if peer is None:
        return NONE
    if peer["missing"]:
        return "failed" if peer["missing"].startswith("failed") else "not installed"
    return f"{number(peer['us_per_gene'] / us)} x"


def _peers(designs: list[dict[str, Any]]) -> str:
    rows = []
    for entry in designs:
        genes = entry["ours"]["genes"] if "ours" in entry else entry["design"]["genes"]
        for peer in entry["peers"]:
            start = [entry["design"]["name"], WORDS[peer["name"]]]
            if peer["missing"]:
                rows.append([*start, peer["missing"], *[NONE] * 7])
                continue
            rows.append(
                [
                    *start,
                    peer["version"],
                    f"{len(peer['sample']):,} of {genes:,}",
                    _processes(peer),
                    number(peer["start"]),
                    number(peer["us_per_gene"]),
                    f"{number(peer['us_per_gene'] * genes / 1e6)} s",
                    *_short(entry.get("short", {}).get(peer["name"])),
                ]
            )
    head = ["design", "peer", "version", "sample", "processes", "start, s", "us/gene", "all genes"]
    return table([*head, "short", "by"], rows) if rows else "None was run."


def _processes(peer: dict[str, Any]) -> str:
    again = peer["starts"] - peer["processes"]
    return f"{peer['processes']} ({again} started again)" if again else str(peer["processes"])


def _short(found: dict[str, float] | None) -> tuple[str, str]:
    if found is None:
        return NONE, NONE
    return f"{found['genes']:,}", number(found["most"]) if found["genes"] else NONE


def _first(fitted: list[dict[str, Any]]) -> str:
    rows = []
    for entry in fitted:
        ours = entry["ours"]
        rows.append(
            [
                entry["design"]["name"],
                number(ours["cold"]),
                number(ours["first"] - median(ours["warm"])),
                number(median(ours["warm"])),
                number(ours["input"] / 2**20),
                number(ours["peak"] / 2**20),
                number((ours["peak"] - ours["input"]) / 2**20),
            ]
        )
    head = ["design", "cold, s", "compile, s", "warm, s", "input, MiB", "peak, MiB", "above input"]
    return table(head, rows)


def _floor(fitted: list[dict[str, Any]], rates: dict[str, float]) -> str:
    rows = []
    for entry in fitted:
        ours, shape = entry["ours"], Shape(**entry["ours"]["shape"])
        mean = ours["evaluations"]["mean"]
        operations = shape.operations(mean)
        floor = 1e6 * shape.seconds(mean, **rates)
        computing = operations / rates["flops"] > shape.bytes / rates["bytes_per_second"]
        rows.append(
            [
                entry["design"]["name"],
                f"{shape.K:,}",
                str(shape.classes),
                number(operations / 1e6),
                number(shape.bytes / 1e3),
                "operations" if computing else "bytes",
                number(floor),
                number(us_per_gene(ours)),
                f"{number(us_per_gene(ours) / floor)} x",
            ]
        )
    head = ["design", "K", "classes", "MFlop/gene", "kB/gene", "bound by", "floor, us/gene"]
    return table([*head, "jaxvp, us/gene", "times the floor"], rows)


def _exactness(fitted: list[dict[str, Any]]) -> str:
    rows, most = [], ["99 %", "99.9 %", "max"]
    for entry in fitted:
        ours, gaps = entry["ours"], entry["gaps"]
        counts = ours["evaluations"]
        others = {name: n for name, n in ours["status"].items() if name != "converged"}
        compared = max((len(peer["sample"]) for peer in entry["peers"]), default=0)
        best = gaps.get("best")
        rows.append(
            [
                entry["design"]["name"],
                " / ".join([f"{counts['mean']:.1f}", *(f"{counts[q]:.0f}" for q in most)]),
                f"{ours['converged']:.2%}",
                ", ".join(f"{n} {name}" for name, n in others.items()) or NONE,
                f"{ours['singular']:.0%}",
                f"{compared:,}" if best is not None else NONE,
                NONE if best is None else f"{best:.1e}",
                NONE if best is None else ("yes" if best <= GAP else "**no**"),
            ]
        )
    head = [
        "design",
        f"evaluations: mean / {' / '.join(most[:-1])} / most",
        "converged",
        "the others",
        "singular",
    ]
    return table([*head, "compared", "worst gap", "within"], rows)


def _checks(rows: list[dict[str, Any]]) -> str:
    kept = {True: "yes", False: "**no**", None: NONE}
    return table(
        ["what", "measured", "promised", "kept"],
        [
            [
                one["what"],
                f"{number(one['value'])} {one['unit']}",
                one["limit"] or NONE,
                kept[one["kept"]],
            ]
            for one in rows
        ],
    )


def _title(entry: dict[str, Any]) -> str:
    return f"**{entry['design']['name']}** {entry['design']['title']}"
