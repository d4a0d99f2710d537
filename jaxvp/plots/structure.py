r"""The correlation of samples that the random terms of a model imply.

Two samples of a mixed model share the random effects of the levels that they have in common, so

    corr(y_i, y_j) = sum_k gamma_k [i and j have the same level of k] / (1 + sum_k gamma_k),

with ``gamma_k = theta_k^2``, the variance of term k relative to the residual's: the covariance of
lme4's model (Bates et al. 2015) divided by its diagonal, which is the same for all samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from jaxvp.expression import DataError
from jaxvp.results import Results
from jaxvp.results.lookup import find

from . import canvas
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
    sort: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Draw how the model says that samples are correlated.

    Parameters
    ----------
    result
        What `jaxvp.fit` returned for a model with random terms.
    gene
        Name of a gene. None takes the median of theta over the genes, term by term.
    terms
        Random terms that count; None counts all. The others are left out of the correlation, not of
        the variance that it is divided by.
    sort
        Whether samples of one level stand together, by the term of the largest variance first;
        False keeps the order of the metadata.
    ax
        Axes to draw into; without, a new figure.

    Returns
    -------
    Axes
        Heat map samples x samples. Names are written for at most 40 samples; of more than 2,000
        samples equally spaced ones are drawn. The colour bar is an inset.

    Raises
    ------
    DataError
        If the model has no random term, random slopes or weights, a gene or term is unknown (close
        matches are listed), the gene could not be fitted, or none could.
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
    if design.slopes:
        raise DataError(
            f"correlation_structure is not there yet for random slopes, as in {result.formula}"
        )
    if result.weighted:
        raise DataError(
            "correlation_structure is not there yet for a fit with weights: its samples differ in "
            "their residual variance"
        )
    if gene is not None:
        place = find(gene, theta.index, "gene")
        check_fitted(result, place)
        gamma = theta.iloc[place].to_numpy(np.float64) ** 2
    else:
        fitted = theta.dropna()
        if not len(theta):
            raise DataError("the result has no gene: there is nothing to draw")
        if fitted.empty:
            raise DataError(f"none of the {len(theta):,} genes could be fitted: nothing to draw")
        gamma = fitted.median().to_numpy(np.float64) ** 2
    if terms is None:
        chosen = list(range(len(gamma)))
    else:
        wanted = [terms] if isinstance(terms, str) else list(terms)
        chosen = [find(name, theta.columns, "random term") for name in wanted]
    if not chosen:
        raise DataError("terms is empty: there is nothing to draw")
    by_size = sorted(chosen, key=lambda k: -gamma[k])
    codes = [design.codes[k] for k in by_size]
    order = np.lexsort(codes[::-1]) if sort else np.arange(design.n)
    order = order[:: -(-design.n // MOST_DRAWN)]
    shares = gamma[by_size] / (1.0 + gamma.sum())
    values = implied([code[order] for code in codes], shares)
    samples = [design.samples[i] for i in order]
    head = "Median of the genes" if gene is None else canvas.shorten(gene)
    head += "\n" + _shares([str(theta.columns[k]) for k in by_size], shares)
    ax = _new_axes(samples, head) if ax is None else ax
    _draw(ax, values, samples)
    canvas.title(ax, head, loc="left", fontsize="small")
    return ax


def implied(
    codes: list[Int[np.ndarray, " n"]], shares: Float[np.ndarray, " k"]
) -> Float[np.ndarray, "n n"]:
    """Correlations of samples that share levels; 1 of a sample with itself."""
    n = len(codes[0])
    values = np.zeros((n, n))
    for code, share in zip(codes, shares, strict=True):
        values += share * (code[:, None] == code)
    np.fill_diagonal(values, 1.0)
    return values


def _draw(ax: Axes, values: Float[np.ndarray, "n n"], samples: list[str]) -> None:
    image = ax.imshow(values, cmap=COLOURS, vmin=0, vmax=1, interpolation="none", aspect="auto")
    if len(samples) <= _MOST_NAMES:
        canvas.names_beside(ax, samples)
        canvas.names_below(ax, samples)
        for label in [*ax.get_xticklabels(), *ax.get_yticklabels()]:
            label.set_fontsize("small")
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
