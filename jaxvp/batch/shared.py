"""Genes that share all but their measurements: one compressed design, one program."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Num

from jaxvp.batch.fitted import Fitted, Undo, at_optimum, write
from jaxvp.batch.products import form_block
from jaxvp.batch.program import Program, solve_block
from jaxvp.likelihood import least_squares
from jaxvp.solver import SlopeSolution, Status, relative_factors
from jaxvp.statistics import Compression, statistics

if TYPE_CHECKING:
    from jaxvp.batch.work import Work


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
    if program.plan is not None:
        block = form_block(program, compression, y, work.helpers)
    else:
        capacity = program.capacity if shared.levels else 0
        block = statistics(
            compression, y, work.helpers, work.larger_tiles, capacity, program.records
        )
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
    certified = True
    if shared.levels:
        found = solve_block(program, block.gene, out.status == Status.CONVERGED)
        estimates, certified = found.estimates, at_optimum(found)
        if isinstance(found, SlopeSolution):
            gamma, factors = relative_factors(found, shared, compression.slopes)
            out.theta[:] = compression.slopes.in_formula_order(factors) / np.sqrt(undo.mean_weight)
            random = np.square(np.asarray(found.deviations, np.float64)).sum(axis=0)
        else:
            gamma = np.asarray(found.gamma, np.float64)
            random = gamma.sum(axis=0)
    else:
        found, gamma = None, np.zeros((0, len(block.scale)))
        random = np.zeros(len(block.scale))
        estimates = least_squares(shared, block)
        out.gradient[:] = 0.0
    write(out, shared, undo, gamma, random, estimates, program.reml, work.fixed_part, certified)
    if not isinstance(found, SlopeSolution):
        out.theta[:] = np.sqrt(out.gamma)
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
