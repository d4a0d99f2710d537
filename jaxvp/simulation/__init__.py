"""Simulated studies with known variance fractions: any design, any shares, exact zeros, a seed.

A gene is drawn from the model that `jaxvp.fit` estimates,

    y = mean + scale * (sum_i sqrt(f_i) Z_i u_i + sum_j +- sqrt(f_j) x_j + sqrt(f_res) e),

with u_i and e standard normal (e, if wanted, a Student t scaled to variance one), covariates x_j
that are exactly standardised and uncorrelated on the samples drawn, and shares f that add up to 1.
The `truth` is these f, the shares of the *population* variance. A covariate's part has exactly its
share in the sample; a random term's realised variance scatters about its share, the more the fewer
levels it has (L levels: relative standard deviation sqrt(2 / L)), so that estimates scatter even
without any residual. A share of 0 is an exact zero: the term is absent from that gene.

`samples` draws where the samples stand, `shares` reads what the caller asks of the genes.
Genes are drawn in blocks, each from its own child of the seed, so that memory stays at the size of
the result, and so that asking for more genes leaves the first ones as they were.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from .samples import draw_covariates, groups
from .shares import RESIDUALS, given_shares, per_gene, zero_probabilities

__all__ = ["RESIDUALS", "Simulation", "simulate"]

BLOCK = 512


class Simulation(NamedTuple):
    """What `simulate` returns; unpacks as `expression, metadata, truth`.

    Attributes
    ----------
    expression : DataFrame [genes, samples]
    metadata : DataFrame [samples, variables]
        The variables of the grouping factors (text), then the covariates (float64).
    truth : DataFrame [genes, components]
        True shares of the variance; rows sum to 1. Columns in the order of `Results.fractions`:
        random terms by name, covariates, `Residuals`.
    """

    expression: pd.DataFrame
    metadata: pd.DataFrame
    truth: pd.DataFrame

    @property
    def formula(self) -> str:
        """The formula the data were drawn from, as `jaxvp.fit` reads it."""
        names = [name for name in self.truth.columns if name != RESIDUALS]
        fixed = set(self.metadata.select_dtypes("number").columns)
        parts = [name for name in names if name in fixed]
        parts += [f"(1|{name})" for name in names if name not in fixed]
        return "~ " + (" + ".join(parts) or "1")


def simulate(
    n_genes: int = 1000,
    n_samples: int = 100,
    levels: Mapping[str, int | None] | None = None,
    *,
    covariates: Sequence[str] = ("Age",),
    fractions: Mapping[str, object] | pd.DataFrame | None = None,
    zero_probability: float | int | Mapping[str, float] = 0.0,
    imbalance: float | int = 0.0,
    student_t: float | int | None = None,
    mean: object = 8.0,
    scale: object = 1.0,
    dtype: str = "float64",
    seed: int = 0,
) -> Simulation:
    """Draw a study whose variance fractions are known.

    Parameters
    ----------
    n_genes, n_samples : int
    levels : mapping of grouping factor to number of levels
        Default: `{"Individual": 25, "Tissue": 3, "Batch": 4}`, crossed at random. A name with
        a colon is nested or an interaction, written as lme4 writes the component:
        `{"batch": 10, "cask:batch": 3}` has 3 casks *in each* batch (labels repeat from batch to
        batch: `(1|batch/cask)`); `{"a": 4, "b": 5, "a:b": None}` adds the interaction of two
        factors that are there already.
    covariates : sequence of str
        Continuous variables; `()` for none.
    fractions : mapping or DataFrame, optional
        Component to share of variance: one number for all genes or one per gene. What is left out
        is 0; `Residuals`, where it is not given, is what remains to 1. Without `fractions` every
        gene's shares are drawn from a flat Dirichlet distribution.
    zero_probability : float or mapping of component to float
        Probability that a drawn share is exactly 0, independently for each gene and component
        (never the residual's). Only without `fractions`.
    imbalance : float
        0: levels as even as they can be. Otherwise the standard deviation of the logarithm of the
        levels' expected sizes; every level keeps at least one sample.
    student_t : float, optional
        Degrees of freedom (> 2) of a Student t residual, scaled to the variance asked for.
    mean, scale : float or array [n_genes]
        Of the genes: the population mean and standard deviation.
    dtype : {"float64", "float32"}
        Of the expression (20,000 genes x 1,000 samples: 160 MB or 80 MB, a few seconds).
    seed : int
        Same seed and arguments, same study.

    Returns
    -------
    Simulation
        `expression, metadata, truth`, and `.formula`.

    Raises
    ------
    ValueError
        Names what does not fit: a factor with more levels than samples, a component in `fractions`
        that the design does not have, shares below 0 or above 1 in total, ...

    Examples
    --------
    >>> expression, metadata, truth = simulate(n_genes=200, seed=1)
    >>> expression.shape, list(truth.columns)
    ((200, 100), ['Batch', 'Individual', 'Tissue', 'Age', 'Residuals'])

    Nested, with shares of our own; `Residuals` is what remains:

    >>> study = simulate(
    ...     50, 60, {"batch": 10, "cask:batch": 3}, covariates=(),
    ...     fractions={"batch": 0.2, "cask:batch": 0.7},
    ... )
    >>> study.formula
    '~ (1|batch) + (1|cask:batch)'
    >>> study.truth.iloc[0].round(3).to_dict()
    {'batch': 0.2, 'cask:batch': 0.7, 'Residuals': 0.1}
    """
    levels = {"Individual": 25, "Tissue": 3, "Batch": 4} if levels is None else dict(levels)
    covariates = [covariates] if isinstance(covariates, str) else list(covariates)
    _check(n_genes, n_samples, levels, covariates, imbalance, student_t, dtype)
    terms = sorted(levels)
    components = [*terms, *covariates, RESIDUALS]
    genes = pd.Index([f"gene_{i + 1}" for i in range(n_genes)])
    shares = given_shares(fractions, components, n_genes)
    zeros = zero_probabilities(zero_probability, components, fractions)
    means, scales = (per_gene(v, n, n_genes) for v, n in ((mean, "mean"), (scale, "scale")))
    if (scales < 0).any():
        raise ValueError(f"scale must not be negative (gene {genes[np.argmax(scales < 0)]!r})")

    # The design's stream and the blocks' streams do not touch.
    design_seed, block_seed = np.random.SeedSequence(seed).spawn(2)
    rng = np.random.default_rng(design_seed)
    labels, codes = groups(rng, n_samples, levels, imbalance)
    X = draw_covariates(rng, n_samples, len(covariates))

    expression = np.empty((n_genes, n_samples), dtype)
    truth = np.empty((n_genes, len(components)))
    starts = range(0, n_genes, BLOCK)
    for start, child in zip(starts, block_seed.spawn(len(starts)), strict=True):
        rows = slice(start, min(start + BLOCK, n_genes))
        rng = np.random.default_rng(child)
        drawn = rng.standard_exponential((BLOCK, len(components)))  # whole block: knows no n_genes
        drawn[rng.random(drawn.shape) < zeros] = 0
        f = (drawn / drawn.sum(axis=1, keepdims=True))[: rows.stop - start]
        f = f if shares is None else shares[rows]
        y = _block(rng, f, [codes[term] for term in terms], X, student_t)
        expression[rows] = y * scales[rows, None] + means[rows, None]
        truth[rows] = f

    samples = [f"sample_{i + 1}" for i in range(n_samples)]
    metadata = pd.DataFrame(labels, index=samples)
    for name, column in zip(covariates, X.T, strict=True):
        metadata[name] = column
    return Simulation(
        pd.DataFrame(expression, index=genes, columns=samples, copy=False),
        metadata,
        pd.DataFrame(truth, index=genes, columns=components),
    )


def _check(n_genes, n_samples, levels, covariates, imbalance, student_t, dtype) -> None:
    if n_genes < 0 or n_samples < 2:
        raise ValueError(f"n_genes={n_genes}, n_samples={n_samples}: need >= 0 genes, >= 2 samples")
    names = [*levels, *covariates, RESIDUALS]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{name!r} names two components (or is the name of the residual)")
    if imbalance < 0:
        raise ValueError(f"imbalance={imbalance} is negative; 0 means balanced")
    if student_t is not None and not student_t > 2:
        raise ValueError(f"student_t={student_t}: the variance is finite only above 2")
    if np.dtype(dtype) not in (np.dtype("float32"), np.dtype("float64")):
        raise ValueError(f"dtype={dtype!r}: use 'float32' or 'float64'")
    if len(covariates) >= n_samples - 1:
        raise ValueError(f"{len(covariates)} covariates on {n_samples} samples: too many")


def _block(
    rng: np.random.Generator,
    shares: Float[np.ndarray, "genes components"],
    codes: list[Int[np.ndarray, " n"]],
    X: Float[np.ndarray, "n p"],
    student_t: float | int | None,
) -> Float[np.ndarray, "genes n"]:
    genes, root = len(shares), np.sqrt(shares)
    signs = rng.choice([-1.0, 1.0], (BLOCK, X.shape[1]))[:genes]
    fixed = slice(len(codes), len(codes) + X.shape[1])
    y = (root[:, fixed] * signs) @ X.T
    for i, code in enumerate(codes):
        # Each draw is a whole block's even if fewer genes are left: see the module's text.
        effects = rng.standard_normal((BLOCK, code.max() + 1))[:genes]
        y += np.take(effects * root[:, [i]], code, axis=1)
    if student_t is None:
        residual = rng.standard_normal((genes, len(X)))
    else:
        residual = rng.standard_t(student_t, (genes, len(X)))
        residual *= np.sqrt((student_t - 2) / student_t)
    return y + residual * root[:, [-1]]
