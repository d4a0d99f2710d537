"""A bar of the genes that are done, where a person watches and there is something to wait for."""

from __future__ import annotations

import sys
from contextlib import nullcontext

# Seconds before it shows, where nobody asked for it: a bar that is gone before it can be read is
# noise.
DELAY = 1.0


class _Silent(nullcontext):
    def __enter__(self):
        return lambda genes: None


def bar(progress: bool | None, genes: int):
    """A context that gives the function to call with the number of genes done.

    Parameters
    ----------
    progress
        True shows a bar, False none; None shows it where a person watches, once it is worth it.
    genes
        In all.
    """
    delay = 0.0 if progress else DELAY
    if progress is None:
        progress = sys.stderr is not None and sys.stderr.isatty()
    if not progress:
        return _Silent()
    from tqdm.auto import tqdm

    class Bar(tqdm):
        def __enter__(self):
            super().__enter__()
            return self.update

    return Bar(total=genes, unit="gene", unit_scale=True, desc="jaxvp", delay=delay)
