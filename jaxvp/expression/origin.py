"""The file that measurements come from: whether it is still the same, and how to open it again.

A run that goes on tomorrow, or on another machine, must read what was read before. What tells
versions of a file apart at no cost is its size and the time that it was last written to; both are
looked at after every block that is read from it (of a store of many files, when all is read). Where
they differ, only the content can tell: `digest`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from .reading import Unchanged


@dataclass(frozen=True)
class Origin:
    """What `open_file` was told, and the file as it was then.

    Attributes
    ----------
    unchanged
        The file.
    layer, names_column, genes_in
        As of `open_file`.
    at_once
        Whether the file was read as a whole when it was opened: what happens to it later is of no
        importance.
    """

    unchanged: Unchanged
    layer: str | None
    names_column: str | None
    genes_in: str | None
    at_once: bool

    def check_block(self) -> None:
        """Raise `DataError` if what was just read may be of another version of the file."""
        if not self.at_once and self.unchanged.is_file:
            self.unchanged.check()

    def check_all(self) -> None:
        """The same, when all is read."""
        if not self.at_once:
            self.unchanged.check()


def digest(block: Float[np.ndarray, "n genes"]) -> str:
    """SHA-256 of a block of measurements: numbers, order, shape and type, not the memory layout."""
    values = np.ascontiguousarray(block.T)
    found = hashlib.sha256(f"{values.dtype.str} {values.shape}".encode(), usedforsecurity=False)
    found.update(values.data if values.size else b"")
    return found.hexdigest()
