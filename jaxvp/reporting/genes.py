"""The table of all genes as compact data: a list a column, shares in hundredths of a percent.

Of 20,000 genes with six components that is less than a megabyte. A share that is exactly zero is 0
and one too small for a hundredth of a percent is `TINY`, so that zero means zero here, too. Status
and ``singular`` are one digit a gene, in one text.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from jaxvp.plots import palette
from jaxvp.results import Results, by_median

from .outcomes import outcomes, singular

HUNDREDTHS = 10_000
TINY = 0.1
# A character a status: there are more characters than statuses.
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def table(result: Results) -> dict[str, Any]:
    """What the page's script reads.

    Returns
    -------
    dict
        ``names``, ``statuses`` (labels), ``status`` (a digit a gene), ``singular`` ("0" or "1" a
        gene; None without random terms), ``observations`` (numbers, or None if all genes have the
        same), ``components`` (each with ``name``, ``colour`` and ``shares``, None where there is no
        fit), by median as in the figures.
    """
    fractions = result.fractions
    colours = palette(map(str, fractions.columns))
    labels = [outcome.status for outcome in outcomes(result)]
    digit = dict(zip(labels, _DIGITS, strict=False))
    observations: pd.Series | None = result.diagnostics.get("n_obs")
    if observations is not None and observations.nunique() < 2:
        observations = None
    return {
        "names": [str(name) for name in fractions.index],
        "statuses": labels,
        "status": "".join(digit[str(status)] for status in result.diagnostics["status"]),
        "singular": "".join("01"[one] for one in singular(result).tolist())
        if result.theta.shape[1]
        else None,
        "observations": None if observations is None else observations.tolist(),
        "components": [
            {
                "name": str(name),
                "colour": colours[str(name)],
                "shares": shares(fractions[name].to_numpy(np.float64)),
            }
            for name in by_median(fractions)
        ],
    }


def shares(values: Float[np.ndarray, " genes"]) -> list[int | float | None]:
    """Hundredths of a percent; `TINY` for less than half of one, None for NaN."""
    rounded = np.nan_to_num(np.rint(values * HUNDREDTHS)).astype(np.int64).tolist()
    return [
        None if value != value else (TINY if value > 0 and not whole else whole)
        for value, whole in zip(values.tolist(), rounded, strict=True)
    ]
