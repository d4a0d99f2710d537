"""A bar of the genes that are done, where a person watches and there is something to wait for."""

from __future__ import annotations

import sys
from contextlib import nullcontext

# A bar that is gone before it can be read is noise.
GENES_WORTH_A_BAR = 2000


class _Silent(nullcontext):
    def __enter__(self):
        return lambda genes: None


def bar(progress: bool | None, genes: int):
    """A context that gives the function to call with the number of genes done.

    Parameters
    ----------
    progress
        True shows a bar, False none; None shows it where a person watches.
    genes
        In all.
    """
    if progress is None:
        progress = genes >= GENES_WORTH_A_BAR and sys.stderr is not None and sys.stderr.isatty()
    if not progress:
        return _Silent()
    from tqdm.auto import tqdm

    class Bar(tqdm):
        def __enter__(self):
            super().__enter__()
            return self.update

    return Bar(total=genes, unit="gene", unit_scale=True, desc="jaxvp")
