"""mixedlm (PyPI): `lmer` once, then `refit` for every gene, which keeps the design.

The optimiser is its own choice (`method="auto"`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.peers.worker import Fit, serve


def prepare(metadata: Any, first: np.ndarray, formula: str) -> Fit:
    """A model of the first gene; every other is a refit of it."""
    import mixedlm

    model = mixedlm.lmer(f"y {formula}", metadata.assign(y=first), REML=False)
    return lambda y: model.refit(y).logLik()


if __name__ == "__main__":
    serve("mixedlm", prepare)
