"""Simpson's paradox, simulated: a slope that changes its sign once the grouping is modelled."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

CENTRES, PER_CENTRE = 5, 16
SLOPE = -0.05
_STEP, _SHIFT = 9.0, 1.1


def simpson() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Simpson's paradox: expression falls with age in every centre, and rises over all of them.

    Simulated, not measured: five centres recruited people of different ages, and centres with older
    people measure higher values. Within each centre both genes lose 0.05 a year. For ``reversed``
    the centres differ by more than that, so that a regression on age alone finds a rise; for
    ``steady`` they do not differ, and both models agree.

    Returns
    -------
    expression : DataFrame, 2 genes x 80 samples, float64
        log2 intensities of ``reversed`` and ``steady``.
    metadata : DataFrame, 80 samples x 2 variables
        ``Age`` (years) and ``Centre`` (``A`` to ``E``, 16 samples each). The index is that of the
        columns of `expression`.

    Notes
    -----
    Always the same numbers (a fixed seed). No licence beyond that of this package. The paradox:
    Simpson (1951), Journal of the Royal Statistical Society B 13:238; Blyth (1972), Journal of the
    American Statistical Association 67:364.

    Examples
    --------
    >>> expression, metadata = jaxvp.datasets.simpson()
    >>> jaxvp.fit(expression, "~ Age", metadata).coefficients["Age"]
    >>> jaxvp.fit(expression, "~ Age + (1|Centre)", metadata).coefficients["Age"]
    """
    import pandas as pd

    random = np.random.default_rng(1951)
    centre = np.repeat(np.arange(CENTRES), PER_CENTRE)
    age = np.round(30 + _STEP * centre + random.uniform(-8, 8, len(centre)), 1)
    noise = random.normal(0, 0.25, (2, len(centre)))
    within = SLOPE * (age - 50)
    # Against the fall of 0.45 from centre to centre.
    between = np.stack([_SHIFT * (centre - 2), np.zeros(len(centre))])
    samples = pd.Index([f"sample_{i + 1}" for i in range(len(centre))], name="sample")
    genes = pd.Index(["reversed", "steady"], name="gene")
    metadata = pd.DataFrame({"Age": age, "Centre": np.array([*"ABCDE"])[centre]}, index=samples)
    values = np.round(8 + within + between + noise, 6)
    return pd.DataFrame(values, index=genes, columns=samples), metadata
