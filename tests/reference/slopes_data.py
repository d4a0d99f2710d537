"""Write the data of `slopes.R`: `slopes/<design>.{expression,metadata}.csv` and `designs.csv`.

    python tests/reference/slopes_data.py

Simulated studies with random slopes, ten significant digits. Some genes have no variance of a
coefficient, or a correlation of one: their fits are singular more often than not.
"""

from pathlib import Path

import numpy as np
import pandas as pd

HERE = Path(__file__).parent / "slopes"


def growth(rng):
    """People seen at times of their own, with a batch that goes across."""
    subjects, batches = 24, 6
    subject = np.repeat(np.arange(subjects), rng.integers(3, 8, subjects))
    n = len(subject)
    metadata = pd.DataFrame(
        {
            "Time": rng.uniform(0, 4, n).round(2),
            "Age": rng.normal(50, 9, subjects).round(1)[subject],
            "Subject": [f"s{i:02}" for i in subject],
            "Batch": [f"b{i}" for i in rng.integers(0, batches, n)],
        }
    )
    genes = {}
    for i, (a, b, correlation, batch) in enumerate(
        [
            (1.0, 0.5, 0.3, 0.5),
            (1.0, 0.0, 0.0, 0.0),
            (0.0, 0.6, 0.0, 0.5),
            (1.0, 0.4, 1.0, 0.0),
            (0.8, 0.5, -1.0, 0.3),
            (0.0, 0.0, 0.0, 0.0),
            (3.0, 2.0, -0.5, 1.0),
            (0.3, 0.2, 0.0, 0.2),
        ]
    ):
        z = rng.standard_normal((subjects, 2))
        intercept = a * z[:, 0]
        slope = b * (correlation * z[:, 0] + np.sqrt(1 - correlation**2) * z[:, 1])
        y = 7 + 0.3 * metadata["Time"] + intercept[subject] + slope[subject] * metadata["Time"]
        y = y + batch * rng.standard_normal(batches)[metadata["Batch"].str[1:].astype(int)]
        genes[f"gene_{i + 1}"] = y + rng.standard_normal(n)
    return metadata, genes


def tissues(rng):
    """Three tissues of every person, twice."""
    people, kinds = 16, ["brain", "liver", "skin"]
    metadata = pd.DataFrame(
        {
            "Individual": np.repeat([f"i{i:02}" for i in range(people)], 6),
            "Tissue": np.tile(np.repeat(kinds, 2), people),
        }
    )
    person, kind = np.repeat(np.arange(people), 6), np.tile(np.repeat(np.arange(3), 2), people)
    genes = {}
    for i, root in enumerate(
        [
            np.diag([1.0, 0.5, 0.0]),
            np.array([[1, 0, 0], [0.8, 0.4, 0], [0.2, -0.5, 0.3]]),
            np.ones((3, 1)) * 0.8,
            np.zeros((3, 1)),
        ]
    ):
        effects = rng.standard_normal((people, root.shape[1])) @ root.T
        genes[f"gene_{i + 1}"] = 5 + effects[person, kind] + 0.7 * rng.standard_normal(len(kind))
    return metadata, genes


def main():
    HERE.mkdir(exist_ok=True)
    rows = []
    for name, draw, formulas in [
        (
            "growth",
            growth,
            [
                "~ Time + (Time|Subject)",
                "~ Time + (Time||Subject)",
                "~ Age + (1|Batch) + (0 + Time|Subject)",
                "~ Time + (Time|Subject) + (1|Batch)",
            ],
        ),
        ("tissues", tissues, ["~ (Tissue + 0|Individual)"]),
    ]:
        metadata, genes = draw(np.random.default_rng(len(name)))
        metadata.index = pd.Index([f"s_{i + 1}" for i in range(len(metadata))], name="sample")
        expression = pd.DataFrame(genes).T.set_axis(metadata.index, axis=1).rename_axis("gene")
        expression.to_csv(HERE / f"{name}.expression.csv", float_format="%.10g")
        metadata.to_csv(HERE / f"{name}.metadata.csv", float_format="%.10g")
        rows += [{"data": name, "formula": formula} for formula in formulas]
    pd.DataFrame(rows).to_csv(HERE / "designs.csv", index=False)


if __name__ == "__main__":
    main()
