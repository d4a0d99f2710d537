"""A study with weights or missing values, and jaxvp on it: one process, several whole fits."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def make(study: dict[str, Any], folder: Path) -> None:
    """Draw a study and write it: expression, weights (NaN: none), metadata, formula."""
    import numpy as np

    from benchmarks import data

    expression, metadata, formula = data.drawn(study | {"imbalance": 0.5, "seed": 1})
    rng = np.random.default_rng(2)
    y = expression.to_numpy(float)
    if study["missing"]:
        y = np.where(rng.random(y.shape) < study["missing"], np.nan, y)
    if study["weights"]:
        np.save(folder / "weights.npy", rng.gamma(study["weights"], 1 / study["weights"], y.shape))
    data.write(y, metadata, formula, folder)


def _measure(spec: dict[str, Any]) -> dict[str, Any]:
    """Warm fits of all genes, in this process."""
    from statistics import median

    import numpy as np

    from benchmarks import data
    from benchmarks.ours import convergence, timed

    folder = Path(spec["folder"])
    make(spec["study"], folder)
    expression, metadata, formula = data.read(folder)
    options = {}
    if (folder / "weights.npy").exists():
        options["weights"] = expression.copy()
        options["weights"][:] = np.load(folder / "weights.npy")
    result, first = timed(expression, formula, metadata, **options)
    seconds = [
        timed(expression, formula, metadata, **options)[1] for _ in range(spec["study"]["repeats"])
    ]
    return {
        "us": 1e6 * median(seconds) / len(expression),
        "least_us": 1e6 * min(seconds) / len(expression),
        "first": first,
        "log_likelihood": result.log_likelihood.tolist(),
        **convergence(result),
    }


if __name__ == "__main__":
    from benchmarks.process import main

    main(_measure)
