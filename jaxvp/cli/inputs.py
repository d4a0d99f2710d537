"""From the options of a fit to measurements and metadata, and the checks that need neither.

`jaxvp.fit` aligns by name, so all that is left to do here is to say which column holds the names,
which layer is meant and, where names do not decide, which way round the table lies.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from jaxvp.config import FitConfig

if TYPE_CHECKING:
    import pandas as pd

# Formats that may bring their own metadata, and have layers.
ANNOTATED = (".h5ad", ".zarr")


def check(config: FitConfig) -> None:
    """Refuse what is wrong whatever the tables hold: missing options, files, a formula's syntax."""
    if config.dataset and (config.expression or config.metadata):
        raise click.UsageError("--dataset takes the place of --expression and --metadata; drop it")
    tables = () if config.dataset else ("expression", "metadata")
    if config.expression and not config.metadata and config.expression.suffix in ANNOTATED:
        tables = ("expression",)
    missing = [name for name in (*tables, "formula", "out") if getattr(config, name) is None]
    if missing:
        options = ", ".join(f"--{name}" for name in missing)
        raise click.UsageError(f"{options} must be given, here or in a --config file")
    for name in tables:
        path = getattr(config, name)
        if not (path.exists() if path.suffix == ".zarr" else path.is_file()):
            raise click.UsageError(f"--{name}: no such file: {path}")
    if config.weights and not (config.weights.is_file() or config.weights.suffix == ".zarr"):
        raise click.UsageError(f"--weights: no such file: {config.weights}")
    if config.layer and not (config.expression and config.expression.suffix in ANNOTATED):
        raise click.UsageError(f"--layer: only {' and '.join(ANNOTATED)} have layers")
    assert config.formula is not None and config.out is not None
    check_folder(config.out)
    from jaxvp.formula import Formula

    Formula.parse(config.formula)


def check_folder(folder: Path) -> None:
    """Refuse an output folder that cannot be one, before any work is done for it."""
    if folder.exists() and not folder.is_dir():
        raise click.UsageError(f"--out: {folder} is a file, not a folder")
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not os.access(there, os.W_OK):
        raise click.UsageError(f"--out: no permission to write in {there}")


class Inputs(NamedTuple):
    """Expression and metadata as `jaxvp.fit` takes them."""

    expression: Any
    metadata: pd.DataFrame | None


def read(config: FitConfig) -> Inputs:
    """Open what the options name; tables of text are read, other formats as the fit goes on."""
    if config.dataset:
        from jaxvp import datasets

        return Inputs(*getattr(datasets, config.dataset)())
    from jaxvp.expression import open_file, read_table

    assert config.expression
    metadata = None
    if config.metadata:
        metadata = read_table(config.metadata, names_column=config.sample_column)
    names_column = config.gene_column
    if names_column is None and config.genes_in == "columns":
        names_column = config.sample_column
    if config.expression.suffix in (".npy", *ANNOTATED):
        names_column = None
    expression = open_file(
        config.expression, layer=config.layer, names_column=names_column, genes_in=config.genes_in
    )
    if metadata is not None:
        _check_sides(config.expression, expression, metadata)
    return Inputs(expression, metadata)


def read_weights(config: FitConfig) -> dict[str, Any]:
    """Weights as `jaxvp.fit` takes them, if any: a table, or of one with one column that column."""
    if config.weights is None:
        return {}
    from jaxvp.expression import open_file, read_table

    text = config.weights.suffix not in (".npy", *ANNOTATED)
    weights = open_file(config.weights, names_column=config.gene_column if text else None)
    if text and weights.shape[1] == 1:
        table = read_table(config.weights, names_column=config.sample_column)
        return {"weights": table.iloc[:, 0]}
    return {"weights": weights}


def _check_sides(path: Path, container: Any, metadata: pd.DataFrame) -> None:
    """Refuse a table of which neither, or both, rows and columns may be the samples."""
    sides = [names for names in (container.index, container.columns) if names is not None]
    if not sides:
        return _check_array(path, container, len(metadata))
    found = [bool(names.isin(metadata.index).any()) for names in sides]
    if not any(found):
        _check_sample_column(sides, metadata)
    if len(sides) == 2 and all(found) and container.genes_in is None:
        raise click.UsageError(
            "rows and columns of --expression both have names of samples in --metadata; "
            "say --genes-in rows or --genes-in columns"
        )


def _check_array(path: Path, container: Any, n: int) -> None:
    """Say how an array would fit that lies the other way round."""
    genes_in = container.genes_in or "columns"
    rows, columns = container.shape
    samples, genes = (columns, rows) if genes_in == "rows" else (rows, columns)
    if samples != n == genes:
        other = "columns" if genes_in == "rows" else "rows"
        raise click.UsageError(
            f"--expression: {path} has genes in {other}, by the number of samples in --metadata: "
            f"say --genes-in {other}"
        )


def _check_sample_column(sides: list[pd.Index], metadata: pd.DataFrame) -> None:
    """Say which column of the metadata holds the names, where it is not the one that was read."""
    for name, column in metadata.items():
        values = column.dropna().astype(str)
        count = max(int(values.isin(names).sum()) for names in sides)
        if count > len(values) / 2:
            raise click.UsageError(
                f"no sample name of --metadata is in --expression, but {count:,} values of its "
                f"column {name!r} are: say --sample-column {shlex.quote(str(name))}"
            )
