"""The frame of a peer in Python: read the spec, prepare, wait for the start, fit gene by gene."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import data, process

Fit = Callable[[np.ndarray], float]
"""measurements of one gene -> maximised log-likelihood (ML)"""


def serve(package: str, prepare: Callable[[Any, np.ndarray, str], Fit]) -> None:
    """Run a peer: `prepare(metadata, first gene, formula)` returns what fits one gene."""
    import pandas as pd

    spec, started = json.loads(sys.stdin.readline()), time.perf_counter()
    folder = Path(spec["folder"])
    genes = data.read_genes(folder, spec["genes"])
    metadata = pd.read_parquet(folder / "metadata.parquet").reset_index(drop=True)
    formula = json.loads((folder / "study.json").read_text())["formula"]
    fit = prepare(metadata, genes[0], formula)
    start = time.perf_counter() - started
    process.wait_for_go()
    began = time.perf_counter()
    found = [_tried(fit, y) for y in genes]
    seconds = time.perf_counter() - began
    result = {"version": version(package), "start": start, "seconds": seconds}
    print(json.dumps(result | {"log_likelihood": found}), flush=True)


def _tried(fit: Fit, y: np.ndarray) -> float | None:
    try:
        value = float(fit(y))
    except (ValueError, RuntimeError, ArithmeticError, np.linalg.LinAlgError):
        return None
    return value if np.isfinite(value) else None
