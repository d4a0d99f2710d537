"""`python -m benchmarks.weights [--quick] [--studies A,B]`: weights, missing values, and mixedlm.

Each study of `configs/bench/weights.toml` is drawn once. jaxvp fits all its genes in a process of
its own (warm fits, median); then one mixedlm process a core takes a share of the sample, a whole
`lmer` a gene, weights passed, missing rows dropped. Both sides in the same run, both with all
cores; the gap is mixedlm's log-likelihood less jaxvp's, at worst.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

from benchmarks import process
from benchmarks.settings import ROOT

SETTINGS = ROOT / "configs" / "bench" / "weights.toml"


def studies(size: str, path: Path = SETTINGS) -> dict[str, dict[str, Any]]:
    """The studies in `size`, "full" or "quick"."""
    tables = tomllib.loads(path.read_text(encoding="utf-8"))
    sized = ("genes", "peer", "repeats")
    return {
        name: table | {key: table[key][size] for key in sized} for name, table in tables.items()
    }


def measure(name: str, study: dict[str, Any]) -> dict[str, Any]:
    """One study: both sides, in one row."""
    from benchmarks import data

    with tempfile.TemporaryDirectory(prefix="jaxvp-bench-") as folder:
        mine = process.call("benchmarks.weighted", {"folder": folder, "study": study})
        sample, cores = data.sample(study["genes"], study["peer"]), process.cores()
        shares = [sample[i::cores] for i in range(cores)]
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.peers.lmer_worker"]
        found = process.race(command, [{"folder": folder, "genes": share} for share in shares])
    rate = sum(len(share) / one["seconds"] for share, one in zip(shares, found, strict=True))
    gaps = [
        value - mine["log_likelihood"][gene]
        for share, one in zip(shares, found, strict=True)
        for gene, value in zip(share, one["log_likelihood"], strict=True)
    ]
    return {
        "study": f"**{name}** {study['title']}",
        "genes": f"{study['genes']:,}",
        "jaxvp us/gene: median": f"{mine['us']:.1f}",
        "min": f"{mine['least_us']:.1f}",
        "first call, s": f"{mine['first']:.1f}",
        f"mixedlm {found[0]['version']} `lmer` us/gene": f"{1e6 / rate:,.0f}",
        "times": f"{1e6 / rate / mine['us']:.0f} x",
        "promised": f"{study['least']} x",
        "converged": f"{mine['converged']:.2%}",
        "worst gap": f"{max(gaps):.1e}",
    }


def main(arguments: list[str] | None = None) -> None:
    """Measure, and print the table."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.weights", description=__doc__)
    options.add_argument("--quick", action="store_true")
    options.add_argument("--studies", metavar="A,B")
    chosen = options.parse_args(arguments)
    found = studies("quick" if chosen.quick else "full")
    names = chosen.studies.split(",") if chosen.studies else list(found)
    rows = [measure(name, found[name]) for name in names]
    print("| " + " | ".join(rows[0]) + " |")
    print("|" + " --- |" * len(rows[0]))
    for row in rows:
        print("| " + " | ".join(row.values()) + " |")


if __name__ == "__main__":
    main()
