"""Predicted random effects of a tile of genes, and their conditional variances.

The derivation is that of `jaxvp.prediction`; batches of small systems, one a gene, go to LAPACK
through NumPy. A tile's arrays have the genes last where sparse sums make them, first where LAPACK
takes them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from .structure import Intercepts, Structure, Term

Factors = list[Float[np.ndarray, "genes _ _"]]  # each term has its own width


class Effects(NamedTuple):
    """Random terms in formula order, the columns of a term level by level.

    A term is a correlated block of components; `by_component` takes it apart.
    """

    values: list[Float[np.ndarray, "columns genes"]]
    variances: list[Float[np.ndarray, "columns genes"]]
    """conditional ones, in units of sigma^2; empty where they were not asked for"""
    explained: Float[np.ndarray, " genes"]
    """what they take from the weighted sum of squares: ``r'Wr - r'V^-1 r``"""

    def by_component(self, blocks: tuple[tuple[int, ...], ...]) -> Effects:
        """Of every component its levels; ``blocks`` are those of the terms."""
        values, variances = (
            {i: term[j :: len(block)] for term, block in pairs for j, i in enumerate(block)}
            for pairs in (
                list(zip(self.values, blocks, strict=True)),
                list(zip(self.variances, blocks, strict=bool(self.variances))),
            )
        )
        return self._replace(
            values=[values[i] for i in sorted(values)],
            variances=[variances[i] for i in sorted(variances)],
        )


def random_effects(
    structure: Structure,
    residual: Float[np.ndarray, "n genes"],
    factors: Factors,
    weights: Float[np.ndarray, "n _"] | None = None,
    variances: bool = False,
) -> Effects:
    """BLUPs of a tile of genes.

    Parameters
    ----------
    structure
        The random part.
    residual
        y - X b, in any unit; the effects are in that unit, too. Finite, also where the weight is 0.
    factors
        For each term, in formula order, the relative Cholesky factor of every gene: theta itself,
        1 x 1, for a random intercept.
    weights
        Of the observations of each gene, or of all; 0 for one that is missing. None: all are 1.
    variances
        Whether to compute the conditional variances.
    """
    roots = [factors[i] for i in structure.order]
    sums = structure.sums @ (residual if weights is None else weights * residual)
    if weights is None and structure.intercepts is not None:
        found = _intercepts(structure, structure.intercepts, sums, roots, variances)
    else:
        found = _general(structure, weights, sums, roots, variances)
    explained = np.einsum("zg,zg->g", sums, found[0])
    ends = np.cumsum([term.levels * term.width for term in structure.terms])[:-1]
    back = np.argsort(structure.order)
    values, spread = (
        [] if array is None else [np.split(array, ends)[i] for i in back] for array in found
    )
    return Effects(values, spread, explained)


Found = tuple[Float[np.ndarray, "columns genes"], Float[np.ndarray, "columns genes"] | None]


def _intercepts(
    structure: Structure,
    shared: Intercepts,
    sums: Float[np.ndarray, "columns genes"],
    roots: Factors,
    variances: bool,
) -> Found:
    """All observations count alike and every term is a random intercept."""
    levels, q = structure.terms[0].levels, structure.n_others
    gamma = roots[0][:, 0, 0] ** 2
    genes = len(gamma)
    shrink = gamma / (1 + gamma * shared.level_sizes)  # D, levels x genes
    if not q:
        return shrink * sums, shrink if variances else None
    class_weights = 1 / (1 + gamma[:, None] * shared.sizes)
    reduced = (class_weights @ shared.between).reshape(genes, q, q)
    reduced += shared.within
    right = sums[levels:] - shared.cross.T @ (shrink * sums[:levels])
    others, covariance = _solve(reduced, right.T, structure.terms[1:], roots[1:], variances)
    first = shrink * (sums[:levels] - shared.cross @ others.T)
    values = np.concatenate([first, others.T])
    if covariance is None:
        return values, None
    carried = shared.squares @ np.ascontiguousarray(covariance.reshape(genes, q * q).T)
    diagonal = np.diagonal(covariance, axis1=1, axis2=2).T
    return values, np.concatenate([shrink + shrink**2 * carried, diagonal])


def _general(
    structure: Structure,
    weights: Float[np.ndarray, "n _"] | None,
    sums: Float[np.ndarray, "columns genes"],
    roots: Factors,
    variances: bool,
) -> Found:
    """Any columns and weights. Products of a design that all genes share have one gene's axis."""
    term, q, genes = structure.terms[0], structure.n_others, len(roots[0])
    levels, c = term.levels, term.width
    size = levels * c
    _, shrink, cross, spread, reduced = _eliminate(structure, weights, roots[0])
    flat = cross.reshape(len(cross), size, q)
    mine = sums[:size].T
    right = sums[size:].T - (mine[:, None] @ spread)[:, 0]
    others, covariance = _solve(reduced, right, structure.terms[1:], roots[1:], variances)
    left = mine - (flat @ others[:, :, None])[:, :, 0]
    first = (shrink @ left.reshape(genes, levels, c, 1)).reshape(genes, size)
    values = np.concatenate([first, others], axis=1).T
    if covariance is None:
        return values, None
    carried = cross @ covariance[:, None] @ cross.swapaxes(2, 3)
    whole = shrink + shrink @ carried @ shrink
    diagonals = [
        np.diagonal(whole, axis1=2, axis2=3).reshape(genes, size),
        np.diagonal(covariance, axis1=1, axis2=2),
    ]
    return values, np.concatenate(diagonals, axis=1).T


def log_determinant(structure: Structure, factors: Factors) -> Float[np.ndarray, " genes"]:
    """``log|V|``, V = I + Z Lambda Lambda'Z', of every gene; all observations count alike."""
    roots = [factors[i] for i in structure.order]
    block, *_, reduced = _eliminate(structure, None, roots[0])
    half = _times(reduced, structure.terms[1:], roots[1:]).swapaxes(1, 2)
    system = _times(half, structure.terms[1:], roots[1:]) + np.eye(reduced.shape[1])
    return np.linalg.slogdet(block)[1].sum(axis=1) + np.linalg.slogdet(system)[1]


Blocks = Float[np.ndarray, "_ levels _ _"]


def _eliminate(
    structure: Structure,
    weights: Float[np.ndarray, "n _"] | None,
    root: Float[np.ndarray, "genes c c"],
) -> tuple[Blocks, Blocks, Blocks, Float[np.ndarray, "genes _ q"], Float[np.ndarray, "genes q q"]]:
    """``T_1'N_j T_1 + I``, D_j, F_j, ``D_j F_j`` and A. F_j has one gene's axis without weights."""
    term, q, genes = structure.terms[0], structure.n_others, len(root)
    levels, c = term.levels, term.width
    if weights is None:
        weights = np.ones((len(term.codes), 1))
    designs = weights.shape[1]
    own = structure.products.own(weights).reshape(designs, levels, c, c)
    cross = structure.products.cross(weights).reshape(designs, levels, c, q)
    others = structure.products.others(weights).reshape(designs, q, q)
    root = root[:, None]
    turned = root.swapaxes(2, 3)
    block = turned @ own @ root + np.eye(c)
    inverse = 1 / block if c == 1 else np.linalg.inv(block)
    shrink = root @ inverse @ turned
    spread = (shrink @ cross).reshape(genes, levels * c, q)
    reduced = others - cross.reshape(designs, levels * c, q).swapaxes(1, 2) @ spread
    return block, shrink, cross, spread, reduced


def _solve(
    reduced: Float[np.ndarray, "genes q q"],
    right: Float[np.ndarray, "genes q"],
    terms: tuple[Term, ...],
    roots: Factors,
    variances: bool,
) -> tuple[Float[np.ndarray, "genes q"], Float[np.ndarray, "genes q q"] | None]:
    """``Lambda (Lambda' A Lambda + I)^-1 Lambda' b`` of every gene, with the matrix if wanted."""
    turned = [root.swapaxes(1, 2) for root in roots]
    half = _times(reduced, terms, roots).swapaxes(1, 2)
    system = _times(half, terms, roots) + np.eye(reduced.shape[1])
    right = _times(right[:, None], terms, roots)[:, 0]
    if not variances:
        solved = np.linalg.solve(system, right[:, :, None])[:, :, 0]
        return _times(solved[:, None], terms, turned)[:, 0], None
    half = _times(np.linalg.inv(system), terms, turned)
    solved = (right[:, None] @ half)[:, 0]
    return solved, _times(half.swapaxes(1, 2), terms, turned)


def _times(
    array: Float[np.ndarray, "genes rows q"], terms: tuple[Term, ...], roots: Factors
) -> Float[np.ndarray, "genes rows q"]:
    """Rows times the block-diagonal matrix that holds a term's factor once a level."""
    out = np.empty_like(array)
    start = 0
    for term, root in zip(terms, roots, strict=True):
        columns = slice(start, start := start + term.levels * term.width)
        if term.width == 1:
            np.multiply(array[:, :, columns], root, out=out[:, :, columns])
            continue
        shape = (*array.shape[:2], term.levels, term.width)
        product = array[:, :, columns].reshape(shape) @ root[:, None]
        out[:, :, columns] = product.reshape(*array.shape[:2], -1)
    return out
