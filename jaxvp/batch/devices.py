"""Devices that share one compiled program: a launch takes a block of genes for each of them.

Blocks come from threads that know nothing of each other, and what a thread asks next follows from
its block's numbers. So nobody waits for a launch to be full: while fewer launches run than there
are devices, a thread launches its block at once, else later, with those that have come meanwhile. A
device that gets none has one of zeros, of which no gene is wanted. Devices exchange nothing: a
block's numbers depend neither on which of them it is on nor on who is beside it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Bool, Num

Device: TypeAlias = Any  # jax.Device, which is a variable to type checkers
GENES = "genes"  # the axis of the mesh
# A block is sent in so many: 20 GB/s from pageable memory, and 7 in one (measured on an H200).
_PIECES = 8


@dataclass(eq=False)
class _Waiting:
    """A block that is not launched yet."""

    kind: Hashable
    gene: Any
    wanted: Bool[np.ndarray, " genes"]
    found: Future[Any] = field(default_factory=Future)


class Devices:
    """One device, or several that are alike."""

    def __init__(self, devices: Sequence[Device]) -> None:
        self.all: tuple[Device, ...] = tuple(devices)
        self.platform: str = devices[0].platform
        self.mesh = Mesh(np.array(self.all), (GENES,)) if len(self.all) > 1 else None
        # Where `jax.device_put` puts what all blocks share.
        self.everywhere: Any = devices[0]
        if self.mesh is not None:
            self.everywhere = NamedSharding(self.mesh, PartitionSpec())
        self._changed = threading.Condition()
        self._waiting: list[_Waiting] = []
        self._running = 0
        self._first = 0  # the device whose turn it is
        self._empty: dict[Hashable, list[Any]] = {}
        self._sending = threading.Lock()

    @classmethod
    def alike(cls, devices: Sequence[Device]) -> list[Devices]:
        """Those that can share a program, together."""
        kinds: dict[tuple[str, str], list[Device]] = {}
        for device in devices:
            kinds.setdefault((device.platform, device.device_kind), []).append(device)
        return [cls(some) for some in kinds.values()]

    def send(self, measurements: Num[np.ndarray, "rows _"]) -> list[Any]:
        """Measurements, to the first device: some rows, more rows and so on.

        Pieces of one call are copied side by side. One block after the other: the first that is
        there is solved while the second is sent.
        """
        pieces = np.array_split(measurements, min(_PIECES, max(1, len(measurements))))
        with self._sending:
            return jax.block_until_ready(jax.device_put(pieces, self.all[0]))

    def spread(
        self,
        kind: Hashable,
        gene: Any,
        wanted: Bool[np.ndarray, " genes"],
        launch: Callable[[Any, Any], Any],
    ) -> Any:
        """What ``launch`` finds for a block, alone or with others of its ``kind``.

        ``launch`` takes and gives arrays with an axis of blocks in front, one for each device.
        """
        mine = _Waiting(kind, gene, wanted)
        with self._changed:
            self._waiting.append(mine)
            self._changed.wait_for(
                lambda: mine not in self._waiting or self._running < len(self.all)
            )
            blocks, first = self._taken(mine)
        if blocks:
            try:
                found = launch(*self._placed(blocks, first))
                for turn, block in enumerate(blocks):
                    block.found.set_result(_part(found, (first + turn) % len(self.all)))
                jax.block_until_ready(found)
            except BaseException as error:
                for block in blocks:
                    if not block.found.done():
                        block.found.set_exception(error)
                raise
            finally:
                with self._changed:
                    self._running -= 1
                    self._changed.notify_all()
        # Waits for the block's own device alone.
        return jax.tree.map(lambda a: np.asarray(a)[0], mine.found.result())

    def _taken(self, mine: _Waiting) -> tuple[list[_Waiting], int]:
        """The blocks of a launch, none where another has launched mine, and their first device."""
        if mine not in self._waiting:
            return [], 0
        others = [block for block in self._waiting if block.kind == mine.kind and block is not mine]
        blocks, first = [mine, *others][: len(self.all)], self._first
        self._waiting = [block for block in self._waiting if block not in blocks]
        self._running += 1
        self._first = (first + len(blocks)) % len(self.all)
        self._changed.notify_all()
        return blocks, first

    def _placed(self, blocks: list[_Waiting], first: int) -> tuple[Any, Any]:
        """Statistics and wanted genes, a block on each device: nothing is copied on the host."""
        assert self.mesh is not None
        many = len(self.all)
        sent = [jax.tree.map(lambda a: a[None], (block.gene, block.wanted)) for block in blocks]
        places = [(first + turn) % many for turn in range(len(blocks))]
        placed = jax.device_put(sent, [self.all[place] for place in places])
        everywhere = [None] * many if len(blocks) == many else self._nothing(sent[0])
        for place, part in zip(places, placed, strict=True):
            everywhere[place] = part
        split = NamedSharding(self.mesh, PartitionSpec(GENES))

        def together(*parts: jax.Array) -> jax.Array:
            shape = (many, *parts[0].shape[1:])
            return jax.make_array_from_single_device_arrays(shape, split, parts)

        return jax.tree.map(together, *everywhere)

    def _nothing(self, like: Any) -> list[Any]:
        """For each device a block without wanted genes, which stays there."""
        leaves, structure = jax.tree.flatten(like)
        kind = (structure, *((leaf.shape, leaf.dtype) for leaf in leaves))
        if kind not in self._empty:
            zeros = jax.tree.map(np.zeros_like, like)
            self._empty[kind] = jax.device_put([zeros] * len(self.all), list(self.all))
        return list(self._empty[kind])


def _part(found: Any, place: int) -> Any:
    """What one of the devices has."""
    return jax.tree.map(lambda a: a.addressable_shards[place].data, found)
