"""Write the data that the R scripts read: `samples/<design>.{expression,metadata}.csv`.

    python tests/reference/data.py

A few genes each of the simulated designs and forty of the influenza study, with ten significant
digits: the committed CSVs are the data, whatever a later NumPy draws from these seeds. And metadata
with gaps, for canonical correlations.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from jaxvp.datasets import influenza
from jaxvp.simulation import Simulation, simulate

HERE = Path(__file__).parent
CROSSED = {"Individual": 25, "Tissue": 3, "Batch": 4}
LARGE = {"Individual": 300, "Tissue": 5, "Batch": 20}
NESTED = {"batch": 10, "cask:batch": 3}
PAIRS = {"Individual": 40, "Batch": 6}


def explained(components, share=1e-6):
    """One gene for each component in turn: it explains all but `share`, the others nothing."""
    main = np.eye(len(components)) * (1 - share)
    return pd.DataFrame(main, columns=components).assign(Residuals=share)


def designs() -> dict[str, Simulation]:
    tiny = ["Individual", "Tissue", "Batch", "Age"]
    return {
        "crossed": simulate(6, 100, CROSSED, imbalance=0.3, seed=101),
        "large": simulate(3, 1000, LARGE, imbalance=0.3, seed=102),
        "nested": simulate(6, 60, NESTED, covariates=(), seed=103),
        "one_factor": simulate(
            6, 60, {"g": 12}, covariates=["Age", "Dose"], imbalance=0.5, seed=104
        ),
        "pairs": simulate(6, 80, PAIRS, seed=105),
        "zeros": simulate(10, 100, CROSSED, zero_probability=0.6, seed=106),
        "tiny_residual": simulate(4, 100, CROSSED, fractions=explained(tiny), seed=107),
    }


def missing(n=60, seed=108):
    """Metadata with gaps here and there, for correlations pair by pair."""
    rng = np.random.default_rng(seed)
    site = rng.choice(["north", "south", "west"], n)
    table = pd.DataFrame(
        {
            "Age": rng.normal(50, 12, n) + 8 * (site == "west"),
            "Dose": rng.gamma(2, 3, n),
            "Tissue": rng.choice(["brain", "liver", "skin", "lung"], n),
            "Site": site,
            "Individual": [f"i{k % 15:02}" for k in range(n)],
        },
        index=[f"sample_{k + 1}" for k in range(n)],
    )
    table["Dose"] += 0.3 * table["Age"]
    gaps = pd.DataFrame(rng.random(table.shape) < 0.12, index=table.index, columns=table.columns)
    return table.mask(gaps.assign(Individual=False))


def write(name, formula, expression, metadata):
    folder = HERE / "samples"
    folder.mkdir(exist_ok=True)
    expression.rename_axis("gene").to_csv(folder / f"{name}.expression.csv", float_format="%.10g")
    metadata.rename_axis("sample").to_csv(folder / f"{name}.metadata.csv", float_format="%.10g")
    return {"design": name, "formula": formula}


def main():
    rows = [write(name, s.formula, s.expression, s.metadata) for name, s in designs().items()]
    expression, metadata = influenza()
    every = np.linspace(0, len(expression) - 1, 40).astype(int)
    formula = "~ Age + (1|Subject) + (1|Hours) + (1|Gender) + (1|Condition)"
    rows.append(write("influenza", formula, expression.iloc[every], metadata))
    gaps = missing().rename_axis("sample")
    gaps.to_csv(HERE / "samples" / "missing.metadata.csv", float_format="%.10g")
    pd.DataFrame(rows).to_csv(HERE / "samples" / "designs.csv", index=False)


if __name__ == "__main__":
    main()
