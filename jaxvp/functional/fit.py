"""One gene, or a block of genes: from measurements to components, in JAX all the way."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Int

from jaxvp.batch.fitted import Undo, at_optimum, explained, unscale
from jaxvp.fractions import fixed_shares, mixed_shares
from jaxvp.functional.inputs import checked
from jaxvp.functional.model import Design
from jaxvp.functional.optimum import Problem, optimum
from jaxvp.functional.prepared import Prepared, prepare
from jaxvp.likelihood import Estimates
from jaxvp.solver import Solution, Status
from jaxvp.statistics import Array


class Fit(NamedTuple):
    """What is known of every gene; of `fit_gene` without the axis of the genes.

    A gene that could not be fitted has NaN everywhere but in ``status``, ``gradient`` and
    ``iterations``.
    """

    theta: Float[Array, "*genes k"]
    """standard deviations of the random terms over sigma; columns `Design.random_names`"""
    variances: Float[Array, "*genes components"]
    """columns `Design.components`"""
    fractions: Float[Array, "*genes components"]
    """rows sum to 1"""
    coefficients: Float[Array, "*genes p"]
    """columns `Design.columns`"""
    standard_errors: Float[Array, "*genes p"]
    sigma: Float[Array, "*genes"]
    log_likelihood: Float[Array, "*genes"]
    status: Int[Array, "*genes"]
    """a `jaxvp.solver.Status`: 0 is converged"""
    gradient: Float[Array, "*genes"]
    """largest violation of the conditions of an optimum"""
    iterations: Int[Array, "*genes"]


def fit_genes(Y: ArrayLike, design: Design, weights: ArrayLike | None = None) -> Fit:
    """Fit all genes of a block; a pure function, for ``jax.jit``, ``grad``, ``vmap``, `shard_map`.

    Parameters
    ----------
    Y
        Measurements, samples x genes, in the order of ``design.samples``; float32 or float64, and
        all that is computed has the same type. Memory grows with the number of genes: map large
        studies over blocks of a few thousand.
    design
        Made by `jaxvp.functional.design`.
    weights
        Precision weights of the samples, or of each gene's samples, zero or more; divided by their
        mean over the samples that count, those with a weight above zero.

    Returns
    -------
    Fit
        Differentiable in Y, the weights and ``design.X``, by the implicit function theorem at the
        optimum; theta, variances, fractions, coefficients, standard errors, sigma and the
        log-likelihood are. The derivative of a gene that failed is NaN in its own column of Y (and
        of weights of its own); what genes share gets nothing from it.

    Raises
    ------
    DataError
        While it is traced: for shapes that do not fit, types that are not real numbers, and
        float64 while JAX has 64-bit types switched off. What depends on values never raises, it is
        the gene's ``status``: NaN or infinite measurements (``NON_FINITE``), bad weights, ...

    Examples
    --------
    >>> design = functional.design("~ Age + (1|Batch)", metadata)
    >>> share = lambda Y: fit_genes(Y, design).fractions[:, design.components.index("Batch")].sum()
    >>> jax.jit(jax.grad(share))(Y)
    """
    Y, weights = checked("Y", Y, design, weights, 2)
    return _fit_genes(Y, design, weights)


def fit_gene(y: ArrayLike, design: Design, weights: ArrayLike | None = None) -> Fit:
    """Fit one gene: `fit_genes` for a single column, without the axis of the genes.

    ``jax.vmap`` of it makes one block of all genes; where there are many, `fit_genes` is faster,
    its derivative above all.
    """
    y, weights = checked("y", y, design, weights, 1)
    return jax.tree.map(lambda leaf: leaf[0], _fit_genes(y[:, None], design, weights))


@jax.jit
def _fit_genes(Y: Array, design: Design, weights: Array | None) -> Fit:
    def same_type(leaf):
        leaf = jnp.asarray(leaf)
        return leaf.astype(Y.dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    with jax.default_matmul_precision("highest"):
        design = jax.tree.map(same_type, design)
        return _fit(Y, design, prepare(Y, design, weights), weights is not None)


def _fit(Y: Array, design: Design, prepared: Prepared, weighted: bool) -> Fit:
    genes, undo, inverse = Y.shape[1], prepared.undo, prepared.inverse
    if prepared.shared is not None and prepared.gene is not None:
        # The table is that of samples without weights.
        table = None if weighted else design.table
        wanted = prepared.status == Status.CONVERGED
        found = optimum(Problem(prepared.shared, prepared.gene, wanted, table, design.reml))
        # Who was not stepped has zeros, and dividing by them would end in everybody's derivative.
        estimates = jax.tree.map(lambda leaf: jnp.where(wanted, leaf, 1), found.estimates)
        found = found._replace(estimates=estimates)
    else:
        found = _least_squares(genes, undo, prepared.r_inverse, inverse)
    random = found.gamma.sum(axis=0)
    plain = unscale(
        prepared.r_inverse,
        undo,
        found.gamma,
        random,
        found.estimates,
        design.reml,
        design.fixed_part,
    )
    gamma = plain.gamma[np.argsort(design.order).astype(int)].T
    if design.levels:
        shares = mixed_shares(design.by_name, gamma, plain.sigma, plain.fixed_part)
    else:
        n_obs = jnp.broadcast_to(undo.n, (genes,))
        shares = fixed_shares(len(design.columns), n_obs, plain.sigma, plain.fixed_part)
    certified = at_optimum(found)
    nothing_left = (prepared.status == 0) & explained(plain.residual_share, certified)
    status = jnp.where(nothing_left, Status.ZERO_RESIDUAL, prepared.status)
    status = jnp.where((status == 0) & ~certified, Status.MAX_ITERATIONS, status)
    # The square root's slope at zero is infinite; theta there is the bound, and does not move.
    free = gamma > 0
    theta = jnp.where(free, jnp.sqrt(jnp.where(free, gamma, 1)), 0)
    failed = status != Status.CONVERGED
    lost = _lost(Y, failed)

    def blank(values):
        instead = lost if values.ndim == 1 else lost[:, None]
        return jnp.where(failed if values.ndim == 1 else failed[:, None], instead, values)

    iterated = ~failed | (status == Status.MAX_ITERATIONS)
    variances, fractions = shares
    return Fit(
        theta=blank(theta),
        variances=blank(variances),
        fractions=blank(fractions),
        coefficients=blank(plain.coefficients),
        standard_errors=blank(plain.standard_errors),
        sigma=blank(plain.sigma),
        log_likelihood=blank(plain.log_likelihood),
        status=status,
        gradient=jax.lax.stop_gradient(jnp.where(iterated, found.violation, jnp.nan)),
        iterations=jnp.where(iterated, found.evaluations, 0),
    )


def _lost(Y: Float[Array, "n genes"], failed: Bool[Array, " genes"]) -> Float[Array, " genes"]:
    """NaN for genes that failed, in a way that their derivative in Y is NaN too."""
    return Y.sum(axis=0) * jnp.where(failed, jnp.nan, 0)


def _least_squares(
    genes: int, undo: Undo, r_inverse: Float[Array, "p p"], inverse: Float[Array, "p p *genes"]
) -> Solution:
    """No random term: the optimum in closed form, in the units of the scaled residuals."""
    p, n = len(r_inverse), jnp.broadcast_to(undo.n, (genes,))
    half = jnp.tensordot(r_inverse, inverse, 1)
    variances = jnp.einsum("ij...,ij->i...", half, r_inverse)
    variances = variances if variances.ndim == 2 else variances[:, None]
    nothing = jnp.zeros(genes, r_inverse.dtype)
    estimates = Estimates(
        jnp.zeros((p, genes), r_inverse.dtype),
        jnp.broadcast_to(variances, (p, genes)),
        jnp.sqrt(n / (n - p)),
        -0.5 * n * (1 + np.log(2 * np.pi)),
    )
    gamma = jnp.zeros((0, genes), r_inverse.dtype)
    return Solution(gamma, nothing, nothing, jnp.zeros(genes, jnp.int32), estimates, None)
