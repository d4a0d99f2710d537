r"""Canonical correlations of every pair of variables, as one number a pair.

Let C_1 and C_2 be the columns of two variables (a number one, a factor its indicators), centred,
and Q_1, Q_2 orthonormal bases of their spans, of ranks r_1 and r_2. The canonical correlations rho
are the singular values of Q_1'Q_2 (Björck and Golub 1973, Math. Comp. 27:579), min(r_1, r_2) of
them. variancePartition's ``canCorPairs`` reports their root mean square

    sqrt(mean(rho^2)) = ||Q_1'Q_2||_F / sqrt(min(r_1, r_2)):

the sum of squared singular values is the sum of squared elements, and no decomposition of the
product is needed. For two numbers it is the absolute correlation, for a number and a factor the
root of R^2 of a one-way analysis of variance, for two factors Cramér's V.

*Bases.* Columns are scaled by a power of two (exact) and centred twice (the second time removes
what rounding of the first mean left), and come out of a QR factorisation with column pivoting; the
rank is where what is left of a column falls below 1e-7 of its length, the limit of R's ``qr`` (and
of `jaxvp.design.rank`). Indicators of a factor's levels need none of that: divided by the root of
their counts they are orthonormal, and the constant is taken out in closed form. With N_jk samples
in level j of the one (n_j of n) and k of the other (m_k),

    ||Q_1'Q_2||_F^2 = sum_jk (n N_jk - n_j m_k)^2 / (n^2 n_j m_k),

whose numerators are exact integers, so that independent factors give zero, and empty cells together
give (n^2 - sum of n_j m_k over the others) / n^2: cost and memory are those of the cells that are
there, however many levels.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import scipy.linalg
from jaxtyping import Bool, Float, Int

from jaxvp.design.rank import TOLERANCE
from jaxvp.design.variables import DesignError
from jaxvp.expression.metadata import check_metadata
from jaxvp.formula import Formula
from jaxvp.warning import warn

from .parts import Part, read_parts

HIGH = 0.999
"""Above this, variancePartition calls a regression on both variables problematic."""


class Levels(NamedTuple):
    """The basis of a factor: the level of each sample, and the number of samples in each level."""

    codes: Int[np.ndarray, " n"]
    sizes: Float[np.ndarray, " levels"]

    @property
    def rank(self) -> int:
        return len(self.sizes) - 1


class Columns(NamedTuple):
    """An orthonormal basis of centred columns."""

    q: Float[np.ndarray, "n rank"]

    @property
    def rank(self) -> int:
        return self.q.shape[1]


Basis = Levels | Columns


def canonical_correlations(formula: str | Formula, metadata: pd.DataFrame) -> pd.DataFrame:
    """Correlation of every pair of variables, numeric or categorical.

    Parameters
    ----------
    formula
        Its terms, fixed and random alike, are the variables: ``"~ Age + Tissue + (1|Individual)"``.
        A grouping factor is categorical whatever it holds; other columns are what `jaxvp.fit` takes
        them for. ``a:b`` is a variable of its own, coded as in R's ``model.matrix``.
    metadata
        Samples x variables. A sample without a value of either variable counts not for that pair,
        but for the others.

    Returns
    -------
    DataFrame
        Variables x variables, symmetric, 1 on the diagonal: the root mean square of the canonical
        correlations, from 0 (unrelated) to 1 (the one with fewer columns is determined by the
        other). NaN where a pair has no samples in common in which both vary.

    Raises
    ------
    FormulaError
        If the text is not a formula.
    DesignError
        If a variable is unknown (with close matches) or the same in all samples, or there are fewer
        than two.
    DataError
        If the metadata is not a table of samples.

    Warns
    -----
    UserWarning
        For pairs above 0.999, which it names, and for pairs without a value.

    Notes
    -----
    ``canCorPairs`` of variancePartition (Hoffman and Schadt 2016, BMC Bioinformatics 17:483), which
    calls R's ``cancor``. Two things differ: ``(1|Batch)`` with numbers in ``Batch`` is categorical
    here, as it is in the fit, and levels that no sample has do not count. As there, the value of an
    interaction beside its own main effects depends on which level comes first.

    Examples
    --------
    >>> jaxvp.canonical_correlations("~ Age + (1|Subject) + (1|Hours)", metadata)
    """
    parsed = formula if isinstance(formula, Formula) else Formula.parse(formula)
    check_metadata(metadata)
    parts = read_parts(parsed, metadata)
    if len(parts) < 2:
        there = f"it has one, `{parts[0].name}`" if parts else "it has none"
        raise DesignError(
            f"correlations need two variables or more in the formula, and {there}: "
            "name others, as in '~ Age + Tissue + (1|Individual)'"
        )
    values = pairwise(parts)
    names = [part.name for part in parts]
    pairs = list(combinations(range(len(names)), 2))
    high = [f"`{names[i]}` and `{names[j]}`" for i, j in pairs if values[i, j] > HIGH]
    if high:
        warn(
            f"these variables say the same or almost the same (canonical correlation above {HIGH}),"
            f" and a model with both may not tell them apart: {'; '.join(high)}",
        )
    none = [f"`{names[i]}` and `{names[j]}`" for i, j in pairs if np.isnan(values[i, j])]
    if none:
        warn(
            "no correlation can be computed where one does not vary in the samples that have "
            f"both: {'; '.join(none)}",
        )
    return pd.DataFrame(values, index=names, columns=names)


def pairwise(parts: list[Part]) -> Float[np.ndarray, "v v"]:
    """The correlations as an array, without any warning.

    Raises
    ------
    DesignError
        If a part is the same in all samples.
    """
    whole = [basis(part, part.rows) for part in parts]
    constant = [f"`{part.name}`" for part, its in zip(parts, whole, strict=True) if not its.rank]
    if constant:
        raise DesignError(
            f"the same in all samples, so that nothing correlates with it: {', '.join(constant)}. "
            "Leave it out of the formula"
        )
    values = np.eye(len(parts))
    for i, j in combinations(range(len(parts)), 2):
        rows = parts[i].rows & parts[j].rows
        # Bases of all of a part's samples serve every pair that loses none of them.
        one, other = (
            whole[k] if (rows == parts[k].rows).all() else basis(parts[k], rows) for k in (i, j)
        )
        values[i, j] = values[j, i] = _root_mean_square(one, other)
    return values


def basis(part: Part, rows: Bool[np.ndarray, " n"]) -> Basis:
    """An orthonormal basis of a part's centred columns in these samples."""
    if part.numbers is None:
        assert part.codes is not None
        _, codes, sizes = np.unique(part.codes[rows], return_inverse=True, return_counts=True)
        return Levels(codes, sizes.astype(np.float64))
    return Columns(orthonormal(columns_of(part, rows)))


def columns_of(part: Part, rows: Bool[np.ndarray, " n"]) -> Float[np.ndarray, "rows m"]:
    """A part's columns as they stand in a model matrix."""
    numbers = None if part.numbers is None else part.numbers[rows]
    if part.codes is None:
        assert numbers is not None
        return numbers
    codes = part.codes[rows]
    indicators = codes[:, None] == np.unique(codes[codes > 0])
    if numbers is None:
        return indicators.astype(np.float64)
    return (indicators[:, :, None] * numbers[:, None, :]).reshape(len(codes), -1)


def orthonormal(X: Float[np.ndarray, "n m"]) -> Float[np.ndarray, "n rank"]:
    """An orthonormal basis of the span of these columns, centred."""
    X = np.ldexp(X, -np.frexp(np.abs(X).max(axis=0, initial=0))[1])
    for _ in range(2):
        X = X - X.mean(axis=0) if len(X) else X
    length = np.linalg.norm(X, axis=0)
    # What centring leaves of a constant column is the rounding of its mean.
    varies = length > len(X) * np.finfo(np.float64).eps
    if not varies.any():
        return np.zeros((len(X), 0))
    factored: Any = scipy.linalg.qr(X[:, varies] / length[varies], mode="economic", pivoting=True)
    q, r, _ = factored
    return q[:, : int((np.abs(np.diag(r)) > TOLERANCE).sum())]


def _root_mean_square(one: Basis, other: Basis) -> float:
    count = min(one.rank, other.rank)
    if count <= 0:
        return np.nan
    if isinstance(one, Levels):
        squares = _of_levels(one, other)
    elif isinstance(other, Levels):
        squares = _of_levels(other, one)
    else:
        squares = float(((one.q.T @ other.q) ** 2).sum())
    return float(min(np.sqrt(squares / count), 1.0))


def _of_levels(one: Levels, other: Basis) -> float:
    """||Q_1'Q_2||_F^2 where Q_1 is of a factor."""
    if isinstance(other, Columns):
        sums = [np.bincount(one.codes, weights=column) for column in other.q.T]
        return float((np.square(sums) / one.sizes).sum())
    n, width = len(one.codes), len(other.sizes)
    cells, counts = np.unique(one.codes * width + other.codes, return_counts=True)
    expected = one.sizes[cells // width] * other.sizes[cells % width]
    filled = ((n * counts - expected) ** 2 / expected).sum()
    return float(filled + (n * n - expected.sum())) / (n * n)
