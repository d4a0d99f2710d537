"""Examples in docstrings run, and print what they say that they print.

They speak of a study that the reader has; here it is a few genes of the influenza data, with a
column for every name that an example uses, and an AnnData of simulated cells.
"""

import ast
import doctest
import importlib
import sys

import jax
import numpy as np
import pandas as pd
import pytest
from documents import ROOT

import jaxvp
from jaxvp import functional

pytestmark = pytest.mark.slow

GENES = 24


def _docstrings():
    """Module and name of every docstring with an example in it, and where it stands."""
    for path in sorted((ROOT / "jaxvp").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
                text = ast.get_docstring(node) or ""
                if ">>>" in text:
                    yield module, getattr(node, "name", ""), text


DOCSTRINGS = list(_docstrings())


class Said(doctest.OutputChecker):
    """An example that says nothing of its output may have any."""

    def check_output(self, want, got, optionflags):
        return not want or super().check_output(want, got, optionflags)


@pytest.fixture(scope="module")
def study():
    expression, metadata = jaxvp.datasets.influenza()
    expression = expression.iloc[:GENES]
    expression = expression.set_axis(["OAS1", "IFIT1", "TP53", *expression.index[3:]])
    rng = np.random.default_rng(0)
    n = len(metadata)
    days = pd.to_numeric(metadata["Hours"].astype(str)) / 24
    return expression, metadata.assign(
        Individual=metadata["Subject"],
        Donor=metadata["Subject"],
        Tissue=rng.choice(list("abc"), n),
        Batch=rng.choice(list("defg"), n),
        Days=days,
    )


@pytest.fixture(scope="module")
def cells():
    """Cells of 12 samples of 4 donors in 3 batches, two types."""
    anndata = pytest.importorskip("anndata")
    rng = np.random.default_rng(1)
    n = 480
    sample = np.arange(n) % 12
    counts = rng.poisson(5, (n, GENES)).astype(float)
    obs = pd.DataFrame(
        {
            "sample": [f"s{i}" for i in sample],
            "donor": [f"d{i % 4}" for i in sample],
            "batch": [f"b{i // 4}" for i in sample],
            "cell_type": np.where(np.arange(n) // 12 % 2, "B cell", "T cell"),
        },
        index=[f"c{i}" for i in range(n)],
    )
    layers = {"counts": counts, "logcounts": np.log1p(counts)}
    return anndata.AnnData(np.log1p(counts), obs=obs, layers=layers)


@pytest.fixture(scope="module")
def names(study, cells, tmp_path_factory):
    """What examples take for given, and a folder with the files that they name."""
    from sklearn.model_selection import GridSearchCV

    expression, metadata = study
    result = jaxvp.fit(expression, "~ Age + (1|Subject) + (1|Batch)", metadata)
    slopes = jaxvp.fit(expression, "~ Days + (Days|Subject)", metadata)
    folder = tmp_path_factory.mktemp("examples")
    expression.to_parquet(folder / "expression.parquet")
    metadata.rename_axis("sample").to_csv(folder / "samples.csv")
    result.save(folder / "result.vp")
    formula = "~ (1|donor) + (1|batch)"
    jaxvp.tl.variance_partition(cells, formula)
    given = {
        **{"jaxvp": jaxvp, "jax": jax, "np": np, "pd": pd, "pandas": pd, "functional": functional},
        "sklearn": sys.modules["sklearn"],
        "GridSearchCV": GridSearchCV,
        "expression": expression,
        "metadata": metadata,
        "formula": "~ Age + (1|Subject) + (1|Batch)",
        "result": result,
        "X": expression.T,
        "Y": np.float32(expression.T),
        "adata": cells,
        "samples": jaxvp.pp.pseudobulk(cells, sample="sample", group="cell_type", layer="counts"),
    }
    return folder, given, {"fractions_at": {"result": slopes}}


@pytest.mark.parametrize(
    ("module", "name", "text"), DOCSTRINGS, ids=[f"{m}:{n}" for m, n, _ in DOCSTRINGS]
)
def test_examples(names, module, name, text, monkeypatch):
    import sklearn

    folder, given, more = names
    monkeypatch.chdir(folder)
    here = {**vars(importlib.import_module(module)), **given, **more.get(name, {})}
    test = doctest.DocTestParser().get_doctest(text, here, f"{module}:{name}", module, 0)
    runner = doctest.DocTestRunner(Said(), verbose=False, optionflags=doctest.ELLIPSIS)
    said = []
    with sklearn.config_context():
        runner.run(test, out=said.append)
    assert not runner.failures, "".join(said)


def test_there_are_examples():
    """The walk above finds what a reader sees first."""
    found = {name for _, name, _ in DOCSTRINGS}
    assert {"fit", "Results", "violins", "fit_genes", "simulate"} <= found
