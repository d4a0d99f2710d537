"""statsmodels `MixedLM`: crossed factors are variance components of one group that holds all.

The formula is applied once; every gene takes the design that it made.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from benchmarks.peers.worker import Fit, serve


def prepare(metadata: Any, first: np.ndarray, formula: str) -> Fit:
    """Design matrices by `vc_formula`, then one model a gene."""
    from statsmodels.regression.mixed_linear_model import MixedLM

    factors = re.findall(r"\(1\|(\w+)\)", formula)
    fixed = re.sub(r"\s*\+?\s*\(1\|\w+\)", "", formula)
    design = MixedLM.from_formula(
        f"y {fixed}",
        metadata.assign(y=first, everything=1),
        groups="everything",
        vc_formula={factor: f"0 + C({factor})" for factor in factors},
    )

    def fit(y: np.ndarray) -> float:
        model = MixedLM(y, design.exog, groups=design.groups, exog_vc=design.exog_vc)
        return model.fit(reml=False).llf

    return fit


if __name__ == "__main__":
    serve("statsmodels", prepare)
