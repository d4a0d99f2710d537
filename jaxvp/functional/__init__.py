r"""The fit as an ordinary JAX function: to be jitted, mapped, sharded and differentiated.

    design = functional.design("~ Age + (1|Individual) + (1|Batch)", metadata)   # on the host, once
    fit = functional.fit_genes(Y, design)          # Y: samples x genes, any JAX array
    fit.fractions                                  # genes x design.components

`fit_genes` is a pure function of arrays and an equinox module: no table, no callback to the host,
no global setting. What is iterated is `jaxvp.solver.solve`, the loop that `jaxvp.fit` runs.

*Derivatives.* The optimum solves ``g(gamma, s) = 0`` on the components that are above zero, with g
the score and s the statistics of a gene. By the implicit function theorem

    d gamma = -H^-1 (dg/ds) ds    (free components),      d gamma = 0    (components at zero),

H the Hessian in gamma, whatever happened in the iterations: nothing of them is kept. A component at
zero whose score is positive stays there when the data move a little, so that its derivative is zero
(`optimum`). Everything before (statistics) and after (variances, fractions) is differentiated as it
is written. Forward and reverse mode; with respect to measurements, weights and ``design.X``.

Source: Griewank and Walther (2008), Evaluating Derivatives, ch. 15 (implicit functions).
"""

from jaxvp.functional.fit import Fit, fit_gene, fit_genes
from jaxvp.functional.model import Design, design

__all__ = ["Design", "Fit", "design", "fit_gene", "fit_genes"]
