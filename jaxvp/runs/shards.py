"""The i-th of N slices of a study, for the jobs of a queue that know nothing of each other.

Slices are contiguous and made of whole blocks, so that a block has the same genes, and the same
bits, in whichever slice it is. The largest slice has one block more than the smallest, at most.
Where the block size is not given, it is made smaller so that every slice has work, and the same
number of blocks: it depends on the study, the kind of device and N alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from .errors import RunError

T = TypeVar("T")
_FOLDER = re.compile(r"shard-(\d{1,9})-of-(\d{1,9})")


@dataclass(frozen=True, order=True)
class Shard:
    """Number `index` of `count`, from 1."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Of ``"3/8"``."""
        found = re.fullmatch(r"\s*(\d{1,9})\s*/\s*(\d{1,9})\s*", text)
        shard = cls(*map(int, found.groups())) if found else None
        if shard is None or not 1 <= shard.index <= shard.count:
            raise RunError(
                f"shard {text[:40]!r}: write i/N, the i-th of N from 1 to N, such as 3/8 (in an "
                "array of SLURM that starts at 1: $SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT)"
            )
        return shard

    @classmethod
    def of_folder(cls, name: str) -> Shard | None:
        """The shard that a folder of this name holds."""
        found = _FOLDER.fullmatch(name)
        return cls(*map(int, found.groups())) if found else None

    @property
    def folder(self) -> str:
        """The name of its folder."""
        return f"shard-{self.index}-of-{self.count}"

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def slice(self, blocks: Sequence[T]) -> Sequence[T]:
        """Its blocks among all."""
        edges = [i * len(blocks) // self.count for i in (self.index - 1, self.index)]
        return blocks[slice(*edges)]

    def block_size(self, genes: int, largest: int, width: int) -> int:
        """Genes in a block, `largest` at most, a multiple of `width` where that is possible."""
        per_shard = max(1, -(-genes // self.count))
        blocks = -(-per_shard // largest)
        size = -(-per_shard // blocks)
        return min(largest, -(-size // width) * width) if size > width else size
