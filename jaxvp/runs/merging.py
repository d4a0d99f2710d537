"""Shards become one result: the tables of a run that was never split, byte for byte."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from jaxvp import batch
from jaxvp.results import Results, load
from jaxvp.warning import warn

from . import manifest
from .errors import RunError
from .folder import MODEL
from .manifest import Manifest
from .parts import Parts, to_results
from .shards import Shard


class Merged(NamedTuple):
    """What the shards add up to."""

    results: Results
    shards: list[Path]


def merge(folders: Sequence[Path]) -> Merged:
    """Join the shards of a study.

    Parameters
    ----------
    folders
        Folders of shards, or folders that hold them.

    Raises
    ------
    RunError
        If shards are missing or not finished (it says which), are there twice, or are not of one
        and the same study.
    """
    found = _shards(folders)
    count = next(iter(found)).count
    there = {shard: _parts(path) for shard, path in sorted(found.items())}
    _check_complete(count, found, there)
    parts = {shard: one for shard, one in there.items() if one is not None}
    _check_same(found, {shard: one.manifest for shard, one in parts.items()})
    joined = Parts(Path(), lambda: parts[min(parts)].manifest)
    for one in parts.values():
        joined.blocks |= one.blocks
    model = load(found[min(found)] / MODEL)
    table = joined.table()
    index = model.fractions.index
    if isinstance(index, pd.RangeIndex):
        genes = pd.RangeIndex(joined.manifest.genes, name=index.name)
    else:
        names = [] if table is None else table.column("gene").to_pylist()
        genes = pd.Index(names, dtype=index.dtype, name=index.name)
    results = replace(model, **to_results(table, genes, model))
    return Merged(results, [path for _, path in sorted(found.items())])


def _shards(folders: Sequence[Path]) -> dict[Shard, Path]:
    """Where each shard is."""
    found: dict[Shard, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            raise RunError(f"{folder}: there is no such folder")
        own = Shard.of_folder(folder.resolve().name)
        inside = [folder] if own else [path for path in folder.iterdir() if path.is_dir()]
        for path in inside:
            shard = Shard.of_folder(path.resolve().name)
            if shard is None:
                continue
            if shard in found and not path.samefile(found[shard]):
                raise RunError(f"shard {shard} is there twice: {found[shard]} and {path}")
            found[shard] = path
    if not found:
        shown = ", ".join(map(str, folders))
        raise RunError(f"{shown}: no shards; `jaxvp fit ... --shard i/N` makes them")
    counts = sorted({shard.count for shard in found})
    if len(counts) > 1:
        raise RunError(
            f"there are shards of {' and of '.join(map(str, counts))}: name the folders of those "
            "that belong together, or delete the others"
        )
    return found


def _parts(path: Path) -> Parts | None:
    """The finished blocks of a shard; None if there is not even a manifest."""
    of_shard = manifest.read(path)
    if of_shard is None:
        return None
    parts = Parts(path, lambda: of_shard)
    parts.load()
    return parts


def _check_complete(count: int, found: dict[Shard, Path], parts: dict[Shard, Parts | None]) -> None:
    missing = []
    for shard in (Shard(i, count) for i in range(1, count + 1)):
        of_shard = parts.get(shard)
        if of_shard is None:
            missing.append(f"{shard} (nothing is there)")
            continue
        known = of_shard.manifest
        wanted = list(shard.slice(batch.blocks_of(known.genes, known.block_size)))
        left = len(of_shard.missing(wanted))
        if left or not (found[shard] / MODEL).exists():
            missing.append(f"{shard} ({len(wanted) - left} of {len(wanted)} blocks are done)")
    if missing:
        raise RunError(
            f"{len(missing)} of {count} shards are missing or not finished: {', '.join(missing)}. "
            "Run `jaxvp fit` with --shard for each of them, then merge again"
        )


def _check_same(found: dict[Shard, Path], manifests: dict[Shard, Manifest]) -> None:
    """All shards are of one study."""
    first = min(manifests)
    for shard, other in manifests.items():
        changed = manifests[first].differences(other)
        sizes = [m.data["size"] if m.data else None for m in (manifests[first], other)]
        if sizes[0] != sizes[1]:
            changed.append(f"the size of the expression file: {sizes[0]} and {sizes[1]} bytes")
        if changed:
            text = "; ".join(changed).replace(" before,", f" in shard {first},")
            text = text.replace(" now", f" in shard {shard}")
            raise RunError(
                f"shards {first} and {shard} are not of the same run. {text}. Delete "
                f"{found[first]} or {found[shard]} and run that shard again"
            )
        if not manifests[first].same_file(other) and other.data:
            warn(
                f"the expression files of shards {first} and {shard} have the same size, but not "
                "the same time of the last change: they are taken for copies"
            )
