"""One block of genes: by the statistics that all share, or by a gene's own.

A gene whose measurements are all there is fitted with what all genes share. One with missing values
lacks samples: genes with the same pattern share again, statistics of the samples that they have;
rare patterns, and genes with weights of their own, go through `own`. Missing values are not looked
for in a pass over the measurements: where a few samples of the block have none, their sums of
squares tell. Genes with rare patterns are fitted later, with those of other blocks
(`jaxvp.batch.waiting`).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Int, Num

from jaxvp.batch import patterns
from jaxvp.batch.fitted import Fitted
from jaxvp.batch.own import fit_own
from jaxvp.batch.program import Program
from jaxvp.batch.shared import fit_shared
from jaxvp.batch.work import Work
from jaxvp.memory import by_genes
from jaxvp.solver import Status

_SAMPLES_TO_LOOK_AT = 8
# Share of genes with a hole in these from which on incomplete genes are sorted out beforehand.
_MANY = 0.25


def fit_block(
    program: Program,
    work: Work,
    y: Num[np.ndarray, "n genes"],
    weights: Num[np.ndarray, "n genes"] | None,
    out: Fitted,
) -> Int[np.ndarray, " some"]:
    """Fit a block of genes into ``out``; ``weights`` are of each gene's own.

    But for genes with a rare pattern of missing values: their places are the result.
    """
    missing = np.zeros(0, dtype=np.int64)
    if weights is not None:
        fit_own(program, work, y, weights, out)
        return missing
    complete = slice(None)
    rows = np.linspace(0, len(y) - 1, min(len(y), _SAMPLES_TO_LOOK_AT)).astype(int)
    if np.isnan(y[rows]).any(axis=0).mean() > _MANY:
        whole = ~np.isnan(y).any(axis=0)
        complete, missing = np.flatnonzero(whole), np.flatnonzero(~whole)
    if len(missing) < len(out.status):
        part = out.take(complete)
        fit_shared(program, work, _genes(y, complete), part)
        if not isinstance(complete, slice):  # of which it has views
            out.put(complete, part)
        # Where they are few they are found by their sums of squares, and the others stay in their
        # places: the same bits as without them.
        doubtful = np.flatnonzero(out.status == Status.NON_FINITE)
        more = doubtful[np.isnan(y[:, doubtful]).any(axis=0)]
        missing = np.union1d(missing, more)
    out.status[missing] = Status.CONVERGED
    return patterns.fit_common(program, work, y, missing, out)


def _genes(y: Num[np.ndarray, "n genes"], some: slice | Int[np.ndarray, " some"]) -> np.ndarray:
    """Some genes; in memory they lie as all do, and are formed in the same way."""
    if isinstance(some, slice):
        return y[:, some]
    return y.T.take(some, axis=0).T if by_genes(y) else y.take(some, axis=1)
