"""`jaxvp simulate`: a study whose variance fractions are known, as three tables."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from jaxvp.cli import inputs


class Pair(click.ParamType):
    """NAME=VALUE; `read` makes the value of its text, `word` stands for it in messages."""

    name = "name=value"

    def __init__(self, read: Callable[[str], Any], word: str):
        self.read, self.word = read, word

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, Any]:
        name, _, text = value.rpartition("=")
        if name:
            with suppress(ValueError):
                return name, self.read(text)
        self.fail(f"{value!r} is not NAME={self.word}", param, ctx)


@click.command(
    short_help="Draw a study with known variance fractions.",
    epilog="""\b
Examples:
  jaxvp simulate --out study
  jaxvp simulate --samples 60 --level batch=10 --level cask:batch=3 --covariate pH -o study
  jaxvp simulate --fraction Individual=0.5 --fraction Age=0.1 --format csv -o study
""",
)
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder for the three tables; made where it is not there.",
)
@click.option("--genes", type=click.IntRange(1), default=1000, show_default=True)
@click.option("--samples", type=click.IntRange(2), default=100, show_default=True)
@click.option(
    "--level",
    "levels",
    type=Pair(int, "NUMBER"),
    multiple=True,
    help="Grouping factor and its number of levels; inner:outer=3 is nested.  "
    "[default: Individual=25, Tissue=3, Batch=4]",
)
@click.option(
    "--covariate",
    "covariates",
    multiple=True,
    help="Continuous variable.  [default: Age, or none beside --level]",
)
@click.option(
    "--fraction",
    "fractions",
    type=Pair(float, "SHARE"),
    multiple=True,
    help="Share of a component in every gene; what remains is the residual's.  "
    "[default: drawn for each gene]",
)
@click.option(
    "--zero-probability",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="Of each drawn share to be exactly 0.",
)
@click.option(
    "--imbalance",
    type=click.FloatRange(0),
    default=0.0,
    show_default=True,
    help="0: levels as even as can be; else the standard deviation of their log sizes.",
)
@click.option(
    "--student-t",
    type=float,
    help="Degrees of freedom of heavy-tailed residuals.  [default: normal]",
)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "--format", type=click.Choice(["parquet", "csv"]), default="parquet", show_default=True
)
def simulate(
    out: Path,
    genes: int,
    samples: int,
    levels: tuple[tuple[str, int], ...],
    covariates: tuple[str, ...],
    fractions: tuple[tuple[str, float], ...],
    format: str,
    **options: Any,
) -> None:
    """Draw a study with known variance fractions: expression, metadata and truth."""
    inputs.check_folder(out)
    from jaxvp.results.files import write_folder
    from jaxvp.simulation import simulate as draw

    if levels or covariates:
        options |= {"levels": dict(levels), "covariates": covariates}
    try:
        study = draw(genes, samples, fractions=dict(fractions) or None, **options)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    metadata = study.metadata.rename_axis(index="sample")
    tables = {"expression": study.expression, "metadata": metadata, "truth": study.truth}
    write_folder(out, tables, format)
    paths = {name: out / f"{name}.{format}" for name in tables}
    command = ["jaxvp", "fit", "-e", paths["expression"], "-m", paths["metadata"]]
    command += ["-f", study.formula, "-o", out / "results"]
    click.echo(f"{genes:,} genes x {samples:,} samples in {out}. Fit them with")
    click.echo(f"  {shlex.join(map(str, command))}")
