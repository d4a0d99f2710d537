"""Genes with holes that few others have wait for more of their kind.

To fit one of them takes as long as to fit dozens (`jaxvp.batch.own`), and a block has one or two.
So their blocks are kept until there are enough, but not for long, and are finished together. A
gene's numbers do not depend on who is beside it.
"""

from __future__ import annotations

import threading
import time
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Num

from jaxvp.batch.fitted import Fitted

# What is waited for: genes, or seconds. What waits is not saved yet.
_GENES, _SECONDS = 64, 0.5


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
        self._since = 0.0

    def add(self, block: tuple[int, int], rest: Rest) -> None:
        """One more of them."""
        with self._lock:
            if not self._blocks:
                self._since = time.monotonic()
            self._blocks.append((block, rest))

    def take(self, ready: bool = True) -> list[tuple[tuple[int, int], Rest]]:
        """All that wait; where they must be ``ready`` only if they have waited enough."""
        with self._lock:
            genes = sum(len(rest.genes) for _, rest in self._blocks)
            if ready and genes < _GENES and time.monotonic() < self._since + _SECONDS:
                return []
            blocks, self._blocks = self._blocks, []
        return blocks
