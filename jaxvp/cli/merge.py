"""`jaxvp merge`: the shards of a study become one set of tables."""

from __future__ import annotations

from pathlib import Path

import click

from jaxvp.cli import inputs, output
from jaxvp.config import CHOICES


@click.command(
    short_help="Join the shards of a fit.",
    epilog="""\b
Examples:
  jaxvp merge results
  jaxvp merge shard-*-of-8 -o results

\b
Exit codes:
  0  done
  2  a shard is missing or not finished (it says which), or is of something else
""",
)
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    help="Folder for the tables.  [default: FOLDERS, where that is one]",
)
@click.option(
    "--format", type=click.Choice(CHOICES["format"]), default="parquet", show_default=True
)
def merge(folders: tuple[Path, ...], out: Path | None, format: str) -> None:
    """Join the shards that are, or are in, FOLDERS: what `jaxvp fit --shard i/N` left there.

    Tables are those of a run that was not split, byte for byte where its block size was the same.
    Shards are left where they are.
    """
    if out is None:
        if len(folders) > 1:
            raise click.UsageError("--out must be given where there are several FOLDERS")
        out = next(iter(folders))
    inputs.check_folder(out)
    from jaxvp import runs

    watch = output.Watch()
    merged = runs.merge(folders)
    watch.lap("read")
    out.mkdir(parents=True, exist_ok=True)
    with runs.locked(out):
        output.write(merged.results, out, format, {"shards": len(merged.shards)}, watch)
    click.echo(output.describe(merged.results))
    click.echo(f"Tables of {len(merged.shards)} shards in {out}")
