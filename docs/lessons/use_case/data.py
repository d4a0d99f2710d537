"""The study of lesson 4, and the three genes of it that R reads.

    python docs/lessons/use_case/data.py    # writes genes.csv beside this file
    Rscript lme4.R                          # there: reads it and writes lme4.csv

The page has the same lines in a cell, and checks that the file holds what they draw.
"""

from pathlib import Path

import numpy as np

import jaxvp

GENES = ["gene_1", "gene_2", "gene_3"]
COMPONENTS = ["Individual", "Tissue", "Batch", "Age", "Height", "Residuals"]


def study():
    """200 genes, 100 samples: 25 individuals x 3 tissues, measured in 4 batches."""
    # Shares of every gene, drawn around these weights: much individual and tissue, little batch.
    shares = np.random.default_rng(1).dirichlet([4, 3, 0.5, 0.4, 0.2, 4], size=200)
    return jaxvp.simulate(
        200,
        100,
        {"Individual": 25, "Tissue": 3, "Batch": 4},
        covariates=("Age", "Height"),
        fractions=dict(zip(COMPONENTS, shares.T, strict=True)),
        seed=1,
    )


if __name__ == "__main__":
    expression, metadata, _ = study()
    table = metadata.join(expression.loc[GENES].T)
    table.to_csv(Path(__file__).with_name("genes.csv"), index_label="sample", float_format="%.10g")
