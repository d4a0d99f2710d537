"""Genes with holes that few others have wait for more of their kind.

To fit one of them takes as long as to fit dozens (`jaxvp.batch.own`), and a block has one or two.
So their blocks are kept until there are enough, and are finished together. A gene's numbers do not
depend on who is beside it.
"""

from __future__ import annotations

import threading
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Num

from jaxvp.batch.fitted import Fitted

# What is waited for: genes, or blocks, whose results would be lost with the process.
_GENES, _BLOCKS = 64, 16


class Rest(NamedTuple):
    """A block that is fitted but for some of its genes."""

    fitted: Fitted
    genes: Int[np.ndarray, " some"]  # places in the block
    y: Num[np.ndarray, "n some"]


class Waiting:
    """Blocks of which some genes are not fitted, by their places."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._blocks: list[tuple[tuple[int, int], Rest]] = []

    def add(self, block: tuple[int, int], rest: Rest) -> list[tuple[tuple[int, int], Rest]]:
        """All that wait, this block among them, where there are enough; else none of them."""
        with self._lock:
            self._blocks.append((block, rest))
            genes = sum(len(rest.genes) for _, rest in self._blocks)
            if genes < _GENES and len(self._blocks) < _BLOCKS:
                return []
        return self.take()

    def take(self) -> list[tuple[tuple[int, int], Rest]]:
        """All that wait."""
        with self._lock:
            blocks, self._blocks = self._blocks, []
        return blocks
