"""The other table of a fit: what it must be, and how to make one of what it is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pandas as pd

from .names import DataError, check_levels


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
    if isinstance(metadata, str | os.PathLike):
        path = os.fsdecode(metadata)
        suffixes = {suffix.lower() for suffix in Path(path).suffixes}
        if suffixes & {".parquet", ".pq"}:
            return f": pandas.read_parquet({path!r})"
        separator = r", sep='\t'" if suffixes & {".tsv", ".tab", ".txt"} else ""
        return f": pandas.read_csv({path!r}{separator}, index_col=0)"
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
