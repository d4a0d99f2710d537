"""jaxvp on one study: one process, from its start to a first result, and then again and again.

- *Cold* is the time from the start of the interpreter to the first result, imports and compilation
  included, without any compile cache (but in the check of one), and without the reading of the
  study's file (timed apart: it is the benchmark's own).
- *Warm* are further whole `jaxvp.fit` calls from the same DataFrame, with all cores; no more
  of them begin after `ENOUGH` seconds.
- *Compile* is the first call less the median warm one.
- *Peak memory* is the process's: everything, interpreter, JAX and input too.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxvp import Results

RESULT = "log_likelihood.npy"
ENOUGH = 600.0


def measure(folder: Path, repeats: int) -> dict[str, Any]:
    """Fit the study in `folder`, from a new process; log-likelihoods are left in it as `RESULT`."""
    from benchmarks.process import call

    return call("benchmarks.ours", {"folder": str(folder), "repeats": repeats})


def _measure(spec: dict[str, Any]) -> dict[str, Any]:
    import numpy as np
    import pandas as pd  # noqa: F401  (a user's import: it counts, though `data.read` uses it first)

    from benchmarks import data, floor, machine, process

    folder = Path(spec["folder"])
    reading = time.perf_counter()
    expression, metadata, formula = data.read(folder)
    reading = time.perf_counter() - reading

    if "cache" in spec:
        import jaxvp

        jaxvp.enable_compile_cache(spec["cache"])
    result, first = timed(expression, formula, metadata)
    cold = time.time() - spec["started"] - reading
    warm = [timed(expression, formula, metadata)[1]]
    while len(warm) < spec["repeats"] and sum(warm) < ENOUGH:
        warm.append(timed(expression, formula, metadata)[1])
    peak = process.peak_memory()

    np.save(folder / RESULT, result.log_likelihood.to_numpy())
    bytes_in = int(expression.to_numpy().nbytes)
    return {
        "genes": len(expression),
        "cold": cold,
        "first": first,
        "warm": warm,
        "peak": peak,
        "input": bytes_in,
        "shape": floor.shape(formula, metadata).asdict(),
        "versions": machine.versions(),
        "block_size": result.block_size,
        **convergence(result),
    }


def timed(expression: Any, formula: str, metadata: Any, **options: Any) -> tuple[Results, float]:
    """A whole call and its seconds."""
    import jaxvp

    start = time.perf_counter()
    result = jaxvp.fit(expression, formula, metadata, progress=False, **options)
    return result, time.perf_counter() - start


def convergence(result: Results) -> dict[str, Any]:
    """Evaluations a gene, of the genes that the solver saw, and what became of all."""
    import numpy as np

    status = result.diagnostics["status"]
    solved = status.isin(["converged", "max_iterations"]).to_numpy()
    counts = result.diagnostics["iterations"].to_numpy()[solved] if solved.any() else np.zeros(1)
    return {
        "evaluations": {
            "mean": float(np.mean(counts)),
            "99 %": float(np.quantile(counts, 0.99)),
            "99.9 %": float(np.quantile(counts, 0.999)),
            "max": int(np.max(counts)),
        },
        "converged": float((status == "converged").mean()),
        "status": {name: int(count) for name, count in status.value_counts().items()},
        "singular": float(result.diagnostics["singular"].mean()),
    }


if __name__ == "__main__":
    from benchmarks.process import main

    main(_measure)
