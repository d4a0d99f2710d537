"""What a call is about, the same for all of its blocks."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Num

from jaxvp.batch.fitted import FixedPart
from jaxvp.batch.own import Own
from jaxvp.batch.patterns import Patterns
from jaxvp.statistics import Compression

# (start, stop) -> samples x genes.
Blocks = Callable[[int, int], Num[np.ndarray, "n genes"]]


class Work(NamedTuple):
    """The design as all genes have it, and what makes the rest of it when a gene needs it."""

    compression: Compression
    covariance: Float[np.ndarray, "p p"]  # of the fixed columns
    fixed_part: FixedPart
    own: Own
    patterns: Patterns
    rescale: bool
    helpers: int
    """threads for the statistics of one block"""
    larger_tiles: int
    """how many times larger than a cache their tiles are"""
