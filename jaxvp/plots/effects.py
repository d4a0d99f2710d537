r"""The parts that a fitted model sees in one gene: what every term adds to every sample.

With the estimates b, sigma, theta of the gene, fixed terms add ``X_t b_t`` and random terms their
best linear unbiased predictions (BLUPs). For L = [theta_1 Z_1, theta_2 Z_2, ...] and r = y - X b

    (L'L + I) v = L' r,    u_k = theta_k v_k,    part of term k: Z_k u_k,

Henderson's (1975, Biometrics 31:423) equations on lme4's scale, in which theta = 0 is no special
case. They are as many as there are levels, sparse, and solved on the host.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from jaxvp.design import Design


def random_effects(
    residual: Float[np.ndarray, " n"],
    codes: tuple[Int[np.ndarray, " n"], ...],
    theta: Float[np.ndarray, " k"],
) -> list[Float[np.ndarray, " levels"]]:
    """BLUPs of every level of every random term.

    Parameters
    ----------
    residual
        The measurements of one gene without the fixed part, y - X b.
    codes
        The level of every sample, 0, 1, 2, ..., for each of the k random terms.
    theta
        Standard deviations of the terms relative to the residual's.

    Returns
    -------
    list of arrays
        One a term, in the units of the residual. Zero where theta is.
    """
    from scipy import sparse
    from scipy.sparse.linalg import spsolve

    n, sizes = len(residual), [int(code.max()) + 1 for code in codes]
    if not codes:
        return []
    parts = [
        sparse.csr_array((np.full(n, scale), (np.arange(n), code)), shape=(n, size))
        for code, size, scale in zip(codes, sizes, theta, strict=True)
    ]
    L = sparse.hstack(parts, format="csr")
    system = sparse.csc_array(L.T @ L + sparse.eye_array(sum(sizes)))
    v = np.split(np.asarray(spsolve(system, L.T @ residual)), np.cumsum(sizes)[:-1])
    return [scale * effects for scale, effects in zip(theta, v, strict=True)]


def parts(
    y: Float[np.ndarray, " n"],
    design: Design,
    coefficients: Float[np.ndarray, " p"],
    theta: Float[np.ndarray, " k"],
) -> tuple[list[Float[np.ndarray, " n"]], list[Float[np.ndarray, " n"]]]:
    """What the fixed terms, and what the random terms add to every sample.

    Parameters
    ----------
    y
        The measurements of one gene on the samples of the design.
    design, coefficients, theta
        The model and its estimates for the gene.

    Returns
    -------
    fixed, random : lists of arrays
        One array a term, in the order of the design's ``terms`` and ``random_names``. With the
        intercept and the residuals they add up to `y`.
    """
    owner = np.array(design.term_of_column, dtype=int)
    fixed = [
        design.X[:, owner == term] @ coefficients[owner == term]
        for term in range(len(design.terms))
    ]
    effects = random_effects(y - design.X @ coefficients, design.codes, theta)
    random = [effect[code] for effect, code in zip(effects, design.codes, strict=True)]
    return fixed, random
