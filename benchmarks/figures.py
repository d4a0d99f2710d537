"""The picture: time against samples, levels, genes and K, jaxvp and two peers in every panel.

    python -m benchmarks --figures

A point of a sweep is a small design of its own (`configs/bench/sweeps.toml`), measured as the
designs of the table are. Times are microseconds a gene of warm fits, the whole study's seconds in
the panel over genes; a peer's come from its sample, extrapolated, and are drawn with open marks.
"""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import settings
from benchmarks.peers import WORDS

MARKS = {"jaxvp": ("o", "C0"), "mixedlm": ("s", "C1"), "sequence": ("^", "C2")}
Panel = dict[str, Any]
"""name, label, and by program the lists x and us (microseconds a gene)"""


def make(size: str, path: Path) -> None:
    """Run all sweeps and draw them to `path`; the numbers are kept in `benchmarks/results/`."""
    from benchmarks.__main__ import RESULTS, say

    RESULTS.mkdir(exist_ok=True)
    panels = []
    for sweep in settings.sweeps(size):
        panels.append(panel(sweep))
        (RESULTS / f"sweeps-{size}.json").write_text(json.dumps(panels, indent=1))
    draw(panels, path)
    say(f"drawn: {path.name}")


def panel(sweep: settings.Sweep) -> Panel:
    """Measure a sweep, point by point."""
    from benchmarks.__main__ import measure

    lines: dict[str, dict[str, list[float]]] = {name: {"x": [], "us": []} for name in MARKS}
    genes = []
    for value, design in sweep.points:
        entry, _ = measure(design, "sweep", with_checks=False)
        genes.append(design.genes)
        found = {peer["name"]: peer["us_per_gene"] for peer in entry["peers"]}
        if "ours" in entry:
            found["jaxvp"] = 1e6 * median(entry["ours"]["warm"]) / entry["ours"]["genes"]
        for name, us in found.items():
            if us == us:  # not installed: NaN
                lines[name]["x"].append(value)
                lines[name]["us"].append(us)
    return {"name": sweep.name, "label": sweep.label, "lines": lines, "genes": genes}


def draw(panels: list[Panel], path: Path) -> None:
    """Four panels, both axes logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, grid = plt.subplots(2, 2, figsize=(9, 6.5), layout="constrained")
    for axes, one in zip(grid.flat, panels, strict=False):
        for name, line in one["lines"].items():
            scale = [1.0] * len(line["x"])
            if one["name"] == "genes":
                scale = [x / 1e6 for x in line["x"]]
            mark, colour = MARKS[name]
            axes.loglog(
                line["x"],
                [us * factor for us, factor in zip(line["us"], scale, strict=True)],
                marker=mark,
                color=colour,
                fillstyle="full" if name == "jaxvp" else "none",
                linestyle="-" if name == "jaxvp" else "--",
                label=WORDS.get(name, name).replace("`", ""),
            )
        axes.set_xlabel(one["label"])
        axes.set_ylabel("study, s" if one["name"] == "genes" else "us per gene")
        axes.grid(alpha=0.3)
    handles, labels = grid.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, fontsize="small")
    figure.savefig(path, dpi=110)
    plt.close(figure)
