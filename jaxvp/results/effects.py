"""Random effects of every level, in a table: a method of `Results`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from jaxvp.expression import DataError
from jaxvp.prediction import Tile

from .measured import Fit, names_of, place_of


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
    wanted = [place_of(name, names, "random term") for name in names_of(terms, names)]
    size = sum(len(levels[i]) for i in wanted)
    # Both quantities are one array: what pandas would put together it would copy.
    both = fit.empty(2 * size)

    def use(tile: Tile) -> None:
        if wanted:
            both[:size, tile.rows] = np.concatenate([tile.effects.values[i] for i in wanted])
            both[size:, tile.rows] = np.concatenate([tile.effects.variances[i] for i in wanted])

    fit.stream(use, variances=True)
    genes = self.fractions.index
    pairs = [(names[i], level) for i in wanted for level in levels[i]]
    if format == "wide":
        columns = [(quantity, *pair) for quantity in ("effect", "variance") for pair in pairs]
        index = pd.MultiIndex.from_tuples(
            columns or [("", "", "")], names=["quantity", "term", "level"]
        )
        return pd.DataFrame(both.T, genes, index[: len(columns)])
    quantities = both.reshape(2, size, len(genes)).swapaxes(1, 2).reshape(2, -1)
    table = pd.DataFrame(quantities.T, columns=["effect", "variance"], copy=False)
    row = np.repeat(np.arange(len(genes), dtype=np.min_scalar_type(-len(genes))), size)
    for place, (name, values) in enumerate(
        {
            "gene": pd.Categorical.from_codes(row, genes),
            "term": _repeated([term for term, _ in pairs], len(genes)),
            "level": _repeated([level for _, level in pairs], len(genes)),
        }.items()
    ):
        table.insert(place, name, values)
    return table


def _repeated(values: list[str], times: int) -> pd.Categorical:
    """The values again and again, as categories in the order in which they come."""
    codes, categories = pd.factorize(np.array(values, dtype=object))
    return pd.Categorical.from_codes(np.tile(codes, times), categories)
