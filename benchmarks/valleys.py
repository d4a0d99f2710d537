"""Is the optimum the highest? Every gene beside mixedlm's best of many starts.

    python -m benchmarks.valleys [--genes 2048] [--slopes]

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
# With random slopes: levels of g and h, samples a level, formula, and how far ages are from normal:
# their exponent, 0 for none. Levels are very unequal.
SLOPES: dict[str, tuple[int, int, int, str, float]] = {
    "12 x 4": (12, 0, 4, "~ age + (age|g)", 0.0),
    "12 x 4 beside 5": (12, 5, 4, "~ age + (age|g) + (1|h)", 0.0),
    "12 x 4 beside 5, uncorrelated": (12, 5, 4, "~ age + (age||g) + (1|h)", 0.0),
    "12 x 4, ages skewed": (12, 0, 4, "~ age + (age|g)", 1.5),
    "20 x 3, ages extreme": (20, 0, 3, "~ age + (age|g)", 3.0),
}


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


def with_slopes(name: str, genes: int) -> tuple[pd.DataFrame, pd.DataFrame, str]:
    """The same with random slopes; any variance may be zero, any correlation 1."""
    levels, others, visits, formula, skewed = SLOPES[name]
    rng, n = np.random.default_rng(list(SLOPES).index(name)), levels * visits

    def unequal(count: int, least: int) -> np.ndarray:
        share = rng.gamma(1, 1, count) + 0.05
        rest = rng.choice(count, n - least * count, p=share / share.sum())
        return np.concatenate([np.repeat(np.arange(count), least), rest])

    g, h = unequal(levels, 2), unequal(max(others, 1), 1)
    age = rng.normal(size=n)
    age = np.exp(skewed * age) if skewed else age
    z = (age - age.mean()) / age.std()
    values = np.empty((genes, n))
    for gene in range(genes):
        a, b, c = rng.gamma(0.7, 1, 3) * rng.integers(0, 2, 3)
        turn = rng.choice([-1, -0.8, 0, 0.5, 0.95, 1])
        u, v = rng.normal(size=(2, levels))
        slope = turn * u + np.sqrt(1 - turn**2) * v
        values[gene] = np.sqrt(a) * u[g] + np.sqrt(b) * slope[g] * z + rng.normal(size=n)
        values[gene] += np.sqrt(c) * rng.normal(size=len(h))[h]
    names = [f"s{i}" for i in range(n)]
    metadata = pd.DataFrame({"g": g.astype(str), "h": h.astype(str), "age": z}, index=names)
    return pd.DataFrame(values, columns=names), metadata, formula


def best_of_many(
    expression: pd.DataFrame, metadata: pd.DataFrame, formula: str, starts: list, reml: bool
) -> np.ndarray:
    """mixedlm's highest log-likelihood of every gene, over starts in theta."""
    import mixedlm

    data = metadata.assign(response=expression.iloc[0].to_numpy())
    model: Any = mixedlm.lmer("response " + formula, data, REML=reml)
    found = np.full(len(expression), -np.inf)
    for i, y in enumerate(expression.to_numpy()):
        for start in starts:
            found[i] = max(found[i], float(model.refit(y, start=np.array(start)).logLik()))
    return found


def grid(levels: int) -> list:
    """Starts of theta for so many random intercepts."""
    values = (0.05, 0.5, 2.0) if levels < 4 else (0.05, 1.5)
    return list(itertools.product(values, repeat=levels))


def grid_of_slopes(formula: str) -> list:
    """Starts of theta: of a correlated block's factor, or of two variances; and of (1|h)."""
    values = (0.05, 0.5, 3.0)
    if "||" in formula:
        first = list(itertools.product(values, repeat=2))
    else:
        first = [(a, r, s) for a in values for r in (-1.0, 0.0, 1.0) for s in (0.05, 1.0)]
    return [(*one, 0.5) for one in first] if "(1|h)" in formula else first


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--genes", type=int, default=2048)
    parser.add_argument("--slopes", action="store_true", help="designs with random slopes")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    print("| design | likelihood | genes | mixedlm higher | by at most | jaxvp higher |")
    print("|---|---|---|---|---|---|")
    for name in SLOPES if options.slopes else DESIGNS:
        if options.slopes:
            expression, metadata, formula = with_slopes(name, options.genes)
            starts = grid_of_slopes(formula)
        else:
            expression, metadata, formula = study(name, options.genes)
            starts = grid(len(DESIGNS[name][1]))
        for reml in (False, True):
            ours = jaxvp.fit(expression, formula, metadata, reml=reml).log_likelihood.to_numpy()
            theirs = best_of_many(expression, metadata, formula, starts, reml)
            gap = theirs - ours
            cells = [
                *(name, "REML" if reml else "ML", f"{len(gap):,}", str((gap > HIGHER).sum())),
                *(f"{max(gap.max(), 0):.1e}", str((-gap > HIGHER).sum())),
            ]
            print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
