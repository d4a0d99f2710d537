"""The peak memory of a fit is set by the size of a block, not by that of the file.

A fit of a file of 640 MB in a process of its own that may reserve 400 MB more than it had before
(`RLIMIT_DATA`, which counts stacks and what allocators keep for themselves, too). An array of the
file's size does not fit there, which shows that the limit bites. With larger blocks, and without
the limit, the peak of resident memory grows by what these take.

Formats that are read in panels have panels of 64 MB, and keep two; here they are narrower, since
what is to be seen is that a few of them are all that is in memory.
"""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="the limit and /proc are Linux's"),
]
SAMPLES, GENES = 500, 160_000
FILE = SAMPLES * GENES * 8 / 1e6
FORMULA = "~ Age + (1|Donor)"
ALLOWED = 400  # MB
PEAK = {"x.npy": 120, "x.parquet": 320}  # MB; tables of all genes are 40 of them
SMALL, LARGE = 256, 16_384  # genes in a block: 1 MB and 66 MB
PANEL = 8 << 20


def megabytes(name: str) -> float:
    """Of this process, as Linux calls it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) * 1024 / 1e6


def child(path: str, metadata: str, block: int, allowed: float | None) -> dict:
    """Fit with so much more memory than before, and say what it took."""
    import jaxvp
    from jaxvp.expression import panels

    panels.PANEL_BYTES = PANEL
    samples = pd.read_parquet(metadata)
    few = np.random.default_rng(0).normal(size=(SAMPLES, 2 * block))
    jaxvp.fit(few, FORMULA, samples, block_size=block)  # compiled, threads started
    del few
    if allowed is not None:
        limit = int((megabytes("VmData") + allowed) * 1e6)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = megabytes("VmRSS")
    result = jaxvp.fit(path, FORMULA, samples, block_size=block)
    found = {
        "peak": megabytes("VmHWM") - before,
        "converged": int((result.diagnostics["status"] == "converged").sum()),
        "last": result.fractions.iloc[-1].tolist(),
    }
    try:
        found["whole"] = np.empty((GENES, SAMPLES)).nbytes
    except MemoryError:
        found["whole"] = None
    return found


def values(start: int, stop: int) -> np.ndarray:
    """Genes x samples: the same, however the file is written."""
    rng = np.random.default_rng(start)
    donors = rng.normal(size=(stop - start, 100))
    return rng.normal(size=(stop - start, SAMPLES)) + donors[:, np.arange(SAMPLES) % 100]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files of 640 MB, written in pieces."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = tmp_path_factory.mktemp("large")
    names = [f"s{i}" for i in range(SAMPLES)]
    rng = np.random.default_rng(1)
    table = {"Age": rng.normal(50, 9, SAMPLES), "Donor": [f"d{i % 100}" for i in range(SAMPLES)]}
    pd.DataFrame(table, index=names).to_parquet(folder / "m.parquet")
    step, header = 2000, np.lib.format
    with open(folder / "x.npy", "wb") as file:
        shape = {"descr": "<f8", "fortran_order": True, "shape": (SAMPLES, GENES)}
        header.write_array_header_1_0(file, shape)
        schema = pa.schema([("gene", pa.string()), *((name, pa.float64()) for name in names)])
        with pq.ParquetWriter(folder / "x.parquet", schema, compression="none") as writer:
            for start in range(0, GENES, step):
                block = values(start, start + step)
                file.write(block.tobytes())
                genes = pa.array([f"g{i}" for i in range(start, start + step)])
                columns = [genes, *(pa.array(column) for column in block.T)]
                writer.write_table(pa.table(columns, schema=schema), row_group_size=step)
    return folder


def run(folder, name, block, allowed=None):
    arguments = [str(folder / name), str(folder / "m.parquet"), str(block), str(allowed or "")]
    environment = os.environ | {
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "ARROW_DEFAULT_MEMORY_POOL": "system",  # its own reserves more than it uses, as stacks do
    }
    done = subprocess.run(
        [sys.executable, __file__, *arguments],
        capture_output=True, text=True, env=environment, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", PEAK)
def test_memory_is_that_of_blocks(folder, name):
    assert os.path.getsize(folder / name) > 0.99e6 * FILE > 1.5e6 * ALLOWED
    small = run(folder, name, SMALL, ALLOWED)
    assert small["whole"] is None
    assert small["peak"] < PEAK[name]
    large = run(folder, name, LARGE)
    assert large["peak"] > small["peak"] + 30
    assert small["converged"] == large["converged"] == GENES
    np.testing.assert_allclose(small["last"], large["last"], rtol=1e-9, atol=1e-12)
    print(f"{name}: {small['peak']:.0f} MB, in larger blocks {large['peak']:.0f} MB")


if __name__ == "__main__":
    path, metadata, block, allowed = sys.argv[1:]
    print(json.dumps(child(path, metadata, int(block), float(allowed) if allowed else None)))
