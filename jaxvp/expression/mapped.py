"""Arrays that are memory-mapped from a file: a block is copied, and its pages are given back.

A view would keep every page that was read in the process, and a file of 8 GB would fill 8 GB in the
end. After a copy the kernel is told that the pages are not needed (they stay in its cache, from
which they cost little when they are read again).

Where the genes of a sample lie beside each other in the file, a block of few genes is a few bytes
of every page of it; several blocks' worth is then read at once (`panels`).
"""

from __future__ import annotations

import mmap

import numpy as np
from jaxtyping import Float

from .blocks import ArraySource, Rows, Source, floating
from .panels import PanelSource, even_edges

# What may be mapped at a time where a block is some bytes of many pages, and what Linux maps around
# a page that is asked for.
MAPPED_BYTES = 128 << 20
PAGES_AROUND = 1 << 16


class MappedSource:
    """A memory-mapped array, samples x genes, of any strides."""

    def __init__(self, values: np.memmap) -> None:
        self.values = values
        self.n_samples = len(values)

    def read(self, rows: Rows, start: int, stop: int) -> Float[np.ndarray, "n genes"]:
        """See `Source`."""
        positions = np.arange(self.n_samples)[rows]
        part = self.values[:, start:stop]
        by_genes = abs(part.strides[0]) <= abs(part.strides[1])
        block = np.empty(
            (len(positions), part.shape[1]), floating(part.dtype), "F" if by_genes else "C"
        )
        if by_genes:
            block[:] = ArraySource(part).read(rows, 0, part.shape[1])
            forget(self.values)
            return block
        # A page that is touched brings its neighbours with it.
        step = max(1, MAPPED_BYTES // (part.itemsize * part.shape[1] + PAGES_AROUND))
        for i in range(0, len(positions), step):
            block[i : i + step] = part[positions[i : i + step]]
            forget(self.values)
        return block


def forget(values: np.memmap) -> None:
    """Let the kernel take the pages of the file out of this process.

    Not where they hold what was written to them and is nowhere else (mode ``"c"``).
    """
    mapping = getattr(values, "_mmap", None)
    if hasattr(mmap, "MADV_DONTNEED") and isinstance(mapping, mmap.mmap) and values.mode != "c":
        mapping.madvise(mmap.MADV_DONTNEED)


def mapped_source(values: np.memmap) -> Source:
    """The source of a memory-mapped array: in panels where a gene is not contiguous in the file."""
    source = MappedSource(values)
    if not values.size or abs(values.strides[0]) <= abs(values.strides[1]):
        return source
    return PanelSource(source.read, even_edges(values.shape[1], 8 * len(values)), source.n_samples)


def is_mapped(values: np.memmap) -> bool:
    """Whether it is (a view of) a file: what NumPy computes of one has its type, too."""
    return isinstance(getattr(values, "_mmap", None), mmap.mmap)
