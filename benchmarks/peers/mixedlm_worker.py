"""mixedlm (PyPI): `lmer` once, then `refit` for every gene, which keeps the design.

With random slopes `lmer` for every gene may be faster: both are timed on the first gene, and the
faster way goes on. The optimiser is its own choice (`method="auto"`).
"""

from __future__ import annotations

import re
import time
from typing import Any

import numpy as np

from benchmarks.peers.worker import Fit, serve


def prepare(metadata: Any, first: np.ndarray, formula: str) -> Fit:
    """A model of the first gene; every other is a refit of it."""
    import mixedlm

    def anew(y: np.ndarray) -> float:
        return mixedlm.lmer(f"y {formula}", metadata.assign(y=y), REML=False).logLik()

    def again(y: np.ndarray) -> float:
        return model.refit(y).logLik()

    def seconds(fit: Fit) -> float:
        start = time.perf_counter()
        fit(first)
        return time.perf_counter() - start

    model = mixedlm.lmer(f"y {formula}", metadata.assign(y=first), REML=False)
    if re.fullmatch(r"[^(]*(\(\s*1\s*\|[^)]*\)[^(]*)*", formula):
        return again
    return min((again, anew), key=seconds)


if __name__ == "__main__":
    serve("mixedlm", prepare)
