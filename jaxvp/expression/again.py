"""The measurements of a fit, passed once more: its samples and genes are found again, or missed.

A container with names goes by them, however its axes lie, whatever else it holds. One without goes
by position: its genes are those of the fit, its rows either the samples of the fit or those of the
whole metadata, of which the fit kept some.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Int

from .alignment import check_values, open_container
from .blocks import Expression, as_rows
from .container import Container
from .names import DataError, check_names


class Again(NamedTuple):
    """The samples of a fit in a container."""

    expression: Expression
    rows: Int[np.ndarray, " source"]
    """of every gene in the container the row in the result; -1 for one that is not there"""
    genes_in_rows: bool
    """how the container lies"""

    def of_gene(self, row: int) -> Again:
        """One gene of the fit."""
        places = np.flatnonzero(self.rows == row)
        return Again(self.expression.reordered(places), self.rows[places], self.genes_in_rows)


def find_again(
    expression: Any,
    samples: tuple[str, ...],
    kept: Int[np.ndarray, " n"],
    genes: pd.Index,
    what: str = "the expression",
) -> Again:
    """Measurements of the samples of a fit, in its order.

    Parameters
    ----------
    expression
        Anything that `jaxvp.fit` takes.
    samples, kept
        Names of the samples of the fit, and their positions in its metadata.
    genes
        Names of the genes of the fit.
    what
        What is passed, for messages.

    Raises
    ------
    DataError
        If samples or genes of the fit are missing; the message names the first ones.
    """
    container = open_container(expression)
    if container.index is None or container.columns is None:
        return _by_position(container, samples, kept, genes)
    genes_in_rows, positions = _find_samples(container, samples, what)
    names = container.index if genes_in_rows else container.columns
    check_names(names, "gene", what)
    axis = container.columns if genes_in_rows else container.index
    check_values(container, genes_in_rows, positions, axis, names)
    source = container.source(genes_in_rows)
    found = Expression(source, axis[positions], names, as_rows(positions))
    return Again(found, _find_genes(names, genes, what), genes_in_rows)


def _by_position(
    container: Container, samples: tuple[str, ...], kept: Int[np.ndarray, " n"], genes: pd.Index
) -> Again:
    genes_in_rows = container.genes_in == "rows"
    rows, columns = container.shape[::-1] if genes_in_rows else container.shape
    n = len(samples)
    if columns != len(genes):
        turned = " (pass its .T: an array is samples x genes)" if rows == len(genes) else ""
        raise DataError(
            f"the array has {columns:,} columns, and the fit had {len(genes):,} genes{turned}"
        )
    if rows != n and rows <= kept.max(initial=-1):
        raise DataError(
            f"the array has {rows:,} rows, and the fit had {n:,} samples, of a metadata table of "
            f"{kept.max() + 1:,} rows or more: pass the array that was fitted"
        )
    positions = np.arange(n) if rows == n else np.asarray(kept, dtype=np.int64)
    source = container.source(genes_in_rows)
    found = Expression(source, pd.Index(samples), genes, as_rows(positions))
    return Again(found, np.arange(len(genes)), genes_in_rows)


def _find_samples(
    container: Container, samples: tuple[str, ...], what: str
) -> tuple[bool, Int[np.ndarray, " n"]]:
    """Whether the columns are the samples, and the positions of those of the fit there."""
    assert container.index is not None and container.columns is not None
    best: tuple[bool, Int[np.ndarray, " n"]] | None = None
    for genes_in_rows, axis in ((False, container.index), (True, container.columns)):
        if container.genes_in not in (None, "rows" if genes_in_rows else "columns"):
            continue
        names = axis.map(str)
        if not names.is_unique:
            continue
        positions = names.get_indexer(pd.Index(samples, dtype=names.dtype))
        if best is not None and (best[1] >= 0).all() and (positions >= 0).all():
            raise DataError(
                f"both axes of {what} have the names of the fit's samples: pass an array, "
                "samples x genes, which goes by position"
            )
        if best is None or (positions >= 0).sum() > (best[1] >= 0).sum():
            best = genes_in_rows, positions
    if best is None:
        raise DataError(f"names of {what} are not unique: give samples different names")
    missing = [name for name, place in zip(samples, best[1], strict=True) if place < 0]
    if missing:
        raise DataError(
            f"{what} lacks {len(missing):,} of the {len(samples):,} samples of the fit, "
            f"such as {missing[0]!r}: pass what was fitted"
        )
    return best


def _find_genes(names: pd.Index, genes: pd.Index, what: str) -> Int[np.ndarray, " source"]:
    if names.equals(genes):
        return np.arange(len(genes))
    rows = genes.get_indexer(names)
    if (rows < 0).all():  # names that a saved result holds as text
        rows = genes.map(str).get_indexer(names.map(str))
    missing = np.setdiff1d(np.arange(len(genes)), rows)
    if len(missing):
        raise DataError(
            f"{what} lacks {len(missing):,} of the {len(genes):,} genes of the fit, such "
            f"as {genes[missing[0]]!r}: pass what was fitted"
        )
    return rows
