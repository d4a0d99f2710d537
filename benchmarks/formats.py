"""How fast each format of measurements is read in blocks of genes: prints docs/formats.md's table.

    python benchmarks/formats.py [--samples 1000] [--genes 8000] [--block 256] [--only NAME ...]

Every file holds the same numbers, float64, and was just written, so it is in the kernel's cache:
what is measured is the reader. Each is read by a new process, imports not counted. *Open* is
`jaxvp.expression.align` (names, alignment, a look for raw counts, and the copy of a format that is
turned); then all genes are read once, in turn, by one thread. MB/s are those of the measurements (8
bytes each), not of the file, and count both. *Memory* is by how much the peak of resident memory
grows. A format whose package is missing is a row that says so.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import perf_counter

import numpy as np
import pandas as pd

PACKAGES = ("jaxvp", "numpy", "pandas", "pyarrow", "anndata", "h5py", "zarr", "scipy")


def annotated(frame: pd.DataFrame, path: Path, make: Callable) -> None:
    import anndata

    names = [pd.DataFrame(index=pd.Index(list(axis), dtype=object)) for axis in frame.axes]
    adata = anndata.AnnData(make(frame.to_numpy()), obs=names[0], var=names[1])
    (adata.write_zarr if path.suffix == ".zarr" else adata.write_h5ad)(path)


def zarr_array(frame: pd.DataFrame, path: Path) -> None:
    import zarr

    chunks = (min(500, len(frame)), 100)
    zarr.create_array(path, shape=frame.shape, dtype="f8", chunks=chunks)[:] = frame.to_numpy()


def sparse(format: str) -> Callable:
    from scipy import sparse

    def make(values: np.ndarray):
        return sparse.csr_matrix(np.where(values > 0.84, values, 0)).asformat(format)

    return make


def text(frame: pd.DataFrame, path: Path) -> None:
    frame.T.rename_axis("gene").to_csv(path)


# name: (file, how it is read, writer of samples x genes)
FORMATS: dict[str, tuple[str, str, Callable[[pd.DataFrame, Path], None]]] = {
    "npy, genes contiguous (`.T` of genes x samples)": (
        "f.npy",
        "streamed",
        lambda f, p: np.save(p, np.asfortranarray(f.to_numpy())),
    ),
    "npy, samples contiguous": (
        "c.npy",
        "streamed, in panels of 64 MB",
        lambda f, p: np.save(p, np.ascontiguousarray(f.to_numpy())),
    ),
    "Parquet, genes in columns": (
        "columns.parquet",
        "streamed, by columns",
        lambda f, p: f.to_parquet(p),
    ),
    "Parquet, genes in rows, groups of 500": (
        "rows.parquet",
        "streamed, by row groups",
        lambda f, p: f.T.to_parquet(p, row_group_size=500),
    ),
    "Parquet, genes in rows, one group": (
        "group.parquet",
        "one group at a time; above 512 MB turned once on the disk",
        lambda f, p: f.T.to_parquet(p),
    ),
    "h5ad, dense": (
        "dense.h5ad",
        "streamed, in panels of 64 MB",
        lambda f, p: annotated(f, p, np.asarray),
    ),
    "h5ad, CSC, 20 % stored": (
        "csc.h5ad",
        "streamed",
        lambda f, p: annotated(f, p, sparse("csc")),
    ),
    "h5ad, CSR, 20 % stored": (
        "csr.h5ad",
        "whole, as it is stored: never dense",
        lambda f, p: annotated(f, p, sparse("csr")),
    ),
    "zarr array, chunks of 500 x 100": ("array.zarr", "streamed, whole chunks", zarr_array),
    "zarr of AnnData, dense": (
        "adata.zarr",
        "streamed, whole chunks",
        lambda f, p: annotated(f, p, np.asarray),
    ),
    "CSV": ("x.csv", "whole", text),
    "CSV, gzip": ("x.csv.gz", "whole", text),
}


def measure(path: Path, metadata: Path, block: int) -> dict[str, float]:
    """Read one file, in this process."""
    import importlib
    from contextlib import suppress

    from jaxvp.expression import align

    for module in ("anndata", "h5py", "zarr", "pyarrow.csv", "pyarrow.parquet", "scipy.sparse"):
        with suppress(ImportError):
            importlib.import_module(module)
    samples = pd.read_parquet(metadata)

    def peak() -> int:
        """In kilobytes. What getrusage says begins with the parent's."""
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0])

    before, start = peak(), perf_counter()
    expression, _ = align(path, samples)
    opened = perf_counter()
    total = 0.0
    for i in range(0, expression.n_genes, block):
        total += float(expression.block(i, i + block).sum())
    done = perf_counter()
    size = 8 * expression.n_samples * expression.n_genes
    return {
        "open": opened - start,
        "rate": size / (done - start) / 1e6,
        "memory": (peak() - before) * 1024 / 1e6,
        "checksum": total,
    }


def row(name: str, frame: pd.DataFrame, folder: Path, block: int) -> str:
    """Write a file and have it read by a new process."""
    file, how, write = FORMATS[name]
    path = folder / file
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            write(frame, path)
    except ImportError as error:
        return f"| {name} | {how} | not measured: {error.name} is not installed | | |"
    parts = list(path.rglob("*")) if path.is_dir() else [path]
    megabytes = sum(part.stat().st_size for part in parts) / 1e6
    command = [sys.executable, __file__, "--measure", str(path), str(folder / "m.parquet")]
    done = subprocess.run([*command, "--block", str(block)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    found = json.loads(done.stdout.splitlines()[-1])
    return (
        f"| {name} | {how} | {megabytes:,.0f} | {found['open']:.2f} | {found['rate']:,.0f} "
        f"| {found['memory']:,.0f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--genes", type=int, default=8000)
    parser.add_argument("--block", type=int, default=256)
    parser.add_argument("--only", nargs="*", default=list(FORMATS))
    parser.add_argument("--measure", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        warnings.simplefilter("ignore")
        print(json.dumps(measure(*options.measure, options.block)))
        return
    values = np.random.default_rng(0).normal(size=(options.samples, options.genes))
    names = [f"s{i}" for i in range(options.samples)], [f"g{i}" for i in range(options.genes)]
    frame = pd.DataFrame(values, *names)
    size = values.nbytes / 1e6
    print(
        f"{options.samples:,} samples x {options.genes:,} genes, float64, {size:,.0f} MB;", end=" "
    )
    print(f"blocks of {options.block} genes.\n")
    print("| format | read | file, MB | open, s | MB/s | memory, MB |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        pd.DataFrame({"x": range(options.samples)}, names[0]).to_parquet(Path(folder) / "m.parquet")
        for name in options.only:
            print(row(name, frame, Path(folder), options.block), flush=True)
    print(f"\nPython {platform.python_version()}, {', '.join(map(_version, PACKAGES))}.")


def _version(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"no {package}"


if __name__ == "__main__":
    main()
