"""The peers: other programs that fit the same models, one gene at a time, on a sample of the genes.

Each runs on all cores as one single-threaded process a core, by its fastest public way through many
genes. A process prepares (imports, reads, fits its starting model), waits until all are ready, and
then fits its share of the sample; the rates of the processes add up, and one over their sum is the
time of a gene. That is extrapolated: nobody waits for 20,000 genes of every peer.

A peer that is not installed, or that fails, is a `Peer` whose `missing` says so.
"""

from __future__ import annotations

import functools
import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import data, process

SCRIPT = Path(__file__).parents[1] / "lme4.R"
WORDS = {
    "mixedlm": "mixedlm `refit`",
    "statsmodels": "statsmodels `MixedLM`, vc_formula",
    "lme4": "lme4 `refit`",
    "lmer": "lme4 `lmer`",
    "sequence": "variancePartition: call sequence re-enacted in lme4",
}
"""What the tables call them."""
SHORT = 1e-3
"""log-likelihood units below the best of all from which a peer's fit counts as short of it"""


@dataclass
class Peer:
    """One peer on one study."""

    name: str
    missing: str | None = None
    version: str = ""
    sample: list[int] = field(default_factory=list)
    processes: int = 0
    starts: int = 0
    """of processes, with those that asked to be started again (lme4.R says why)"""
    us_per_gene: float = float("nan")
    start: float = float("nan")
    """seconds until a process was ready, most of the processes"""
    log_likelihood: list[float] = field(default_factory=list)
    """of the genes of `sample`; NaN where the peer could not fit one"""


def run(name: str, folder: Path, genes: int, wanted: int, cores: int | None = None) -> Peer:
    """Run a peer on a sample of `wanted` genes of the study in `folder`, of `genes` in all."""
    why = missing(name)
    if why:
        return Peer(name, missing=why)
    cores = cores or process.cores()
    # At least one gene a core, or the cores would not all be in use.
    sample = data.sample(genes, max(wanted, cores))
    shares = [sample[i::cores] for i in range(min(cores, len(sample)))]
    try:
        if name in ("mixedlm", "statsmodels"):
            found = _race_python(name, folder, shares)
        else:
            found = _race_r(name, folder, shares)
    except (process.ProcessFailed, OSError, ValueError) as error:
        return Peer(name, missing=f"failed: {error}")
    values = dict.fromkeys(sample, float("nan"))
    for share, one in zip(shares, found, strict=True):
        values |= zip(share, map(_number, one["log_likelihood"]), strict=True)
    rate = sum(len(share) / one["seconds"] for share, one in zip(shares, found, strict=True))
    return Peer(
        name,
        version=found[0]["version"],
        sample=sample,
        processes=len(shares),
        starts=sum(one["starts"] for one in found),
        us_per_gene=1e6 / rate * len(shares) / cores,
        start=max(float(one["start"]) for one in found),
        log_likelihood=[values[gene] for gene in sample],
    )


@functools.cache
def missing(name: str) -> str | None:
    """Why a peer cannot run here; None if it can."""
    if name in ("mixedlm", "statsmodels"):
        return None if importlib.util.find_spec(name) else f"{name} is not installed"
    if shutil.which("Rscript") is None:
        return "Rscript is not installed"
    for package in ("lme4", "jsonlite"):
        code = f"quit(status = !requireNamespace('{package}', quietly = TRUE))"
        if subprocess.run(["Rscript", "-e", code], capture_output=True).returncode:
            return f"the R package {package} is not installed"
    return None


def gaps(ours: np.ndarray, peers: list[Peer]) -> dict[str, float]:
    """How much worse our log-likelihood is than each peer's, at worst over its sample.

    `best` is against the best of all peers, gene by gene. Negative: ours is better everywhere. A
    gene that we did not fit and a peer did is infinitely worse.
    """
    ours = np.where(np.isnan(ours), -np.inf, ours)
    fits = {peer.name: _fits(peer) for peer in peers}
    found = {
        name: max(value - float(ours[gene]) for gene, value in values.items())
        for name, values in fits.items()
        if values
    }
    best = _best(fits.values())
    if best:
        found["best"] = max(value - float(ours[gene]) for gene, value in best.items())
    return found


def short(ours: np.ndarray, peers: list[Peer]) -> dict[str, dict[str, float]]:
    """How far each peer stays below the best log-likelihood of all, jaxvp's among them.

    `genes`: how many of its sample lack more than `SHORT` (or were not fitted); `most`: what the
    worst of them lacks.
    """
    best = _best([dict(enumerate(map(float, ours))), *map(_fits, peers)])
    found = {}
    for peer in peers:
        lacks = [
            best[gene] - value
            for gene, value in zip(peer.sample, peer.log_likelihood, strict=True)
            if gene in best
        ]
        if lacks:
            count = sum(not lack <= SHORT for lack in lacks)
            finite = [lack for lack in lacks if np.isfinite(lack)]
            found[peer.name] = {"genes": count, "most": max(finite, default=float("nan"))}
    return found


def _fits(peer: Peer) -> dict[int, float]:
    pairs = zip(peer.sample, peer.log_likelihood, strict=True)
    return {gene: value for gene, value in pairs if np.isfinite(value)}


def _best(fits: Iterable[dict[int, float]]) -> dict[int, float]:
    best: dict[int, float] = {}
    for values in fits:
        for gene, value in values.items():
            if np.isfinite(value):
                best[gene] = max(best.get(gene, -np.inf), value)
    return best


def _race_python(name: str, folder: Path, shares: list[list[int]]) -> list[dict[str, Any]]:
    command = [sys.executable, "-W", "ignore", "-m", f"benchmarks.peers.{name}_worker"]
    specs = [{"folder": str(folder), "genes": share} for share in shares]
    return process.race(command, specs)


def _race_r(mode: str, folder: Path, shares: list[list[int]]) -> list[dict[str, Any]]:
    specs = []
    for i, share in enumerate(shares):
        values = folder / f"lme4_{i}.bin"
        data.read_genes(folder, share).tofile(values)
        specs.append(
            {
                "mode": mode,
                "folder": str(folder),
                "values": str(values),
                "genes": len(share),
            }
        )
    return process.race(["Rscript", "--vanilla", str(SCRIPT)], specs)


def _number(value: Any) -> float:
    return float("nan") if value in (None, "NA") else float(value)
