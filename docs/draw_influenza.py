"""The figure of the README and of the front page, from the bundled influenza data.

    python docs/draw_influenza.py

Left: which share of the variance of 4,147 genes each variable explains. Right: one gene for each of
three of them, so that a reader sees what a share looks like in the measurements.
"""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

import jaxvp

FORMULA = "~ Age + (1|Subject) + (1|Hours) + (1|Gender) + (1|Condition) + (1|Condition:Hours)"
TARGET = Path(__file__).parent / "images" / "influenza.png"


def title(ax: Axes, text: str) -> None:
    ax.set_title(text, loc="left", fontsize=10)


def draw() -> Figure:
    expression, metadata = jaxvp.datasets.influenza()
    result = jaxvp.fit(expression, FORMULA, metadata)
    figure = Figure(figsize=(11, 6), layout="constrained")
    # Subfigures of a grid keep the two halves' margins apart.
    left, right = figure.subfigures(1, 2, width_ratios=(1.05, 1))
    ax = left.subplots()
    jaxvp.pl.violins(result.sort_columns(), ax=ax)
    ax.set_title(f"{len(expression):,} genes, {len(metadata)} samples", loc="left")
    top, bottom = right.subplots(2, 1)
    by = ["Hours", "Condition"]
    jaxvp.pl.stratify(expression, metadata, "ISG15", by, result=result, ax=top)
    title(top, "ISG15 rises in those who fall ill (sx), not in the others (asx)")
    jaxvp.pl.stratify(expression, metadata, "HLA-DQA1", "Subject", result=result, ax=bottom)
    share = result.fractions.loc["HLA-DQA1", "Subject"]
    title(bottom, f"HLA-DQA1: {share:.0%} of its variance between people")
    return figure


if __name__ == "__main__":
    draw().savefig(TARGET, dpi=130)
