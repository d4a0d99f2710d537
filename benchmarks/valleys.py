"""Is the optimum the highest? Every gene beside mixedlm's best of many starts.

    python -m benchmarks.valleys [--genes 2048]

Likelihoods of mixed models may have several local maxima, most where levels are few and unequal.
Prints, for each design, how many genes have a start from which mixedlm ends higher than jaxvp by
more than 1e-6, by how much at most, and how many lie higher in jaxvp than at mixedlm's best end.
"""

from __future__ import annotations

import argparse
import itertools
import warnings
from typing import Any

import numpy as np
import pandas as pd

import jaxvp

# samples, levels, imbalance, seed; `twins`: b is a, but for one sample
DESIGNS: dict[str, tuple[int, dict[str, int], float, int]] = {
    "100 samples (25/3/4)": (100, {"a": 25, "b": 3, "c": 4}, 0.5, 5),
    "40 samples (12/8/5), very unequal": (40, {"a": 12, "b": 8, "c": 5}, 1.0, 15),
    "24 samples (8/5/3), very unequal": (24, {"a": 8, "b": 5, "c": 3}, 1.0, 25),
    "60 samples (15/15), twins": (60, {"a": 15, "b": 8}, 0.3, 7),
    "60 samples (12/8/5/3), very unequal": (60, {"a": 12, "b": 8, "c": 5, "d": 3}, 1.0, 8),
}
HIGHER = 1e-6


def study(name: str, genes: int) -> tuple[pd.DataFrame, pd.DataFrame, str]:
    """Expression, metadata and formula of a design."""
    samples, levels, imbalance, seed = DESIGNS[name]
    made = jaxvp.simulate(
        genes, samples, levels, zero_probability=0.5, imbalance=imbalance, seed=seed
    )
    metadata = made.metadata.copy()
    if "twins" in name:
        codes = metadata["a"].astype(str).to_numpy().copy()
        codes[0] = next(code for code in codes if code != codes[0])
        metadata["b"] = codes
    return made.expression, metadata, made.formula


def best_of_many(
    expression: pd.DataFrame, metadata: pd.DataFrame, formula: str, terms: int, reml: bool
) -> np.ndarray:
    """mixedlm's highest log-likelihood of every gene, over a grid of starts in theta."""
    import mixedlm

    data = metadata.assign(response=expression.iloc[0].to_numpy())
    model: Any = mixedlm.lmer("response " + formula, data, REML=reml)
    values = (0.05, 0.5, 2.0) if terms < 4 else (0.05, 1.5)
    starts = [np.array(start) for start in itertools.product(values, repeat=terms)]
    found = np.full(len(expression), -np.inf)
    for i, y in enumerate(expression.to_numpy()):
        for start in starts:
            found[i] = max(found[i], float(model.refit(y, start=start).logLik()))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--genes", type=int, default=2048)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    print("| design | likelihood | genes | mixedlm higher | by at most | jaxvp higher |")
    print("|---|---|---|---|---|---|")
    for name, (_, levels, _, _) in DESIGNS.items():
        expression, metadata, formula = study(name, options.genes)
        for reml in (False, True):
            ours = jaxvp.fit(expression, formula, metadata, reml=reml).log_likelihood.to_numpy()
            theirs = best_of_many(expression, metadata, formula, len(levels), reml)
            gap = theirs - ours
            cells = [
                *(name, "REML" if reml else "ML", f"{len(gap):,}", str((gap > HIGHER).sum())),
                *(f"{max(gap.max(), 0):.1e}", str((-gap > HIGHER).sum())),
            ]
            print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
