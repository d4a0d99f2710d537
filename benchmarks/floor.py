"""The floor: what one gene costs at least, counted from the algorithm and the machine's rates.

The algorithm eliminates the largest factor and factors what is left (README of `benchmarks/`). With
n samples, T random terms, p fixed columns, q levels of the largest factor, K = levels of all others
+ p, and c classes (distinct numbers of samples in a level of the largest), one gene costs

    operations   2 n (T + p)            its cross-products with every term and fixed column
                 + E * 2 (c K^2 + K^3)  E evaluations: sum the classes, factor and invert K x K;
                                        of more than 64 columns E * 2 (2 c K^2 + K^3 / 3), the
                                        determinants are shared, and nothing is inverted; where
                                        that is less E * 2 (4 * 2 q K), four iterations of
                                        conjugate gradients beside systems that are shared, too
    bytes        8 n                    read its measurements once
                 + 8 r                  write its r numbers of the result

and not less time than the larger of operations / (operations per second of a large matrix product)
and bytes / (bytes per second of a large copy), with all cores: they can overlap at best. A multiply
and an add are two operations. Work that all genes share (the products of the design) is not
counted.

With random slopes T counts coefficients, K leaves out those of the factor with most of them, and c
is classes of that factor's levels times pairs of its coefficients.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Shape:
    """The sizes of a model that decide what it costs."""

    n: int
    terms: int
    p: int
    K: int
    classes: int
    largest: int

    @property
    def results(self) -> int:
        """Numbers in a gene's results.

        Fractions and variances of every component, coefficients and standard errors, theta, sigma,
        log-likelihood, five diagnostics.
        """
        components = self.terms + self.p - 1 + 1  # covariates without the intercept, residuals
        return 2 * components + 2 * self.p + self.terms + 2 + 5

    def operations(self, evaluations: float) -> float:
        """Floating-point operations for one gene."""
        products = 2 * self.n * (self.terms + self.p)
        if self.K > 64:
            factored = 2 * self.classes * self.K**2 + self.K**3 / 3
            once = min(factored, 4 * 2 * self.largest * self.K)
        else:
            once = self.classes * self.K**2 + self.K**3
        return products + evaluations * 2 * once

    @property
    def bytes(self) -> int:
        """Bytes read and written for one gene."""
        return 8 * self.n + 8 * self.results

    def seconds(self, evaluations: float, flops: float, bytes_per_second: float) -> float:
        """The floor of one gene."""
        return max(self.operations(evaluations) / flops, self.bytes / bytes_per_second)

    def asdict(self) -> dict[str, Any]:
        return asdict(self)


def shape(formula: str, metadata: pd.DataFrame) -> Shape:
    """The sizes of a formula applied to metadata."""
    import numpy as np

    from jaxvp.design import build
    from jaxvp.formula import Formula

    design = build(Formula.parse(formula), metadata)
    if design.slopes:
        return _with_slopes(design)
    sizes = [np.bincount(codes) for codes in design.codes]
    # Of factors with as many levels, the first is eliminated; without one there is only X.
    largest = max(sizes, key=len) if sizes else np.array([], int)
    levels = sum(map(len, sizes)) - len(largest)
    return Shape(
        n=design.n,
        terms=len(sizes),
        p=design.p,
        K=levels + design.p,
        classes=len(np.unique(largest)),
        largest=len(largest),
    )


def _with_slopes(design: Any) -> Shape:
    """Sums by pair of coefficients and class; terms are coefficients."""
    from jaxvp.statistics import compress_slopes

    shared = compress_slopes(design).shared
    classes, c = shared.roots.shape[:2]
    return Shape(
        n=design.n,
        terms=len(design.codes),
        p=design.p,
        K=shared.n_columns,
        classes=classes * c * (c + 1) // 2,
        largest=max(int(codes.max()) + 1 for codes in design.codes),
    )
