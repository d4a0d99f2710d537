"""What a worker is told once: the design, the options, and where the measurements are.

The design is a few columns for every sample. What follows from it (cross-products, the table of
starting points, compiled programs) is larger, and is made by the worker itself.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from jaxvp import batch
from jaxvp.design import Design
from jaxvp.expression import Reader


@dataclass(frozen=True)
class Job:
    """The part of a fit that all blocks share; it can be pickled."""

    design: Design
    genes: int
    """of the study: it decides shapes, so that a block has the same numbers everywhere"""
    reml: bool
    solver: str
    dtype: str
    block_size: int
    reader: Reader | None
    """how a worker reads its blocks; None: it gets them as arrays"""
    digests: bool = False
    """whether to hash the measurements of every block"""
    compile_cache: bool = False
    """whether the one who asks keeps compiled programs on disk: workers then do, too"""
    sample_weights: Float[np.ndarray, " n"] | None = None
    """those that all genes share; weights of each gene's own come with its block"""
    rescale_weights: bool = True
    own_weights: bool = False
    key: str = field(default_factory=lambda: uuid.uuid4().hex)


@dataclass(frozen=True)
class Answer:
    """One block, fitted."""

    fitted: batch.Fitted
    digest: str | None
