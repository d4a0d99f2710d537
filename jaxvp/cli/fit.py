"""`jaxvp fit`: tables and a formula in, result tables and a run summary out.

Options come from a TOML file (`jaxvp.config`), the command line or both; the command line goes over
the file. What can be checked without the measurements (options, files, formula) is checked before
they are read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

import jaxvp
from jaxvp.cli import inputs, output
from jaxvp.config import CHOICES, FitConfig, load

NOT_ALL_FITTED = 3
# What `jaxvp.fit` is told where it was said; its own defaults hold otherwise.
MODEL_OPTIONS = ("reml", "solver", "block_size")
_FILE = click.Path(path_type=Path)


@click.command(
    short_help="Fit every gene of a study.",
    epilog="""\b
Examples:
  jaxvp fit -e expression.csv.gz -m samples.csv -f "~ Age + (1|Individual) + (1|Tissue)" -o results
  jaxvp fit -e proteins.parquet -m samples.tsv --sample-column run -f "~ (1|Batch)" -o results
  jaxvp fit -e study.h5ad --layer logcounts -f "~ (1|donor) + (1|batch)" -o results
  jaxvp fit --config study.toml --reml -o results/reml
  jaxvp fit --dataset influenza -f "~ Age + (1|Subject)" -o results --report

\b
What is written to the output folder:
  one table each: fractions, variances, coefficients, ... (Parquet, or CSV by --format csv)
  report.html    figures, all genes, design and methods on one page; with --report
  run.json       formula, options, versions, counts of each status; written last, when all is there
""",
)
@click.option(
    "-e",
    "--expression",
    type=_FILE,
    help="Measurements: CSV, TSV, Parquet (.gz too) with names in the first column, either way "
    "round; an AnnData, .h5ad or .zarr; or an array, .npy or .zarr, samples x genes, by position.",
)
@click.option(
    "-m",
    "--metadata",
    type=_FILE,
    help="Samples x variables: CSV, TSV, Parquet (.gz too).  [default: obs of an AnnData]",
)
@click.option("--layer", help="Of an AnnData.  [default: X]")
@click.option(
    "--dataset",
    type=click.Choice(CHOICES["dataset"]),
    help="Bundled data, in place of --expression and --metadata.",
)
@click.option("-f", "--formula", help='As in lme4: "~ Age + (1|Individual) + (1|Tissue)".')
@click.option("-o", "--out", type=_FILE, help="Folder for the results; made where it is not there.")
@click.option(
    "--config",
    type=_FILE,
    help="TOML file whose keys are these options, with underscores "
    "for dashes; what is given here goes over it.",
)
@click.option("--sample-column", help="Column that holds the sample names.  [default: the first]")
@click.option("--gene-column", help="Column that holds the gene names.  [default: the first]")
@click.option(
    "--genes-in",
    type=click.Choice(CHOICES["genes_in"]),
    help="Where the genes of --expression are, if the names do not tell.",
)
@click.option(
    "--format",
    type=click.Choice(CHOICES["format"]),
    help="Of the result tables.  [default: parquet]",
)
@click.option(
    "--report",
    is_flag=True,
    default=None,
    help="Write report.html too: one page for a person, to send on and to print.",
)
@click.option("--reml/--ml", default=None, help="Restricted or full likelihood.  [default: ml]")
@click.option("--solver", type=click.Choice(CHOICES["solver"]), help="[default: newton]")
@click.option(
    "--block-size", type=click.IntRange(1), help="Genes fitted at once.  [default: by design]"
)
@click.option("--strict", is_flag=True, help="Exit with 3 when a gene could not be fitted.")
def fit(config: Path | None, strict: bool, **options: Any) -> int:
    """Fit every gene and write which share of its variance each variable explains."""
    wanted = (load(config) if config else FitConfig()).updated(**options)
    inputs.check(wanted)
    assert wanted.formula and wanted.out
    watch = output.Watch()
    jaxvp.enable_compile_cache()
    expression, metadata = inputs.read(wanted)
    watch.lap("read")
    result = jaxvp.fit(expression, wanted.formula, metadata, **wanted.given(*MODEL_OPTIONS))
    watch.lap("fit")
    options = {name: str(value) for name, value in wanted.given().items()}
    report = output.reporter(result, wanted, metadata, expression) if wanted.report else None
    output.write(result, wanted.out, wanted.format or "parquet", options, watch, report)
    click.echo(output.describe(result))
    click.echo(f"Tables{' and report.html' if report else ''} in {wanted.out}")
    all_fitted = set(output.status_counts(result)) <= {"converged"}
    return 0 if all_fitted or not strict else NOT_ALL_FITTED
