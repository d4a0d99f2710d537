"""Which fixed columns can be written as a combination of the ones before them.

Units must not matter: columns are centred where there is an intercept (a date in days since 1970
is then no multiple of 1) and scaled to length 1. X = QR makes p x p of n x p. The columns of R are
taken in the order of the formula; what is left of one beside the independent ones before it is its
distance from their span. The limit, 1e-7, and the order are those of R's `lm` (its dqrdc2).
"""

import numpy as np
from jaxtyping import Float

TOLERANCE = 1e-7


def dependent_columns(
    X: Float[np.ndarray, "n p"], columns: tuple[str, ...], intercept: bool
) -> dict[str, list[str]]:
    """Columns that say nothing new, each with the columns that it is made of.

    An empty list means a column of zeros, ``["Intercept"]`` a constant one.

    Parameters
    ----------
    X, columns
        Fixed columns and their names.
    intercept : bool
        True if the first column is the intercept.
    """
    if intercept:
        X, columns = X[:, 1:], columns[1:]
    size = np.abs(X).max(axis=0, initial=0)
    scaled = X / np.where(size > 0, size, 1)
    if intercept:
        scaled = scaled - scaled.mean(axis=0)
    length = np.linalg.norm(scaled, axis=0)
    # What centring leaves of a constant column is the rounding of its mean.
    varies = length > len(X) * np.finfo(np.float64).eps
    names = [name for name, yes in zip(columns, varies, strict=True) if yes]
    found = {
        name: ["Intercept"] if largest > 0 else []
        for name, yes, largest in zip(columns, varies, size, strict=True)
        if not yes
    }

    R = np.asarray(np.linalg.qr(scaled[:, varies] / length[varies], mode="r"))
    if (np.abs(np.diag(R)) > TOLERANCE).all():
        return found
    basis = np.zeros_like(R)
    independent: list[int] = []
    for j, name in enumerate(names):
        rest = R[:, j]
        for _ in range(2):  # once more: orthogonal to rounding
            rest = rest - basis @ (basis.T @ rest)
        distance = np.linalg.norm(rest)
        if distance > TOLERANCE:
            basis[:, j] = rest / distance
            independent.append(j)
            continue
        weights = np.abs(np.linalg.lstsq(R[:, independent], R[:, j])[0])
        used = np.flatnonzero(weights > 1e-6 * weights.max())
        found[name] = [names[independent[i]] for i in used]
    return found
