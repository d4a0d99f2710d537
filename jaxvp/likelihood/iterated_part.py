r"""The same as `jaxvp.likelihood.own_part` without a factor of a gene's own.

With ``H = G^(1/2) M G^(1/2) + diag(I, 0)`` and ``v = G^(1/2) z``, ``H z = G^(1/2) b`` is solved for
many genes at once.

*Nodes.* All genes share the design. At a node gamma_0 next to a gene's gamma_1 the block of term 2,
``M_22 = Q diag(l) Q'``, is diagonal in the coordinates ``Q'``; squares of norms are the same there,
and everything below is in them. ``M(gamma_0)`` times a vector costs next to nothing; what differs
from it at gamma_1 are products of matrices that all share with the vectors of many genes
(`jaxvp.likelihood.differences`): genes of one tile share a node. Of a tile whose genes are all at
the node itself, as many are at zero, there is nothing to multiply.

*Conjugate gradients.* The preconditioner is H with gamma_1 at the node and all other gammas the
gene's own: a diagonal, and the Schur complement of the few columns that are neither of term 1 nor
of term 2. An iteration gives two to three digits, and begins where the last evaluation ended.

``y'Py`` is that quadratic form of v whose least it is, ``y'V_1^-1 y - 2 b'v + z'H z``: its error is
the square of v's.

*float32.* Conjugate gradients correct where they began, and an error in their products is one of
the correction: small beside it, and as small a part of v as the correction is. On a CPU products
are float32's where what is left at the beginning is so little that their rounding is half of the
digits that are asked for at most: nearly all of them. The product that an evaluation begins with is
float64's, and so is what it ends with where it began from nothing.

Cost an iteration: that of the difference, in matrix products; a dozen a gene, in all.

Source: Golub and Van Loan, Matrix Computations (2013), sec. 11.5.
"""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array as JaxArray
from jaxtyping import Bool, Float, Int

from jaxvp.likelihood.differences import Classes, Levels, times
from jaxvp.likelihood.inverse import inverse
from jaxvp.likelihood.lanes import dot
from jaxvp.likelihood.own_part import OwnPart
from jaxvp.likelihood.system import Scalar, class_weights, spread, term_slices
from jaxvp.statistics import Array, PerGene, Shared
from jaxvp.target import accelerated

_ITERATIONS = 40  # at most
CERTIFIED = 1e-11  # relative error of v at a point that is certified
# Error of what products in float32 solve, relative, times `_steepness`: of some 4,000 genes at any
# gammas 90 in 100 had less than 0.15 eps, none more than 1.25 eps. The most counts where a point
# may be certified.
_RULE, _MOST = (factor * float(np.finfo(np.float32).eps) for factor in (0.15, 1.25))


class Node(eqx.Module):
    """M at a node of gamma_1, in the coordinates that make its block of term 2 diagonal.

    Several nodes have one more axis in front.
    """

    gamma: Float[Array, "*nodes"]
    turn: Float[Array, "*nodes n n"]  # Q'
    roots: Float[Array, "*nodes n"]  # l
    couple: Float[Array, "*nodes rest n"]  # M_r2 Q
    back: Float[Array, "*nodes n rest"]  # its transpose: products of a turned one are slow
    rest: Float[Array, "*nodes rest rest"]  # M_rr
    # Products of two rows of ``couple``, those of `np.tril_indices`; None where they are too many.
    pairs: Float[Array, "*nodes pairs n"] | None
    difference: Levels | Classes  # of M, from the node on
    # The same in float32, on a CPU, for products that need no more digits: they take half the time.
    # (Of classes, whose products are few and large, that is no gain.)
    single: Levels | None = None

    def turned(self, b: Float[Array, "K genes"]) -> Float[Array, "K genes"]:
        """In the node's coordinates."""
        n = len(self.roots)
        return jnp.concatenate([self.turn @ b[:n], b[n:]])

    def image(self, v: Float[Array, "K genes"]) -> Float[Array, "K genes"]:
        """M v at the node itself."""
        n = len(self.roots)
        first = self.roots[:, None] * v[:n] + self.back @ v[n:]
        return jnp.concatenate([first, self.couple @ v[:n] + self.rest @ v[n:]])

    def squared(self, weights: Float[Array, "n genes"]) -> Float[Array, "rest rest genes"]:
        """``M_r2 Q diag(weights) Q' M_2r``."""
        if self.pairs is None:
            return jnp.einsum("an,ng,bn->abg", self.couple, weights, self.couple)
        rest = len(self.rest)
        place = np.empty((rest, rest), np.int32)
        below = np.tril_indices(rest)
        place[below] = place[below[::-1]] = np.arange(len(below[0]))
        return times(self.pairs, weights)[place]


class Complement(NamedTuple):
    """Of ``H_rr - H_r2 H_22^-1 H_2r`` at a node: to form it takes as long as some iterations."""

    inverse: Float[Array, "rest rest *genes"]
    lost: Scalar  # digits that it lost: largest ratio of a diagonal to its pivot


class Preconditioner(NamedTuple):
    """``H^-1`` of a tile of genes, with M at one node."""

    node: Node
    own: Float[Array, "n genes"]  # 1 / (1 + gamma_2 l)
    part: Float[Array, "n genes"]  # the same times gamma_2^(1/2)
    few: Float[Array, "rest genes"]  # G^(1/2) of the others
    complement: Complement

    @classmethod
    def of(
        cls,
        node: Node,
        gamma: Float[Array, "k genes"],
        shared: Shared,
        complement: Complement | None = None,
    ) -> Preconditioner:
        """At these gammas of the other terms; the complement may be known."""
        n = len(node.roots)
        fixed = jnp.ones((shared.p, gamma.shape[1]), gamma.dtype)
        few = jnp.sqrt(jnp.concatenate([spread(gamma, shared, gamma[0])[n:], fixed]))
        own = 1 / (1 + gamma[1] * node.roots[:, None])
        if complement is None:
            taken = node.squared(gamma[1] * own)
            random = (jnp.arange(len(few)) < len(few) - shared.p).astype(few.dtype)[:, None]
            left = few[:, None] * (node.rest[..., None] - taken) * few[None]
            left = left + jnp.eye(len(few))[..., None] * random
            before = few**2 * jnp.diagonal(node.rest)[:, None] + random
            inverted, pivots = inverse(left)
            complement = Complement(inverted, (before / pivots).max(0))
        return cls(node, own, jnp.sqrt(gamma[1]) * own, few, complement)

    def __call__(self, r: Float[Array, "K genes"]) -> Float[Array, "K genes"]:
        n = len(self.own)
        rest = r[n:] - self.few * (self.node.couple @ (self.part * r[:n]))
        rest = dot(rest, self.complement.inverse)
        first = self.own * r[:n] - self.part * (self.node.back @ (self.few * rest))
        return jnp.concatenate([first, rest])


def iterated_part(
    gamma: Float[Array, "k genes"],
    shared: Shared,
    near: Preconditioner,
    gene: PerGene,
    begin: Float[Array, "K genes"],
    goal: Scalar,
    asked: Bool[Array, " genes"],
) -> tuple[OwnPart, Float[Array, "K genes"]]:
    """The part of a tile of genes, and z, from where to begin next time.

    ``begin`` is where conjugate gradients begin, ``goal`` the relative error of v, in the norm of
    H, at which they end; genes that are not ``asked`` wait for the others.
    """
    node = near.node
    w0, w1, _ = class_weights(shared, gamma[0])
    q, genes = shared.n_columns - shared.p, gamma.shape[1]
    ratio = spread(gamma, shared, gamma[0])
    root = jnp.concatenate([jnp.sqrt(ratio), jnp.ones((shared.p, genes), ratio.dtype)])
    random = (jnp.arange(shared.n_columns) < q).astype(ratio.dtype)[:, None]
    b = node.turned(dot(w0, gene.between_uy) + gene.within_uy)
    b1 = node.turned(dot(w1, gene.between_uy))
    yy = (w0 * gene.between_yy).sum(0) + gene.within_yy
    change, bent, exact = node.difference.weights(node.gamma, gamma[0])
    there = gamma[0] == node.gamma
    weighed = jax.eval_shape(node.difference.parts, b)

    def image(z, asked, single):
        """The difference's parts and image, for whom it is asked, and the node's, of G^(1/2) z."""
        v = root * z

        def nothing():
            return jnp.zeros(weighed.shape, weighed.dtype), jnp.zeros_like(v)

        def product(difference):
            parts = difference.parts(v)
            return parts, difference.image(change, parts)

        def both():
            found, in_single = product(node.difference), product(node.single)
            return jax.tree.map(lambda a, b: jnp.where(single, b, a), found, in_single)

        away = asked & ~there
        if accelerated():  # which would wait for the host at every condition
            found = product(node.difference)
        elif node.single is None:
            found = jax.lax.cond(jnp.any(away), lambda: product(node.difference), nothing)
        else:
            kinds = (
                nothing, lambda: product(node.difference), lambda: product(node.single), both
            )  # fmt: skip
            which = jnp.any(away & ~single) + 2 * jnp.any(away & single).astype(np.int32)
            found = jax.lax.switch(which, kinds)
        return *found, node.image(v)

    right = root * b
    lost = jnp.where(goal > CERTIFIED, _RULE, _MOST) * _steepness(gamma, shared)
    z, (parts, more, at_node), error, renewed = _solve(
        image, root, random, near, right, yy, begin, goal, asked, lost
    )
    v = root * z
    if not accelerated():
        # At the node they are not known, or would depend on who is beside.
        renewed |= there
        parts = jax.lax.cond(
            jnp.any(asked & renewed),
            lambda: jnp.where(renewed, node.difference.parts(v), parts),
            lambda: parts,
        )
    quadratic = (v * at_node).sum(0) + node.difference.quadratic(change, parts, v)
    rss = yy - 2 * (right * z).sum(0) + quadratic + (random * z * z).sum(0)
    rss = jnp.where(exact, rss, jnp.nan)  # out of the node's reach
    bent_by = node.difference.quadratic(bent, parts, v)
    first = (w1 * gene.between_yy).sum(0) - 2 * (b1 * v).sum(0) + bent_by
    # Read off the predicted effects, without a difference, where gamma > 0.
    present = ratio > 0
    left = (b - at_node - more)[:q]
    zpy = jnp.where(present, v[:q] / jnp.where(present, ratio, 1.0), left)
    others = [-(zpy[block] ** 2).sum(0) for block in term_slices(shared)]
    return OwnPart(rss, jnp.stack([first, *others]), v[q:], near.complement.lost, error), z


class _Search(NamedTuple):
    """Conjugate gradients between iterations."""

    number: Int[JaxArray, ""]
    z: Float[Array, "K genes"]
    images: tuple[Array, Array, Array]  # of z
    residual: Float[Array, "K genes"]
    direction: Float[Array, "K genes"]
    size: Scalar  # of the residual, in the preconditioner's norm: the square of the error
    going: Bool[JaxArray, " genes"]


def _steepness(gamma: Float[Array, "k genes"], shared: Shared) -> Scalar:
    """By how much H may lengthen the rounding of a product with the levels of term 1.

    Of random signs, an entry's is ``eps (n_i sum_j (w_j F_j v)^2 / q_1)^(1/2)``; of all columns'
    entries times ``gamma_i^(1/2)`` the square is ``eps^2 m sum_i gamma_i`` times that sum, of which
    ``v'M v`` has ``1 / w = 1 + m gamma_1`` times as much.
    """
    m = shared.samples_per_level[0]
    return jnp.sqrt(1 + m * gamma[1:].sum(0) / (1 + m * gamma[0]))


def _solve(image, root, random, near, right, yy, begin, goal, asked, lost):
    """Preconditioned conjugate gradients for the genes of a tile.

    ``H^-1 right``, its images, the error in the norm of H, and whose parts have no more digits than
    float32; the solution's norm is below the root of ``yy``.

    Products may be float32's where all they are of, the error at the beginning, is so small that
    what is ``lost`` of it is half of the goal at most.
    """
    shapes = jax.eval_shape(image, begin, asked, asked)
    nothing = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes)
    new = (begin == 0).all(0)
    in_double = jnp.zeros_like(asked)
    images = jax.lax.cond(jnp.all(new), lambda: nothing, lambda: image(begin, asked, in_double))
    residual = right - (root * (images[1] + images[2]) + random * begin)
    ahead = near(residual)
    size = (residual * ahead).sum(0)
    scale = jnp.sqrt(jnp.maximum(yy, jnp.finfo(right.dtype).tiny))
    rounding = lost * jnp.sqrt(jnp.maximum(size, 0)) / scale
    single = rounding <= goal / 2 if near.node.single is not None else in_double
    rounding = jnp.where(single, rounding, 0.0)
    goal = ((goal - rounding) * scale) ** 2

    def step(s: _Search) -> _Search:
        change = image(s.direction, s.going, single)
        bent = root * (change[1] + change[2]) + random * s.direction
        curvature = (s.direction * bent).sum(0)
        length = jnp.where(s.going, s.size / jnp.where(s.going, curvature, 1.0), 0.0)
        residual = s.residual - length * bent
        ahead = near(residual)
        size = jnp.where(s.going, (residual * ahead).sum(0), s.size)
        turned = jnp.where(s.going, size / jnp.where(s.going, s.size, 1.0), 0.0)
        return _Search(
            s.number + 1,
            s.z + length * s.direction,
            jax.tree.map(lambda a, b: a + length * b, s.images, change),
            residual,
            ahead + turned * s.direction,
            size,
            s.going & (size > goal),
        )

    start = _Search(
        jnp.zeros((), jnp.int32), begin, images, residual, ahead, size, asked & (size > goal)
    )
    found = jax.lax.while_loop(lambda s: s.going.any() & (s.number < _ITERATIONS), step, start)
    error = jnp.sqrt(jnp.maximum(found.size, 0)) / scale + rounding
    return found.z, found.images, error, single & new
