"""What is known of every gene once it is fitted, and how a block's numbers get there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxvp.design import Design
from jaxvp.likelihood import Estimates
from jaxvp.solver import SlopeSolution, Solution, Status, newton
from jaxvp.statistics import Array, Shared, SlopeShared, namespace

# Residual share below which a gene counts as explained exactly; and one that has no certificate:
# where an exact zero is approached, rounding of large systems ends the search before.
_RESIDUAL_SHARE, _UNCERTIFIED_SHARE = 1e-12, 1e-10
# A score as large as this is no optimum, however uncertain it is: what is left of the gene is lost
# in rounding (a float32 fit with a residual share of 1e-7).
_LARGEST_VIOLATION = 1.0


@dataclass(frozen=True)
class FixedPart:
    """Variances of the fixed components, from coefficients and the covariance of the columns.

    Those of a mixed model are the columns but the intercept, those of a fixed model its terms.
    """

    mixed: bool
    columns: tuple[int, ...]
    terms: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, design: Design) -> FixedPart:
        owner = design.term_of_column
        return cls(
            bool(design.codes),
            tuple(j for j, term in enumerate(owner) if term >= 0),
            tuple(
                tuple(j for j, t in enumerate(owner) if t == term)
                for term in range(len(design.terms))
            ),
        )

    @property
    def names(self) -> tuple:
        """One for each of them."""
        return self.columns if self.mixed else self.terms

    def __call__(
        self, coefficients: Float[Array, "genes p"], covariance: Float[Array, "*genes p p"]
    ) -> Float[Array, "genes m"]:
        """In the squared units of the coefficients; one covariance of all genes, or one a gene."""
        xp = namespace(coefficients)
        with np.errstate(divide="ignore", invalid="ignore"):
            if not self.mixed:
                parts = [form(coefficients, covariance, columns) for columns in self.terms]
                return xp.stack(parts, axis=1) if parts else xp.zeros((len(coefficients), 0))
            columns = list(self.columns)
            variances = xp.diagonal(covariance, axis1=-2, axis2=-1)[..., columns]
            single = coefficients[:, columns] ** 2 * variances
            whole = form(coefficients, covariance)
            total = single.sum(axis=1)
            nothing = total == 0
            rescale = xp.maximum(whole, 0.0) / xp.where(nothing, 1.0, total)
            return single * xp.where(nothing, 0.0, rescale)[:, None]


def form(
    coefficients: Float[Array, "genes p"],
    covariance: Float[Array, "*genes p p"],
    columns: Sequence[int] | None = None,
) -> Float[Array, " genes"]:
    """Variance of the part of some columns, or of all."""
    xp, b, within = namespace(coefficients), coefficients, covariance
    if columns is not None:
        b, within = b[:, list(columns)], within[(..., *np.ix_(columns, columns))]
    if within.ndim == 2:
        return xp.einsum("gi,gi->g", b @ within, b)
    return xp.einsum("gi,gij,gj->g", b, within, b)


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

        def room(columns: int) -> Float[np.ndarray, "genes some"]:
            # Column after column in memory, as pandas keeps tables, and blocks of genes come.
            return np.full((columns, genes), np.nan).T

        sigma, log_likelihood, gradient = np.full((3, genes), np.nan)
        iterations, n_obs = np.zeros((2, genes), np.int32)
        status = np.zeros(genes, np.int8)
        return cls(
            room(k), sigma, room(p), room(p), log_likelihood, gradient, room(m), iterations, n_obs,
            status, room(t),
        )  # fmt: skip

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
        lost = (self.status == Status.CONVERGED) & ~at_optimum(found)
        self.status[lost] = Status.MAX_ITERATIONS


def at_optimum(found: Solution | SlopeSolution) -> Bool[Array, " genes"]:
    """Do the conditions of an optimum hold, to the tolerance or to the score's rounding?"""
    xp = namespace(found.violation)
    limit = xp.clip(found.tolerance, newton.GRADIENT_TOLERANCE, _LARGEST_VIOLATION)
    return found.violation <= limit


class Undo(NamedTuple):
    """What was done to the genes of a block before they were fitted."""

    scale: Float[Array, " genes"]
    ols: Float[Array, "p genes"]
    n: Float[Array, "*genes"]  # observations that count
    half_log: Float[Array, "*genes"]  # half the sum of the logarithms of the weights
    mean_weight: Float[Array, "*genes"]  # 1 where weights stay divided by their mean
    covariance: Float[Array, "*genes p p"]  # of the columns of X, weighted


class Unscaled(NamedTuple):
    """The genes of a block in the units of their measurements, random terms as they came."""

    gamma: Float[Array, "k genes"]
    sigma: Float[Array, " genes"]
    coefficients: Float[Array, "genes p"]
    standard_errors: Float[Array, "genes p"]
    log_likelihood: Float[Array, " genes"]
    fixed_part: Float[Array, "genes m"]  # over sigma^2
    residual_share: Float[Array, " genes"]  # of the variance


def unscale(
    r_inverse: Float[Array, "p p"],
    undo: Undo,
    gamma: Float[Array, "k genes"],
    random: Float[Array, " genes"],
    found: Estimates,
    reml: bool,
    fixed_part: FixedPart,
) -> Unscaled:
    """Undo scaling, residualising and the division of weights: on the host, or in compiled code.

    ``random`` is the variance of all random terms, over the samples and relative to sigma^2.
    Weights ``c w`` in place of ``w`` are the same model with ``sigma^2 c`` and ``gamma / c``.
    """
    xp = namespace(found.sigma)
    size = undo.n - len(r_inverse) if reml else undo.n
    with np.errstate(all="ignore"):
        plain = found.sigma * undo.scale
        coefficients = (r_inverse @ (undo.ols + undo.scale * found.coefficients)).T
        # Not from the coefficients: no float holds those of 1e280 on a variable of 1e-55.
        relative = (r_inverse @ (undo.ols / undo.scale + found.coefficients)).T
        relative = relative / found.sigma[:, None]
        whole = form(relative, undo.covariance)
        # Sums of squares of the fixed model are weighted as they are, like its residual's.
        fixed = fixed_part(relative, undo.covariance)
        if fixed_part.mixed:
            fixed = fixed / xp.reshape(undo.mean_weight, (-1, 1))
        share = xp.where(found.sigma == 0, 0.0, 1 / (1 + random + whole))
        return Unscaled(
            gamma / undo.mean_weight,
            plain * xp.sqrt(undo.mean_weight),
            coefficients,
            (xp.sqrt(found.variances) * plain).T,
            found.log_likelihood - size * xp.log(undo.scale) + undo.half_log,
            fixed,
            share,
        )


def explained(
    residual_share: Float[Array, " genes"], certified: Bool[Array, " genes"] | bool
) -> Bool[Array, " genes"]:
    """Is nothing left of a gene to compare with?"""
    xp = namespace(residual_share)
    return residual_share < xp.where(certified, _RESIDUAL_SHARE, _UNCERTIFIED_SHARE)


def write(
    out: Fitted,
    shared: Shared | SlopeShared,
    undo: Undo,
    gamma: Float[np.ndarray, "k genes"],
    random: Float[np.ndarray, " genes"],
    found: Estimates,
    reml: bool,
    fixed_part: FixedPart,
    certified: Bool[Array, " genes"] | bool = True,
) -> None:
    """`unscale`, in formula order and into its places."""
    r_inverse = np.asarray(shared.r_inverse)
    plain = unscale(r_inverse, undo, gamma, random, found, reml, fixed_part)
    out.gamma.T[list(shared.order)] = plain.gamma
    out.sigma[:] = plain.sigma
    out.coefficients[:] = plain.coefficients
    out.standard_errors[:] = plain.standard_errors
    out.log_likelihood[:] = plain.log_likelihood
    out.fixed_part[:] = plain.fixed_part
    nothing_left = explained(plain.residual_share, certified)
    out.status[nothing_left & (out.status == Status.CONVERGED)] = Status.ZERO_RESIDUAL
