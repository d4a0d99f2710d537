"""What is known of every gene once it is fitted, and how a block's numbers get there."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxvp.design import Design
from jaxvp.likelihood import Estimates
from jaxvp.solver import SlopeSolution, Solution, Status, newton
from jaxvp.statistics import Shared, SlopeShared

# Residual share below which a gene counts as explained exactly.
_RESIDUAL_SHARE = 1e-12
# A score as large as this is no optimum, however uncertain it is: what is left of the gene is lost
# in rounding (a float32 fit with a residual share of 1e-7).
_LARGEST_VIOLATION = 1.0


class FixedPart:
    """Variances of the fixed components, from coefficients and the covariance of the columns.

    Those of a mixed model are the columns but the intercept, those of a fixed model its terms.
    """

    def __init__(self, design: Design) -> None:
        self.mixed = bool(design.codes)
        self.columns = [j for j, term in enumerate(design.term_of_column) if term >= 0]
        self.terms = [
            [j for j, t in enumerate(design.term_of_column) if t == term]
            for term in range(len(design.terms))
        ]

    @property
    def names(self) -> list:
        """One for each of them."""
        return self.columns if self.mixed else self.terms

    def __call__(
        self,
        coefficients: Float[np.ndarray, "genes p"],
        covariance: Float[np.ndarray, "*genes p p"],
    ) -> Float[np.ndarray, "genes m"]:
        """In the squared units of the coefficients; one covariance of all genes, or one a gene."""
        with np.errstate(divide="ignore", invalid="ignore"):
            if not self.mixed:
                parts = [_form(coefficients, covariance, columns) for columns in self.terms]
                return np.stack(parts, axis=1) if parts else np.zeros((len(coefficients), 0))
            variances = np.diagonal(covariance, axis1=-2, axis2=-1)[..., self.columns]
            single = coefficients[:, self.columns] ** 2 * variances
            whole = _form(coefficients, covariance, list(range(coefficients.shape[1])))
            total = single.sum(axis=1)
            rescale = np.where(total == 0, 0.0, np.maximum(whole, 0.0) / total)
            return single * rescale[:, None]


def _form(
    coefficients: Float[np.ndarray, "genes p"],
    covariance: Float[np.ndarray, "*genes p p"],
    columns: list[int],
) -> Float[np.ndarray, " genes"]:
    """Variance of the part of some columns."""
    b = coefficients[:, columns]
    within = covariance[(..., *np.ix_(columns, columns))]
    if within.ndim == 2:
        return np.einsum("gi,ij,gj->g", b, within, b, optimize=True)
    return np.einsum("gi,gij,gj->g", b, within, b)


class Fitted(NamedTuple):
    """All genes, fitted; random terms in formula order. Genes that could not be fitted hold NaN."""

    gamma: Float[np.ndarray, "genes k"]  # relative variance of every random component
    sigma: Float[np.ndarray, " genes"]
    coefficients: Float[np.ndarray, "genes p"]
    standard_errors: Float[np.ndarray, "genes p"]
    log_likelihood: Float[np.ndarray, " genes"]
    gradient: Float[np.ndarray, " genes"]
    fixed_part: Float[np.ndarray, "genes m"]  # variances of the fixed components over sigma^2
    iterations: Int[np.ndarray, " genes"]
    n_obs: Int[np.ndarray, " genes"]
    status: Int[np.ndarray, " genes"]
    theta: Float[np.ndarray, "genes t"]  # square roots of gamma; with slopes, relative factors

    @classmethod
    def empty(cls, genes: int, k: int, p: int, m: int, t: int) -> Fitted:
        """Nothing is fitted yet."""
        shapes = [(genes, k), (genes,), (genes, p), (genes, p), (genes,), (genes,), (genes, m)]
        arrays = [np.full(shape, np.nan) for shape in shapes]
        counts = [np.zeros(genes, dtype) for dtype in (np.int32, np.int32, np.int8)]
        return cls._make([*arrays, *counts, np.full((genes, t), np.nan)])

    def take(self, where: Int[np.ndarray, " some"] | slice) -> Fitted:
        """Some genes' results: of a slice views, else copies, which `put` writes back."""
        return self._make(array[where] for array in self)

    def put(self, where: Int[np.ndarray, " some"] | slice, part: Fitted) -> None:
        """Write some genes' results."""
        for whole, values in zip(self, part, strict=True):
            whole[where] = values

    def blank(self) -> None:
        """A gene without a certified optimum has NaN everywhere.

        Iterations and gradient stay where it was iterated, to tell how far it came.
        """
        failed = self.status != Status.CONVERGED
        for array in (
            self.gamma,
            self.theta,
            self.sigma,
            self.coefficients,
            self.standard_errors,
            self.log_likelihood,
            self.fixed_part,
        ):
            array[failed] = np.nan
        never = failed & (self.status != Status.MAX_ITERATIONS)
        self.gradient[never] = np.nan
        self.iterations[never] = 0

    def certify(self, found: Solution | SlopeSolution) -> None:
        """Which genes are at an optimum."""
        self.gradient[:] = found.violation
        self.iterations[:] = found.evaluations
        limit = np.clip(found.tolerance, newton.GRADIENT_TOLERANCE, _LARGEST_VIOLATION)
        self.status[(self.status == Status.CONVERGED) & ~(found.violation <= limit)] = (
            Status.MAX_ITERATIONS
        )


class Undo(NamedTuple):
    """What was done to the genes of a block before they were fitted."""

    scale: Float[np.ndarray, " genes"]
    ols: Float[np.ndarray, "p genes"]
    n: Float[np.ndarray, "*genes"]  # observations that count
    half_log: Float[np.ndarray, "*genes"]  # half the sum of the logarithms of the weights
    mean_weight: Float[np.ndarray, "*genes"]  # 1 where weights stay divided by their mean
    covariance: Float[np.ndarray, "*genes p p"]  # of the columns of X, weighted


def write(
    out: Fitted,
    shared: Shared | SlopeShared,
    undo: Undo,
    gamma: Float[np.ndarray, "k genes"],
    random: Float[np.ndarray, " genes"],
    found: Estimates,
    reml: bool,
    fixed_part: FixedPart,
) -> None:
    """Undo elimination order, scaling, residualising and the division of weights.

    ``random`` is the variance of all random terms, over the samples and relative to sigma^2.
    Weights ``c w`` in place of ``w`` are the same model with ``sigma^2 c`` and ``gamma / c``.
    """
    size = undo.n - shared.p if reml else undo.n
    with np.errstate(all="ignore"):
        out.gamma[:, list(shared.order)] = (gamma / undo.mean_weight).T
        plain = found.sigma * undo.scale
        raw = undo.ols + undo.scale * found.coefficients
        out.coefficients[:] = (shared.r_inverse @ raw).T
        out.standard_errors[:] = (np.sqrt(found.variances) * plain).T
        out.log_likelihood[:] = found.log_likelihood - size * np.log(undo.scale) + undo.half_log
        out.sigma[:] = plain * np.sqrt(undo.mean_weight)
        relative = out.coefficients / plain[:, None]
        beyond = ~np.isfinite(relative).all(axis=1)
        if beyond.any():  # coefficients that no float holds: of 1e280 on a variable of 1e-55
            own = undo.ols[:, beyond] / undo.scale[beyond] + found.coefficients[:, beyond]
            relative[beyond] = (shared.r_inverse @ own).T / found.sigma[beyond, None]
        single = undo.covariance.ndim == 2
        form = "gi,ij,gj->g" if single else "gi,gij,gj->g"
        whole = np.einsum(form, relative, undo.covariance, relative, optimize=single)
        # Sums of squares of the fixed model are weighted as they are, like its residual's.
        out.fixed_part[:] = fixed_part(relative, undo.covariance)
        if shared.levels:
            out.fixed_part[:] /= np.reshape(undo.mean_weight, (-1, 1))
        share = 1 / (1 + random + whole)
    # Where nothing is left, not even rounding, there is nothing to compare with.
    explained: Bool[np.ndarray, " genes"] = (share < _RESIDUAL_SHARE) | (found.sigma == 0)
    out.status[explained & (out.status == Status.CONVERGED)] = Status.ZERO_RESIDUAL
