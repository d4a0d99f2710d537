"""Write `influenza_best.parquet`: the best optimum of each influenza gene, ML and REML.

    python tests/reference/influenza_best.py

Twenty minutes on one core: mixedlm from eleven starts, a Newton iteration on a QR factorisation
from where those stop and from three starts of its own, the best kept (`oracles.Lmer`). jaxvp takes
no part in it. One row per gene and criterion, in the order of the expression: log-likelihood
rounded to 1e-9, fractions as float32 (they are compared at 1e-5), in formula order.
"""

import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
from oracles import Lmer  # noqa: E402

FORMULA = "~ Age + (1|Subject) + (1|Hours) + (1|Gender) + (1|Condition)"


def main():
    from jaxvp.datasets import influenza

    expression, metadata = influenza()
    rows = []
    for reml in (False, True):
        oracle = Lmer(FORMULA, metadata, reml)
        columns = ["log_likelihood", *oracle.names, "Age", "Residuals"]
        found, started = np.empty((len(expression), len(columns))), time.perf_counter()
        for i, y in enumerate(expression.to_numpy(float)):
            best = oracle.best(y)
            if best.violation > 1e-7:
                raise RuntimeError(f"{expression.index[i]}: not certified, {best.violation}")
            found[i] = [best.log_likelihood, *best.fractions]
            if i % 250 == 0:
                print(f"reml={reml} gene {i}: {time.perf_counter() - started:.0f} s", flush=True)
        table = pd.DataFrame(found, columns=columns)
        table["log_likelihood"] = table["log_likelihood"].round(9)
        table[columns[1:]] = table[columns[1:]].astype("float32")
        table.insert(0, "gene", np.asarray(expression.index, dtype=str))
        table.insert(1, "reml", reml)
        rows.append(table)
    pd.concat(rows).to_parquet(HERE / "influenza_best.parquet", compression="zstd", index=False)
    versions = [f"Python {platform.python_version()}"]
    versions += [f"{name} {version(name)}" for name in ("mixedlm", "numpy", "scipy", "patsy")]
    (HERE / "influenza_best.versions.txt").write_text("\n".join(versions) + "\n")


if __name__ == "__main__":
    main()
