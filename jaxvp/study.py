"""A study on the threshold of its fit: everything is known but the genes' own numbers.

`api.prepare` makes it of what the caller has; blocks of genes are fitted in any order, all or
some of them, here or by an executor. A block's numbers never depend on which others are fitted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np
from jaxtyping import Float

from jaxvp import batch, executors
from jaxvp.design import Design
from jaxvp.expression import Expression, digest, reader_of
from jaxvp.formula import Formula
from jaxvp.runtime import using_blas_threads
from jaxvp.statistics import Compression

Finished: TypeAlias = Callable[[int, int, batch.Fitted, str | None], object]


class Weights(NamedTuple):
    """Precision weights of a study."""

    own: Expression | None  # of each gene
    shared: Float[np.ndarray, " n"] | None  # of each sample, the same for all genes
    rescale: bool  # whether they stay divided by their mean

    def digest(self) -> str:
        """SHA-256 of all of them."""
        if self.own is None:
            return digest(np.asarray(self.shared)[:, None])
        found = hashlib.sha256(usedforsecurity=False)
        for start, stop in batch.blocks_of(self.own.n_genes, _GENES_TO_HASH):
            found.update(digest(self.own.block(start, stop)).encode())
        return found.hexdigest()


_GENES_TO_HASH = 1024


class Study(NamedTuple):
    """What is known before the first gene is fitted."""

    formula: Formula
    design: Design
    measurements: Expression
    compression: Compression
    reml: bool
    solver: str
    dtype: str
    block_size: int
    asked: int | str  # the block size that the caller gave
    devices: list[batch.Device]
    executor: Executor | None
    weights: Weights | None = None

    @property
    def genes(self) -> int:
        """How many there are."""
        return self.measurements.n_genes

    def in_memory(self) -> Study:
        """The same, in smaller blocks where the free memory is too small for those of the design.

        Numbers depend on the block size in their last digits, so that it is never changed for a run
        that is to repeat another.
        """
        if self.executor is not None or not self.genes:
            return self
        size = min(self.block_size, self.genes)
        smaller = batch.that_fits(self.compression.shared, self.design.n, size)
        return self if smaller == size else self._replace(block_size=smaller)

    def blocks(self) -> list[tuple[int, int]]:
        """Where blocks of genes begin and end."""
        return batch.blocks_of(self.genes, self.block_size)

    def empty(self) -> batch.Fitted:
        """Room for all genes."""
        return batch.empty(self.design, self.genes)

    def fit_blocks(
        self, blocks: Sequence[tuple[int, int]], finished: Finished, digests: bool = False
    ) -> list[executors.Failure]:
        """Fit some blocks, here or by the executor, and name those that could not be computed.

        ``finished(start, stop, fitted, digest)`` is called for each, from several threads; the
        digest of its measurements is None unless `digests`.

        Meanwhile linear algebra on the host has no threads of its own: blocks are what is shared
        out, threads of threads wait for each other, and last bits depend on their number.
        """
        if not blocks:
            return []
        with using_blas_threads(1):
            return self._fit_blocks(blocks, finished, digests)

    def _fit_blocks(
        self, blocks: Sequence[tuple[int, int]], finished: Finished, digests: bool
    ) -> list[executors.Failure]:
        options: Any = {name: getattr(self, name) for name in ("reml", "solver", "dtype")}
        options |= {"block_size": self.block_size}
        failures = []
        own, shared = None, None
        if self.weights is not None:
            own, shared = self.weights.own, self.weights.shared
            options["rescale_weights"] = self.weights.rescale
            options["own_weights"] = own is not None
        if self.executor is None:
            hashes: dict[int, str] = {}

            def read(start: int, stop: int) -> Float[np.ndarray, "n genes"]:
                block = self.measurements.block(start, stop)
                if digests:
                    hashes[start] = digest(block)
                return block

            batch.fit_all(
                batch.Fitter(
                    self.design,
                    self.compression,
                    self.genes,
                    devices=self.devices,
                    **options,
                ),
                read,
                blocks,
                lambda start, stop, found: finished(start, stop, found, hashes.get(start)),
                weights=own.block if own is not None else None,
            )
        else:
            cached = jax.config.values.get("jax_compilation_cache_dir") is not None
            reader = reader_of(self.measurements)
            job = executors.Job(
                self.design,
                self.genes,
                reader=reader,
                sample_weights=shared,
                digests=digests,
                compile_cache=cached,
                **options,
            )
            failures = executors.fit_all(
                self.executor,
                job,
                self.measurements.block,
                blocks,
                lambda start, stop, found: finished(start, stop, found.fitted, found.digest),
                weights=own.block if own is not None else None,
            )
        for served in (self.measurements, own):
            if served is not None and served.origin is not None:
                served.origin.check_all()
        return failures
