"""How much the variables of a design say the same: before the fit, and after it for every gene.

- `canonical_correlations`: every pair of variables of a formula (`canonical`, with `parts`).
- `collinearity_score`: the correlation of a gene's estimated fixed effects (`scores`).
- `effective_sample_size`: how many independent samples a gene's samples are worth (`scores`).

They are variancePartition's ``canCorPairs``, ``colinearityScore`` and ``ESS`` (Hoffman and Schadt
2016, BMC Bioinformatics 17:483). The first takes tables, the others arrays; `Results` makes tables
of them.
"""

from .canonical import HIGH, canonical_correlations, pairwise
from .parts import Part, read_parts
from .scores import (
    collinearity_score,
    effective_sample_size,
    own_collinearity_score,
    own_effective_sample_size,
)

__all__ = [
    "HIGH",
    "Part",
    "canonical_correlations",
    "collinearity_score",
    "effective_sample_size",
    "own_collinearity_score",
    "own_effective_sample_size",
    "pairwise",
    "read_parts",
]
