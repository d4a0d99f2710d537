"""What all containers have in common: two axes, which may have names, and numbers between them.

A container does not know which of its axes holds the samples, unless it was told (`genes_in`) or
its format says so. `alignment` finds that out, and then asks for a `Source`. Every kind of
container has a module of its own: `frames` (pandas), `arrow` (pyarrow, polars), `arrays` (whatever
has two axes and no names), `annotated` (AnnData), `labelled` (xarray), `parquet`; `opening` makes
one of a file.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
import pandas as pd
from jaxtyping import Int

from .blocks import Source
from .origin import Origin
from .values import Culprit


@runtime_checkable
class Container(Protocol):
    """Measurements in memory or in a file.

    Attributes
    ----------
    shape
        Rows and columns.
    index, columns
        Names of the rows and columns. None: there are none, and samples go by position.
    genes_in
        ``"rows"`` or ``"columns"`` where that is known, else None: the names decide.
    metadata
        The table of samples that the container brings, or None.
    origin
        The file that it is read from, where `open_file` made it of one.
    """

    origin: Origin | None

    @property
    def shape(self) -> tuple[int, int]: ...

    @property
    def index(self) -> pd.Index | None: ...

    @property
    def columns(self) -> pd.Index | None: ...

    @property
    def genes_in(self) -> str | None: ...

    @property
    def metadata(self) -> pd.DataFrame | None: ...

    def source(self, transposed: bool) -> Source:
        """Samples x genes; `transposed` if the columns of the container are the samples."""
        ...

    def find(self, transposed: bool, samples: Int[np.ndarray, " n"]) -> Culprit | None:
        """The first value of these samples that is no number."""
        ...

    def text(self) -> pd.DataFrame:
        """Its columns of text, in which names may be that are looked for."""
        ...

    def without(self, gene: object, transposed: bool) -> str:
        """How to leave a gene out, in the caller's words."""
        ...
