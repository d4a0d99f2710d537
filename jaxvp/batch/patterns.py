"""Genes that lack measurements, sorted by which they lack.

As many genes as `_ENOUGH` with the same pattern are fitted with statistics that they share, those
of the samples that they have; the others each with its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int, Num

from jaxvp.batch.fitted import Fitted
from jaxvp.batch.own import fit_own
from jaxvp.batch.program import Program

if TYPE_CHECKING:
    from jaxvp.batch.block import Work


def fit_missing(
    program: Program,
    work: Work,
    y: Num[np.ndarray, "samples genes"],
    missing: Int[np.ndarray, " some"],
    out: Fitted,
) -> None:
    """Fit the genes ``missing`` of a block, none of them complete."""
    part = Fitted(*(array[missing] for array in out))
    fit_own(program, work, y[:, missing], work.own.base[:, None], part)
    out.put(missing, part)
