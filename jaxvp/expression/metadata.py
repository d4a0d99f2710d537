"""The other table of a fit: what it must be, and how to make one of what it is."""

from __future__ import annotations

import os
from typing import Any

import pandas as pd

from .files import read_table
from .names import DataError, check_levels


def find_metadata(metadata: Any, brought: pd.DataFrame | None) -> pd.DataFrame:
    """The metadata, read from a file if it is the name of one.

    Parameters
    ----------
    metadata
        What the caller passed: a table, the path of one, or None.
    brought
        The table that the expression brings, or None.

    Raises
    ------
    DataError
        If there is none, or if it is none; see `check_metadata`.
    """
    if metadata is None:
        if brought is None:
            raise DataError(
                "metadata must be given: a pandas DataFrame with samples in rows, their names in "
                "the index, or the path of such a table; only AnnData (.h5ad, .zarr) brings its "
                "own, obs"
            )
        metadata = brought
    elif isinstance(metadata, str | os.PathLike):
        metadata = read_table(os.fsdecode(metadata))
    check_metadata(metadata)
    return metadata


def check_metadata(metadata: Any) -> None:
    """Check that the metadata is a table of two samples at least.

    Parameters
    ----------
    metadata
        What the caller passed.

    Raises
    ------
    DataError
        If it is no DataFrame, with the call that makes one of it; if it has no or one sample.
    """
    if not isinstance(metadata, pd.DataFrame):
        raise DataError(
            "metadata must be a pandas DataFrame with samples in rows, their names in the index, "
            f"not {type_name(metadata)}{_remedy(metadata)}"
        )
    check_levels(metadata.index, "metadata.index")
    if len(metadata) == 0:
        raise DataError("the metadata has no samples: it has no rows")
    if len(metadata) == 1:
        raise DataError(
            f"the metadata has one sample, {metadata.index.tolist()[0]!r}, and a model needs two "
            "or more"
        )


def type_name(thing: Any) -> str:
    """The type of a foreign object as its users write it: ``polars.DataFrame``, ``dict``."""
    package = type(thing).__module__.split(".")[0]
    name = type(thing).__name__
    return name if package == "builtins" else f"{package}.{name}"


def _remedy(metadata: Any) -> str:
    if isinstance(metadata, dict):
        return ": pandas.DataFrame(metadata, index=sample_names)"
    if isinstance(metadata, pd.Series):
        return ": metadata.to_frame()"
    if hasattr(metadata, "to_pandas"):
        return ": metadata.to_pandas().set_index(...)"
    if hasattr(metadata, "obs"):
        return ": its .obs"
    if hasattr(metadata, "__array__"):
        return ": pandas.DataFrame(metadata, index=sample_names, columns=variable_names)"
    return ""
