"""What needs the measurements once more: methods of `Results` that delegate to `jaxvp.prediction`.

The measurements, and weights if there were any, are read in blocks of genes from what the fit read;
after `load` they are passed. Names go in and tables come out here, everything between is arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from jaxtyping import Float, Int

from jaxvp import fractions, prediction
from jaxvp.design import Design, multipliers_at
from jaxvp.design.others import code_others
from jaxvp.expression import Again, DataError, find_again, find_weights
from jaxvp.prediction import Choice, Estimates, Term, Tile, Weights

from .lookup import find

INTERCEPT = "Intercept"


def random_effects(
    self,
    expression: Any = None,
    *,
    weights: Any = None,
    terms: Iterable[str] | None = None,
    format: str = "long",
) -> pd.DataFrame:
    """Predicted random effects (BLUPs) of every level, with their conditional variances.

    Parameters
    ----------
    expression
        The measurements that were fitted. Needed after `jaxvp.load` only.
    weights
        Those of the fit, in any form that `jaxvp.fit` takes. Needed after `jaxvp.load` only.
    terms
        Random terms; None for all.
    format
        ``"long"``: one row for each gene, term and level. ``"wide"``: one row a gene.

    Returns
    -------
    DataFrame
        Long: columns ``gene``, ``term``, ``level`` (categories), ``effect`` in units of the
        measurements, ``variance`` in squared ones. Wide: genes x (quantity, term, level), so that
        ``table["effect"]["Batch"]`` is genes x levels. NaN for genes that could not be fitted; 0
        where the component is zero. A slope is a term: ``Subject`` and ``Subject.Days`` of
        ``(Days|Subject)``, the latter per unit of Days.

    Raises
    ------
    DataError
        If there is no such term, or the measurements (or the weights) are not there or not those of
        the fit.

    Notes
    -----
    The variance is the conditional one given the measurements and the estimates, as in lme4's
    ``ranef(condVar = TRUE)``; see `jaxvp.prediction`.
    """
    if format not in ("long", "wide"):
        raise DataError(f'format={format!r}: use "long" (the default) or "wide"')
    fit = Fit(self, expression, weights, "random effects")
    names, levels = fit.design.random_names, fit.design.levels
    wanted = [_place(name, names, "random term") for name in _names(terms, names)]
    effects, variances = (fit.empty(sum(len(levels[i]) for i in wanted)) for _ in range(2))

    def use(tile: Tile) -> None:
        if wanted:
            effects[:, tile.rows] = np.concatenate([tile.effects.values[i] for i in wanted])
            variances[:, tile.rows] = np.concatenate([tile.effects.variances[i] for i in wanted])

    fit.stream(use, variances=True)
    genes = self.fractions.index
    pairs = [(names[i], level) for i in wanted for level in levels[i]]
    if format == "wide":
        columns = pd.MultiIndex.from_tuples(pairs or [("", "")], names=["term", "level"])
        columns = columns[: len(pairs)]
        both = {"effect": effects, "variance": variances}
        tables = {name: pd.DataFrame(a.T, genes, columns) for name, a in both.items()}
        return pd.concat(tables, axis="columns", names=["quantity"])
    row = np.repeat(np.arange(len(genes)), len(pairs))
    return pd.DataFrame(
        {
            "gene": pd.Categorical.from_codes(row, genes),
            "term": _repeated([term for term, _ in pairs], len(genes)),
            "level": _repeated([level for _, level in pairs], len(genes)),
            "effect": effects.T.ravel(),
            "variance": variances.T.ravel(),
        }
    )


def fitted(
    self,
    expression: Any = None,
    *,
    weights: Any = None,
    terms: Iterable[str] | None = None,
) -> pd.DataFrame:
    """Fitted values: the fixed part and the predicted random effects of every sample.

    Parameters
    ----------
    expression
        The measurements that were fitted. Needed after `jaxvp.load` only.
    weights
        As of `random_effects`.
    terms
        Only what these terms add, fixed or random, ``Intercept`` one of them. None for all.

    Returns
    -------
    DataFrame
        Genes x samples of the fit, in units of the measurements; of a gene that lacks measurements
        all samples. NaN for genes without a fit.

    Raises
    ------
    DataError
        As `random_effects`.

    See Also
    --------
    predict : the same for other samples.
    """
    fit = Fit(self, expression, weights, "fitted values")
    choice = fit.choice(terms)
    columns = prediction.chosen_columns(fit.terms, choice)
    out = fit.empty(fit.design.n)

    def use(tile: Tile) -> None:
        out[:, tile.rows] = _part(fit.design.X, columns, tile, choice)

    fit.stream(use)
    return fit.table(out)


def residuals(
    self,
    expression: Any = None,
    *,
    weights: Any = None,
    kind: str = "response",
    scaled: bool = False,
) -> pd.DataFrame:
    """What the model does not explain: measurements minus fitted values.

    Parameters
    ----------
    expression
        The measurements that were fitted. Needed after `jaxvp.load` only.
    weights
        As of `random_effects`.
    kind
        ``"response"``: in units of the measurements. ``"pearson"``: times the root of the
        observation's weight, so that all have one variance; the same where there are no weights.
    scaled
        Divide by the gene's sigma.

    Returns
    -------
    DataFrame
        Genes x samples of the fit. NaN for genes without a fit, and where nothing was measured.

    Raises
    ------
    DataError
        If there is no such kind; and as `random_effects`.

    Notes
    -----
    Kinds and scaling are those of lme4's ``residuals``.
    """
    if kind not in ("response", "pearson"):
        raise DataError(f'kind={kind!r}: use "response" (the default) or "pearson"')
    fit = Fit(self, expression, weights, "residuals")
    choice = fit.choice(None)
    columns = prediction.chosen_columns(fit.terms, choice)
    out = fit.empty(fit.design.n)
    unit = fit.estimates.sigma if scaled else np.ones(len(fit.estimates.sigma))

    def use(tile: Tile) -> None:
        rest = tile.residual - prediction.random_part(columns, tile.effects, choice)
        if kind == "pearson" and tile.weights is not None:
            rest *= np.sqrt(tile.weights)
        out[:, tile.rows] = rest / unit[tile.rows]

    fit.stream(use)
    return fit.table(out)


def predict(
    self,
    metadata: Any,
    terms: Iterable[str] | None = None,
    *,
    expression: Any = None,
    weights: Any = None,
    unknown_levels: str = "error",
) -> pd.DataFrame:
    """Expected measurements of other samples, given their metadata.

    Parameters
    ----------
    metadata
        A DataFrame: the samples, one a row, with the variables of the terms. Transforms (`scale`,
        `poly`, `bs`) use what they found in the samples of the fit.
    terms
        Only what these terms add, fixed or random, ``Intercept`` one of them. None for all.
    expression
        The measurements that were fitted, from which the random effects are predicted. Needed after
        `jaxvp.load` only, and for fixed terms never.
    weights
        As of `random_effects`.
    unknown_levels
        What a level means that the fit has not seen, or a missing one, of a grouping factor:
        ``"error"``, or ``"population"``, no effect of that term.

    Returns
    -------
    DataFrame
        Genes x the samples of `metadata`. NaN for genes without a fit, and for samples that lack a
        value of a fixed variable.

    Raises
    ------
    DesignError
        If a variable is not there, or a fixed factor has a level that the fit has not seen.
    DataError
        If a grouping factor has one and `unknown_levels` is ``"error"``; else as `random_effects`.

    Notes
    -----
    ``predict(newdata, allow.new.levels)`` of lme4.
    """
    if not isinstance(metadata, pd.DataFrame):
        raise DataError(
            "metadata must be a pandas DataFrame of the samples to predict, not "
            f"{type(metadata).__name__}"
        )
    if unknown_levels not in ("error", "population"):
        raise DataError(f'unknown_levels={unknown_levels!r}: use "error" or "population"')
    design = _design(self, "prediction")
    choice = _choice(design, terms)
    others = code_others(design, metadata, bool(choice.columns), choice.random)
    m = len(metadata)
    X = np.zeros((m, design.p)) if others.X is None else others.X
    new: dict[int, Term] = {}
    multipliers = np.ones((m, len(design.codes)))
    if any(design.slopes and design.multipliers[i] is not None for i in choice.random):
        multipliers = multipliers_at(design, metadata)
    for i in choice.random:
        codes = others.codes[i]
        assert codes is not None
        levels = len(design.levels[i])
        known = np.where(codes < levels, codes, -1)
        if unknown_levels == "error":
            _check_known(known, metadata, design.random_names[i])
        new[i] = Term(known, multipliers[:, [i]], levels)
    columns = prediction.chosen_columns(new, choice)
    if not choice.random:
        coefficients = self.coefficients.to_numpy(np.float64)
        out = prediction.fixed_part(X, coefficients, choice)
        out[:, ~np.isfinite(self.sigma.to_numpy(np.float64))] = np.nan
        return pd.DataFrame(out.T, self.fractions.index, metadata.index)
    fit = Fit(self, expression, weights, "prediction")
    out = fit.empty(m)

    def use(tile: Tile) -> None:
        out[:, tile.rows] = _part(X, columns, tile, choice)

    fit.stream(use)
    return pd.DataFrame(out.T, self.fractions.index, metadata.index)


def remove(
    self,
    expression: Any = None,
    terms: Iterable[str] = (),
    *,
    weights: Any = None,
    center: bool = False,
) -> pd.DataFrame:
    """Measurements without what some terms add, such as expression corrected for batches.

    Parameters
    ----------
    expression
        The measurements that were fitted. None: those that the fit read.
    terms
        The terms to take away, fixed (``"Age"``, all columns of ``"Tissue"``) or random.
    weights
        As of `random_effects`.
    center
        Take away each part without its mean over the samples of the fit, so that a gene keeps its
        level. Otherwise the level becomes that of a sample where the removed terms add nothing: a
        fixed effect at 0 or at its reference level.

    Returns
    -------
    DataFrame
        As the expression passed lies: genes x samples, or samples x genes; genes x samples without
        one. Only the samples of the fit; NaN for genes without a fit.

    Raises
    ------
    DataError
        As `random_effects`.

    Notes
    -----
    Random effects are shrunken: of a batch with few samples less is removed than its mean. The
    variance that the terms explain is not zero afterwards, but small; do not fit it again as if
    nothing had been removed.
    """
    fit = Fit(self, expression, weights, "corrected expression")
    choice = fit.choice(terms)
    X = fit.design.X
    columns = prediction.chosen_columns(fit.terms, choice)
    out = fit.empty(fit.design.n)
    mean = None if columns is None else sp.csr_array(columns.mean(axis=0)[None])

    def use(tile: Tile) -> None:
        rest = tile.y - _part(X, columns, tile, choice)
        if center:
            rest += _part(X.mean(axis=0)[None], mean, tile, choice)
        out[:, tile.rows] = rest

    fit.stream(use)
    table = fit.table(out)
    return table if expression is None or fit.source.genes_in_rows else table.T


def _part(
    X: Float[np.ndarray, "m p"], columns: sp.csr_array | None, tile: Tile, choice: Choice
) -> Float[np.ndarray, "m g"]:
    fixed = prediction.fixed_part(X, tile.coefficients, choice)
    return fixed + prediction.random_part(columns, tile.effects, choice)


class Fit:
    """A result as arrays, with the measurements that belong to it."""

    def __init__(self, result: Any, expression: Any, weights: Any, what: str) -> None:
        self.result, self.design = result, _design(result, what)
        genes = result.fractions.index
        if expression is not None:
            self.source = find_again(expression, self.design.samples, self.design.kept, genes)
        elif result.measurements is not None:
            self.source = Again(result.measurements, np.arange(len(genes)), True)
        else:
            raise DataError(
                f"the {what} are formed from the measurements, which a loaded result does not "
                "have: pass expression="
            )
        self.weights = _weights(result, weights, self.source, self.design, what)
        self.structure = prediction.prepare(self.design)
        self.estimates = _estimates(result, self.design)

    @property
    def terms(self) -> dict[int, Term]:
        """The random components by their place in the design."""
        return dict(enumerate(prediction.components(self.design)))

    def choice(self, terms: Iterable[str] | None) -> Choice:
        """The terms of these names."""
        return _choice(self.design, terms)

    def empty(self, rows: int) -> Float[np.ndarray, "rows genes"]:
        """NaN for the genes that have no fit."""
        out = np.empty((rows, len(self.estimates.sigma)))
        out[:, ~np.isfinite(self.estimates.sigma)] = np.nan
        return out

    def stream(self, use: Callable[[Tile], None], variances: bool = False) -> None:
        """Every gene that has a fit, from several threads."""
        wrong = prediction.stream(
            self.design.X,
            self.structure,
            self.estimates,
            self.source.expression.block,
            self.source.rows,
            use,
            weights=self.weights,
            block_size=self.result.block_size,
            variances=variances,
        )
        if wrong is not None:
            raise DataError(
                f"the measurements of {self.result.fractions.index[wrong]!r} are not those of the "
                "fit, its residual variance is another one: pass the expression that was fitted, "
                "in the same units, and with the samples of an array in the same order"
            )

    def table(self, out: Float[np.ndarray, "n genes"]) -> pd.DataFrame:
        """Genes x samples."""
        names = self.source.expression.sample_names
        return pd.DataFrame(out.T, self.result.fractions.index, names)


def _estimates(result: Any, design: Design) -> Estimates:
    observed = result.diagnostics["n_obs"].to_numpy().astype(np.int64)
    lost = design.p if result.reml or not design.codes else 0
    return Estimates(
        coefficients=result.coefficients.to_numpy(np.float64),
        factors=fractions.factors(design, result.theta.to_numpy(np.float64)),
        blocks=design.blocks or tuple((i,) for i in range(len(design.codes))),
        sigma=result.sigma.to_numpy(np.float64),
        degrees=(observed - lost).astype(np.float64),
        observed=observed,
    )


def _design(result: Any, what: str) -> Design:
    if result.design is None:
        raise DataError(f"the result has no design, and the {what} need it: fit again")
    return result.design


def _weights(result: Any, weights: Any, source: Again, design: Design, what: str) -> Weights:
    """Those of the fit, passed or remembered, in the order of the source's genes."""
    if not result.weighted:
        if weights is not None:
            raise DataError("the fit had no weights: leave weights= out")
        return Weights(None, None, False)
    genes = result.fractions.index
    if weights is not None:
        weights = find_weights(weights, design.samples, design.kept, genes)
    elif result.weights is not None:
        weights = result.weights
    else:
        raise DataError(
            f"the {what} depend on the weights of the fit, which a loaded result does not have: "
            "pass weights="
        )
    rescale = result.options.get("rescale_weights", True)
    if isinstance(weights, np.ndarray):
        return Weights(None, weights, rescale)
    return Weights(weights.reordered(source.rows).block, None, rescale)


def _choice(design: Design, terms: Iterable[str] | None) -> Choice:
    intercept = [INTERCEPT] if INTERCEPT in design.columns else []
    known = [*intercept, *design.terms, *design.random_names]
    names = dict.fromkeys(known[_place(name, known, "term")] for name in _names(terms, known))
    owners = {-1: INTERCEPT} | dict(enumerate(design.terms))
    return Choice(
        tuple(j for j, t in enumerate(design.term_of_column) if owners[t] in names),
        tuple(i for i, name in enumerate(design.random_names) if name in names),
    )


def _names(terms: Iterable[str] | None, known: Iterable[str]) -> list[str]:
    """The terms asked for; None: all that are known."""
    if isinstance(terms, str):
        raise DataError(f"terms={terms!r}: use a list of names, [{terms!r}]")
    return list(known if terms is None else terms)


def _place(name: str, known: Iterable[str], what: str) -> int:
    return find(name, pd.Index(list(known), dtype=object), what)


def _repeated(values: list[str], times: int) -> pd.Categorical:
    """The values again and again, as categories in the order in which they come."""
    codes, categories = pd.factorize(np.array(values, dtype=object))
    return pd.Categorical.from_codes(np.tile(codes, times), categories)


def _check_known(codes: Int[np.ndarray, " m"], metadata: pd.DataFrame, name: str) -> None:
    unknown = np.flatnonzero(codes < 0)
    if not len(unknown):
        return
    sample = metadata.index[unknown[0]]
    raise DataError(
        f"`{name}` has levels that the fit has not seen, or none, in {len(unknown):,} of "
        f"{len(metadata):,} samples (the first is {sample!r}): "
        'unknown_levels="population" predicts those without an effect of it'
    )
