"""What can become of a gene, on one screen."""

from __future__ import annotations

from enum import IntEnum


class Status(IntEnum):
    """Outcome of one gene's fit; the lower-case name stands in ``Results.diagnostics.status``."""

    CONVERGED = 0
    MAX_ITERATIONS = 1
    ZERO_VARIANCE = 2
    ZERO_RESIDUAL = 3
    NON_FINITE = 4
    BAD_WEIGHTS = 5
    SINGLE_LEVEL = 6
    RANK_DEFICIENT = 7
    TOO_FEW_OBSERVATIONS = 8
    BLOCK_FAILED = 9

    @property
    def label(self) -> str:
        return self.name.lower()

    @property
    def meaning(self) -> str:
        return _MEANING[self]


_MEANING = {
    Status.CONVERGED: "at the optimum: its conditions hold to 1e-6, or to the deviance's rounding",
    Status.MAX_ITERATIONS: "not at an optimum when the iterations ran out",
    Status.ZERO_VARIANCE: "constant up to the rounding of its largest value",
    Status.ZERO_RESIDUAL: "explained exactly: a residual share below 1e-12, or "
    "below 1e-10 and too small for an optimum to be told",
    Status.NON_FINITE: "has infinite values",
    Status.BAD_WEIGHTS: "has negative, infinite or NaN weights, or none above zero",
    Status.SINGLE_LEVEL: "a grouping factor has one level left after this gene's losses",
    Status.RANK_DEFICIENT: "the fixed part is rank deficient after this gene's losses",
    Status.TOO_FEW_OBSERVATIONS: "no more observations than fixed columns, or than levels, "
    "or so few that fixed columns and levels explain any",
    Status.BLOCK_FAILED: "its block of genes could not be computed: a worker was lost or failed",
}
