"""What terms add to samples: those of the fit, or others with the same terms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float

from .effects import Effects
from .structure import Term


class Choice(NamedTuple):
    """Some of a model's terms."""

    columns: tuple[int, ...]
    """of X"""
    random: tuple[int, ...]
    """random terms, by their place in the formula"""


def fixed_part(
    X: Float[np.ndarray, "m p"], coefficients: Float[np.ndarray, "genes p"], choice: Choice
) -> Float[np.ndarray, "m genes"]:
    """Sum of ``X_j b_j`` over the chosen columns."""
    columns = list(choice.columns)
    return X[:, columns] @ coefficients[:, columns].T


def chosen_columns(terms: Mapping[int, Term], choice: Choice) -> sp.csr_array | None:
    """Z of the chosen terms, for `random_part`; None if there are none."""
    if not choice.random:
        return None
    return sp.csr_array(sp.hstack([terms[i].matrix() for i in choice.random]))


def random_part(
    columns: sp.csr_array | None, effects: Effects, choice: Choice
) -> Float[np.ndarray, "m genes"] | float:
    """Sum of ``Z_i u_i`` over the chosen terms."""
    if columns is None:
        return 0.0
    return columns @ np.concatenate([effects.values[i] for i in choice.random])
