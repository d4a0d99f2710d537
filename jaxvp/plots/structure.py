r"""The correlation of samples that the random terms of a model imply.

With ``z_ik`` the multiplier of sample i in component k (1 for a random intercept, the slope's
variable for a slope), ``Gamma`` the covariance of the components relative to sigma^2 (that of a
correlated term is its ``L L'``) and ``w_i`` the weight of a sample (1 without weights),

    cov(y_i, y_j) / sigma^2 = sum_kl z_ik Gamma_kl z_jl [same level of k and l] + [i = j] / w_i,

lme4's model (Bates et al. 2015); a correlation is this divided by the roots of two variances. With
random intercepts alone all samples have one variance, ``1 + sum_k Gamma_kk``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from jaxvp import fractions
from jaxvp.design import Design
from jaxvp.expression import DataError
from jaxvp.results import Results
from jaxvp.results.lookup import find
from jaxvp.results.measured import weights_of_gene, weights_of_samples

from . import canvas, naming
from .correlations import BAR_ROOM, COLOURS, colour_bar
from .inputs import check_fitted, check_result

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# More rows are not seen apart in print; of more samples every second, third, ... is drawn.
MOST_DRAWN = 2000
_MOST_NAMES = 40


def correlation_structure(
    result: Results,
    gene: Any = None,
    terms: Sequence[str] | str | None = None,
    *,
    expression: Any = None,
    weights: Any = None,
    sort: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Draw how the model says that samples are correlated.

    Parameters
    ----------
    result
        What `jaxvp.fit` returned for a model with random terms.
    gene
        Name of a gene. None takes the median of theta over the genes, entry by entry; with weights
        of each gene's own there is no such fit.
    terms
        Random terms that count, a slope (``Subject.Days``) one of its own; None counts all. The
        others are left out of the correlation, not of the variance that it is divided by.
    expression, weights
        Those of the fit, where it had weights: these are divided by their mean over the
        observations that count for the gene. Needed after `jaxvp.load` only.
    sort
        Whether samples of one level stand together, by the term of the largest variance first;
        False keeps the order of the metadata.
    ax
        Axes to draw into; without, a new figure.

    Returns
    -------
    Axes
        Heat map samples x samples. Names are written for at most 40 samples; of more than 2,000
        samples equally spaced ones are drawn; with weights those that count. The colour bar is an
        inset. The title has what each term adds to the variance of a sample, on average.

    Raises
    ------
    DataError
        If the model has no random term, a gene or term is unknown (close matches are listed), the
        gene could not be fitted, or none could; if each gene has weights of its own and none is
        named, or weights are not those of the fit.
    TypeError
        If it is no result: a table of fractions does not know the samples.

    Notes
    -----
    After ``plotCorrStructure`` of variancePartition (Hoffman and Schadt 2016, BMC Bioinformatics
    17:483), which orders samples by clustering.

    Examples
    --------
    >>> jaxvp.pl.correlation_structure(result, "OAS1")
    >>> jaxvp.pl.correlation_structure(result, terms="Subject")
    """
    result = check_result(result, "correlation_structure", "the levels of the samples")
    design = result.design
    assert design is not None
    theta = result.theta
    if not theta.shape[1]:
        raise DataError(
            f"the model {result.formula} has no random term: it says that samples are independent"
        )
    what = "correlation structure"
    if gene is not None:
        place = find(gene, theta.index, "gene")
        check_fitted(result, place)
        row = theta.iloc[[place]].to_numpy(np.float64)
    else:
        fitted = theta.dropna()
        if not len(theta):
            raise DataError("the result has no gene: there is nothing to draw")
        if fitted.empty:
            raise DataError(f"none of the {len(theta):,} genes could be fitted: nothing to draw")
        row = fitted.median().to_numpy(np.float64)[None]
    w = np.ones(design.n)
    if result.weighted and gene is None:
        w = weights_of_samples(result, weights, what)
    elif result.weighted:
        w = weights_of_gene(result, expression, weights, place, what)
    if terms is None:
        chosen = list(range(len(design.random_names)))
    else:
        wanted = [terms] if isinstance(terms, str) else list(terms)
        names = pd.Index(design.random_names)
        chosen = [find(name, names, "random term") for name in wanted]
    if not chosen:
        raise DataError("terms is empty: there is nothing to draw")
    samples = np.flatnonzero(w > 0)
    factors = [factor[0] for factor in fractions.factors(design, row)]
    shares = shares_of(design, factors, samples, w[samples])
    by_size = sorted(chosen, key=lambda k: -shares[k])
    if sort:
        samples = samples[np.lexsort([design.codes[k][samples] for k in by_size][::-1])]
    samples = samples[:: -(-len(samples) // MOST_DRAWN)]
    values = implied(design, factors, chosen, samples, w[samples])
    labels = [design.samples[i] for i in samples]
    head = "Median of the genes" if gene is None else canvas.shorten(gene)
    head += "\n" + _shares([design.random_names[k] for k in by_size], shares[by_size])
    own = ax is None
    ax = _new_axes(labels, head) if ax is None else ax
    _draw(ax, values, labels, own)
    canvas.title(ax, head, loc="left", fontsize="small")
    return ax


Factors = list[Float[np.ndarray, "_ _"]]  # one a correlated term, in formula order


def implied(
    design: Design,
    factors: Factors,
    chosen: Sequence[int],
    samples: Int[np.ndarray, " m"],
    weights: Float[np.ndarray, " m"],
) -> Float[np.ndarray, "m m"]:
    """Correlations of samples through the chosen components; 1 of a sample with itself."""
    values = np.zeros((len(samples), len(samples)))
    whole = 1 / weights
    for block, factor in zip(_blocks(design), factors, strict=True):
        z = _multipliers(design, block, samples)
        whole = whole + ((z @ factor) ** 2).sum(axis=1)
        own = [place for place, component in enumerate(block) if component in chosen]
        half = z[:, own] @ factor[own]
        code = design.codes[block[0]][samples]
        values += (half @ half.T) * (code[:, None] == code)
    values /= np.sqrt(whole[:, None] * whole)
    np.fill_diagonal(values, 1.0)
    return values


def shares_of(
    design: Design,
    factors: Factors,
    samples: Int[np.ndarray, " m"],
    weights: Float[np.ndarray, " m"],
) -> Float[np.ndarray, " k"]:
    """Of every component, without its covariances: its share of a sample's variance, on average."""
    each = np.zeros((len(design.codes), len(samples)))
    whole = 1 / weights
    for block, factor in zip(_blocks(design), factors, strict=True):
        z = _multipliers(design, block, samples)
        each[list(block)] = (z**2 * (factor**2).sum(axis=1)).T
        whole = whole + ((z @ factor) ** 2).sum(axis=1)
    return (each / whole).mean(axis=1)


def _blocks(design: Design) -> Sequence[tuple[int, ...]]:
    return design.blocks or [(i,) for i in range(len(design.codes))]


def _multipliers(
    design: Design, block: tuple[int, ...], samples: Int[np.ndarray, " m"]
) -> Float[np.ndarray, "m c"]:
    columns = [design.multipliers[i] if design.slopes else None for i in block]
    ones = np.ones(len(samples))
    return np.stack([ones if column is None else column[samples] for column in columns], axis=1)


def _draw(ax: Axes, values: Float[np.ndarray, "n n"], samples: list[str], own: bool) -> None:
    image = ax.imshow(values, cmap=COLOURS, vmin=0, vmax=1, interpolation="none", aspect="auto")
    if len(samples) <= _MOST_NAMES:
        naming.around(ax, samples, own, most="small")
    else:
        ax.set_xticks([])
        ax.set_yticks([])
        ax.set_xlabel(f"{len(samples):,} samples")
    colour_bar(ax, image, "Correlation of samples")


def _shares(names: list[str], shares: Float[np.ndarray, " k"]) -> str:
    """What each term adds to a correlation: four a line, eight at most."""
    parts = [f"{canvas.shorten(n, 20)} {share:.0%}" for n, share in zip(names, shares, strict=True)]
    lines = [", ".join(parts[i : i + 4]) for i in range(0, min(len(parts), 8), 4)]
    return ",\n".join(lines) + (", ..." if len(parts) > 8 else "")


def _new_axes(samples: list[str], head: str) -> Axes:
    side, names = 4.0, 0.0
    if len(samples) <= _MOST_NAMES:
        side = max(side, 0.17 * len(samples))
        names = canvas.longest(map(canvas.shorten, samples))
    above = 0.2 + 0.17 * (head.count("\n") + 1)
    return canvas.square(side, names + 0.15, names + 0.35, BAR_ROOM * side + 0.75, above)
