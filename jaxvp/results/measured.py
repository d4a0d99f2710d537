"""A result with the measurements that belong to it, for what the tables alone do not tell.

The measurements, and weights if there were any, are read in blocks of genes from what the fit read;
after `load` they are passed. Names go in and arrays come out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from jaxvp import fractions, prediction
from jaxvp.design import Design
from jaxvp.expression import Again, DataError, find_again, find_weights
from jaxvp.prediction import Choice, Estimates, Term, Tile, Weights

from .lookup import find

INTERCEPT = "Intercept"


class Fit:
    """A result as arrays, with the measurements that belong to it."""

    def __init__(self, result: Any, expression: Any, weights: Any, what: str) -> None:
        self.result, self.design = result, design_of(result, what)
        if not isinstance(expression, Again):
            expression = again(result, expression, what)
        self.source = expression
        self.weights = _weights(result, weights, self.source.rows, what)
        self.structure = prediction.prepare(self.design)
        self.estimates = _estimates(result, self.design)

    @property
    def terms(self) -> dict[int, Term]:
        """The random components by their place in the design."""
        return dict(enumerate(prediction.components(self.design)))

    def choice(self, terms: Iterable[str] | None) -> Choice:
        """The terms of these names."""
        return choice_of(self.design, terms)

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


def again(result: Any, expression: Any, what: str) -> Again:
    """The measurements of a result, passed or remembered."""
    design, genes = design_of(result, what), result.fractions.index
    if expression is not None:
        return find_again(expression, design.samples, design.kept, genes)
    if result.measurements is None:
        raise DataError(
            f"the {what} are formed from the measurements, which a loaded result does not "
            "have: pass expression="
        )
    return Again(result.measurements, np.arange(len(genes)), True)


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


def design_of(result: Any, what: str) -> Design:
    if result.design is None:
        raise DataError(f"the result has no design, and the {what} need it: fit again")
    return result.design


def _weights(result: Any, weights: Any, rows: Int[np.ndarray, " source"], what: str) -> Weights:
    """Those of the fit, passed or remembered, of genes in these rows of it."""
    if not result.weighted:
        if weights is not None:
            raise DataError("the fit had no weights: leave weights= out")
        return Weights(None, None, False)
    design, genes = design_of(result, what), result.fractions.index
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
    return Weights(weights.reordered(rows).block, None, rescale)


def weights_of_gene(
    result: Any, expression: Any, weights: Any, row: int, what: str
) -> Float[np.ndarray, " n"]:
    """As one gene of a weighted fit had them: zero for observations that do not count."""
    fit = Fit(result, again(result, expression, what).of_gene(row), weights, what)
    found: list[Float[np.ndarray, "n one"]] = []

    def use(tile: Tile) -> None:
        assert tile.weights is not None
        found.append(tile.weights)

    fit.stream(use)
    return found[0][:, 0]


def weights_of_samples(result: Any, weights: Any, what: str) -> Float[np.ndarray, " n"]:
    """As genes that have all samples of a weighted fit had them."""
    given = _weights(result, weights, np.zeros(0, dtype=np.int64), what)
    if given.shared is None:
        raise DataError(f"each gene has weights of its own: name the gene of the {what}, gene=")
    counting = given.shared[given.shared > 0]
    return given.shared / counting.mean() if given.rescale else given.shared


def choice_of(design: Design, terms: Iterable[str] | None) -> Choice:
    intercept = [INTERCEPT] if INTERCEPT in design.columns else []
    known = [*intercept, *design.terms, *design.random_names]
    names = dict.fromkeys(known[place_of(name, known, "term")] for name in names_of(terms, known))
    owners = {-1: INTERCEPT} | dict(enumerate(design.terms))
    return Choice(
        tuple(j for j, t in enumerate(design.term_of_column) if owners[t] in names),
        tuple(i for i, name in enumerate(design.random_names) if name in names),
    )


def names_of(terms: Iterable[str] | None, known: Iterable[str]) -> list[str]:
    """The terms asked for; None: all that are known."""
    if isinstance(terms, str):
        raise DataError(f"terms={terms!r}: use a list of names, [{terms!r}]")
    return list(known if terms is None else terms)


def place_of(name: str, known: Iterable[str], what: str) -> int:
    return find(name, pd.Index(list(known), dtype=object), what)
