r"""Cross-products, once: what all genes share and what belongs to one gene.

The deviance of a gene needs the samples only through inner products, and most of those do not
depend on the gene. Let term 1 be the random term with the most levels (``F_j = U'z_1j``, ``a_j =
z_1j'y``, ``n_j`` the size of its level ``j``) and let the ``K`` columns of ``U = [Z_2 ... Z_k, Q]``
be the indicators of the other random terms and an orthonormal basis of the fixed part, ``X = Q R``.
Eliminating term 1 exactly, ``V_1 = I + gamma_1 Z_1 Z_1'``,

    U' V_1^-1 U = S + sum_c w_c C_c,      w_c = 1 / (1 + gamma_1 n_c),
    S   = U'U - sum_j F_j F_j' / n_j      (products of deviations from the level means: "within"),
    C_c = sum_{j in c} F_j F_j' / n_j     (a class c holds the levels of one size n_c),

and the same for ``U'y`` (with ``F_j a_j / n_j``) and ``y'y`` (with ``a_j^2 / n_j``). The number of
samples never appears again. The within-products are formed from ``y`` minus its level means, never
by subtraction of two large numbers, so that a small residual beside a dominant term keeps its
digits.

*Few classes.* ``gamma -> 1 / (1 + gamma n)`` is, for all ``gamma >= 0`` at once, a smooth function
of n: of many class sizes some two dozen say what the others do, to rounding
(`jaxvp.statistics.class_nodes`). The class sums are then replaced by interpolation weights times
the sums, and the sizes by these *nodes*: the identity above and its derivatives in ``gamma`` keep
holding to about 1e-13. ``log|V_1|`` uses the true sizes.

*Scaling.* A gene is residualised on ``Q`` and divided by ``s``, the root mean square of that
residual, before any product is formed: a large mean cannot cancel digits away. What that changes is
undone in `jaxvp.likelihood` (``log|V|``-free terms get ``2 (n - p) log s`` and so on) from
``PerGene.scale`` and ``PerGene.ols``.

*Weights.* One weight a sample, the same for all genes, multiplies the rows of the model by its
square root, and all of the above holds for these. Weights and missing values of a gene's own give
it products of its own (`weighted`, in place of `Shared`'s: `Own`; `traced` forms the same in pure
JAX, differentiable).

*Host code.* Sparse matrices times a tile of measurements; they never enter JAX. (Compiled programs
form the products of a gene's own, `own_products`, as they are many more, and from the same sums
those that are shared by the genes of many measurements, or on an accelerator, `shared_products`.)
Six passes over a tile that is in the cache:
copy (turned), a shift, level sums of term 1, of the others, ``y'y``, and ``Q'y`` of the columns
that vary within levels of term 1 (`ConstantColumns` has the others). Everything else follows from
those sums, residualising and the within-products included, as differences. Where such a difference
loses more digits than the log-likelihood can spare, those genes are formed again from residuals and
deviations.
"""

from .class_nodes import class_nodes
from .compression import (
    Compression,
    LevelRows,
    compress,
    indicator,
    room_for_losses,
)
from .measurements import Room
from .nodes import node_counts
from .own_products import Genes, chunk_of, chunk_products
from .own_slopes import own_slopes, room_for_slopes
from .products import careful_statistics, statistics
from .records import Records, is_records
from .shared_products import Formed, SharedPlan, shared_products
from .slope_levels import CHUNK, upper
from .slope_structure import SlopeStructure, slope_structure
from .slopes import RandomBlock, Slopes, SlopeShared, compress_slopes
from .structure import Plan, Structure, structure
from .tile_products import compiled_here, products_of_tiles
from .traced import (
    Classes,
    Layout,
    LevelProducts,
    Weighted,
    basis,
    gene_products,
    known_classes,
    layout,
    level_products,
    residualise,
    traced_statistics,
    weigh,
)
from .types import (
    SWEEP_COLUMNS,
    Array,
    Block,
    Own,
    PerGene,
    Shared,
    SlopeOwn,
    namespace,
    padded,
    triangle,
)
from .weighted import Sums, needed_nodes, sums

__all__ = [
    "CHUNK",
    "SWEEP_COLUMNS",
    "Array",
    "Block",
    "Classes",
    "Compression",
    "Formed",
    "Genes",
    "Layout",
    "LevelProducts",
    "LevelRows",
    "Own",
    "PerGene",
    "Plan",
    "RandomBlock",
    "Records",
    "Room",
    "Shared",
    "SharedPlan",
    "SlopeOwn",
    "SlopeShared",
    "SlopeStructure",
    "Slopes",
    "Structure",
    "Sums",
    "Weighted",
    "basis",
    "careful_statistics",
    "chunk_of",
    "chunk_products",
    "class_nodes",
    "compiled_here",
    "compress",
    "compress_slopes",
    "gene_products",
    "indicator",
    "is_records",
    "known_classes",
    "layout",
    "level_products",
    "namespace",
    "needed_nodes",
    "node_counts",
    "residualise",
    "own_slopes",
    "padded",
    "products_of_tiles",
    "room_for_losses",
    "room_for_slopes",
    "shared_products",
    "slope_structure",
    "statistics",
    "structure",
    "sums",
    "traced_statistics",
    "triangle",
    "upper",
    "weigh",
]
