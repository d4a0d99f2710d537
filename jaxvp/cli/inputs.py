"""From the options of a fit to measurements and metadata, and the checks that need neither.

`jaxvp.fit` aligns by name, so all that is left to do here is to say which column holds the names,
which layer is meant and, where names do not decide, which way round the table lies.
"""

from __future__ import annotations

import os
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
    if config.layer and not (config.expression and config.expression.suffix in ANNOTATED):
        raise click.UsageError(f"--layer: only {' and '.join(ANNOTATED)} have layers")
    assert config.formula and config.out
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
    if metadata is not None and expression.genes_in is None:
        _check_sides(expression, metadata)
    return Inputs(expression, metadata)


def _check_sides(expression: Any, metadata: pd.DataFrame) -> None:
    """Refuse a table of which rows and columns may be the samples."""
    sides = [names for names in (expression.index, expression.columns) if names is not None]
    if len(sides) == 2 and all(names.isin(metadata.index).any() for names in sides):
        raise click.UsageError(
            "rows and columns of --expression both have names of samples in --metadata; "
            "say --genes-in rows or --genes-in columns"
        )
