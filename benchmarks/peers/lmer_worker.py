"""mixedlm's `lmer`, a whole call a gene: its weights passed, rows that it lacks dropped."""

from __future__ import annotations

import json
import sys
import time
import warnings
from importlib.metadata import version
from pathlib import Path

import mixedlm
import numpy as np
import pandas as pd

from benchmarks import data, process


def main() -> None:
    """One process of a race."""
    warnings.simplefilter("ignore")
    spec = json.loads(sys.stdin.readline())
    folder, genes = Path(spec["folder"]), spec["genes"]
    y = data.read_genes(folder, genes)
    path = folder / "weights.npy"
    w = np.load(path, mmap_mode="r")[genes] if path.exists() else None
    metadata = pd.read_parquet(folder / "metadata.parquet").reset_index(drop=True)
    formula = "y " + json.loads((folder / "study.json").read_text())["formula"]

    def fit(i: int) -> float:
        here = ~np.isnan(y[i])
        table = metadata[here].assign(y=y[i, here])
        weights = None if w is None else w[i, here] / w[i, here].mean()
        model = mixedlm.lmer(formula, table, REML=False, weights=weights)
        return float(model.logLik())

    fit(0)
    process.wait_for_go()
    began = time.perf_counter()
    found = [fit(i) for i in range(len(genes))]
    seconds = time.perf_counter() - began
    result = {"seconds": seconds, "log_likelihood": found, "version": version("mixedlm")}
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
