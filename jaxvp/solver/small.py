"""Many matrices of few rows at once, NumPy: the first two axes are theirs.

Row by row; a call of LAPACK for each would take a hundred times as long as its operations.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

Matrices = Float[np.ndarray, "p p ..."]


def cholesky(matrices: Matrices) -> Matrices:
    """Lower factors; NaN where a matrix is not positive definite."""
    lower = np.zeros_like(matrices)
    for j in range(len(matrices)):
        left = matrices[j:, j] - np.einsum("ik...,k...->i...", lower[j:, :j], lower[j, :j])
        lower[j:, j] = left / np.sqrt(left[0])
    return lower


def inverse_of_lower(lower: Matrices) -> Matrices:
    """Inverses of triangular matrices."""
    found = np.zeros_like(lower)
    for i in range(len(lower)):
        found[i, i] = 1 / lower[i, i]
        found[i, :i] = -np.einsum("k...,kj...->j...", lower[i, :i], found[:i, :i]) * found[i, i]
    return found


def log_det(lower: Matrices) -> Float[np.ndarray, "..."]:
    """Of what has these Cholesky factors."""
    return 2 * np.log(np.einsum("ii...->i...", lower)).sum(0)
