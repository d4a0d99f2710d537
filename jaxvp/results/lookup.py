"""Genes and components by name; an unknown name is an error that lists close ones."""

from __future__ import annotations

import difflib
from typing import Any

import pandas as pd

from jaxvp.expression import DataError


def find(name: Any, known: pd.Index, what: str) -> int:
    """The place of a name among those that are known.

    Parameters
    ----------
    name
        As the index has it; the text of a name that is a number is found too.
    known
        The genes or components of a table.
    what
        ``"gene"`` or ``"component"``, for the message.

    Raises
    ------
    DataError
        If there is none of this name (with close matches), or there are several.
    """
    places = _places(name, known) or _places(str(name), known.astype(str))
    if len(places) > 1:
        raise DataError(f"{len(places)} {what}s are called {name!r}: give each its own name")
    if not places:
        raise DataError(f"there is no {what} {name!r}{maybe(str(name), known)}")
    return places[0]


def _places(name: Any, known: pd.Index) -> list[int]:
    return known.get_indexer_for([name]).tolist() if name in known else []


def maybe(name: str, known: pd.Index) -> str:
    """A hint at what may have been meant: close in any case of the letters, or all of a few."""
    lower = {label.lower(): label for label in map(str, reversed(list(known)))}
    close = [lower[text] for text in difflib.get_close_matches(name.lower(), lower, n=3)]
    if close:
        return f" (did you mean {' or '.join(map(repr, close))}?)"
    if not len(known):
        return ": there are none"
    shown = ", ".join(repr(label) for label in map(str, known[:8]))
    return f": there are {shown}" + (f" and {len(known) - 8:,} more" if len(known) > 8 else "")
