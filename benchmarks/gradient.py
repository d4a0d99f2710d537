"""`python -m benchmarks.gradient [--quick]`: what the gradient of a fit costs.

A training step is a fit of all features of a linear embedding ``Y @ W`` with the gradient of a loss
of its variance fractions in W, jitted as a whole, float64. Beside it: the same fit without a
gradient, and the gradient by central finite differences, two of these fits for every number in W
(where they are more than 400, a hundred are timed); both gradients are compared. Medians of warm
calls that take turns, all in the same run.

A second table has the backward pass by what it is taken with respect to: measurements alone, and
with fixed columns and weights, of each sample or of each gene's samples.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks import machine

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


def seconds(calls: list[Callable[[], Any]], repeats: int) -> list[float]:
    """Medians of warm calls, which take turns: what else the machine does meets all of them."""
    import jax

    times: list[list[float]] = [[] for _ in calls]
    for _ in range(repeats + 1):
        for call, spent in zip(calls, times, strict=True):
            begin = time.perf_counter()
            jax.block_until_ready(call())
            spent.append(time.perf_counter() - begin)
    return [statistics.median(spent[1:]) for spent in times]


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
        fit, both = seconds([lambda: loss(W), lambda: step(W)], repeats)
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


def by_argument(
    samples: int, levels: dict[str, int], genes: int, repeats: int
) -> Iterator[dict[str, str]]:
    """A fit of a block of genes, alone and with its gradient, in a row for each kind."""
    import equinox as eqx
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
        w = jnp.asarray(rng.uniform(0.5, 2, Y.shape))
        for kind, point in (
            ("Y", (Y,)),
            ("Y, X, weights of samples", (Y, design.X, w[:, 0])),
            ("Y, X, weights of genes", (Y, design.X, w)),
        ):

            @jax.jit
            def loss(point):
                Y, *more = point
                X, weights = more or (design.X, None)
                moved = eqx.tree_at(lambda d: d.X, design, X)
                return functional.fit_genes(Y, moved, weights).fractions[:, 0].mean()

            step = jax.jit(jax.value_and_grad(loss))
            calls = [lambda f=f, x=point: f(x) for f in (loss, step)]
            fit, both = seconds(calls, repeats)
            yield {
                "samples": f"{samples:,}",
                "genes": str(genes),
                "with respect to": kind,
                "fit, ms": f"{1e3 * fit:.2f}",
                "fit + gradient, ms": f"{1e3 * both:.2f}",
                "backward / forward": f"{both / fit - 1:.2f}",
            }


def show(rows: list[dict[str, str]]) -> None:
    """As a table."""
    print("| " + " | ".join(rows[0]) + " |")
    print("|" + " --- |" * len(rows[0]))
    for row in rows:
        print("| " + " | ".join(row.values()) + " |")


def main(arguments: list[str] | None = None) -> None:
    """Measure, and print the table."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.gradient", description=__doc__)
    options.add_argument("--quick", action="store_true", help="one small size: does it run?")
    size = "quick" if options.parse_args(arguments).quick else "full"
    repeats = 3 if size == "quick" else 101
    rows = [measure(*one, repeats=repeats) for one in SIZES[size]]
    about, packages = machine.describe(), ("jaxvp", "jax", "jaxlib", "numpy")
    found = ", ".join(f"{name} {number}" for name, number in machine.versions(packages).items())
    print(f"{about['cpu']}, {about['cores']} cores; {found}\n")
    show(rows)
    if size == "full":
        print()
        blocks = [(one[0], one[1], one[3]) for one in SIZES[size][1:]]
        show([row for block in blocks for row in by_argument(*block, repeats)])


if __name__ == "__main__":
    main()
