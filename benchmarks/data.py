"""A design's measurements, made once, in a process of their own, into a folder that all read.

    expression.npy     genes x samples, float64
    metadata.parquet   one row a sample (metadata.csv for R)
    study.json         formula and sizes

The sample that peers fit is the first of one fixed random order of the genes: a peer with a smaller
sample fits a part of the others', so that log-likelihoods can be compared.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

    from benchmarks.settings import Design


def make(design: Design, folder: Path) -> dict[str, Any]:
    """Write the study of `design` into `folder`, from a new process; its `study.json`."""
    from benchmarks.process import call

    return call("benchmarks.data", {"design": asdict(design), "folder": str(folder)})


def write(expression: np.ndarray, metadata: pd.DataFrame, formula: str, folder: Path) -> dict:
    """Write a study; what `study.json` holds."""
    np.save(folder / "expression.npy", np.ascontiguousarray(expression, dtype=float))
    metadata.to_parquet(folder / "metadata.parquet")
    metadata.to_csv(folder / "metadata.csv", index=False)
    genes, samples = expression.shape
    study = {"formula": formula, "genes": genes, "samples": samples}
    (folder / "study.json").write_text(json.dumps(study))
    return study


def read(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame, str]:
    """Expression, metadata and formula, as a user has them in memory."""
    import pandas as pd

    study = json.loads((folder / "study.json").read_text())
    metadata = pd.read_parquet(folder / "metadata.parquet")
    values = np.load(folder / "expression.npy")
    names = [f"gene_{i + 1}" for i in range(len(values))]
    expression = pd.DataFrame(values, index=names, columns=metadata.index, copy=False)
    return expression, metadata, study["formula"]


def read_genes(folder: Path, genes: list[int]) -> np.ndarray:
    """The measurements of some genes only."""
    return np.array(np.load(folder / "expression.npy", mmap_mode="r")[genes])


def sample(total: int, wanted: int) -> list[int]:
    """The genes of a peer's sample: nested for different sizes."""
    order = np.random.default_rng(0).permutation(total)
    return [int(i) for i in order[:wanted]]


def drawn(design: dict[str, Any]) -> tuple[pd.DataFrame, pd.DataFrame, str]:
    """Expression, metadata and formula: of `jaxvp.simulate`, or with random slopes."""
    import jaxvp

    if design.get("visits"):
        return growth(design)
    study = jaxvp.simulate(
        design["genes"],
        design["samples"],
        design["levels"],
        zero_probability=0.5,
        imbalance=design["imbalance"],
        seed=design["seed"],
    )
    return study.expression, study.metadata, study.formula


def _measure(spec: dict[str, Any]) -> dict[str, Any]:
    import jaxvp

    design, folder = spec["design"], Path(spec["folder"])
    if design["dataset"]:
        expression, metadata = getattr(jaxvp.datasets, design["dataset"])()
        expression, formula = expression.iloc[: design["genes"]], design["formula"]
        if list(expression.columns) != list(metadata.index):
            metadata = metadata.loc[expression.columns]
    else:
        expression, metadata, formula = drawn(design)
    return write(expression.to_numpy(float), metadata, formula, folder)


def growth(design: dict[str, Any]) -> tuple[pd.DataFrame, pd.DataFrame, str]:
    """Random intercepts and slopes over days, and crossed intercepts; half of each are absent."""
    import pandas as pd

    (factor, levels), *others = design["levels"].items()
    visits, genes = design["visits"], design["genes"]
    rng = np.random.default_rng(design["seed"])
    group, day = np.repeat(np.arange(levels), visits), np.tile(np.arange(float(visits)), levels)
    n = len(day)
    if design["own_days"]:
        day = rng.uniform(0, visits, n)
    names = [f"s{i + 1}" for i in range(n)]
    metadata = pd.DataFrame({factor: [f"l{i}" for i in group], "Days": day}, index=names)
    crossed = {name: rng.integers(0, count, n) for name, count in others}
    for name, codes in crossed.items():
        metadata[name] = [f"l{i}" for i in codes]
    values = np.empty((genes, n))
    for gene in range(genes):
        size = rng.choice([0.0, 1.0], 2) * rng.gamma(2, 0.5, 2) / [1.0, day.std()]
        turn = rng.uniform(-1, 1)
        z = rng.standard_normal((levels, 2))
        z[:, 1] = turn * z[:, 0] + np.sqrt(1 - turn**2) * z[:, 1]
        u = z * size
        values[gene] = 7 + u[group, 0] + u[group, 1] * day + rng.standard_normal(n)
        for codes in crossed.values():
            effect = (
                rng.choice([0.0, 1.0]) * rng.gamma(2, 0.5) * rng.standard_normal(codes.max() + 1)
            )
            values[gene] += effect[codes]
    terms = "".join(f" + (1|{name})" for name, _ in others)
    return pd.DataFrame(values, columns=names), metadata, f"~ Days + (Days|{factor}){terms}"


if __name__ == "__main__":
    from benchmarks.process import main

    main(_measure)
