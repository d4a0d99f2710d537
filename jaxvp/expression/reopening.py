"""The same blocks in another process: what it takes to open a file there and read from it.

A worker that reads its own blocks needs no measurements sent to it. That makes sense where blocks
are read from the file as it is; what is read as a whole, or copied to a temporary file first, is
read once, by the one who asks, and blocks are sent as arrays.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from .blocks import Expression, Rows
from .mapped import MappedSource
from .names import DataError
from .opening import open_file
from .panels import PanelSource, narrow_panels
from .sparse import SparseSource


@dataclass(frozen=True)
class Reader:
    """Opens the file of an `Expression` again and serves the same blocks; it can be pickled."""

    path: Path
    layer: str | None
    names_column: str | None
    genes_in: str | None
    transposed: bool
    rows: Rows
    stamp: tuple[int, int]
    """size and time of the last change"""

    def open(self, block_size: int) -> Callable[[int, int], Float[np.ndarray, "n genes"]]:
        """What serves the genes ``start:stop``, about `block_size` of them.

        Raises
        ------
        DataError
            If there is no such file where this runs, or another one.
        """
        options = (self.layer, self.names_column, self.genes_in)
        try:
            found = open_file(
                self.path, layer=options[0], names_column=options[1], genes_in=options[2]
            )
        except DataError as error:
            raise DataError(
                f"{error} (on the worker {platform.node()}: workers open the file themselves, it "
                "must be there under the same path on every machine; or read it into memory and "
                "pass an array, which is sent to them)"
            ) from error
        assert found.origin is not None
        if found.origin.unchanged.stamp.portable != self.stamp:
            raise DataError(
                f"{self.path} is not the same file on the worker {platform.node()} (size or time "
                "of the last change differ), or was changed after the run began: run again"
            )
        samples = found.shape[1] if self.transposed else found.shape[0]
        with narrow_panels(8 * samples * block_size):
            source = found.source(self.transposed)
        origin = found.origin

        def block(start: int, stop: int) -> Float[np.ndarray, "n genes"]:
            values = source.read(self.rows, start, stop)
            origin.check_block()
            return values

        return block


def reader_of(expression: Expression) -> Reader | None:
    """How another process reads these measurements; None if that is not worth it, or impossible."""
    origin, source = expression.origin, expression.source
    if origin is None or origin.at_once or not _from_the_file(source):
        return None
    return Reader(
        origin.unchanged.path.absolute(),
        origin.layer,
        origin.names_column,
        origin.genes_in,
        expression.transposed,
        expression.rows,
        origin.unchanged.stamp.portable,
    )


def _from_the_file(source: object) -> bool:
    if isinstance(source, SparseSource):
        return source.lock is not None  # else it is in memory
    if isinstance(source, MappedSource):
        return source.values.filename is not None  # a temporary copy has no name
    return isinstance(source, PanelSource)
