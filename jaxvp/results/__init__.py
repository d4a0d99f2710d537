"""What a fit returns: one table a quantity, in each of them one row a gene.

`Results` holds finished tables; what follows from them (`Results.collinearity_score`) is computed
by modules to the left, when it is asked for. Figures and reports are functions that take a result.
It is kept in one file by `Results.save` and `load` (`archive`) or handed to other tools as one file
a table by `Results.write_tables` (`files`).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool

from jaxvp.design import Design
from jaxvp.expression import DataError
from jaxvp.fractions import RESIDUALS

from . import archive, slopes
from .files import portable, write_folder
from .lookup import find

__all__ = ["Results", "by_median", "load"]

TABLES = ("fractions", "variances", "coefficients", "standard_errors", "theta", "diagnostics")
SERIES = ("sigma", "log_likelihood")
SCALARS = ("formula", "reml", "weighted", "block_size", "options", "versions")


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
    >>> result.save("result.zip")
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

    def collinearity_score(self, *, intercept: bool = True) -> pd.Series:
        """Largest correlation, in absolute value, of two estimated fixed effects of each gene.

        Near 1 (variancePartition's limit is 0.999) the two estimates can hardly be told apart.

        Parameters
        ----------
        intercept
            Whether the intercept counts as an effect, as in variancePartition: a variable far from
            its zero, such as a year, then scores high. False leaves it out.

        Returns
        -------
        Series
            By gene, from 0 to 1: 0 where there are fewer than two effects, NaN for genes that could
            not be fitted. Without random terms the same for all.

        Raises
        ------
        DataError
            If the result has no design.
        NotImplementedError
            If there are random slopes, or observations were weighted or missing (the design is then
            another one by gene).

        Notes
        -----
        ``colinearityScore`` of variancePartition (see `Results`).
        """
        from jaxvp import collinearity

        design, fitted = self._shared_design("collinearity score")
        scores = np.full(len(fitted), np.nan)
        theta = self.theta.to_numpy(np.float64)[fitted]
        scores[fitted] = collinearity.collinearity_score(design, theta, intercept)
        return pd.Series(scores, index=self.fractions.index, name="collinearity_score")

    def effective_sample_size(self, method: str = "full") -> pd.DataFrame:
        """How many independent samples the samples of each gene are worth.

        Parameters
        ----------
        method
            ``"full"`` takes the groups as they are, ``"approximate"`` as if all were of one size.

        Returns
        -------
        DataFrame
            Genes x random terms: between the number of groups (the term explains everything) and
            the number of samples (it explains nothing). NaN for genes that could not be fitted.

        Raises
        ------
        DesignError
            If the model has no random term.
        ValueError
            If the method is another one.
        DataError, NotImplementedError
            As `collinearity_score`.

        Notes
        -----
        ``ESS`` of variancePartition, after Liu and Liang (1997), Biometrics 53:937: one random term
        at a time, its variance fraction in place of the intraclass correlation.
        """
        from jaxvp import collinearity

        design, _ = self._shared_design("effective sample size")
        names = list(design.random_names)
        fractions = self.fractions.reindex(columns=names).to_numpy(np.float64)
        sizes = collinearity.effective_sample_size(design, fractions, method)
        return pd.DataFrame(sizes, index=self.fractions.index, columns=names)

    def covariance(self, group: Any, *, correlation: bool = False) -> pd.DataFrame:
        """Covariances of a grouping factor's coefficients, or their correlations, for every gene.

        Parameters
        ----------
        group
            The grouping factor: ``"Subject"`` for ``(Days|Subject)``.
        correlation
            True gives correlations in place of covariances.

        Returns
        -------
        DataFrame
            Rows (gene, coefficient), columns coefficients: ``.loc[gene]`` is the matrix of a gene,
            with ``(Intercept)``, ``Days``, ``TissueB`` on both sides. Squared units of the
            measurements, per units of the slopes' variables. Zero between coefficients of terms
            that are not correlated (``||``). A correlation with a coefficient of variance zero is
            NaN; a perfect one is exactly 1 or -1. NaN for genes that could not be fitted.

        Raises
        ------
        DataError
            If there is no such grouping factor, or the result has no design.

        Notes
        -----
        ``VarCorr`` of lme4: ``sigma^2 L L'``, L the relative factor in `theta`.

        Examples
        --------
        >>> result = jaxvp.fit(expression, "~ Days + (Days|Subject)", metadata)
        >>> result.covariance("Subject").loc["TP53"]
        >>> result.covariance("Subject", correlation=True).xs("Days", level=1)["(Intercept)"]
        """
        return slopes.covariance(
            self._any_design("covariance"), self.theta, self.sigma, group, correlation
        )

    def fractions_at(self, metadata: Any) -> pd.DataFrame:
        """The share of each component at given values of what stands left of the bars.

        With a random slope the variance between groups depends on the slope's variable. At a row z
        of multipliers (``(1, Days)`` for ``(Days|Subject)``) it is ``sigma^2 z'Gamma z``; shares
        are that, the variances of the fixed columns and ``sigma^2``, divided by their sum. A fixed
        column that reads a given variable is constant there and has share 0.

        Parameters
        ----------
        metadata
            A DataFrame, one row a set of values, with a column for every variable left of a bar.
            Others are not read.

        Returns
        -------
        DataFrame
            Rows (gene, row of `metadata`), columns: grouping factors by name, fixed columns,
            ``Residuals``. Rows sum to 1; NaN for genes that could not be fitted.

        Raises
        ------
        DesignError
            If a column is not there, has missing values or a level that the design has not.
        DataError
            If it is no DataFrame or has no rows, or the result has no design.

        Notes
        -----
        Covariance functions of random coefficients: Fitzmaurice, Laird and Ware, Applied
        Longitudinal Analysis (2011), ch. 8.

        Examples
        --------
        >>> days = pd.DataFrame({"Days": [0, 5, 9]}, index=["start", "middle", "end"])
        >>> result.fractions_at(days)["Subject"].unstack()
        """
        return slopes.fractions_at(
            self._any_design("shares at given values"),
            self.theta,
            self.sigma,
            self.coefficients,
            metadata,
        )

    def _any_design(self, what: str) -> Design:
        if self.design is None:
            raise DataError(f"the result has no design, and the {what} needs it: fit again")
        if not self.design.codes:
            raise DataError(f"the model has no random term, and the {what} is about those")
        return self.design

    def _shared_design(self, what: str) -> tuple[Design, Bool[np.ndarray, " genes"]]:
        """The design of all genes, and which of them were fitted."""
        if self.design is None:
            raise DataError(f"the result has no design, and the {what} needs it: fit again")
        if self.design.slopes:
            raise NotImplementedError(f"the {what} is not there yet for random slopes")
        fitted = np.isfinite(self.sigma.to_numpy(np.float64))
        counts = self.diagnostics["n_obs"].to_numpy()[fitted]
        if self.weighted or (counts != self.design.n).any():
            raise NotImplementedError(
                f"the {what} is not there yet for weighted or missing observations"
            )
        return self.design, fitted

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything to one file, from which `jaxvp.load` reads the same bits.

        Parameters
        ----------
        path
            The file, such as ``result.zip``: a zip archive of Parquet tables and one JSON file,
            readable without jaxvp. It is replaced when the new one is whole.

        Raises
        ------
        FileNotFoundError
            If its folder does not exist.

        Warns
        -----
        UserWarning
            If gene names are of several types: they become text.
        """
        scalars = {name: getattr(self, name) for name in SCALARS}
        archive.write(Path(path), self._portable_tables(), scalars, self.design)

    def write_tables(self, directory: str | os.PathLike[str], format: str = "parquet") -> None:
        """Write one file a table, for other tools: ``fractions.parquet`` and so on.

        Parameters
        ----------
        directory
            Made where it is not there. Files of these names are replaced, all of them when the
            last new one is written.
        format
            ``"parquet"`` or ``"csv"``. The gene names are the first column of a CSV file.

        Raises
        ------
        DataError
            If the format is another one.

        Warns
        -----
        UserWarning
            If gene names are of several types: they become text.
        """
        write_folder(Path(directory), self._portable_tables(), format)

    def to_anndata(self, adata: Any, key_added: str = "variance_partition") -> Any:
        """Write everything into an AnnData, so that it is in its file from then on.

        Parameters
        ----------
        adata
            The AnnData; its `var_names` are genes of this result. It is changed.
        key_added
            ``adata.varm[key_added]`` gets the fractions, ``adata.uns[key_added]`` all the rest:
            the other tables, formula, options and versions. What is there is replaced.

        Returns
        -------
        AnnData
            The same object. A gene that this result does not have gets NaN and the status
            ``not fitted``.

        Raises
        ------
        DataError
            If it is no AnnData or has none of the genes.
        """
        from .annotated import write_into

        tables = {name: getattr(self, name) for name in TABLES}
        tables |= {name: getattr(self, name).to_frame(name) for name in SERIES}
        write_into(adata, tables, {name: getattr(self, name) for name in SCALARS}, key_added)
        return adata

    def _portable_tables(self) -> dict[str, pd.DataFrame]:
        """Every table by name, none of them a Series."""
        tables = {name: getattr(self, name) for name in TABLES}
        tables |= {name: getattr(self, name).to_frame(name) for name in SERIES}
        genes = portable(self.fractions.index)
        if genes is not self.fractions.index:
            tables = {name: table.set_axis(genes) for name, table in tables.items()}
        return tables


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
