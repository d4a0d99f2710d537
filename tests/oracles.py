"""Oracles: slow, plain computations of what jaxvp must agree with. Nothing here imports jaxvp.

- `dense_fit`, `dense_deviance`, `dense_score`: the profiled deviance by n x n algebra (`slogdet`,
  `solve`) as the textbook writes it, and its derivatives by finite differences.
- `stable_fit`: the same numbers from one QR factorisation of the augmented least-squares problem

      | Z Lambda  X | |u|   |y|
      |    I      0 | |b| = |0|,

  which squares no condition number: the one to trust when the residual's share is 1e-6 or less,
  where the n x n covariance loses half of its digits.
- `Lmer`, `best_mixedlm`: the best of several tight starts, by mixedlm (an exact lme4-like
  fit that shares no code with us) and, from where it stops, by a Newton iteration on
  `stable_fit` to a certified optimum. `Best.violation` is what the conditions of an optimum lack.
- `mixed_fractions`, `ols_fractions`: variancePartition's definitions, the latter with statsmodels.

Designs are built here with patsy and pandas, not with jaxvp's formulas.
"""

import re
import warnings
from typing import NamedTuple

import numpy as np
import pandas as pd
import scipy.linalg


class Fit(NamedTuple):
    """One gene's model at given theta, with beta and sigma profiled out."""

    deviance: float  # -2 log likelihood, or the REML criterion
    sigma: float
    beta: np.ndarray
    standard_errors: np.ndarray

    @property
    def log_likelihood(self):
        return -self.deviance / 2


class Best(NamedTuple):
    """The best optimum that was found. `fractions` are ordered theta, fixed columns, residual."""

    log_likelihood: float
    theta: np.ndarray
    sigma: float
    beta: np.ndarray
    standard_errors: np.ndarray
    fractions: np.ndarray
    violation: float  # of the optimality conditions, in x = log(1 + gamma n / levels)


# ---- designs, without jaxvp ----------------------------------------------------------------------


def split_formula(formula):
    """`"~ Age + (1|a/b)"` -> the fixed part for patsy and the names of the random terms."""
    names = []
    for group in re.findall(r"\(\s*1\s*\|\s*([^)]*?)\s*\)", formula):
        if "/" in group:  # lme4: (1|a/b) is (1|a) + (1|b:a)
            outer, inner = (part.strip() for part in group.split("/"))
            names += [outer, f"{inner}:{outer}"]
        else:
            names.append(":".join(part.strip() for part in group.split(":")))
    fixed = re.sub(r"\(\s*1\s*\|[^)]*\)", "", formula).split("~")[1]
    parts = [part.strip() for part in fixed.split("+") if part.strip()]
    return "~ " + (" + ".join(parts) or "1"), names


def indicator(metadata, name):
    """Dense samples x levels indicator of a grouping factor such as `"a"` or `"b:a"`."""
    columns = [metadata[part].astype(str) for part in name.split(":")]
    codes, _ = pd.factorize(pd.MultiIndex.from_arrays(columns), sort=True)
    return np.eye(codes.max() + 1)[codes]


def design(formula, metadata):
    """X (treatment coding by patsy), the indicators Z_i and their names, in formula order."""
    import patsy

    fixed, names = split_formula(formula)
    X = patsy.dmatrix(fixed, metadata, return_type="dataframe")
    return X.to_numpy(float), [indicator(metadata, name) for name in names], names


# ---- the deviance --------------------------------------------------------------------------------


def _gamma_fit(y, X, Zs, gamma, reml, weights):
    n, p = X.shape
    V = np.diag(1.0 / (np.ones(n) if weights is None else np.asarray(weights, float)))
    for g, Z in zip(gamma, Zs, strict=True):
        V = V + g * (Z @ Z.T)
    solved = np.linalg.solve(V, np.column_stack([X, y]))
    information = X.T @ solved[:, :p]
    beta = np.linalg.solve(information, X.T @ solved[:, p])
    residual = y - X @ beta
    r2 = residual @ np.linalg.solve(V, residual)
    dof = n - p if reml else n
    deviance = np.linalg.slogdet(V)[1] + dof * (1 + np.log(2 * np.pi * r2 / dof))
    if reml:
        deviance += np.linalg.slogdet(information)[1]
    sigma = np.sqrt(r2 / dof)
    errors = sigma * np.sqrt(np.diag(np.linalg.inv(information)))
    return Fit(float(deviance), float(sigma), beta, errors)


def dense_fit(y, X, Zs, theta, reml=False, weights=None):
    """Profiled deviance, sigma, beta and standard errors by n x n covariance algebra."""
    return _gamma_fit(y, X, Zs, np.square(theta), reml, weights)


def dense_deviance(y, X, Zs, theta, reml=False, weights=None):
    """The profiled deviance alone: see `dense_fit`."""
    return dense_fit(y, X, Zs, theta, reml, weights).deviance


def finite_difference(function, x, step):
    """Gradient by a central difference of sixth order; `step` one number or one per coordinate."""
    x = np.asarray(x, float)
    step = np.broadcast_to(step, x.shape)
    gradient = []
    for i, h in enumerate(step):
        e = h * np.eye(len(x))[i]
        first = function(x + e) - function(x - e)
        second = function(x + 2 * e) - function(x - 2 * e)
        third = function(x + 3 * e) - function(x - 3 * e)
        gradient.append((45 * first - 9 * second + third) / (60 * h))
    return np.array(gradient)


def dense_score(y, X, Zs, theta, reml=False, weights=None, step=1e-3):
    """Derivative of the deviance in gamma = theta^2, by finite differences.

    V stays positive definite a little below zero, so that gamma = 0 is an ordinary point here too.
    """
    gamma = np.square(theta)
    per_level = np.array([len(y) / Z.shape[1] for Z in Zs])
    return finite_difference(
        lambda g: _gamma_fit(y, X, Zs, g, reml, weights).deviance,
        gamma,
        step * (gamma + 1 / per_level),
    )


def dense_curvature(y, X, Zs, theta, reml=False, weights=None, step=3e-3):
    """Second derivatives of the deviance in gamma, by finite differences of `dense_score`."""
    gamma = np.square(theta)
    per_level = np.array([len(y) / Z.shape[1] for Z in Zs])

    def score(g):
        return finite_difference(
            lambda h: _gamma_fit(y, X, Zs, h, reml, weights).deviance, g, step * (g + 1 / per_level)
        )

    hessian = finite_difference(score, gamma, step * (gamma + 1 / per_level))
    return (hessian + hessian.T) / 2


def _augmented(y, X, Zs, theta, weights):
    """Weighted rows first, so that the residual's covariance is the identity."""
    root = np.ones(len(y)) if weights is None else np.sqrt(np.asarray(weights, float))
    Z = root[:, None] * np.hstack(Zs)
    scale = np.repeat(theta, [block.shape[1] for block in Zs])
    q, p = Z.shape[1], X.shape[1]
    top = np.hstack([Z * scale, root[:, None] * X])
    augmented = np.vstack([top, np.hstack([np.eye(q), np.zeros((q, p))])])
    target = np.concatenate([root * y, np.zeros(q)])
    return root, Z, augmented, target


def _qr_fit(y, X, Zs, theta, reml, weights):
    root, Z, augmented, target = _augmented(y, X, Zs, theta, weights)
    (n, p), q = X.shape, Z.shape[1]
    Q, R = scipy.linalg.qr(augmented, mode="economic", check_finite=False)
    projected = Q.T @ target
    remainder = target - Q @ projected
    correction = Q.T @ remainder  # once more: orthogonal to rounding even if little is left
    remainder -= Q @ correction
    r2 = remainder @ remainder
    dof = n - p if reml else n
    log_diagonal = 2 * np.log(np.abs(np.diag(R)))
    deviance = log_diagonal[:q].sum() - 2 * np.log(root).sum()
    deviance += dof * (1 + np.log(2 * np.pi * r2 / dof))
    if reml:
        deviance += log_diagonal[q:].sum()
    beta = scipy.linalg.solve_triangular(R[q:, q:], (projected + correction)[q:])
    inverse = scipy.linalg.solve_triangular(R[q:, q:], np.eye(p))
    sigma = np.sqrt(r2 / dof)
    fit = Fit(float(deviance), float(sigma), beta, sigma * np.linalg.norm(inverse, axis=1))
    return fit, Z, Q[:n], remainder[:n], r2


def stable_fit(y, X, Zs, theta, reml=False, weights=None):
    """What `dense_fit` gives, from the augmented QR factorisation (see the module's text)."""
    return _qr_fit(y, X, Zs, theta, reml, weights)[0]


def stable_derivatives(y, X, Zs, theta, reml=False, weights=None):
    """The fit, and the score and Hessian of its deviance in gamma, from the same factorisation.

    Top rows of Q give P = I - Q Q' (with X's columns) or V^-1 (without), the remainder is P y.
    """
    fit, Z, Q, Py, r2 = _qr_fit(y, X, Zs, theta, reml, weights)
    (n, p), q = X.shape, Z.shape[1]
    dof = n - p if reml else n
    block = np.repeat(np.arange(len(Zs)), [B.shape[1] for B in Zs])
    member = np.eye(len(Zs))[block]
    QZ = Q.T @ Z
    ZPZ = Z.T @ Z - QZ.T @ QZ
    trace_matrix = ZPZ if reml else Z.T @ Z - QZ[:q].T @ QZ[:q]
    ZPy = Z.T @ Py
    quadratic = member.T @ ZPy**2
    score = member.T @ np.diag(trace_matrix) - dof * quadratic / r2
    cross = member * ZPy[:, None]
    hessian = (
        -member.T @ trace_matrix**2 @ member
        + 2 * dof * cross.T @ ZPZ @ cross / r2
        - dof * np.outer(quadratic, quadratic) / r2**2
    )
    fisher = member.T @ trace_matrix**2 @ member
    return fit, score, hessian, fisher


# ---- the best optimum ----------------------------------------------------------------------------


def polish(y, X, Zs, theta, reml=False, weights=None, iterations=200):
    """Newton in x = log(1 + gamma n / levels) >= 0 with an active set, from theta downhill."""
    per_level = np.array([len(y) / Z.shape[1] for Z in Zs])
    x = np.log1p(per_level * np.square(theta))
    best = None
    for _ in range(iterations):
        gamma = np.expm1(x) / per_level
        fit, score, hessian, fisher = stable_derivatives(y, X, Zs, np.sqrt(gamma), reml, weights)
        slope = np.exp(x) / per_level  # d gamma / d x, and its own derivative
        g = slope * score
        free = (x > 0) | (g < 0)
        violation = np.abs(g[free]).max(initial=0.0)
        lower = best is None or fit.deviance < best[1].deviance - 1e-12 * abs(fit.deviance)
        if lower or violation < best[2]:
            best, since = (np.sqrt(gamma), fit, violation), 0
        since += 1
        if violation < 1e-10 * len(y) or since > 5:
            break
        H = slope[:, None] * hessian * slope + np.diag(g)
        H = H[np.ix_(free, free)]
        if np.linalg.eigvalsh(H)[0] <= 0:
            H = (slope[:, None] * fisher * slope)[np.ix_(free, free)]
            H = H + 1e-8 * np.trace(H) * np.eye(len(H))
        step = np.zeros_like(x)
        step[free] = -np.linalg.solve(H, g[free])
        step *= min(1.0, 3.0 / np.abs(step).max())
        for halving in range(60):
            trial = np.maximum(x + step * 0.5**halving, 0.0)
            theta_trial = np.sqrt(np.expm1(trial) / per_level)
            value = stable_fit(y, X, Zs, theta_trial, reml, weights).deviance
            if value <= fit.deviance + 1e-13 * abs(fit.deviance):
                break
        if np.array_equal(trial, x):
            break
        x = trial
    return best


def starts(k):
    """Tight starts in theta: all alike, and each term in turn dominant or nearly absent."""
    points = [np.full(k, value) for value in (1.0, 0.1, 5.0)]
    if k > 1:
        points += [np.where(np.eye(k)[i] > 0, 3.0, 0.05) for i in range(k)]
        points += [np.where(np.eye(k)[i] > 0, 0.02, 1.0) for i in range(k)]
    return points


class Lmer:
    """Best fits of many genes with one formula: mixedlm from every start, then `polish`.

    Parameters
    ----------
    formula : str
        `"~ Age + (1|a) + (1|b)"`, without a response; random intercepts only.
    metadata : DataFrame
        One row a sample.
    reml : bool
    thorough : bool
        mixedlm from all of `starts`, and `polish` alone from three of them. Otherwise one of each.
    """

    def __init__(self, formula, metadata, reml=False, thorough=True):
        self.formula, self.metadata, self.reml, self.thorough = formula, metadata, reml, thorough
        self.X, self.Zs, self.names = design(formula, metadata)
        self._model = None

    def mixedlm(self, y, start=None):
        """mixedlm's own fit of one gene (an `LmerResult`)."""
        import mixedlm

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if self._model is None:
                # One plain column a random term: no names to quote, nesting spelt out.
                data = self.metadata.assign(jaxvp_response=y)
                terms = [f"jaxvp_term{i}" for i in range(len(self.names))]
                for term, Z in zip(terms, self.Zs, strict=True):
                    data[term] = np.argmax(Z, axis=1).astype(str)
                fixed, _ = split_formula(self.formula)
                formula = f"jaxvp_response {fixed} + " + " + ".join(f"(1|{t})" for t in terms)
                self._model = mixedlm.lmer(formula, data, REML=self.reml)
                # mixedlm may have ordered the terms by their number of levels.
                found = [part.grouping_factor for part in self._model.matrices.random_structures]
                self._order = [found.index(term) for term in terms]
            if start is None:
                start = np.ones(len(self.names))
            inverse = np.argsort(self._order)
            return self._model.refit(np.asarray(y, float), start=np.asarray(start, float)[inverse])

    def best(self, y):
        """The best optimum of one gene: `Best`."""
        y = np.asarray(y, float)
        points = starts(len(self.names))
        # Where mixedlm stops, once each; what it left tiny is tried at zero and not at zero.
        candidates = {}
        for start in points if self.thorough else points[:1]:
            theta = np.asarray(self.mixedlm(y, start).theta)[self._order]
            for candidate in (np.where(theta < 1e-4, 0.0, theta), np.maximum(theta, 1e-4)):
                candidates.setdefault(tuple(candidate.round(3)), candidate)
        candidates = [*candidates.values(), *points[: 3 if self.thorough else 1]]
        best = None
        for theta in candidates:
            found = polish(y, self.X, self.Zs, theta, self.reml)
            # Of equals (to rounding) the better certified one.
            if (
                best is None
                or found[1].deviance < best[1].deviance - 1e-9
                or (found[1].deviance < best[1].deviance + 1e-9 and found[2] < best[2])
            ):
                best = found
        theta, fit, violation = best
        fractions = mixed_fractions(theta, fit.sigma, fit.beta, self.X)
        return Best(
            fit.log_likelihood,
            theta,
            fit.sigma,
            fit.beta,
            fit.standard_errors,
            fractions,
            violation,
        )


def best_mixedlm(y, formula, metadata, reml=False):
    """The best log-likelihood over several tight starts, and its fit: see `Lmer`."""
    return Lmer(formula, metadata, reml).best(y)


# ---- variance fractions --------------------------------------------------------------------------


def mixed_fractions(theta, sigma, beta, X):
    """variancePartition's fractions of a mixed model; column 0 of X is the intercept.

    Ordered: random terms as in theta, the other fixed columns, the residual.
    """
    fixed = np.var(X[:, 1:] * beta[1:], axis=0)
    if fixed.sum() > 0:
        fixed = fixed * np.var(X @ beta) / fixed.sum()
    parts = np.concatenate([np.square(sigma * np.asarray(theta)), fixed, [sigma**2]])
    return parts / parts.sum()


def ols_fractions(y, formula, metadata, weights=None):
    """Fixed model by statsmodels: `(fractions Series by term, Residuals last; OLS or WLS result)`.

    Sums of squares about the (weighted) mean of each term's part of the fit, over their sum with
    the residual's.
    """
    import statsmodels.formula.api as smf

    data = metadata.assign(jaxvp_response=y)
    w = np.ones(len(data)) if weights is None else np.asarray(weights, float)
    w = w / w[w > 0].mean()
    model = smf.wls("jaxvp_response " + formula.strip(), data, weights=w)
    result = model.fit(method="qr")
    info = model.data.model_spec if hasattr(model.data, "model_spec") else model.data.design_info
    sums = {}
    for term, columns in info.term_name_slices.items():
        if term == "Intercept":
            continue
        part = model.exog[:, columns] @ np.asarray(result.params)[columns]
        sums[term] = np.sum(w * (part - np.average(part, weights=w)) ** 2)
    sums["Residuals"] = np.sum(w * np.asarray(result.resid) ** 2)
    total = pd.Series(sums)
    return total / total.sum(), result
