"""Chunks that a store of zarr does not hold, and that are read as its fill value.

A writer of zarr leaves out a chunk all of whose values are the fill value, mostly zero, and by
zarr's definition a chunk that is not there is one of these. One whose file was lost looks the same:
nothing in a store says which chunks were written. So what is absent is counted, and the user, who
knows whether whole chunks of zeros can be, is told. Where it cannot be, it is an error: names are
never all empty, and measurements of which no chunk is there are none.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from itertools import product
from math import ceil, prod
from pathlib import Path
from typing import Any, NamedTuple

from jaxvp.warning import warn

from .names import DataError
from .reading import reading


class Absent(NamedTuple):
    """How many of the files that the chunks of an array are stored in are not there."""

    count: int
    total: int


def absent_chunks(array: Any, what: str) -> Absent:
    """Count them, by the names of the files in a store on the disk; nothing is decoded.

    Parameters
    ----------
    array
        An array of zarr. Of any other, and of one in memory or far away, none are absent.
    what
        Names it in messages.
    """
    place = getattr(array, "store_path", None)
    root = None if place is None else getattr(place.store, "root", None)
    if place is None or not isinstance(root, Path):
        return Absent(0, 0)
    folder = root / place.path
    with reading(what):
        there = {
            Path(below, name).relative_to(folder).as_posix()
            for below, _, names in os.walk(folder)
            for name in names
        }
        # What one file holds.
        together = array.shards or array.chunks
        grid = [range(ceil(n / size)) for n, size in zip(array.shape, together, strict=True)]
        keys = (array.metadata.encode_chunk_key(chunk) for chunk in product(*grid))
        count = sum(key not in there for key in keys)
    return Absent(count, prod(map(len, grid)))


def check_measurements(arrays: Mapping[str, Any]) -> None:
    """Warn of absent chunks of measurements.

    Parameters
    ----------
    arrays
        By what they are called in messages.

    Raises
    ------
    DataError
        If there are none but absent ones.
    """
    for what, array in arrays.items():
        absent = absent_chunks(array, what)
        if absent.total and absent.count == absent.total:
            raise DataError(
                f"{what} is damaged: none of its {_counted(absent.total)} is in the store; copy "
                "or write it again"
            )
        if absent.count:
            warn(_text(what, array, absent))


def check_table(group: Any, what: str) -> None:
    """Look at the columns of a table of AnnData in a group of zarr.

    A column of which all is absent is not mentioned: it is constant, which no model takes, and a
    flag that is false everywhere is stored like that.

    Raises
    ------
    DataError
        If a chunk of its names is absent.
    """
    if not hasattr(group, "arrays"):
        return
    index = str(group.attrs.get("_index", "_index"))
    for name, array in _arrays(group):
        part = f"{what}/{name}"
        absent = absent_chunks(array, part)
        if absent.count and name == index:
            raise DataError(
                f"{part} is damaged: {absent.count:,} of its {_counted(absent.total)} of names "
                "are not in the store; copy or write it again"
            )
        if 0 < absent.count < absent.total:
            warn(_text(part, array, absent))


def _arrays(group: Any) -> list[tuple[str, Any]]:
    """Those of columns, and of the codes and masks that some columns consist of."""
    found = list(group.arrays())
    for name, inner in group.groups():
        found += [(f"{name}/{part}", array) for part, array in inner.arrays()]
    return found


def _text(what: str, array: Any, absent: Absent) -> str:
    value = array.fill_value
    shown = "its fill value" if value is None else f"{value}, its fill value"
    return (
        f"{what}: {absent.count:,} of its {_counted(absent.total)} are not in the store and are "
        f"read as {shown}. Whoever writes zarr leaves out chunks of nothing else, and chunks whose "
        "files were lost look the same: if there cannot be so many of them, copy or write the "
        "store again (docs/formats.md)"
    )


def _counted(total: int) -> str:
    return f"{total:,} chunk" + "s" * (total != 1)
