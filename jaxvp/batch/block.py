"""One block of genes: by the statistics that all share, or by a gene's own.

A gene whose measurements are all there is fitted with what all genes share. One with missing values
lacks samples: genes with the same pattern share again, statistics of the samples that they have;
rare patterns, and genes with weights of their own, go through `own`. Missing values are not looked
for in a pass over the measurements: where a few samples of the block have none, their sums of
squares tell.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Num

from jaxvp.batch import patterns
from jaxvp.batch.fitted import Fitted, FixedPart, Undo, write
from jaxvp.batch.own import Own, fit_own
from jaxvp.batch.program import Program, solve_block
from jaxvp.likelihood import least_squares
from jaxvp.solver import Status
from jaxvp.statistics import Compression, statistics

Blocks = Callable[[int, int], Num[np.ndarray, "n genes"]]

_SAMPLES_TO_LOOK_AT = 8


class Work(NamedTuple):
    """What a call is about, the same for all blocks."""

    compression: Compression
    covariance: Float[np.ndarray, "p p"]  # of the fixed columns
    fixed_part: FixedPart
    measurements: Blocks
    weights: Blocks | None  # of each gene's own
    own: Own
    rescale: bool


def fit_block(program: Program, work: Work, start: int, stop: int, out: Fitted) -> None:
    """Fit the genes ``start:stop`` into ``out``."""
    y = work.measurements(start, stop)
    if work.weights is not None:
        fit_own(program, work, y, work.weights(start, stop), out)
        return
    complete = slice(None)
    rows = np.linspace(0, len(y) - 1, min(len(y), _SAMPLES_TO_LOOK_AT)).astype(int)
    if np.isnan(y[rows]).any():
        whole = ~np.isnan(y).any(axis=0)
        complete = np.flatnonzero(whole)
        missing = np.flatnonzero(~whole)
    else:
        missing = np.zeros(0, dtype=np.int64)
    if isinstance(complete, slice) or len(complete):
        here = y if isinstance(complete, slice) else y[:, complete]
        part = Fitted(*(array[complete] for array in out))
        fit_shared(program, work, here, part)
        out.put(complete, part)
        doubtful = np.flatnonzero(out.status == Status.NON_FINITE)
        more = doubtful[np.isnan(y[:, doubtful]).any(axis=0)]
        missing = np.union1d(missing, more)
    if len(missing):
        out.status[missing] = Status.CONVERGED
        patterns.fit_missing(program, work, y, missing, out)


def fit_shared(
    program: Program,
    work: Work,
    y: Num[np.ndarray, "samples genes"],
    out: Fitted,
) -> None:
    """Fit genes that share all but their measurements."""
    compression = work.compression
    shared, weighting = compression.shared, compression.weighting
    out.n_obs[:] = int(shared.n)
    if weighting is not None and len(weighting.rows) < len(y):
        y = y[weighting.rows]
    block = statistics(compression, y)
    out.status[block.non_finite] = Status.NON_FINITE
    out.status[block.constant] = Status.ZERO_VARIANCE
    out.status[block.explained] = Status.ZERO_RESIDUAL
    undo = Undo(
        block.scale,
        block.ols,
        np.asarray(shared.n),
        np.asarray(0.0 if weighting is None else weighting.half_log),
        np.asarray(1.0 if weighting is None or work.rescale else weighting.mean),
        work.covariance,
    )
    if shared.levels:
        found = solve_block(program, block.gene, out.status == Status.CONVERGED)
        gamma, estimates = found.gamma.astype(np.float64), found.estimates
    else:
        found, gamma = None, np.zeros((0, len(block.scale)))
        estimates = least_squares(shared, block)
        out.gradient[:] = 0.0
    write(out, shared, undo, gamma, estimates, program.reml, work.fixed_part)
    if found is not None:
        out.certify(found)
    out.blank()


def column_covariance(
    X: Float[np.ndarray, "n p"], compression: Compression
) -> Float[np.ndarray, "p p"]:
    """Covariance of the fixed columns over the samples, weighted as these are."""
    weighting = compression.weighting
    if weighting is None:
        centred = X - X.mean(axis=0)
        return centred.T @ centred / len(X)
    w = weighting.root**2
    X = X[weighting.rows]
    centred = X - (w * X).sum(axis=0) / w.sum()
    return centred.T @ (w * centred) / w.sum()
