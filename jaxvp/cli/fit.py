"""`jaxvp fit`: tables and a formula in, result tables and a run summary out.

Options come from a TOML file (`jaxvp.config`), the command line or both; the command line goes over
the file. What can be checked without the measurements (options, files, formula) is checked before
they are read.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
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
  unfinished/    finished blocks of a run that has not ended: the same command goes on from there


Many machines (docs/cluster.md):
  jaxvp fit --config study.toml --shard 3/8 -o results     one of 8 jobs; then: jaxvp merge results
  jaxvp fit --config study.toml --dask tcp://scheduler:8786 -o results
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
@click.option(
    "--weights",
    type=_FILE,
    help="Precision weights: a table with the names of --expression, or one column by sample.",
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
@click.option(
    "--shard", metavar="i/N", help="Only the i-th of N slices of the genes, for `jaxvp merge`."
)
@click.option("--dask", metavar="ADDRESS", help="Scheduler whose workers fit: tcp://host:8786.")
@click.option("--strict", is_flag=True, help="Exit with 3 when a gene could not be fitted.")
def fit(config: Path | None, strict: bool, **options: Any) -> int:
    """Fit every gene and write which share of its variance each variable explains."""
    wanted = (load(config) if config else FitConfig()).updated(**options)
    inputs.check(wanted)
    assert wanted.formula and wanted.out
    from jaxvp import executors, runs

    shard = runs.Shard.parse(wanted.shard) if wanted.shard else None
    if shard and wanted.report:
        raise click.UsageError("--report is about all genes, --shard fits some: leave one out")
    watch = output.Watch()
    jaxvp.enable_compile_cache()
    with ExitStack() as stack:
        stack.enter_context(interruptible())
        run = stack.enter_context(runs.Folder(wanted.out, shard))
        executor = stack.enter_context(executors.connect(wanted.dask)) if wanted.dask else None
        expression, metadata = inputs.read(wanted)
        watch.lap("read")
        given = wanted.given(*MODEL_OPTIONS) | inputs.read_weights(wanted)
        result = run.fit(expression, wanted.formula, metadata, executor=executor, **given)
        watch.lap("fit")
        options = {name: str(value) for name, value in wanted.given().items()}
        format = None if shard else wanted.format or "parquet"
        report = output.reporter(result, wanted, metadata, expression) if wanted.report else None
        folder = wanted.out if shard is None else run.state
        output.write(result, folder, format, options, watch, report)
        run.finish()
    if run.continued:
        click.echo(f"Continued: {run.continued:,} genes were finished before", err=True)
    click.echo(output.describe(result))
    if shard is None:
        click.echo(f"Tables{' and report.html' if report else ''} in {wanted.out}")
    else:
        click.echo(f"Shard {shard} in {run.state}; when all are: jaxvp merge {wanted.out}")
    all_fitted = set(output.status_counts(result)) <= {"converged"}
    return 0 if all_fitted or not strict else NOT_ALL_FITTED


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM, a queue's word before it kills, is a Ctrl-C: finished blocks are kept."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
