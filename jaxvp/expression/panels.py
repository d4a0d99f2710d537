"""Blocks served from panels: runs of genes that are read from a file at once and kept for a while.

What a file can read at once is rarely a block of genes: a row group of Parquet, a chunk of HDF5 or
zarr, whole pages of a row of an array on the disk. So genes are read in *panels* whose edges follow
the file, of about `PANEL_BYTES`, and blocks are cut from the panels last read. Threads take blocks
in turn; one reads a panel while others wait for it, since HDF5 and Parquet readers serve one at a
time, and the next block is mostly in the panel that was just read.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np
from jaxtyping import Float, Int

from .blocks import ArraySource, Rows

PANEL_BYTES = 64 << 20
# A unit that a file can only read as a whole, and that is larger than this, is not read again and
# again: see `spool`.
LARGEST_PANEL = 512 << 20
KEPT = 2


class PanelSource:
    """A `Source` that reads panels and serves blocks of them.

    Parameters
    ----------
    load
        ``load(rows, start, stop)`` reads some samples of the genes of a panel, as float64 or
        float32. It is called by one thread at a time.
    edges
        Where panels begin, and where the last one ends.
    n_samples
        Of the container.
    by_rows
        Whether to load some samples alone costs less. Otherwise all of them are loaded.
    """

    def __init__(
        self,
        load: Callable[[Rows, int, int], Float[np.ndarray, "n genes"]],
        edges: Int[np.ndarray, " edges"],
        n_samples: int,
        by_rows: bool = False,
    ) -> None:
        self.load, self.edges, self.n_samples, self.by_rows = load, edges, n_samples, by_rows
        self._kept: OrderedDict[Hashable, Float[np.ndarray, "n genes"]] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, rows: Rows, start: int, stop: int) -> Float[np.ndarray, "n genes"]:
        """See `Source`."""
        wanted, picked = (rows, slice(None)) if self.by_rows else (slice(None), rows)
        if start >= stop:
            return np.empty((self.n_samples, 0))[rows]
        first = int(np.searchsorted(self.edges, start, side="right")) - 1
        last = int(np.searchsorted(self.edges, stop, side="left"))
        panel = self._panel(wanted, first)
        if last == first + 1:
            begin = self.edges[first]
            block = panel[:, start - begin : stop - begin]
        else:  # copied panel by panel, so that few are in memory at a time
            order = "F" if panel.strides[0] <= panel.strides[1] else "C"
            block = np.empty((len(panel), stop - start), panel.dtype, order)
            for i in range(first, last):
                panel = self._panel(wanted, i)
                begin = self.edges[i]
                low, high = max(start, begin), min(stop, self.edges[i + 1])
                block[:, low - start : high - start] = panel[:, low - begin : high - begin]
        return ArraySource(block).read(picked, 0, stop - start)

    def _panel(self, rows: Rows, i: int) -> Float[np.ndarray, "n genes"]:
        which = (rows.start, rows.stop, rows.step) if isinstance(rows, slice) else rows.tobytes()
        key = (which, i)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            while len(self._kept) >= KEPT:  # before the next one takes memory
                self._kept.popitem(last=False)
            panel = self._kept[key] = self.load(rows, int(self.edges[i]), int(self.edges[i + 1]))
            return panel


_narrow: ContextVar[int | None] = ContextVar("panel_bytes", default=None)


def _panel_bytes() -> int:
    return PANEL_BYTES if _narrow.get() is None else min(PANEL_BYTES, _narrow.get() or 1)


@contextmanager
def narrow_panels(size: int) -> Iterator[None]:
    """Sources made in this context have panels of about so many bytes.

    One of many readers of a file gets a block here and there: of a wide panel it would use little.
    """
    token = _narrow.set(size)
    try:
        yield
    finally:
        _narrow.reset(token)


def even_edges(n_genes: int, bytes_per_gene: int, unit: int = 1) -> Int[np.ndarray, " edges"]:
    """Edges at multiples of `unit` genes, of about `PANEL_BYTES`."""
    width = max(_panel_bytes() // max(bytes_per_gene, 1) // unit, 1) * unit
    return np.append(np.arange(0, n_genes, width), n_genes)


def joined_edges(sizes: Sequence[int], bytes_per_gene: int) -> Int[np.ndarray, " edges"]:
    """Edges between units of these sizes, joined while they fit in `PANEL_BYTES`."""
    most = _panel_bytes()
    edges = [0]
    end = 0
    for size in sizes:
        if end > edges[-1] and (end + size - edges[-1]) * bytes_per_gene > most:
            edges.append(end)
        end += size
    return np.array([*edges, end]) if end > edges[-1] else np.array(edges)
