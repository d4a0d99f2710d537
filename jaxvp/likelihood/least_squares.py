r"""No random term: ordinary least squares, where the optimum is known in closed form.

With X = Q R, ``b = R^-1 Q'y``, ``(X'X)^-1 = R^-1 R^-T`` and the residual sum of squares RSS:
``sigma^2 = RSS / (n - p)`` (unbiased, as ``lm`` has it) and the Gaussian log-likelihood at its
maximum, ``sigma^2 = RSS / n``.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from jaxvp.likelihood.estimates import Estimates
from jaxvp.statistics import Block, Shared


def least_squares(shared: Shared, block: Block) -> Estimates:
    """Estimates of a block of genes, in the units of their scaled residuals.

    The mean square of these is one.
    """
    n, p = float(shared.n), shared.p
    genes = block.scale.shape[0]
    r_inverse = np.asarray(shared.r_inverse)
    variances: Float[np.ndarray, " p"] = (r_inverse**2).sum(axis=1)
    sigma = np.sqrt(n / (n - p)) if n > p else np.nan
    return Estimates(
        np.zeros((p, genes)),
        np.repeat(variances[:, None], genes, axis=1),
        np.full(genes, sigma),
        np.full(genes, -0.5 * n * (1 + np.log(2 * np.pi))),
    )
