"""What a fit returns: one table a quantity, in each of them one row a gene.

`Results` holds finished tables; what follows from them is computed by modules to the left, when it
is asked for: from the design and the fits (`scores`, `varying`), or from the measurements once more
(`measured`), which `effects` and `predictions` need. Figures and reports are functions that take a
result. It is kept in one file by `Results.save` and `load` (`archive`) or handed to other tools
(`keeping`, `files`, `annotated`). Those modules define methods, a theme a file; the class is here.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from jaxvp.design import Design
from jaxvp.expression import DataError, Expression
from jaxvp.fractions import RESIDUALS

from . import archive, effects, keeping, predictions, scores, varying
from .keeping import SCALARS, SERIES, TABLES
from .lookup import find

__all__ = ["SERIES", "TABLES", "Results", "by_median", "load"]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Results:
    """The fits of all genes.

    Every table has one row for every gene of the input, in its order. A gene that could not be
    fitted has NaN there and a ``status`` in `diagnostics` that says why.

    Notes
    -----
    Definition of the fractions: Hoffman and Schadt (2016), variancePartition, BMC Bioinformatics
    17:483. Scale of theta: Bates et al. (2015), lme4, J. Stat. Softw. 67(1).

    Examples
    --------
    >>> result = jaxvp.fit(expression, "~ Age + (1|Individual)", metadata)
    >>> result.fractions.loc["TP53", "Individual"]
    >>> result.sort_columns().summary()
    >>> result.top("Individual", 20)
    >>> result.save("result.vp")
    """

    fractions: pd.DataFrame
    """genes x components: the share of the gene's variance, rows sum to 1; ``Residuals`` last"""
    variances: pd.DataFrame
    """genes x components: the same in squared units of the measurements"""
    coefficients: pd.DataFrame
    """genes x fixed columns, ``Intercept`` too; units of the measurements per unit of the column"""
    standard_errors: pd.DataFrame
    """of the coefficients"""
    theta: pd.DataFrame
    """genes x random terms, in formula order: standard deviations relative to sigma, as in lme4; of
    a correlated term with slopes the relative factor's lower triangle, column by column"""
    sigma: pd.Series
    """residual standard deviation"""
    log_likelihood: pd.Series
    """at the optimum; the restricted one if `reml`"""
    diagnostics: pd.DataFrame
    """``status``, ``n_obs``, ``iterations``, ``gradient`` (largest violation of the optimality
    conditions), ``singular`` (a variance component is exactly zero, or a correlation 1 or -1)"""
    design: Design | None
    """samples, fixed columns and levels that all genes share"""
    formula: str
    """as the user wrote it"""
    reml: bool
    weighted: bool = False
    block_size: int
    """genes that were fitted at a time"""
    options: dict[str, Any] = field(default_factory=dict)
    """what `jaxvp.fit` was told beside its tables and the formula, by the name of the argument"""
    versions: dict[str, str]
    """of Python and of the packages that the numbers come from"""
    measurements: Expression | None = None
    """what was fitted, on the samples of the design: it refers to the caller's data, and is not
    saved or pickled; None after `load`"""
    weights: Expression | np.ndarray | None = None
    """what was passed as weights, likewise: of each gene, or of each sample"""

    def __post_init__(self) -> None:
        genes = self.fractions.index
        for name in (*TABLES, *SERIES):
            if not getattr(self, name).index.equals(genes):
                raise DataError(f"the genes of `{name}` are not those of `fractions`")
        if not self.variances.columns.equals(self.fractions.columns):
            raise DataError("the components of `variances` are not those of `fractions`")

    def __repr__(self) -> str:
        genes, components = self.fractions.shape
        method = ("REML" if self.reml else "ML") if self.theta.shape[1] else "least squares"
        samples = "" if self.design is None else f", {self.design.n:,} samples"
        lines = [
            f"jaxvp.Results: {genes:,} genes x {components} components",
            f"  {self.formula}, {method}{samples}",
            f"  components: {', '.join(map(str, self.fractions.columns))}",
        ]
        if genes:
            converged = self.diagnostics["status"].to_numpy() == "converged"
            lines.append(f"  converged: {_percent(converged.mean())} of genes")
            if self.theta.shape[1]:
                singular = self.diagnostics["singular"].to_numpy(bool)
                lines[-1] += (
                    f"; singular (a component is exactly zero): {_percent(singular.mean())}"
                )
        return "\n".join(lines)

    def summary(self) -> pd.DataFrame:
        """How the fractions of every component are distributed over the genes.

        Returns
        -------
        DataFrame
            One row a component, in the order of `fractions`; columns ``median``, ``mean``, ``25%``
            and ``75%`` (quartiles). Genes that could not be fitted are left out.
        """
        table = self.fractions
        lower, median, upper = (table.quantile(q).to_numpy() for q in (0.25, 0.5, 0.75))
        columns = {"median": median, "mean": table.mean().to_numpy(), "25%": lower, "75%": upper}
        return pd.DataFrame(columns, index=table.columns)

    def sort_columns(self) -> Results:
        """Components by their median fraction, the largest first, ``Residuals`` last.

        Returns
        -------
        Results
            The same but for the order of the columns of `fractions` and `variances`. Components of
            the same median keep theirs. (``sortCols`` in variancePartition.)
        """
        order = by_median(self.fractions)
        return replace(self, fractions=self.fractions[order], variances=self.variances[order])

    def top(self, component: str, n: int = 10) -> pd.DataFrame:
        """The genes of which a component explains the largest share.

        Parameters
        ----------
        component
            A column of `fractions`.
        n
            How many genes.

        Returns
        -------
        DataFrame
            Their rows of `fractions`, the largest share of the component first; genes of the same
            share in the order of the input. Fewer rows where fewer genes could be fitted.

        Raises
        ------
        DataError
            If there is no such component (close matches are listed), or `n` is not 1 or more.

        Examples
        --------
        >>> result.top("Batch", 20).index
        >>> jaxvp.pl.bars(result.top("Batch", 20))
        """
        if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
            raise DataError(f"n={n!r}: use a whole number of genes, 1 or more")
        place = find(component, self.fractions.columns, "component")
        fitted = self.fractions.dropna()
        order = np.argsort(-fitted.iloc[:, place].to_numpy(), kind="stable")
        return fitted.iloc[order[:n]]

    def __getstate__(self) -> dict[str, Any]:
        """For pickle and copy: without measurements and weights, which may be anything."""
        return self.__dict__ | {"measurements": None, "weights": None}

    collinearity_score = scores.collinearity_score
    effective_sample_size = scores.effective_sample_size

    random_effects = effects.random_effects
    fitted = predictions.fitted
    residuals = predictions.residuals
    predict = predictions.predict
    remove = predictions.remove

    covariance = varying.covariance
    fractions_at = varying.fractions_at

    save = keeping.save
    write_tables = keeping.write_tables
    to_anndata = keeping.to_anndata


def load(path: str | os.PathLike[str]) -> Results:
    """Read what `Results.save` wrote.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    Results
        Every number is the one that was saved, bit for bit.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    DataError
        If it is not whole, not a saved result, or of a version that this jaxvp does not know.
    """
    tables, scalars, design = archive.read(Path(path), (*TABLES, *SERIES), SCALARS)
    genes = tables["fractions"].index
    # A table without columns has no rows in Parquet: theta of a model without random terms.
    tables = {
        name: table if table.shape[1] else pd.DataFrame(index=genes, columns=table.columns)
        for name, table in tables.items()
    }
    series = {name: tables.pop(name)[name] for name in SERIES}
    return Results(**tables, **series, **scalars, design=design)


def by_median(fractions: pd.DataFrame) -> list[str]:
    """Components by their median over the genes, the largest first and ``Residuals`` last."""
    medians = fractions.drop(columns=RESIDUALS, errors="ignore").median()
    order = list(medians.sort_values(ascending=False, kind="stable").index)
    return [*order, RESIDUALS] if RESIDUALS in fractions.columns else order


def _percent(share: float) -> str:
    """One digit after the point, and 100.0 % only where it is all of them."""
    shown = f"{share:.1%}"
    return "99.9%" if shown == "100.0%" and share < 1 else shown
