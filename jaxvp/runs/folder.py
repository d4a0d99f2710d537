"""A run in a folder: started, killed, started again, finished.

    with Folder(out) as run:
        result = run.fit(expression, formula, metadata)
        ...                                     # write the tables to `out`
        run.finish()

Until it is finished, its manifest and parts are in ``out/unfinished``, or, for a shard, in
``out/shard-i-of-N``, where they stay for `merge`. With a shard, a small file ``model.zip`` holds
what all shards share: it is a saved result of no gene, with design, formula and versions.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import shutil
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from jaxvp import api, batch
from jaxvp.executors import describe
from jaxvp.expression import digest
from jaxvp.progress import bar
from jaxvp.results import SERIES, TABLES, Results
from jaxvp.results.files import to_disk
from jaxvp.solver import lanes
from jaxvp.study import Study

from . import manifest
from .errors import RunError, UnfinishedError, writing
from .lock import locked
from .parts import Parts, to_results
from .shards import Shard

logger = logging.getLogger("jaxvp")
UNFINISHED, MODEL = "unfinished", "model.zip"
_ASIDE = ".finished-"
_NAMES = "|".join([*TABLES, *SERIES, "run", "model", "report"])
_HALF_WRITTEN = re.compile(rf"\.({_NAMES})\.[a-z]+\.[0-9a-f]{{8}}")


class Folder:
    """One run, alone in its folder for as long as this context is open.

    Parameters
    ----------
    out
        The output folder. Where it is not there, it is made by `fit`, when all input is checked.
    shard
        The slice of the genes that is fitted; None: all.
    """

    def __init__(self, out: str | os.PathLike[str], shard: Shard | None = None) -> None:
        self.out, self.shard = Path(out), shard
        self.state = self.out / (UNFINISHED if shard is None else shard.folder)
        self.continued = 0
        """genes that an earlier run had finished"""
        self._home = self.out if shard is None else self.state
        self._stack = ExitStack()
        self._locked = False
        self._parts: Parts | None = None

    def __enter__(self) -> Folder:
        if self._home.is_dir():  # before anything is read
            self._lock()
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        if kind is not None and self._parts is not None:
            with suppress(OSError, RunError):  # the error that is under way says it
                self._parts.flush(if_long=True)
        self._stack.close()

    def _lock(self) -> None:
        with writing(self._home):
            self._home.mkdir(parents=True, exist_ok=True)
        self._stack.enter_context(locked(self._home))
        self._locked = True
        for path in self._home.iterdir():  # of a run that was killed while it wrote or tidied up
            if path.name.startswith(_ASIDE):
                shutil.rmtree(path, ignore_errors=True)
            elif _HALF_WRITTEN.fullmatch(path.name):
                path.unlink(missing_ok=True)

    def fit(
        self,
        expression: Any,
        formula: str,
        metadata: Any = None,
        *,
        block_size: int | str = "auto",
        progress: bool | None = None,
        **options: Any,
    ) -> Results:
        """Fit what is not finished yet, and return all of it.

        Parameters
        ----------
        expression, formula, metadata, options
            As of `jaxvp.fit`.
        block_size
            ``"auto"``: that of the run that is continued; else by the design, and small enough
            for every shard to have work.
        progress
            As of `jaxvp.fit`.

        Returns
        -------
        Results
            Of all genes, or of those of the shard.

        Raises
        ------
        RunError
            If the folder holds an unfinished run of something else.
        UnfinishedError
            If blocks failed or could not be written; what was finished is kept.
        """
        study = api.prepare(expression, formula, metadata, block_size=block_size, **options)
        if not self._locked:
            self._lock()
        study, parts = self._taken_up(study, block_size == "auto")
        self._parts = parts
        wanted = study.blocks() if self.shard is None else list(self.shard.slice(study.blocks()))
        missing = parts.missing(wanted)
        self.continued = sum(stop - start for start, stop in set(wanted) - set(missing))

        def finished(start: int, stop: int, fitted: batch.Fitted, found: str | None) -> None:
            assert found is not None
            parts.add(start, stop, api.results(study, fitted, slice(start, stop)), found)
            report(stop - start)

        with bar(progress, sum(stop - start for start, stop in missing)) as report:
            failures = study.fit_blocks(missing, finished, digests=True)
        if failures:
            parts.flush()
            raise UnfinishedError(
                f"{describe(failures, study.measurements.gene_names)}. The other blocks are kept "
                f"in {self.state}: the same command computes what is missing"
            )
        first = wanted[0][0] if wanted else 0
        genes = slice(first, wanted[-1][1] if wanted else 0)
        model = api.results(study, batch.empty(study.design, 0), slice(0, 0))
        if self.shard is not None:
            self._keep_shard(parts, model)
        names = study.measurements.gene_names[genes]
        return replace(model, **to_results(parts.table(), names, model))

    def _taken_up(self, study: Study, any_size: bool) -> tuple[Study, Parts]:
        """The study with the block size of what is here, and its finished blocks."""
        before = manifest.read(self.state)
        if any_size:
            size = study.block_size
            if self.shard is not None:
                size = self._of_shard(study)
            elif not before:
                size = study.in_memory().block_size
            study = study._replace(block_size=before.block_size if before else size)
        parts = Parts(self.state, lambda: manifest.of_study(study, api.versions(), self.shard))
        if before is None:
            return study, parts
        now = parts.manifest
        changed = before.differences(now)
        if not changed:
            parts.take_up()
            if not before.same_file(now):
                changed = _changed_blocks(study, parts)
                if not changed:  # from here on blocks are of this one
                    replace(before, data=now.data).write(self.state)
        if changed:
            raise RunError(
                f"{self.state} holds a run of something else. {'; '.join(changed)}. Give what it "
                "was started with to go on with it, choose another output folder, or delete "
                f"{self.state} to start over"
            )
        logger.info("%s: %d blocks are finished", self.state, len(parts.blocks))
        return study, parts

    def _of_shard(self, study: Study) -> int:
        """Genes in a block of a shard, of which its own cores shall have some."""
        assert self.shard is not None
        shared, genes = study.compression.shared, study.genes
        of_one, platform = -(-genes // self.shard.count), batch.platform_of(study.devices)
        largest = batch.block_genes(shared, study.design.n, of_one, platform)
        return self.shard.block_size(genes, min(study.block_size, largest), lanes(shared))

    def _keep_shard(self, parts: Parts, model: Results) -> None:
        """All that `merge` needs."""
        parts.flush()
        if not (self.state / manifest.NAME).exists():  # more shards than blocks
            parts.manifest.write(self.state)
        if not (self.state / MODEL).exists():
            with writing(self.state):
                model.save(self.state / MODEL)

    def finish(self) -> None:
        """The tables are written: what was needed to go on is removed."""
        if self.shard is None and self.state.exists():
            with writing(self.out):
                for path in [*(path for path in self.out.iterdir() if path.is_file()), self.out]:
                    to_disk(path)
            # Out of the way in one step: half of it would be taken for a run.
            aside = self.out / f"{_ASIDE}{secrets.token_hex(4)}"
            self.state.rename(aside)
            shutil.rmtree(aside, ignore_errors=True)


def _changed_blocks(study: Study, parts: Parts) -> list[str]:
    """Read the finished blocks again and compare their hashes."""
    logger.info("the file is not the one of before, or a copy: reading what was fitted again")
    for start, block in sorted(parts.blocks.items()):
        if digest(study.measurements.block(start, block.stop)) != block.digest:
            genes = study.measurements.gene_names
            return [f"the measurements: those of {genes[start]} to {genes[block.stop - 1]} changed"]
    return []
