"""`python -m benchmarks.gradient [--quick]`: what the gradient of a fit costs.

A training step is a fit of all features of a linear embedding ``Y @ W`` with the gradient of a loss
of its variance fractions in W, jitted as a whole, float64. Beside it: the same fit without a
gradient, and the gradient by central finite differences, two of these fits for every number in W
(where they are more than 400, a hundred are timed); both gradients are compared. Medians of warm
calls, all in the same run.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

SIZES = {
    # samples, levels, genes of the expression, features of the embedding
    "full": [
        (100, {"Individual": 25, "Tissue": 3, "Batch": 4}, 40, 8),
        (100, {"Individual": 25, "Tissue": 3, "Batch": 4}, 100, 64),
        (1000, {"Individual": 300, "Tissue": 5, "Batch": 20}, 100, 64),
    ],
    "quick": [(40, {"Individual": 8, "Batch": 3}, 5, 2)],
}
STEP = 1e-5


def seconds(call: Callable[[], Any], repeats: int) -> float:
    """Median of warm calls."""
    import jax

    times = []
    for _ in range(repeats + 1):
        begin = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - begin)
    return statistics.median(times[1:])


def measure(
    samples: int, levels: dict[str, int], genes: int, features: int, repeats: int
) -> dict[str, str]:
    """One size, in one row."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    import jaxvp
    from jaxvp import functional

    study = jaxvp.simulate(genes, samples, levels, seed=1)
    rng = np.random.default_rng(2)
    with jax.enable_x64(True):
        design = functional.design(study.formula, study.metadata)
        Y = jnp.asarray(study.expression.T.to_numpy())
        Y = (Y - Y.mean(axis=0)) / Y.std(axis=0)
        W = jnp.asarray(rng.normal(size=(genes, features)) / np.sqrt(genes))
        prices = jnp.asarray(rng.normal(size=len(design.components)))

        @jax.jit
        def loss(W):
            return (functional.fit_genes(Y @ W, design).fractions @ prices).mean()

        step = jax.jit(jax.value_and_grad(loss))
        fit = seconds(lambda: loss(W), repeats)
        both = seconds(lambda: step(W), repeats)
        gradient = np.asarray(step(W)[1])
        # All numbers of W, or where they are many the first hundred, and the time of all by theirs.
        chosen = W.size if W.size <= 400 else 100
        begin = time.perf_counter()
        flat = W.ravel()
        found = [
            (
                float(loss(flat.at[i].add(STEP).reshape(W.shape)))
                - float(loss(flat.at[i].add(-STEP).reshape(W.shape)))
            )
            / (2 * STEP)
            for i in range(chosen)
        ]
        differences = (time.perf_counter() - begin) * W.size / chosen
    gap = np.abs(np.array(found) - gradient.ravel()[:chosen]).max() / np.abs(gradient).max()
    return {
        "samples": f"{samples:,}",
        "columns of the system": str(sum(levels.values()) - max(levels.values()) + 2),
        "features": str(features),
        "parameters": f"{W.size:,}",
        "fit, ms": f"{1e3 * fit:.2f}",
        "fit + gradient, ms": f"{1e3 * both:.2f}",
        "backward / forward": f"{both / fit - 1:.2f}",
        "finite differences, ms": f"{1e3 * differences:,.0f}",
        "times": f"{differences / both:,.0f} x",
        "largest gap": f"{gap:.0e}",
    }


def main(arguments: list[str] | None = None) -> None:
    """Measure, and print the table."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.gradient", description=__doc__)
    options.add_argument("--quick", action="store_true", help="one small size: does it run?")
    size = "quick" if options.parse_args(arguments).quick else "full"
    rows = [measure(*one, repeats=3 if size == "quick" else 15) for one in SIZES[size]]
    print("| " + " | ".join(rows[0]) + " |")
    print("|" + " --- |" * len(rows[0]))
    for row in rows:
        print("| " + " | ".join(row.values()) + " |")


if __name__ == "__main__":
    main()
