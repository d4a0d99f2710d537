"""`jaxvp check`: what a formula would fit to a table of samples, before there is anything to fit.

It reads the metadata as `jaxvp fit` does and takes the same config file, so that a study can be
checked and then fitted without a change.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

import jaxvp
from jaxvp.config import CHOICES, FitConfig, load

NOT_FITTED = 3
_FILE = click.Path(path_type=Path)


@click.command(
    short_help="Look at a design before the fit.",
    epilog="""\b
Examples:
  jaxvp check -m samples.csv -f "~ Age + (1|Individual) + (1|Tissue)"
  jaxvp check -m samples.tsv --sample-column run -f "~ Age + (1|Batch)"
  jaxvp check --config study.toml && jaxvp fit --config study.toml

\b
Exit codes:
  0  the model can be fitted, whatever there is to remark
  2  wrong usage: options, files, the syntax of the formula
  3  the model cannot be fitted; the first line of the findings says why
""",
)
@click.option(
    "-m", "--metadata", type=_FILE, help="Samples x variables: CSV, TSV, Parquet (.gz too)."
)
@click.option(
    "--dataset", type=click.Choice(CHOICES["dataset"]), help="Bundled data, in place of --metadata."
)
@click.option("-f", "--formula", help='As in lme4: "~ Age + (1|Individual) + (1|Tissue)".')
@click.option(
    "--config",
    type=_FILE,
    help="TOML file of `jaxvp fit`; what is given here goes over it.",
)
@click.option("--sample-column", help="Column that holds the sample names.  [default: the first]")
def check(config: Path | None, **options: Any) -> int:
    """Say what would be fitted to these samples, what deserves attention, and what to change."""
    wanted = (load(config) if config else FitConfig()).updated(**options)
    metadata = _metadata(wanted)
    assert wanted.formula
    report = jaxvp.check_design(wanted.formula, metadata)
    click.echo(str(report))
    return 0 if report.can_be_fitted else NOT_FITTED


def _metadata(config: FitConfig):
    """The table of samples; wrong usage comes before anything is read."""
    if config.dataset and config.metadata:
        raise click.UsageError("--dataset takes the place of --metadata; drop it")
    missing = [] if config.dataset or config.metadata else ["--metadata"]
    missing += [] if config.formula else ["--formula"]
    if missing:
        raise click.UsageError(f"{', '.join(missing)} must be given, here or in a --config file")
    from jaxvp.formula import Formula

    Formula.parse(config.formula)
    if config.dataset:
        return getattr(jaxvp.datasets, config.dataset)()[1]
    assert config.metadata
    if not config.metadata.is_file():
        raise click.UsageError(f"--metadata: no such file: {config.metadata}")
    from jaxvp.expression import read_table

    return read_table(config.metadata, names_column=config.sample_column)
