"""What users of scverse expect: functions of an AnnData, public as `jaxvp.tl` and `jaxvp.pp`.

`cells` makes samples of cells, `tools` fits and writes what it found into the AnnData; `given`
checks what both are given. The figures, `jaxvp.pl`, read it from there.

anndata itself is imported only where one is made: who has one has the package.
"""

from .cells import pseudobulk
from .tools import by_group, variance_partition

__all__ = ["by_group", "pseudobulk", "variance_partition"]
