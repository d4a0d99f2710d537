"""Models whose likelihood the samples leave without a maximum, or a term without information.

*REML* looks at the samples beside the fixed part only. A grouping factor whose level indicators are
combinations of the fixed columns, ``P Z = 0`` for the projection off them, is not seen at all: its
restricted likelihood is the same for every variance. (By ML the variance is then exactly zero.)

*ML* has no maximum where the columns of X and of the random terms together can write any samples at
all, rank [X Z] = n, and the random terms alone cannot, rank Z < n: with the residual variance ``s``
and all random variances in fixed proportion, the log-likelihood grows like ``-(n - rank Z) log s /
2`` without end. Many observations a level, the usual case, are recognised by counting columns.
"""

import numpy as np
from jaxtyping import Float, Int

from jaxvp.formula import RandomTerm

from .variables import DesignError

# Relative squared length beside the fixed part below which an indicator is in its span.
_SEEN = 1e-12
# Dense rank of an n x n matrix: a second or two.
_MOST_SAMPLES = 2000


def check_information(
    X: Float[np.ndarray, "n p"],
    codes: tuple[Int[np.ndarray, " n"], ...],
    terms: tuple[RandomTerm, ...],
    reml: bool,
    multipliers: tuple[Float[np.ndarray, " n"] | None, ...],
) -> None:
    """Refuse what has no optimum, whatever is measured.

    Parameters
    ----------
    X
        Fixed columns, of full rank.
    codes, terms
        Random components: a level number for every sample, and where they come from.
    reml
        Which likelihood. Terms with slopes are not asked by REML.
    multipliers
        Of the components, None for intercepts.

    Raises
    ------
    DesignError
        Naming the term, or the counts, and the remedy.
    """
    if not codes:
        return
    if reml:
        for code, term in zip(codes, terms, strict=True):
            if not term.slopes and _inside(X, code):
                raise DesignError(
                    f"by REML the samples say nothing about {term.text}: every level of "
                    f"`{term.name}` is a combination of the fixed part. Leave {term.text} out, or "
                    "make the fixed effect that determines it random"
                )
        return
    n, p = X.shape
    if n <= _MOST_SAMPLES and explain_anything(X, codes, multipliers):
        levels = sum(int(code.max()) + 1 for code in codes)
        raise DesignError(
            f"{p} fixed columns and {levels} levels of random terms explain any {n} samples "
            "exactly: the likelihood has no maximum. Leave a term out, or use reml=True"
        )


def explain_anything(
    X: Float[np.ndarray, "n p"],
    codes: tuple[Int[np.ndarray, " n"], ...],
    multipliers: tuple[Float[np.ndarray, " n"] | None, ...],
) -> bool:
    """Can X and the random terms write any samples, and the random terms alone cannot?"""
    n, p = X.shape
    levels = [np.unique(code, return_inverse=True)[1].reshape(n) for code in codes]
    counts = [int(code.max(initial=-1)) + 1 for code in levels]
    if p + sum(counts) < n:
        return False
    Z = np.concatenate(
        [
            (code[:, None] == np.arange(count)) * (1.0 if column is None else column[:, None])
            for code, count, column in zip(levels, counts, multipliers, strict=True)
        ],
        axis=1,
    )
    length = np.linalg.norm(X, axis=0)
    both = np.concatenate([X / np.where(length > 0, length, 1), Z], axis=1)
    return bool(np.linalg.matrix_rank(both) == n > np.linalg.matrix_rank(Z))


def _inside(X: Float[np.ndarray, "n p"], code: Int[np.ndarray, " n"]) -> bool:
    """Is the indicator of every level a combination of the columns of X?"""
    if not X.shape[1]:
        return False
    length = np.linalg.norm(X, axis=0)
    q = np.linalg.qr(X / np.where(length > 0, length, 1))[0]
    count = np.bincount(code)
    sums = np.stack([np.bincount(code, column) for column in q.T], axis=1)
    return bool((count - (sums**2).sum(axis=1) <= _SEEN * count).all())
