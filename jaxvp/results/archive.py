"""A result in one file that needs no jaxvp to be read.

It is a zip archive; any tool that opens zip and Parquet reads it, and reading executes nothing::

    result.json               format, version, formula, reml, weighted, block_size, options,
                              versions, design
    fractions.parquet         genes x components; and so on for every table of `Results`
    design/samples.parquet    name of every sample and its position in the metadata
    design/X.parquet          samples x fixed columns
    design/codes.parquet      samples x random terms, the number of the level (names: result.json)
    design/slopes.parquet     samples x random slopes, the slope variable (where there are any)

Version 1 had no `options`, and no `coding` in the design: what other samples are coded with.

Numbers come back bit for bit. The same result gives the same bytes: times in the archive are fixed.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from jaxvp.design import Coding, Design
from jaxvp.expression import DataError
from jaxvp.formula import Formula

from .files import atomic, write_table

FORMAT, VERSION = "jaxvp.Results", 2
READABLE = (1, 2)
MANIFEST = "result.json"
# Static fields of a design that are plain names and numbers.
DESIGN_NAMES = ("columns", "terms", "term_of_column", "random_names", "levels")
SLOPE_NAMES = ("coefficients", "blocks", "slope_levels")


def write(
    path: Path,
    tables: Mapping[str, pd.DataFrame],
    scalars: Mapping[str, Any],
    design: Design | None,
) -> None:
    """Write the archive; an interruption leaves what was at `path` before."""
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent} to save {path.name} in")
    manifest: dict[str, Any] = {"format": FORMAT, "version": VERSION, **scalars, "design": None}
    parts = dict(tables)
    if design is not None:
        names = (*DESIGN_NAMES, *SLOPE_NAMES) if design.slopes else DESIGN_NAMES
        manifest["design"] = {name: getattr(design, name) for name in names}
        manifest["design"]["coding"] = None if design.coding is None else asdict(design.coding)
        parts |= _design_tables(design)
    with atomic(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        # The manifest comes first: a stream tells what it is before the tables arrive.
        archive.writestr(zipfile.ZipInfo(MANIFEST), json.dumps(manifest, indent=1))
        for name, table in parts.items():
            buffer = io.BytesIO()
            write_table(table, buffer, "parquet", keep_range=True)
            archive.writestr(zipfile.ZipInfo(f"{name}.parquet"), buffer.getvalue())


def read(
    path: Path, names: tuple[str, ...], scalars: tuple[str, ...]
) -> tuple[dict[str, pd.DataFrame], dict[str, Any], Design | None]:
    """The tables, scalars and design of an archive.

    Raises
    ------
    DataError
        If the file is not whole, not a saved result, or of a version that this one does not know.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            manifest = _manifest(path, archive)
            tables = {name: _table(archive, name) for name in names}
            design = _design(archive, manifest)
            if manifest["version"] == 1:
                manifest.setdefault("options", {})
            return tables, {name: manifest[name] for name in scalars}, design
    except (DataError, FileNotFoundError, IsADirectoryError, PermissionError, MemoryError):
        raise
    except Exception as error:  # one byte may make it encrypted, or compressed by who knows what
        raise DataError(
            f"{path} is not a whole saved result of jaxvp ({error}): save it again"
        ) from error


def _manifest(path: Path, archive: zipfile.ZipFile) -> dict[str, Any]:
    manifest = json.loads(archive.read(MANIFEST))
    if not isinstance(manifest, dict):
        raise KeyError(f"no format named in {MANIFEST}")
    if manifest["format"] != FORMAT:
        raise DataError(f"{path} holds {manifest['format']!r}, not a result of jaxvp")
    if manifest["version"] not in READABLE:
        raise DataError(
            f"{path} has version {manifest['version']} of the file format and this jaxvp reads "
            f"versions {' and '.join(map(str, READABLE))}: read it with the jaxvp that wrote it "
            f"({manifest.get('versions', {}).get('jaxvp', 'unknown')}) or a newer one"
        )
    return manifest


def _table(archive: zipfile.ZipFile, name: str) -> pd.DataFrame:
    return pd.read_parquet(io.BytesIO(archive.read(f"{name}.parquet")))


def _design_tables(design: Design) -> dict[str, pd.DataFrame]:
    codes = dict(zip(design.random_names, design.codes, strict=True))
    tables = {
        "design/samples": pd.DataFrame({"sample": design.samples, "position": design.kept}),
        "design/X": pd.DataFrame(design.X, columns=list(design.columns)),
        "design/codes": pd.DataFrame(codes),
    }
    if design.slopes:
        columns = zip(design.random_names, design.multipliers, strict=True)
        slopes = {name: column for name, column in columns if column is not None}
        tables["design/slopes"] = pd.DataFrame(slopes)
    return tables


def _design(archive: zipfile.ZipFile, manifest: dict[str, Any]) -> Design | None:
    names = manifest["design"]
    if names is None:
        return None
    samples, codes = _table(archive, "design/samples"), _table(archive, "design/codes")
    columns, coding = tuple(names["columns"]), names.get("coding")
    # A table without columns has no rows in Parquet: the samples say how many there are.
    X = _table(archive, "design/X").to_numpy(np.float64).reshape(len(samples), len(columns))
    slopes: dict[str, Any] = {}
    if "blocks" in names:
        table = _table(archive, "design/slopes")
        slopes["multipliers"] = tuple(
            table[name].to_numpy() if name in table else None for name in names["random_names"]
        )
        slopes["coefficients"] = tuple(names["coefficients"])
        slopes["blocks"] = tuple(map(tuple, names["blocks"]))
        slopes["slope_levels"] = tuple((name, tuple(own)) for name, own in names["slope_levels"])
    return Design(
        X=X,
        codes=tuple(codes[name].to_numpy() for name in names["random_names"]),
        kept=samples["position"].to_numpy(),
        columns=columns,
        terms=tuple(names["terms"]),
        term_of_column=tuple(names["term_of_column"]),
        random_names=tuple(names["random_names"]),
        levels=tuple(map(tuple, names["levels"])),
        samples=tuple(samples["sample"]),
        formula=Formula.parse(manifest["formula"]),
        coding=None if coding is None else Coding.read(coding),
        **slopes,
    )
