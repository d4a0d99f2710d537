r"""After the fit: what a fitted model says about single levels and samples.

With the estimates b, sigma and theta of a gene known, the random effects are predicted by their
conditional mean given the measurements (BLUPs). Term i has ``c`` columns a level (1 for a random
intercept, all ones), relative covariance ``T_i T_i'`` with ``T_i`` lower triangular (``theta_i``
for an intercept), and ``Lambda`` holds ``T_i`` once a level. With ``r = y - X b``,

    u = Lambda (Lambda' Z'WZ Lambda + I)^-1 Lambda' Z'W r,
    cov(u | y) = sigma^2 Lambda (Lambda' Z'WZ Lambda + I)^-1 Lambda',

Henderson's equations on lme4's scale, in which ``theta = 0`` is no special case. The covariance is
the conditional one given b and theta, as that of lme4's ``ranef(condVar = TRUE)``: the uncertainty
of the estimates themselves is not in it.

*Elimination.* The system has a row for every level of every term, and the term with the most levels
is block-diagonal in it. With ``N_j = Z_1j'WZ_1j``, ``F_j = Z_1j'WZ_2`` and

    D_j = T_1 (T_1' N_j T_1 + I)^-1 T_1'     (gamma_1 / (1 + gamma_1 n_j) for an intercept),

what is left for the other terms is ``A = Z_2'WZ_2 - sum_j F_j'D_j F_j``, and then

    u_2  = Lambda_2 (Lambda_2' A Lambda_2 + I)^-1 Lambda_2' (Z_2'W r - sum_j F_j'D_j Z_1j'W r),
    u_1j = D_j (Z_1j'W r - F_j u_2),         cov u_1j = sigma^2 (D_j + D_j F_j C_2 F_j'D_j),

where ``sigma^2 C_2 = cov u_2``. No gene needs a matrix as large as all levels (`effects`). Where
all genes share one design of random intercepts, A comes from the class sums of `jaxvp.statistics`,
otherwise from each gene's own products.

*The part of a term* in the samples is ``X_t b_t`` or ``Z_i u_i``; the fitted values are their sum
with the intercept (`parts`). Everything is computed in tiles of genes that stay in the cache, read
block by block (`blocks`). Arrays in, arrays out: names and tables are made in `jaxvp.results`.

Sources: Henderson (1975), Biometrics 31:423; Bates, Maechler, Bolker and Walker (2015), J. Stat.
Softw. 67(1).
"""

from .blocks import Estimates, Tile, Weights, stream
from .density import log_density
from .effects import Effects, random_effects
from .parts import Choice, chosen_columns, fixed_part, random_part
from .structure import Structure, Term, arrange, components, prepare

__all__ = [
    "Choice",
    "Effects",
    "Estimates",
    "Structure",
    "Term",
    "Tile",
    "Weights",
    "arrange",
    "chosen_columns",
    "components",
    "fixed_part",
    "log_density",
    "prepare",
    "random_effects",
    "random_part",
    "stream",
]
