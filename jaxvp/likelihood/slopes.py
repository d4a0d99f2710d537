r"""The deviance with random slopes, and its derivatives in the covariance matrices.

Every correlated block has a covariance ``sigma^2 Gamma`` of its coefficients. It is handed over by
its eigenvectors ``E`` and eigenvalues, ``Gamma = E diag(gamma) E'``, and the derivatives are those
in the entries of ``E' Gamma E``, for ``i <= j`` (an off-diagonal entry moves with its mirror
image). In that basis Gamma is diagonal: the blocks that are left after the elimination are swept
like random intercepts, finite at zero.

*The eliminated factor* enters the system ``M(Gamma) = S + sum_c sum_{a<=b} W_ab C_ab`` of
`jaxvp.statistics.slopes` through the weights of its classes only. With ``Y = W R E`` and ``B =
E'R' Y``,

    dW = -Y dG Y',   d2W = 2 sym Y dG B dG' Y',
    d log|V_1| = sum_c n_c tr(dG B),   d2 log|V_1| = -sum_c n_c tr(dG B dG' B).

*The others*, with ``T`` the inverse of the system (`_solve`), ``u = T M_y``, ``A = Z'V^-1 Z`` (by
REML ``Z'PZ``), ``q = Z'Py``, residual sum of squares r and ``e = (-u, 1)``; for s, t of the
eliminated factor

    d log|.| = tr(T M_s),                  d2 = tr(T M_st) - tr(T M_s T M_t),
    d r      = e'M_s e,                    d2 = e'M_st e - 2 g_s'T g_t,      g_s = (M_s e)_U,

for ``D_s = dV`` of a swept block, a matrix of zeros and ones on its columns,

    d log|.| = tr(A D_s),                  d2 = -tr(A D_s A D_t),
    d r      = -q'D_s q,                   d2 = 2 q'D_s Z'PZ D_t q,

and mixed, with ``K = I - T M``: ``d2 log|.| = tr(K'M_s K D_t)``, ``d2 r = -2 (K'g_s)'D_t q``.
``M_st`` is only needed contracted: first the classes' sums are, and then they are weighted.

Acts on leading axes, genes of a tile on a trailing one, as the rest of `jaxvp.likelihood`.

Source: Bates et al. (2015), J. Stat. Softw. 67(1), for the model; Searle, Casella and McCulloch,
Variance Components (1992), ch. 6, for the derivatives.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxvp.likelihood import sweep
from jaxvp.likelihood.estimates import Estimates, estimates
from jaxvp.likelihood.sweep import apply, dot, inverse, total
from jaxvp.likelihood.system import FixedSystem, Scalar, fence, lift
from jaxvp.statistics import CHUNK, Array, PerGene, RandomBlock, SlopeShared


class SlopeEvaluation(NamedTuple):
    """Deviance (without its constants) and its derivatives in the entries of ``E'Gamma E``."""

    deviance: Scalar
    score: Float[Array, "m *genes"]
    hessian: Float[Array, "m m *genes"]
    fisher: Float[Array, "m m *genes"]  # expected, sigma profiled out: positive semidefinite
    rounding: Float[Array, "m *genes"]  # size of the score's rounding error
    estimates: Estimates


class Entry(NamedTuple):
    """An entry ``i <= j`` of a block's covariance."""

    block: int
    i: int
    j: int


# Sums of more terms are left to XLA: written out they would take long to compile.
_UNROLLED = 400
# Larger systems are inverted in a loop over the pivots.
_PIVOTS = 6

Basis = tuple[Float[Array, "_ _ *genes"], ...]


def product(a: Array, b: Array) -> Array:
    """Matrix product over the two leading axes; of one gene an ordinary one."""
    if a.ndim == b.ndim == 2:
        return jnp.matmul(a, b, precision="highest")
    return sweep.product(a, b)


def invert(matrix: Array) -> tuple[Array, Scalar]:
    """Inverse and log determinant of a positive definite matrix, Gauss and Jordan in place."""
    if len(matrix) <= _PIVOTS:
        return inverse(matrix)

    def pivot(t, carry):
        matrix, log_det = carry
        p = matrix[t, t]
        row = (matrix[t] / p).at[t].set(1 / p)
        column = matrix[:, t].at[t].set(0)
        rest = matrix.at[:, t].set(0) - column[:, None] * row[None]
        return rest.at[t].set(row), log_det + jnp.log(p)

    start = (matrix, jnp.zeros(matrix.shape[2:], matrix.dtype))
    return jax.lax.fori_loop(0, len(matrix), lambda t, c: fence(pivot, t, c), start)


def entries(blocks: tuple[RandomBlock, ...]) -> list[Entry]:
    """What is differentiated by: the upper triangle of every block, row by row."""
    return [
        Entry(number, i, j)
        for number, block in enumerate(blocks)
        for i in range(block.size)
        for j in range(i, block.size)
    ]


def offsets(blocks: tuple[RandomBlock, ...]) -> list[int]:
    """Where the coefficients of every block begin."""
    return [int(end) for end in np.cumsum([0, *(block.size for block in blocks)])[:-1]]


def evaluate_slopes(
    gamma: Float[Array, "k *genes"], basis: Basis, shared: SlopeShared, gene: PerGene, *, reml: bool
) -> SlopeEvaluation:
    """Deviance and derivatives at ``Gamma = E diag(gamma) E'`` of every block."""
    blocks = shared.blocks
    first = gamma[: sum(block.size for block in blocks if block.eliminated)]
    corner = fence(lambda *b: _block_diagonal(b), *basis[: _count(blocks)])
    sums = fence(lambda g, e, s: _eliminate(g, e, shared, s), first, corner, gene)
    system = fence(lambda g, b, m: _solve(g, b, m, shared, reml), gamma, basis, sums.matrices)
    t, contrast = system.in_u
    second = fence(
        lambda g, e, s, t, u: _contract(g, e, shared, s, t, u), first, corner, gene, t, contrast
    )
    size = shared.n - shared.p if reml else shared.n
    return fence(lambda *a: _assemble(a[0], a[1], a[2], shared, size, reml), sums, system, second)


def _count(blocks: tuple[RandomBlock, ...]) -> int:
    return sum(block.eliminated for block in blocks)


def _block_diagonal(basis: Basis) -> Float[Array, "all all *genes"]:
    sizes = [len(b) for b in basis]
    c, start = sum(sizes), 0
    rows = []
    for b in basis:
        after = c - start - len(b)
        left = jnp.zeros((len(b), start, *b.shape[2:]), b.dtype)
        right = jnp.zeros((len(b), after, *b.shape[2:]), b.dtype)
        rows.append(jnp.concatenate([left, b, right], 1))
        start += len(b)
    return jnp.concatenate(rows)


class _Weights(NamedTuple):
    """Of the classes of a chunk, (..., classes, *genes)."""

    log_det: Array
    w: Array  # c c
    y: Array  # c c: W R E
    b: Array  # c c: E'R'W R E


def _weights(gamma: Array, corner: Array, roots: Float[Array, "classes c c"]) -> _Weights:
    rows = jnp.moveaxis(jnp.asarray(roots), 0, -1)  # c c classes
    like = corner[0, 0]
    rotated = product(lift(rows, like), corner[:, :, None])
    scaled = rotated * gamma[None, :, None]
    same = lift(jnp.eye(len(corner), dtype=corner.dtype)[:, :, None], like)
    w, log_det = inverse(same + product(scaled, rotated.swapaxes(0, 1)))
    y = fence(product, w, rotated)
    return _Weights(log_det, w, y, fence(product, rotated.swapaxes(0, 1), y))


def _directions(blocks: tuple[RandomBlock, ...]) -> list[tuple[int, int]]:
    """The entries of the eliminated blocks, as places in the eliminated factor's covariance."""
    start = offsets(blocks)
    return [
        (start[e.block] + e.i, start[e.block] + e.j)
        for e in entries(blocks)
        if blocks[e.block].eliminated
    ]


def _upper(c: int) -> list[tuple[int, int]]:
    return [(a, b) for a in range(c) for b in range(a, c)]


def _first(weights: _Weights, i: int, j: int) -> Array:
    """``dW`` in one direction, its upper triangle: (pairs, classes, *genes)."""
    y = weights.y
    if i == j:
        return jnp.stack([-y[a, i] * y[b, i] for a, b in _upper(len(y))])
    return jnp.stack([-(y[a, i] * y[b, j] + y[a, j] * y[b, i]) for a, b in _upper(len(y))])


def _between(one: tuple[int, int]) -> list[tuple[int, int]]:
    """The places of a direction's ones: an entry and its mirror image."""
    i, j = one
    return [one] if i == j else [one, (j, i)]


def _second(weights: _Weights, s: tuple[int, int], t: tuple[int, int]) -> Array:
    """``d2W`` in two directions, its upper triangle."""
    y, b = weights.y, weights.b
    c = len(y)
    found = []
    for row, column in _upper(c):
        entry = 0.0
        for i, j in _between(s):
            for k, m in _between(t):
                both = y[row, i] * y[column, m] + y[column, i] * y[row, m]
                entry = entry + both * b[j, k]
        found.append(entry)
    return jnp.stack(found)


class _Sums(NamedTuple):
    """M and its first derivatives, bordered by y; log|V_1| and its derivatives."""

    matrices: Float[Array, "s1 K1 K1 *genes"]
    log_det: Array  # 1 + m1 entries
    log_det2: Float[Array, "m1 m1 *genes"]
    lost: Scalar  # y'V_1^-1 y: what rounding is relative to


def _chunks(shared: SlopeShared) -> int:
    """How many chunks the classes are summed in."""
    return max(1, len(shared.counts) // CHUNK)


def _chunk(number: Array | int, shared: SlopeShared, gene: PerGene) -> tuple[Array, ...]:
    """Roots, counts, and class sums (pairs, classes, ...) of one chunk."""
    chunks, classes = _chunks(shared), len(shared.counts)
    width = classes // chunks

    def of_pairs(array):
        array = jnp.asarray(array)
        shaped = array.reshape(len(array) // classes, chunks, width, *array.shape[1:])
        return jax.lax.dynamic_index_in_dim(shaped, number, 1, keepdims=False)

    def of_classes(array):
        array = jnp.asarray(array)
        shaped = array.reshape(chunks, width, *array.shape[1:])
        return jax.lax.dynamic_index_in_dim(shaped, number, 0, keepdims=False)

    return (
        of_classes(shared.roots),
        of_classes(shared.counts),
        of_pairs(shared.between),
        of_pairs(gene.between_uy),
        of_pairs(gene.between_yy),
    )


def _each_chunk(add, begin, shared: SlopeShared):
    if _chunks(shared) == 1:
        return add(0, begin)
    return jax.lax.fori_loop(0, _chunks(shared), add, begin)


def _weighted(weights: Array, sums: Array) -> Array:
    """Sum over pairs and classes, written out: XLA fuses it into its consumer."""
    out = 0.0
    for pair in range(weights.shape[0]):
        for one in range(weights.shape[1]):
            out = out + weights[pair, one] * sums[pair, one]
    return jnp.asarray(out)


def _eliminate(gamma: Array, corner: Array, shared: SlopeShared, gene: PerGene) -> _Sums:
    directions = _directions(shared.blocks)
    like = corner[0, 0]

    def bordered(weight, uu, uy, yy):
        matrix = _weighted(weight, lift(uu, like))
        vector = _weighted(weight, uy)
        corner = _weighted(weight, yy)
        return jnp.concatenate(
            [
                jnp.concatenate([matrix, vector[:, None]], 1),
                jnp.concatenate([vector, corner[None]])[None],
            ]
        )

    def add(number, carry):
        roots, counts, uu, uy, yy = _chunk(number, shared, gene)
        found = fence(_weights, gamma, corner, roots)
        counts = lift(counts, like)

        def value(found, uy, yy):
            w = jnp.stack([found.w[a, b] for a, b in _upper(len(corner))])
            return bordered(w, uu, uy, yy)

        def slope(found, uy, yy, i, j):
            return bordered(_first(found, i, j), uu, uy, yy)

        def determinants(found):
            first = [total(counts * found.log_det)]
            for i, j in directions:
                first.append((1 if i == j else 2) * total(counts * found.b[i, j]))
            second = []
            for s in directions:
                for t in directions:
                    terms = 0.0
                    for i, j in _between(s):
                        for k, m in _between(t):
                            terms = terms - found.b[j, k] * found.b[m, i]
                    second.append(total(counts * terms))
            return jnp.stack(first), jnp.stack(second)

        matrices = [fence(value, found, uy, yy)]
        for i, j in directions:
            matrices.append(fence(lambda f, u, y, i=i, j=j: slope(f, u, y, i, j), found, uy, yy))
        new = (jnp.stack(matrices), *fence(determinants, found))
        return jax.tree.map(jnp.add, carry, new)

    m, K1 = len(directions), shared.n_columns + 1
    genes, dtype = like.shape, like.dtype
    uu = jnp.broadcast_to(lift(shared.within, like), (K1 - 1, K1 - 1, *genes))
    uy = gene.within_uy
    start = jnp.concatenate(
        [
            jnp.concatenate([uu, uy[:, None]], 1),
            jnp.concatenate([uy, jnp.asarray(gene.within_yy)[None]])[None],
        ]
    ).astype(dtype)
    begin = (
        jnp.concatenate([start[None], jnp.zeros((m, K1, K1, *genes), dtype)]),
        jnp.zeros((m + 1, *genes), dtype),
        jnp.zeros((m * m, *genes), dtype),
    )
    matrices, log_det, log_det2 = _each_chunk(add, begin, shared)
    return _Sums(matrices, log_det, log_det2.reshape(m, m, *genes), matrices[0, -1, -1])


class _System(NamedTuple):
    """The eliminated system; z the swept random columns, in the basis E, x the fixed ones."""

    log_det: Scalar  # log|I + G^(1/2) M_zz G^(1/2)|
    fixed: FixedSystem  # without log|V_1|
    inverse: Float[Array, "K K *genes"]  # T
    inverse_det: Float[Array, "K K *genes"]  # T of the determinant: by ML without x
    contrast: Float[Array, "K1 *genes"]  # e = (-u, 1), in the columns of U
    slopes: Float[Array, "m1 K1 K1 *genes"]  # M_s
    zz: Float[Array, "q q *genes"]  # A
    zpz: Float[Array, "q q *genes"]
    zpy: Float[Array, "q *genes"]
    maps: tuple[Array, Array]  # K - T M: columns z, of the determinant and of the data
    in_u: tuple[Array, Array]  # `inverse_det` and `contrast` in the columns of U, not turned by E


def _rotation(basis: Basis, blocks: tuple[RandomBlock, ...]) -> list[tuple[slice, Array]]:
    """The swept columns of every correlated block, and its eigenvectors."""
    found, start = [], 0
    for block, vectors in zip(blocks, basis, strict=True):
        if not block.eliminated:
            columns = slice(start, start + block.size * block.levels)
            if block.size > 1:
                found.append((columns, vectors))
            start = columns.stop
    return found


def _rotate(matrix: Array, rotations: list[tuple[slice, Array]], back: bool = False) -> Array:
    """Rows of the swept columns into the basis E, or back."""
    for columns, vectors in rotations:
        turn = vectors if back else vectors.swapaxes(0, 1)
        part = matrix[columns].reshape(len(vectors), -1, *matrix.shape[1:])
        rows = [dot(turn[i], part) for i in range(len(vectors))]
        matrix = jnp.concatenate(
            [matrix[: columns.start], *rows, matrix[columns.stop :]],
        )
    return matrix


def _both_sides(matrix: Array, rotations: list[tuple[slice, Array]], back: bool = False) -> Array:
    if not rotations:
        return matrix
    once = _rotate(matrix, rotations, back)
    return _rotate(once.swapaxes(0, 1), rotations, back).swapaxes(0, 1)


def _ratios(gamma: Array, blocks: tuple[RandomBlock, ...]) -> Array:
    """The variance ratio of every swept column, in the basis E."""
    like = gamma[0]
    parts = [jnp.zeros((0, *like.shape), like.dtype)]
    for block, start in zip(blocks, offsets(blocks), strict=True):
        if not block.eliminated:
            for i in range(block.size):
                one = gamma[start + i][None]
                parts.append(jnp.broadcast_to(one, (block.levels, *like.shape)))
    return jnp.concatenate(parts)


def _solve(gamma: Array, basis: Basis, matrices: Array, shared: SlopeShared, reml: bool) -> _System:
    K, p = shared.n_columns, shared.p
    q = K - p
    rotations = _rotation(basis, shared.blocks)
    turned = [_both_sides(m, rotations) for m in matrices]
    m, slopes = turned[0], jnp.stack(turned[1:])
    like = m[0, 0]
    ratio = _ratios(gamma, shared.blocks)
    root = jnp.sqrt(ratio)
    none = jnp.zeros_like(m[-1, -1])
    if q:
        identity = lift(jnp.eye(q, dtype=m.dtype), like)
        core, log_det = invert(identity + root[:, None] * m[:q, :q] * root[None])
        t = root[:, None] * core * root[None]
    else:
        core, log_det, t = m[:0, :0], none, m[:0, :0]

    h = product(t, m[:q, q:K])  # T_zz M_zx
    information = m[q:K, q:K] - product(m[q:K, :q], h)
    covariance, log_det_fixed = invert(information) if p else (information, none)
    xy = m[q:K, K] - apply(h.swapaxes(0, 1), m[:q, K])
    beta = apply(covariance, xy)
    scaled = apply(core, root * (m[:q, K] - apply(m[:q, q:K], beta)))  # G^(-1/2) u_z
    u = jnp.concatenate([root * scaled, beta])
    contrast = jnp.concatenate([-u, jnp.ones_like(none)[None]])
    rss = m[K, K] - dot(u, m[:K, K])
    fixed = FixedSystem(covariance, beta, rss, log_det, log_det_fixed)

    side = product(h, covariance)
    full = jnp.concatenate(
        [
            jnp.concatenate([t + product(side, h.swapaxes(0, 1)), -side], 1),
            jnp.concatenate([-side.swapaxes(0, 1), covariance], 1),
        ]
    )
    padded = jnp.zeros_like(full).at[:q, :q].set(t) if q else jnp.zeros_like(full)
    of_det = full if reml else padded

    unit = lift(jnp.eye(K, q, dtype=m.dtype), like)
    map_data = unit - product(full, m[:K, :q])
    map_det = map_data if reml else unit - product(padded, m[:K, :q])
    zpz = product(m[:q, :K], map_data)
    zz = zpz if reml else product(m[:q, :K], map_det)
    # Where gamma > 0, Z'Py is read off the predicted effects, without a difference.
    positive = ratio > 0
    difference = m[:q, K] - apply(m[:q, :K], u)
    zpy = jnp.where(positive, scaled / jnp.where(positive, root, 1.0), difference)
    in_u = _both_sides(of_det, rotations, True), _rotate(contrast, rotations, True)
    maps = (map_det, map_data)
    return _System(log_det, fixed, full, of_det, contrast, slopes, zz, zpz, zpy, maps, in_u)


def _contract(
    gamma: Array, corner: Array, shared: SlopeShared, gene: PerGene, t: Array, contrast: Array
) -> tuple[Array, Array]:
    """``tr(T M_st)`` and ``e'M_st e`` for the eliminated factor: (m1, m1, *genes) each."""
    directions = _directions(shared.blocks)
    like, m = corner[0, 0], len(directions)
    K = shared.n_columns
    u = contrast[:K]
    outer = jnp.stack([t, u[:, None] * u[None]]).reshape(2, K * K, *like.shape)

    def add(number, carry):
        roots, _, uu, uy, yy = _chunk(number, shared, gene)
        found = fence(_weights, gamma, corner, roots)

        def of_classes(outer, u, uy, yy):
            """What a weight of a pair and class adds to the trace, and to the form."""
            flat = uu.reshape(uu.shape[0] * uu.shape[1], K * K)
            trace, form = (jnp.tensordot(flat, one, 1, precision="highest") for one in outer)
            form = form.reshape(yy.shape) + yy
            for k in range(K):
                form = form + 2 * u[k] * uy[:, :, k]
            return trace.reshape(yy.shape), form

        trace, form = fence(of_classes, outer, u, uy, yy)

        def weigh(found, trace, form, s, t):
            weights = _second(found, s, t)
            return jnp.stack([_weighted(weights, trace), _weighted(weights, form)])

        sums = [
            fence(lambda f, a, b, s=s, t=t: weigh(f, a, b, s, t), found, trace, form)
            for i, s in enumerate(directions)
            for t in directions[i:]
        ]
        return carry + jnp.stack(sums)

    count = m * (m + 1) // 2
    sums = _each_chunk(add, jnp.zeros((count, 2, *like.shape), like.dtype), shared)
    place = np.zeros((m, m), dtype=int)
    place[np.triu_indices(m)] = np.arange(count)
    place = np.maximum(place, place.T)

    def square(which: int) -> Array:
        rows = [[sums[place[i, j], which] for j in range(m)] for i in range(m)]
        return jnp.stack([jnp.stack(row) for row in rows])

    return square(0), square(1)


def _inner(a: Array, b: Array) -> Scalar:
    """Sum of the products of all entries, genes apart."""
    if 0 < a.shape[0] * a.shape[1] <= _UNROLLED:
        return total(dot(a, b))
    return (a * b).sum((0, 1))


class _Swept(NamedTuple):
    """An entry of a swept block: where D_s has its ones, as pairs of slices of columns."""

    pairs: list[tuple[slice, slice]]


def _swept(shared: SlopeShared) -> list[_Swept]:
    starts, start = {}, 0
    for number, block in enumerate(shared.blocks):
        if not block.eliminated:
            starts[number] = start
            start += block.size * block.levels
    found = []
    for entry in entries(shared.blocks):
        if entry.block in starts:
            levels, begin = shared.blocks[entry.block].levels, starts[entry.block]

            def columns(i, begin=begin, levels=levels):
                return slice(begin + i * levels, begin + (i + 1) * levels)

            found.append(
                _Swept([(columns(i), columns(j)) for i, j in _between((entry.i, entry.j))])
            )
    return found


def _image(entry: _Swept, v: Array) -> Array:
    """``D_s v``."""
    out = jnp.zeros_like(v)
    for to, source in entry.pairs:
        out = out.at[to].set(v[source])
    return out


def _diagonal(a: Array) -> Scalar:
    if not len(a):
        return jnp.zeros(a.shape[2:], a.dtype)
    return total(jnp.stack([a[i, i] for i in range(len(a))]))


def _assemble(
    sums: _Sums,
    system: _System,
    second: tuple[Array, Array],
    shared: SlopeShared,
    size: int,
    reml: bool,
) -> SlopeEvaluation:
    swept = _swept(shared)
    m1 = len(sums.log_det) - 1
    K = shared.n_columns
    e, T, T_det = system.contrast, system.inverse, system.inverse_det
    slopes, q_y = system.slopes, system.zpy

    image = [apply(slopes[s], e) for s in range(m1)]
    g = [one[:K] for one in image]
    solved = [apply(T, one) for one in g]
    maps = [product(T_det, slopes[s][:K, :K]) for s in range(m1)]
    l1 = [sums.log_det[1 + s] + _diagonal(maps[s]) for s in range(m1)]
    r1 = [dot(e, image[s]) for s in range(m1)]
    images = [_image(d, q_y) for d in swept]
    l1 += [total(jnp.stack([_diagonal(system.zz[a, b]) for a, b in d.pairs])) for d in swept]
    r1 += [-dot(q_y, v) for v in images]
    projected = [apply(system.zpz, v) for v in images]
    map_det, map_data = system.maps
    turned = [product(slopes[s][:K, :K], map_det) for s in range(m1)]
    pulled = [apply(map_data.swapaxes(0, 1), one) for one in g]

    def entry(i, j):
        if j < m1:
            log_det = (
                sums.log_det2[i, j] + second[0][i, j] - _inner(maps[i], maps[j].swapaxes(0, 1))
            )
            return log_det, second[1][i, j] - 2 * dot(g[i], solved[j])
        d = swept[j - m1]
        if i < m1:
            pairs = [_inner(map_det[:, b], turned[i][:, a]) for a, b in d.pairs]
            return total(jnp.stack(pairs)), -2 * dot(pulled[i], images[j - m1])
        a = system.zz
        pairs = [
            _inner(a[alpha, delta], a[beta, gamma])
            for alpha, beta in swept[i - m1].pairs
            for gamma, delta in d.pairs
        ]
        return -total(jnp.stack(pairs)), 2 * dot(images[i - m1], projected[j - m1])

    m = len(l1)
    rss = system.fixed.rss
    hessian: list[list] = [[None] * m for _ in range(m)]
    fisher: list[list] = [[None] * m for _ in range(m)]
    for i in range(m):
        for j in range(i, m):
            log_det, r2 = entry(i, j)
            hessian[i][j] = log_det + size * (r2 / rss - r1[i] * r1[j] / rss**2)
            fisher[i][j] = -log_det - l1[i] * l1[j] / size
            hessian[j][i], fisher[j][i] = hessian[i][j], fisher[i][j]
    score = jnp.stack([l1[i] + size * r1[i] / rss for i in range(m)])
    noise = 8 * jnp.finfo(rss.dtype).eps * (1 + sums.lost / rss)
    rounding = jnp.stack([noise * (abs(l1[i]) + size * abs(r1[i]) / rss) for i in range(m)])
    fixed = system.fixed._replace(log_det=system.fixed.log_det + sums.log_det[0])
    deviance = fixed.log_det + size * jnp.log(rss)
    if reml:
        deviance = deviance + fixed.log_det_fixed
    return SlopeEvaluation(
        deviance,
        score,
        jnp.stack([jnp.stack(row) for row in hessian]),
        jnp.stack([jnp.stack(row) for row in fisher]),
        rounding,
        estimates(fixed, shared, reml),
    )
