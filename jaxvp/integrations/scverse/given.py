"""What a function of an AnnData is given: checked before any work."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from jaxvp.design.variables import Factor, is_missing, to_factor
from jaxvp.expression import DataError
from jaxvp.expression.annotated import is_annotated
from jaxvp.expression.arrays import roots
from jaxvp.expression.extras import require
from jaxvp.expression.metadata import type_name
from jaxvp.results.lookup import find
from jaxvp.warning import warn


def check_annotated(adata: Any, function: str, layer: Any = None) -> None:
    """Check that this is an AnnData that has the layer, and a name of its own for every row.

    Parameters
    ----------
    adata, layer
        What the caller passed; the layer may be None.
    function
        Its name, for the message.

    Raises
    ------
    DataError
        If it is something else (anndata that is not installed is named, with the extra), or has no
        such layer (close matches are listed), or a name twice.
    """
    if not is_annotated(adata):
        require("anndata", "anndata", function)
        raise DataError(f"{function} takes an AnnData, not {type_name(adata)}{_remedy(adata)}")
    if layer is not None:
        find(layer, pd.Index(list(adata.layers), dtype=object), "layer")
    for names, what in ((adata.obs_names, "obs"), (adata.var_names, "var")):
        if not names.is_unique:
            twice = names[names.duplicated()].tolist()[0]
            raise DataError(
                f"adata.{what}_names has {twice!r} more than once: adata.{what}_names_make_unique()"
            )


def _remedy(thing: Any) -> str:
    if isinstance(thing, str):
        return f": anndata.read_h5ad({thing!r})"
    if "mudata" in roots(thing):
        return ": one of its .mod"
    return ": jaxvp.fit takes tables, arrays and files"


def column_of(adata: Any, name: Any) -> pd.Series:
    """A column of `obs`.

    Raises
    ------
    DataError
        If there is none of this name; close matches are listed.
    """
    return adata.obs.iloc[:, find(name, adata.obs.columns, "column of adata.obs")]


def groups_of(columns: list[pd.Series]) -> tuple[np.ndarray, list[Factor]]:
    """Rows of `obs` that have a value in all of some columns, and the levels of each there.

    Raises
    ------
    DataError
        If there is none.

    Warns
    -----
    UserWarning
        If rows are left out; one warning that counts them.
    """
    missing = np.any([is_missing(column) for column in columns], axis=0)
    rows, names = np.flatnonzero(~missing), " and ".join(repr(str(c.name)) for c in columns)
    if not len(rows):
        raise DataError(
            f"none of the {len(missing):,} rows of adata.obs has a value of {names}: none is left"
        )
    if missing.any():
        warn(
            f"{int(missing.sum()):,} of {len(missing):,} rows of adata.obs have no value of "
            f"{names} and are left out"
        )
    return rows, [to_factor(column.iloc[rows]) for column in columns]
