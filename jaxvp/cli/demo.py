"""`jaxvp demo`: real data, a real model, the tables and the figure, in one command.

It fits twice. *Cold* is what a newcomer waits for: from the start of the command to the tables on
disk, with all imports, reading, and compilation (or the cache of an earlier one). *Warm* is the
second fit in the same process, from measurements in memory to a result in memory.
"""

from __future__ import annotations

from pathlib import Path

import click

import jaxvp
from jaxvp.cli import inputs, output

FORMULA = "~ Age + (1|Subject) + (1|Hours) + (1|Gender) + (1|Condition)"


@click.command(
    short_help="Partition the variance of 4,147 real genes.",
    epilog="\b\nExamples:\n  jaxvp demo\n  jaxvp demo --out /tmp/influenza --format csv",
)
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    default="jaxvp-demo",
    show_default=True,
    help="Folder for tables and figure; made where it is not there.",
)
@click.option(
    "--format",
    type=click.Choice(["parquet", "csv"]),
    default="parquet",
    show_default=True,
    help="Of the result tables.",
)
def demo(out: Path, format: str) -> None:
    """Partition the variance of 4,147 genes of an influenza challenge study (GEO GSE30550)."""
    inputs.check_folder(out)
    watch = output.Watch()
    jaxvp.enable_compile_cache()
    expression, metadata = jaxvp.datasets.influenza()
    watch.lap("import and read")
    result = jaxvp.fit(expression, FORMULA, metadata)
    watch.lap("fit, cold")
    output.write(result, out, format, {"dataset": "influenza"}, watch)
    cold = watch.total()
    jaxvp.fit(expression, FORMULA, metadata)
    warm = watch.lap("fit, warm")
    figure = draw(result, out / "fractions.png")

    genes = len(result.fractions)
    click.echo(output.describe(result))
    for name, seconds, what in [
        ("Cold", cold, "import, read, compile, fit, write"),
        ("Warm", warm, "fit"),
    ]:
        click.echo(f"{name}: {genes / seconds:,.0f} genes per second ({seconds:.2f} s: {what})")
    click.echo(f"Tables in {out}, figure in {figure}")


def draw(result, path: Path) -> Path:
    """The violins of all components, drawn without a display."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    from jaxvp import plots
    from jaxvp.results.files import atomic

    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    plots.violins(result, ax=axes)
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=200)
    plt.close(figure)
    return path
