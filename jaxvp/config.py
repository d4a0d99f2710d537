"""A fit written down in a TOML file: what `jaxvp fit --config FILE` reads.

Every key is the long option of `jaxvp fit` of that name, with underscores for dashes; a key that is
none is an error that lists close ones, as is a value of the wrong type. Paths are relative to the
folder of the file, so that it means the same from wherever it is called.

Config files come from web forms too. A file may read any table that its user may read, but writes
only below its own folder: `out` is a relative path that stays inside it, links followed. To write
elsewhere, say `--out` on the command line, which goes over the file.

    expression = "expression.csv.gz"
    metadata = "samples.csv"
    formula = "~ Age + (1|Individual) + (1|Tissue)"
    out = "results"
"""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any


class ConfigError(ValueError):
    """A config file that is missing, is no TOML, or says what `jaxvp fit` does not know."""


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """The options of one fit, as the file or the command line gives them. None: not given.

    Attributes
    ----------
    expression, metadata : Path
        Tables (CSV, TSV, Parquet, gzipped or not; expression also npy, h5ad, zarr). An AnnData
        (h5ad, zarr) brings its own metadata.
    weights : Path
        Precision weights: a table with the names of the expression, or of one column, by sample.
    layer : str
        Of an AnnData, in place of `X`.
    dataset : str
        A data set of `jaxvp.datasets`, in place of `expression` and `metadata`.
    formula : str
    out : Path
        Folder for the results.
    sample_column, gene_column : str
        Columns that hold the names, where that is not the first one.
    genes_in : {"rows", "columns"}
        Of the expression table, where names do not decide.
    format : {"parquet", "csv"}
        Of the result tables.
    report : bool
        Whether to write ``report.html`` beside them.
    reml : bool
    solver : {"newton", "optax"}
    block_size : int
        Genes fitted at once.
    shard : str
        ``"i/N"``: only the i-th of N slices of the genes.
    dask : str
        Address of a Dask scheduler whose workers fit the blocks.
    """

    expression: Path | None = None
    metadata: Path | None = None
    weights: Path | None = None
    layer: str | None = None
    dataset: str | None = None
    formula: str | None = None
    out: Path | None = None
    sample_column: str | None = None
    gene_column: str | None = None
    genes_in: str | None = None
    format: str | None = None
    report: bool | None = None
    reml: bool | None = None
    solver: str | None = None
    block_size: int | None = None
    shard: str | None = None
    dask: str | None = None

    def updated(self, **options: Any) -> FitConfig:
        """The same with every option that is not None in place of this one's."""
        return replace(
            self, **{name: value for name, value in options.items() if value is not None}
        )

    def given(self, *names: str) -> dict[str, Any]:
        """The options that are not None, of those named, or of all."""
        wanted = names or [field.name for field in fields(self)]
        return {name: value for name in wanted if (value := getattr(self, name)) is not None}


CHOICES = {
    "dataset": ("influenza",),
    "genes_in": ("rows", "columns"),
    "format": ("parquet", "csv"),
    "solver": ("newton", "optax"),
}
_PATHS = ("expression", "metadata", "weights", "out")
_TYPES = {
    "reml": (bool, "true or false"),
    "report": (bool, "true or false"),
    "block_size": (int, "a positive whole number"),
}


def load(path: str | Path) -> FitConfig:
    """Read and check a config file; its relative paths become paths from here.

    Raises
    ------
    ConfigError
        Names the file, the key and the remedy.
    """
    path = Path(path)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such config file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as text ({error})") from None
    except (ValueError, RecursionError) as error:  # not all of it is its TOMLDecodeError
        raise ConfigError(f"{path}: not valid TOML: {error}") from None
    return FitConfig(**{key: _checked(path, key, value) for key, value in table.items()})


def _checked(path: Path, key: str, value: Any) -> Any:
    """The value of a key, as `FitConfig` holds it."""
    known = [field.name for field in fields(FitConfig)]
    if key not in known:
        close = difflib.get_close_matches(key.replace("-", "_"), known, n=3)
        hint = f"did you mean {' or '.join(map(repr, close))}?" if close else ""
        hint = hint or f"known are {', '.join(known)}"
        raise ConfigError(f"{path}: unknown key {key!r}; {hint}")
    wanted, words = _TYPES.get(key, (str, "a text in quotes"))
    # A TOML boolean is no number, though Python's bool is an int.
    if type(value) is not wanted or (wanted is int and value < 1):
        raise ConfigError(f"{path}: {key} must be {words}, not {value!r}")
    if key in CHOICES and value not in CHOICES[key]:
        choices = " or ".join(map(repr, CHOICES[key]))
        raise ConfigError(f"{path}: {key} must be {choices}, not {value!r}")
    if key in _PATHS and "\0" in value:
        raise ConfigError(f"{path}: {key} = {value!r} is no path: it has a zero character")
    if key == "out":
        _check_inside(path, value)
    return path.parent / value if key in _PATHS else value


def _check_inside(path: Path, out: str) -> None:
    """Refuse an output folder that is not below the folder of the config file."""
    folder = path.parent.resolve()
    if folder not in (folder / out).resolve().parents:
        raise ConfigError(
            f"{path}: out = {out!r} is not inside the folder of the config file; "
            "name a folder below it, or give --out on the command line"
        )
