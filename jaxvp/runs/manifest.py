"""What a run is of: written beside its finished blocks, compared when it is started again.

Small things stand in it as they are, so that an error can say what changed; large ones as SHA-256:
the design (which stands for metadata and formula), the names of the genes. Measurements are hashed
block by block as they are read (`parts`), and the manifest has the size of the file and the time of
its last change. Where these two are the same, the file is taken for the same. Where they are not
(a copy, another disk), the finished blocks are read again and their hashes compared: it is a pass
over what is done, and only then. What is not done yet has no numbers that could be outdated.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from jaxvp.results import files
from jaxvp.study import Study

from .errors import RunError, writing
from .shards import Shard

NAME = "manifest.json"
FORMAT, VERSION = "jaxvp.run", 2
# Whose numbers they are.
PACKAGES = ("jaxvp", "jax", "jaxlib", "numpy")


@dataclasses.dataclass(frozen=True)
class Manifest:
    """See above."""

    formula: str
    options: dict[str, Any]
    block_size: int
    genes: int
    samples: int
    design: str
    gene_names: str
    versions: dict[str, str]
    device: str | None
    """its kind; None where an executor's workers have theirs"""
    shard: tuple[int, int] | None
    data: dict[str, Any] | None
    """name, size and time of the last change of the file; None where there is none"""

    def differences(self, other: Manifest) -> list[str]:
        """In what another run is not this one, measurements left aside."""
        found = []
        for name in ("formula", "block_size", "genes", "samples"):
            found += _difference(name.replace("_", " "), getattr(self, name), getattr(other, name))
        for name, value in self.options.items():
            found += _difference(name, value, other.options.get(name))
        if self.design != other.design and not found:
            found.append("the metadata: other samples, variables or values of them")
        if self.gene_names != other.gene_names and self.genes == other.genes:
            found.append("the names of the genes")
        for name in PACKAGES:
            version, others = self.versions.get(name), other.versions.get(name)
            found += _difference(f"the version of {name}", version, others)
        if self.device and other.device:
            found += _difference("the device", self.device, other.device)
        return found

    def same_file(self, other: Manifest) -> bool:
        """Whether size and time of the last change say that the measurements are the same."""
        if self.data is None or other.data is None:
            return False
        return all(self.data[name] == other.data[name] for name in ("size", "modified_ns"))

    def write(self, folder: Path) -> None:
        """To the folder of the run."""
        content = {"format": FORMAT, "version": VERSION, **dataclasses.asdict(self)}
        with writing(folder), files.atomic(folder / NAME, durable=True) as temporary:
            temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _difference(name: str, before: Any, now: Any) -> list[str]:
    return [] if before == now else [f"{name}: {before!r} before, {now!r} now"]


def read(folder: Path) -> Manifest | None:
    """The manifest in a folder; None if there is none.

    Raises
    ------
    RunError
        If it is damaged, or of another version of its format.
    """
    path = folder / NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if (content.pop("format"), content.pop("version")) != (FORMAT, VERSION):
            raise ValueError("it is of another version of jaxvp")
        content["shard"] = tuple(content["shard"]) if content["shard"] else None
        return Manifest(**content)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(
            f"{path} cannot be read ({error}): delete the folder {folder} to start over"
        ) from error


def of_study(study: Study, versions: dict[str, str], shard: Shard | None) -> Manifest:
    """What a study that is about to be fitted would have written."""
    origin = study.measurements.origin
    data = None
    if origin is not None:
        stamp = origin.unchanged.stamp
        name = origin.unchanged.path.name
        data = {"name": name, "size": stamp.size, "modified_ns": stamp.mtime_ns}
    options = {name: getattr(study, name) for name in ("reml", "solver", "dtype")}
    options["weights"] = None if study.weights is None else study.weights.digest()
    options["rescale_weights"] = study.weights is None or study.weights.rescale
    return Manifest(
        formula=study.formula.text,
        options=options,
        block_size=study.block_size,
        genes=study.genes,
        samples=study.design.n,
        design=fingerprint(study.design),
        gene_names=fingerprint(study.measurements.gene_names.to_numpy()),
        versions=versions,
        device=None if study.executor else str(study.devices[0].device_kind),
        shard=None if shard is None else (shard.index, shard.count),
        data=data,
    )


def fingerprint(thing: Any) -> str:
    """SHA-256 of arrays, names and what is made of them, field by field."""
    found = hashlib.sha256(usedforsecurity=False)

    def add(part: Any) -> None:
        if dataclasses.is_dataclass(part):
            for field in dataclasses.fields(part):
                add(field.name)
                add(getattr(part, field.name))
        elif isinstance(part, np.ndarray) and part.dtype.kind in "fiub":
            found.update(f"{part.dtype.str} {part.shape} ".encode())
            found.update(np.ascontiguousarray(part).tobytes())
        elif isinstance(part, tuple | list | np.ndarray) and all(isinstance(i, str) for i in part):
            found.update(repr(list(part)).encode())
        elif isinstance(part, tuple | list | np.ndarray):
            found.update(f"{len(part)} ".encode())
            for item in part:
                add(item)
        else:
            found.update(f"{part!r} ".encode())

    add(thing)
    return found.hexdigest()
