"""The samples of a simulated study: levels of its grouping factors, and covariates."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int


def groups(
    rng: np.random.Generator, n: int, levels: Mapping[str, int | None], imbalance: float | int
) -> tuple[dict[str, list[str]], dict[str, Int[np.ndarray, " n"]]]:
    """Metadata columns, and every component's codes 0..L-1; outer factors before what they hold."""
    labels: dict[str, list[str]] = {}
    codes: dict[str, Int[np.ndarray, " n"]] = {}
    for term in sorted(levels, key=lambda name: name.count(":")):
        count = levels[term]
        inner, _, outer = term.partition(":")
        parts = [part for part in term.split(":") if part in levels]
        if outer and len(parts) == len(term.split(":")):
            if count is not None:
                raise ValueError(
                    f"{term!r} is the interaction of factors that are given: its number of levels "
                    f"follows from theirs, write None instead of {count}"
                )
            codes[term] = _combine([codes[part] for part in parts])
            continue
        if outer and outer not in codes:
            raise ValueError(f"{term!r} is nested in {outer!r}, which levels does not have")
        if count is None or count < 1:
            raise ValueError(f"levels of {term!r}: {count} is not a number of levels")
        nest = codes[outer] if outer else np.zeros(n, int)
        if count * (nest.max() + 1) > n:
            within = f" in each of {nest.max() + 1}" if outer else ""
            raise ValueError(f"{term!r} has {count} levels{within}, for {n} samples: too many")
        own = np.empty(n, int)
        for group in range(nest.max() + 1):
            members = np.flatnonzero(nest == group)
            own[members] = _assign(rng, len(members), count, imbalance)
        labels[inner] = [f"{inner}_{code + 1:0{len(str(count))}d}" for code in own]
        codes[term] = _combine([nest, own])
    return labels, codes


def _assign(
    rng: np.random.Generator, n: int, count: int, imbalance: float | int
) -> Int[np.ndarray, " n"]:
    if imbalance == 0:
        return rng.permutation(np.arange(n) % count)
    size = np.exp(imbalance * rng.standard_normal(count))
    rest = rng.choice(count, max(n - count, 0), p=size / size.sum())
    return rng.permutation(np.concatenate([np.arange(count), rest])[:n])


def _combine(parts: list[Int[np.ndarray, " n"]]) -> Int[np.ndarray, " n"]:
    """Codes of the combinations that occur."""
    return np.unique(np.column_stack(parts), axis=0, return_inverse=True)[1].reshape(-1)


def draw_covariates(rng: np.random.Generator, n: int, count: int) -> Float[np.ndarray, "n p"]:
    """Mean 0, population variance 1, correlation 0, all exactly: shares add up as they should."""
    raw = rng.standard_normal((n, count))
    orthonormal, _ = np.linalg.qr(np.column_stack([np.ones(n), raw]))
    return orthonormal[:, 1:] * np.sqrt(n)
