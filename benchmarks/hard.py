"""Hard genes: what a real table may hold beside genes that fit well.

`harden` replaces a share of a study's genes, in turn by each of the kinds: likelihoods with far
tails, next to nothing or nothing at all left as residual, one value off by orders of magnitude,
a large mean, and genes that cannot be fitted. One of them must not hold up the others.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

Make = Callable[[np.random.Generator, np.ndarray, list[np.ndarray]], np.ndarray]
"""generator, the gene as it was, every factor's codes -> the gene made hard"""


def _effects(rng: np.random.Generator, codes: np.ndarray) -> np.ndarray:
    return rng.standard_normal(codes.max() + 1)[codes]


def _with_first(value: float) -> Make:
    def make(rng, y, codes):
        y = y.copy()
        y[rng.integers(len(y))] = value
        return y

    return make


KINDS: dict[str, Make] = {
    "Cauchy residual": lambda rng, y, codes: y + rng.standard_cauchy(len(y)),
    "one value off by 1e6 standard deviations": lambda rng, y, codes: _with_first(1e6 * y.std())(
        rng, y, codes
    ),
    "mean of 1e8": lambda rng, y, codes: y + 1e8,
    "residual share of 1e-10": lambda rng, y, codes: (
        _effects(rng, codes[0]) + 1e-5 * rng.standard_normal(len(y))
    ),
    "explained exactly": lambda rng, y, codes: _effects(rng, codes[-1]),
    "explained by all factors, residual share of 1e-6": lambda rng, y, codes: (
        sum(_effects(rng, code) for code in codes) + 1e-3 * rng.standard_normal(len(y))
    ),
    "constant": lambda rng, y, codes: np.full(len(y), 5.0),
    "zeros but for a few samples": lambda rng, y, codes: (
        y * (rng.permutation(len(y)) < max(3, len(y) // 50))
    ),
    "a NaN": _with_first(np.nan),
    "an infinity": _with_first(np.inf),
}


def harden(
    expression: pd.DataFrame, metadata: pd.DataFrame, share: float, seed: int = 2
) -> pd.DataFrame:
    """A copy of `expression` (genes x samples) with `share` of its genes, at least one, hard."""
    rng = np.random.default_rng(seed)
    factors = metadata.select_dtypes(exclude="number")
    codes = [pd.factorize(factors[name])[0] for name in factors]
    values = expression.to_numpy(copy=True)
    genes = rng.choice(len(values), max(1, round(share * len(values))), replace=False)
    for i, gene in enumerate(genes):
        make = list(KINDS.values())[i % len(KINDS)]
        values[gene] = make(rng, values[gene], codes)
    return pd.DataFrame(values, index=expression.index, columns=expression.columns, copy=False)
