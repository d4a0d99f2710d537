"""What is measured: the designs and sweeps of `configs/bench/*.toml`, checked as they are read.

A design is drawn by `jaxvp.simulate` (samples, levels) or is a data set of `jaxvp.datasets`. Gene
counts, repeats and the peers' samples come in two sizes, `full` and `quick`; everything after this
module sees the one that was asked for.
"""

from __future__ import annotations

import dataclasses
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
DESIGNS = ROOT / "configs" / "bench" / "designs.toml"
SWEEPS = ROOT / "configs" / "bench" / "sweeps.toml"
PEERS = ("mixedlm", "statsmodels", "lme4", "lmer", "sequence")
"""mixedlm and statsmodels in Python; lme4's `refit`, its `lmer`, and variancePartition's sequence
of calls to it, in R"""


class SettingsError(ValueError):
    """A settings file that does not say what it should; names the table and the key."""


@dataclass(frozen=True, kw_only=True)
class Design:
    """One design at one size.

    Attributes
    ----------
    name, title : str
    genes : int
        For jaxvp.
    repeats : int
        Warm fits.
    peers : dict
        Peer to the number of genes of its sample.
    samples, levels
        Of `jaxvp.simulate`; or `dataset` and `formula`.
    visits
        Every level of the first factor is seen so many times, on days 0, 1, 2, ..., and has an
        intercept and a slope of its own, ``~ Days + (Days|factor)``; others are crossed with it.
    own_days
        Every level is seen on days of its own.
    """

    name: str
    title: str
    genes: int
    repeats: int
    peers: dict[str, int]
    samples: int = 0
    levels: dict[str, int] = dataclasses.field(default_factory=dict)
    dataset: str | None = None
    formula: str | None = None
    visits: int = 0
    own_days: bool = False
    imbalance: float = 0.5
    seed: int = 1

    def with_genes(self, most: int | None) -> Design:
        """The same with no more than `most` genes."""
        return self if most is None else dataclasses.replace(self, genes=min(most, self.genes))

    def without_peers(self) -> Design:
        return dataclasses.replace(self, peers={})


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """One panel of the figure: a design at each value of one quantity."""

    name: str
    label: str
    points: tuple[tuple[int, Design], ...]


def designs(size: str, path: Path = DESIGNS) -> dict[str, Design]:
    """The designs in `size`, "full" or "quick"; those with no genes there are left out."""
    found = {}
    for name, table in _read(path).items():
        _known(name, table, {field.name for field in dataclasses.fields(Design)} - {"name"})
        peers = table.get("peers", {}).get(size, {})
        _known(f"{name}.peers.{size}", peers, set(PEERS))
        values = table | {
            "genes": _sized(name, table, "genes", size),
            "repeats": _sized(name, table, "repeats", size),
            "peers": {peer: peers[peer] for peer in PEERS if peer in peers},
        }
        if ("dataset" in table) == ("levels" in table):
            raise SettingsError(f"{name}: give either levels and samples, or dataset and formula")
        if values["genes"]:
            found[name] = Design(name=name, **values)
    return found


def sweeps(size: str, path: Path = SWEEPS) -> list[Sweep]:
    """The sweeps in `size`."""
    return [_sweep(name, table, size) for name, table in _read(path).items()]


def _sweep(name: str, table: dict[str, Any], size: str) -> Sweep:
    keys = {"label", "x", "values", "samples", "levels", "genes", "mixedlm", "sequence"}
    _known(name, table, keys)
    points = []
    for value in _sized(name, table, "values", size):
        design = Design(
            name=f"{name}={value}",
            title=table["label"],
            genes=_sized(name, table, "genes", size),
            repeats=3,
            peers={peer: _sized(name, table, peer, size) for peer in ("mixedlm", "sequence")},
            samples=table["samples"],
            levels=table["levels"],
        )
        x = table["x"]
        if x in ("samples", "genes"):
            design = dataclasses.replace(design, **{x: value})
        elif x in design.levels:
            design = dataclasses.replace(design, levels=design.levels | {x: value})
        else:
            raise SettingsError(f"{name}: x = {x!r} is not samples, genes or a factor of it")
        points.append((value, design))
    return Sweep(name=name, label=table["label"], points=tuple(points))


def _read(path: Path) -> dict[str, dict[str, Any]]:
    return tomllib.loads(path.read_text(encoding="utf-8"))


def _sized(name: str, table: dict[str, Any], key: str, size: str) -> Any:
    try:
        return table[key][size]
    except (KeyError, TypeError):
        raise SettingsError(f'{name}: {key} needs a value for "{size}"') from None


def _known(name: str, table: dict[str, Any], keys: set[str]) -> None:
    unknown = sorted(set(table) - keys)
    if unknown:
        raise SettingsError(f"{name}: unknown key {unknown[0]!r}; known are {sorted(keys)}")
