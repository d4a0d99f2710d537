"""Whether a design can be fitted to some of its samples: those whose weight is not zero.

The same questions that `build` asks of all samples. A gene that loses samples by its own gets a
status; where all genes lose them, it is the weights that are wrong.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool

from .fixed import explain
from .information import explain_anything
from .rank import dependent_columns
from .variables import DesignError

if TYPE_CHECKING:
    from . import Design


def check_counting(design: Design, counts: Bool[np.ndarray, " n"], reml: bool) -> None:
    """Refuse weights that leave too little.

    Parameters
    ----------
    design
        Of all samples.
    counts
        Which of them have a weight above zero.
    reml
        Which likelihood.

    Raises
    ------
    DesignError
        Naming what is lost, and the remedy.
    """
    if counts.all():
        return
    n, p = int(counts.sum()), design.p
    left = f"{n} of {design.n} samples have a weight above zero"
    remedy = "give more samples a weight, or leave a term out"
    if n <= p:
        raise DesignError(f"{left}, and the fixed part has {p} columns: {remedy}")
    X = design.X[counts]
    dependent = dependent_columns(X, design.columns, design.formula.intercept)
    if dependent:
        raise DesignError(f"{left}, and on these {explain(dependent)}")
    codes = tuple(np.asarray(codes)[counts] for codes in design.codes)
    for name, code in zip(design.random_names, codes, strict=True):
        levels = len(np.unique(code))
        if levels in (1, n):
            what = "one level" if levels == 1 else "a level for each"
            raise DesignError(f"{left}, and `{name}` has {what} there: {remedy}")
    multipliers = tuple(None if m is None else m[counts] for m in design.multipliers)
    if codes and not reml and explain_anything(X, codes, multipliers or (None,) * len(codes)):
        raise DesignError(
            f"{left}, which the model explains whatever they are: the likelihood has no maximum. "
            f"{remedy[0].upper()}{remedy[1:]}, or use reml=True"
        )
