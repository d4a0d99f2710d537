"""From the options of a fit to measurements and metadata, and the checks that need neither.

`jaxvp.fit` aligns tables by name, so all that is left to do here is to say which column holds the
names and, where names do not decide, which way round the table lies.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

import jaxvp
from jaxvp.config import FitConfig

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from jaxtyping import Shaped


def check(config: FitConfig) -> None:
    """Refuse what is wrong whatever the tables hold: missing options, files, a formula's syntax."""
    if config.dataset and (config.expression or config.metadata):
        raise click.UsageError("--dataset takes the place of --expression and --metadata; drop it")
    tables = () if config.dataset else ("expression", "metadata")
    missing = [name for name in (*tables, "formula", "out") if getattr(config, name) is None]
    if missing:
        options = ", ".join(f"--{name}" for name in missing)
        raise click.UsageError(f"{options} must be given, here or in a --config file")
    for name in tables:
        if not getattr(config, name).is_file():
            raise click.UsageError(f"--{name}: no such file: {getattr(config, name)}")
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
    """Expression and metadata as `jaxvp.fit` takes them.

    `genes` are the gene names where `expression` goes without them, else None.
    """

    expression: Any
    metadata: pd.DataFrame
    genes: pd.Index | None = None


def read(config: FitConfig) -> Inputs:
    """Read the tables that the options name."""
    if config.dataset:
        from jaxvp import datasets

        return Inputs(*getattr(datasets, config.dataset)())
    from jaxvp.expression import read_table

    assert config.expression and config.metadata
    metadata = read_table(config.metadata, names_column=config.sample_column)
    if config.expression.suffix == ".npy":
        return Inputs(_read_array(config.expression, config.genes_in, len(metadata)), metadata)
    names_column = config.gene_column
    if names_column is None and config.genes_in == "columns":
        names_column = config.sample_column
    table = read_table(config.expression, names_column=names_column)
    return _oriented(table, metadata, config.genes_in)


def _read_array(path: Path, genes_in: str | None, n: int) -> Shaped[np.ndarray, "samples genes"]:
    """An array, samples x genes, read from the disk as it is needed."""
    import numpy as np

    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise jaxvp.DataError(f"{path}: not an array that numpy.save wrote ({error})") from None
    values = values.T if genes_in == "rows" else values
    if values.ndim == 2 and len(values) != n == values.shape[1]:
        other = "columns" if genes_in == "rows" else "rows"
        raise click.UsageError(
            f"--expression: {path} has genes in {other}, by the number of samples in --metadata: "
            f"say --genes-in {other}"
        )
    return values


def _oriented(table: pd.DataFrame, metadata: pd.DataFrame, genes_in: str | None) -> Inputs:
    """Samples on the side that `genes_in` leaves for them, or on the only one that has any."""
    found = [names.isin(metadata.index).any() for names in (table.index, table.columns)]
    if not any(found):
        _check_sample_column(table, metadata)
    if not all(found):
        return Inputs(table, metadata)
    if genes_in is None:
        raise click.UsageError(
            "rows and columns of --expression both have names of samples in --metadata; "
            "say --genes-in rows or --genes-in columns"
        )
    table = table.T if genes_in == "rows" else table
    # Numbers in place of the gene names: whatever matches the metadata by name now is a sample.
    return Inputs(table.set_axis(range(table.shape[1]), axis=1), metadata, table.columns)


def _check_sample_column(table: pd.DataFrame, metadata: pd.DataFrame) -> None:
    """Say which column of the metadata holds the names, where it is not the one that was read."""
    for name, column in metadata.items():
        values = column.dropna().astype(str)
        count = max(int(values.isin(names).sum()) for names in (table.index, table.columns))
        if count > len(values) / 2:
            raise click.UsageError(
                f"no sample name of --metadata is in --expression, but {count:,} values of its "
                f"column {name!r} are: say --sample-column {shlex.quote(str(name))}"
            )
