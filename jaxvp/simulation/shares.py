"""What is asked of the genes of a simulated study: their shares, and how often one is zero."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from jaxtyping import Float

RESIDUALS = "Residuals"


def per_gene(value: object, name: str, n_genes: int) -> Float[np.ndarray, " genes"]:
    array = np.asarray(value, float)
    if array.shape not in ((), (n_genes,)) or not np.isfinite(array).all():
        raise ValueError(f"{name}: one finite number, or one for each of the {n_genes} genes")
    return np.broadcast_to(array, (n_genes,))


def given_shares(
    fractions: Mapping[str, object] | pd.DataFrame | None, components: list[str], n_genes: int
) -> Float[np.ndarray, "genes components"] | None:
    """The shares asked for, completed by the residual's; None where they are to be drawn."""
    if fractions is None:
        return None
    unknown = [name for name in fractions if name not in components]
    if unknown:
        raise ValueError(f"fractions has {unknown[0]!r}; this design has {', '.join(components)}")
    shares = np.zeros((n_genes, len(components)))
    for name in fractions:
        column = per_gene(fractions[name], f"fractions[{name!r}]", n_genes)
        if (column < 0).any():
            raise ValueError(f"fractions[{name!r}] is negative")
        shares[:, components.index(name)] = column
    rest = 1 - shares.sum(axis=1)
    if RESIDUALS not in fractions:
        shares[:, -1] = np.where(np.abs(rest) < 1e-12, 0, rest)  # 0.3 + 0.7 may miss 1
        rest = np.minimum(shares[:, -1], 0)
    if (np.abs(rest) > 1e-9).any():
        raise ValueError(
            f"fractions add up to {1 - rest[np.argmax(np.abs(rest))]:g} in some gene, with "
            f"{RESIDUALS!r} where it is given: what is given must add up to 1, or leave room for it"
        )
    return shares


def zero_probabilities(
    given: float | int | Mapping[str, float], components: list[str], fractions: object
) -> Float[np.ndarray, " components"]:
    if not isinstance(given, Mapping):
        given = dict.fromkeys(components[:-1], given)
    for name, probability in given.items():
        if name not in components[:-1] or not 0 <= probability <= 1:
            raise ValueError(
                f"zero_probability of {name!r} is {probability}: "
                f"give 0 to 1, for components among {', '.join(components[:-1])}"
            )
    if fractions is not None and any(given.values()):
        raise ValueError("zero_probability is for drawn shares: put zeros into fractions instead")
    return np.array([given.get(name, 0.0) for name in components])
