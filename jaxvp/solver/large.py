r"""Large systems of two or three random terms: what all genes share is computed once.

The determinants are tabulated (`jaxvp.solver.determinant`). A polynomial through a gene's deviance
at the nodes of a table gives a starting point and the Hessian there (`jaxvp.solver.surface`).
What is computed for a gene and a point is ``y'Py`` and its gradient alone
(`jaxvp.likelihood.own_part`): one Cholesky factor, no inverse. The score, which the certificate is
about, is that of the gene's own system and of determinants whose error is known; Newton's method
with that one Hessian converges linearly, by a factor of hundreds a step.

A gene that ends without a certificate, or whose optimum lies outside of the tables, is left to the
way that needs none.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Bool, Int

from jaxvp.likelihood import estimates
from jaxvp.likelihood.own_part import own_part
from jaxvp.likelihood.system import FixedSystem
from jaxvp.solver import newton
from jaxvp.solver.loop import by_tiles, for_each, iterate
from jaxvp.solver.surface import Near, Surface, near_optimum
from jaxvp.statistics import Array, PerGene, Shared

# Score at which the loop ends. Curvature is of the order of the number of levels: theta is then
# exact to 1e-8.
_TIGHT = 1e-7
_RIDGE = 1e-3
_BURSTS = (2, 1, 1, 2, 4, 8)  # an evaluation is dear, gathering is not


def solve_large(
    width: int,
    reml: bool,
    shared: Shared,
    gene: PerGene,
    wanted: Bool[Array, " genes"],
    limit: Int[Array, ""],
    surface: Surface,
) -> newton.State:
    """Where the searches of a block of genes end; there are a multiple of ``width``."""
    determinant = surface.determinant
    size = shared.n - shared.p if reml else shared.n
    m = shared.samples_per_level[:, None]
    k, count = len(shared.levels), wanted.shape[0]
    empty = (jnp.zeros((*axes, count), gene.within_yy.dtype) for axes in ((), (k,), (k, k)))
    near = by_tiles(lambda g: near_optimum(surface, shared, g, size), gene, Near(*empty))
    state = for_each(newton.start(shared), count)._replace(
        trial=near.x, done=~(wanted & jnp.isfinite(near.deviance))
    )

    def stepped(here, state):
        gene, hessian = here
        diagonal = jnp.eye(len(m), dtype=bool)[..., None]

        def evaluate(x):
            jacobian = jnp.exp(x) / m
            found = own_part(jnp.expm1(x) / m, shared, gene)
            log_det, log_det1 = determinant(x)
            rss1 = found.first * jacobian / found.rss
            taken = (gene.between_yy.sum(0) + gene.within_yy) / found.rss
            noise = 8 * jnp.finfo(x.dtype).eps * (1 + taken + found.lost)
            rounding = (noise * (abs(log_det1) + size * abs(rss1))).max(0) + determinant.error
            plain = log_det - found.log_det_fixed if reml else log_det
            system = FixedSystem(
                found.covariance, found.beta, found.rss, plain, found.log_det_fixed
            )
            deviance = log_det + size * jnp.log(found.rss)
            return (
                # Outside there is no determinant.
                jnp.where(determinant.axes.inside(x), deviance, jnp.nan),
                log_det1 + size * rss1,
                hessian,
                # Where that is singular: terms that cannot be told apart.
                len(m) * jnp.where(diagonal, abs(hessian) + _RIDGE, 0.0),
                rounding,
                estimates(system, shared, reml),
            )

        return newton.step_in_x(evaluate, state, _TIGHT)

    return iterate(stepped, width, (gene, near.hessian), state, limit, bursts=_BURSTS)
