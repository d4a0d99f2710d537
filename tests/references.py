"""Reading the committed reference tables; `reference/README.md` says how they were made."""

import functools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

HERE = Path(__file__).parent / "reference"


@functools.cache
def designs() -> dict[str, str]:
    """Names of the sampled designs, with their formulas."""
    table = pd.read_csv(HERE / "samples" / "designs.csv", index_col="design")
    return table["formula"].to_dict()


def sample(name):
    """A sampled design: expression (genes x samples), metadata, formula."""
    folder = HERE / "samples"
    expression = pd.read_csv(folder / f"{name}.expression.csv", index_col="gene")
    metadata = pd.read_csv(folder / f"{name}.metadata.csv", index_col="sample")
    return expression, metadata, designs()[name]


def lme4_table(name):
    """Tight lme4 fits of a sampled design, one row per gene and criterion."""
    return pd.read_csv(HERE / "samples" / f"{name}.lme4.csv", index_col="gene")


def part(row, prefix):
    """The entries `prefix.name` of a table's row, by name."""
    names = [name for name in row.index if name.startswith(prefix + ".") and pd.notna(row[name])]
    return row[names].rename(lambda name: name.removeprefix(prefix + ".")).astype(float)


def classics():
    """lme4's examples: `(data, response, formula, reml, quantities)` each."""
    table = pd.read_csv(HERE / "classics.csv")
    cases = []
    for key, rows in table.groupby(["data", "response", "formula", "reml"], sort=False):
        cases.append((*key, rows.set_index("quantity")["value"]))
    return cases


def classic_data(name):
    """The data of one of lme4's examples."""
    data = pd.read_csv(HERE / "classics" / f"{name.split()[0]}.csv", dtype={"replicate": str})
    data.index = [f"row_{i}" for i in range(len(data))]
    if name.startswith("cake"):  # an ordered factor, as in R
        data["temperature"] = data["temperature"].astype("category").cat.as_ordered()
    return data


@functools.cache
def weighted(name):
    """lme4's fits of a sampled design with weights: weights (genes x samples), formula, table."""
    weights = pd.read_csv(HERE / "samples" / f"{name}.weights.csv", index_col=0)
    table = pd.read_csv(HERE / "weights.csv", index_col="gene")
    table = table[table["data"] == name]
    return weights, table["formula"].iloc[0], table


def same_slopes(result, gene, want):
    """Numbers of a gene with random slopes beside those of an lme4 table (`reference/slopes`)."""
    assert result.sigma[gene] == pytest.approx(want["sigma"], rel=1e-5)
    for frame, prefix in ((result.coefficients, "beta"), (result.standard_errors, "se")):
        for name, value in frame.loc[gene].items():
            scale = result.standard_errors.loc[gene, name]
            r_name = name.replace("[T.", "").replace("]", "")
            assert value == pytest.approx(want[f"{prefix}.{r_name}"], abs=1e-4 * scale)
    for group in dict.fromkeys(result.design.groups):
        found = result.covariance(group).loc[gene]
        size = max(np.abs(np.diag(found)).max(), want["sigma"] ** 2)
        for one in found.index:
            for other in found.columns:
                names = (f"covariance.{group}.{a}.{b}" for a, b in ((one, other), (other, one)))
                value = next((want[name] for name in names if name in want), 0.0)
                assert found.loc[one, other] == pytest.approx(value, abs=2e-4 * size)
