"""A mixed model by n x n matrices, in NumPy alone, for many points and genes at once.

Random terms are *blocks* of components that vary together (one of ``(1|g)``, two of ``(x|g)``),
each an n x levels array. With L a block's lower-triangular relative factor,

    V = diag(w)^-1 + sum_blocks sum_cd (L L')_cd Z_c Z_d',

and the profiled deviance is log|V| + m (1 + log(2 pi r2 / m)), by REML with log|X'V^-1 X| and
m = n - p in place of n. Measurements are shifted (where X has an intercept) and scaled first, which
is undone: 1e200 and 1e-200 are data.
"""

from typing import NamedTuple

import numpy as np


class Model(NamedTuple):
    """Of one gene's observations; without blocks it is least squares."""

    X: np.ndarray
    blocks: tuple[tuple[np.ndarray, ...], ...]
    reml: bool = False
    weights: np.ndarray | None = None

    @property
    def diagonal(self):
        """Which entries of theta are standard deviations; the others are covariances' share."""
        sizes = [len(block) for block in self.blocks]
        return np.concatenate(
            [np.arange(s - i) == 0 for s in sizes for i in range(s)] or [np.zeros(0, bool)]
        )

    def observed(self, there):
        """The same for some of the observations."""
        blocks = tuple(tuple(Z[there] for Z in block) for block in self.blocks)
        weights = None if self.weights is None else self.weights[there]
        return Model(self.X[there], blocks, self.reml, weights)


class Fits(NamedTuple):
    """At every point (first axis)."""

    deviance: np.ndarray
    sigma: np.ndarray
    beta: np.ndarray


def factor(theta, size):
    """Lower triangles of their entries, column by column, as lme4 has them."""
    L = np.zeros((len(theta), size, size))
    column, row = np.triu_indices(size)
    L[:, row, column] = theta
    return L


def covariance(model, theta):
    """V at each point, points x n x n."""
    n = len(model.X)
    V = np.broadcast_to(
        np.diag(np.ones(n) if model.weights is None else 1 / model.weights), (len(theta), n, n)
    ).copy()
    start = 0
    for block in model.blocks:
        c = len(block)
        stop = start + c * (c + 1) // 2
        L = factor(theta[:, start:stop], c)
        G = L @ L.swapaxes(1, 2)
        for i in range(c):
            for j in range(c):
                V += G[:, i, j, None, None] * (block[i] @ block[j].T)
        start = stop
    return V


def fits(model, y, theta):
    """Deviance, sigma and beta of one gene at points, `theta` points x entries."""
    n, p = model.X.shape
    constant = p > 0 and np.ptp(model.X[:, 0]) == 0
    shift = y.mean() if constant else 0.0
    centred = y - shift
    scale = np.abs(centred).max()
    V = covariance(model, theta)
    right = np.broadcast_to(np.column_stack([model.X, centred / scale]), (len(V), n, p + 1))
    solved = np.linalg.solve(V, right)
    information = model.X.T @ solved[:, :, :p]
    beta = np.linalg.solve(information, model.X.T @ solved[:, :, p:])[..., 0]
    residual = right[:, :, p] - beta @ model.X.T
    r2 = (residual * (solved[:, :, p] - np.einsum("tnp,tp->tn", solved[:, :, :p], beta))).sum(1)
    m = n - p if model.reml else n
    with np.errstate(divide="ignore"):
        deviance = np.linalg.slogdet(V)[1] + m * (1 + np.log(2 * np.pi * r2 / m))
    if model.reml:
        deviance = deviance + np.linalg.slogdet(information)[1]
    beta = beta * scale
    if constant:
        beta[:, 0] += shift / model.X[0, 0]
    return Fits(deviance + 2 * m * np.log(scale), np.sqrt(r2 / m) * scale, beta)


AXIS = np.array([0, 0.15, 0.5, 1.2, 3, 10])


def best(model, y, theta, rounds=5):
    """The lowest deviance that a search finds: a grid of starts, then nearer and nearer points."""
    diagonal = model.diagonal
    axes = [AXIS if standard_deviation else AXIS - 1 for standard_deviation in diagonal]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(diagonal))
    found = fits(model, y, grid).deviance
    starts = [theta, *grid[np.argsort(found)[:2]]]
    lowest = min(float(found.min()), float(fits(model, y, theta[None]).deviance[0]))
    steps = np.stack(np.meshgrid(*[[-1.0, 0, 1]] * len(diagonal), indexing="ij"), -1)
    steps = steps.reshape(-1, len(diagonal))
    for here in starts:
        width = 0.4 * np.abs(here) + 0.05
        for _ in range(rounds):
            near = here + steps * width
            near = np.where(diagonal, np.abs(near), near)
            values = fits(model, y, near).deviance
            here = near[np.argmin(values)]
            lowest = min(lowest, float(values.min()))
            width = width / 3
    return lowest


def weighted_variance(x, weights):
    """Population variance, weighted where there are weights."""
    w = np.ones(len(x)) if weights is None else weights
    return np.average((x - np.average(x, weights=w)) ** 2, weights=w)


def shares(model, theta, sigma, beta, terms):
    """Fractions: components of the random terms, fixed part, residual.

    `terms` are the columns of X of each fixed component: single ones of a mixed model.
    """
    random, start = [], 0
    for block in model.blocks:
        c = len(block)
        stop = start + c * (c + 1) // 2
        L = factor(theta[None, start:stop], c)[0]
        random += list((L @ L.T).diagonal())
        start = stop
    parts = model.X * (beta / sigma)
    fixed = np.array([weighted_variance(parts[:, t].sum(1), model.weights) for t in terms])
    if not model.blocks:  # sums of squares, weighted like the residual's
        fixed = fixed * (1.0 if model.weights is None else model.weights.mean())
    elif fixed.sum() > 0:
        fixed = fixed * weighted_variance(parts.sum(1), model.weights) / fixed.sum()
    found = np.array([*random, *fixed, 1.0])
    return found / found.sum()
