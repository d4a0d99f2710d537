"""What follows a fit, beside the fit: prints seconds and processor seconds of each.

    python -m benchmarks.prediction [--samples 1000] [--genes 20000]

Three crossed random intercepts (300, 5 and 20 levels at 1,000 samples) and one covariate,
simulated. The fit is called twice and the second time counts, without compiling; measurements are
an array in memory, samples x genes.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from time import perf_counter, process_time

import jaxvp
from benchmarks.machine import describe

FORMULA = "~ Age + (1|Individual) + (1|Tissue) + (1|Batch)"


def clock(name: str, work: Callable) -> object:
    """Run it, print how long it took."""
    wall, cpu = perf_counter(), process_time()
    done = work()
    print(
        f"{name:24s} {perf_counter() - wall:8.2f} s {process_time() - cpu:8.2f} s CPU", flush=True
    )
    return done


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--genes", type=int, default=20000)
    options = parser.parse_args()
    levels = {"Individual": options.samples * 3 // 10, "Tissue": 5, "Batch": 20}
    study = jaxvp.simulate(options.genes, options.samples, levels, seed=0)
    Y, metadata = study.expression.T.to_numpy().copy(), study.metadata
    print(describe())
    print(f"{options.genes:,} genes x {options.samples:,} samples, {FORMULA}")
    jaxvp.fit(Y[:, :2048], FORMULA, metadata, progress=False)
    result = clock("fit", lambda: jaxvp.fit(Y, FORMULA, metadata, progress=False))
    for name, work in {
        "random_effects, wide": lambda: result.random_effects(format="wide"),
        "random_effects, long": lambda: result.random_effects(),
        "fitted": lambda: result.fitted(),
        "residuals": lambda: result.residuals(),
        "remove Batch": lambda: result.remove(terms=["Batch"]),
        "predict 1,000 samples": lambda: result.predict(metadata.iloc[:1000]),
    }.items():
        clock(name, work)


if __name__ == "__main__":
    main()
