r"""The density of measurements under a fitted model: what samples are worth that it has not seen.

At given b, sigma and theta the measurements of a gene are normal, ``y ~ N(X b, sigma^2 V)``.
Samples s beside those of the fit, t, have the density

    log p(y_s | y_t) = log p(y_t, y_s) - log p(y_t),

in which levels that both have carry over what was learnt about them, and new levels are drawn from
the population. Both terms come from one elimination each (`jaxvp.prediction`).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from .effects import Factors, log_determinant, random_effects
from .structure import Structure


def log_density(
    structure: Structure | None,
    residual: Float[np.ndarray, "n genes"],
    factors: Factors,
    sigma: Float[np.ndarray, " genes"],
) -> Float[np.ndarray, " genes"]:
    """``log p(y)`` of a tile of genes.

    Parameters
    ----------
    structure
        The random part in these samples; None if there is none.
    residual
        y - X b.
    factors, sigma
        Estimates of every gene.
    """
    scaled = residual / sigma
    quadratic = np.einsum("ng,ng->g", scaled, scaled)
    log_det = np.zeros(len(sigma))
    if structure is not None:
        quadratic -= random_effects(structure, scaled, factors).explained
        log_det = log_determinant(structure, factors)
    return -0.5 * (len(residual) * np.log(2 * np.pi * sigma**2) + log_det + quadratic)
