"""How fast each format of measurements is read in blocks of genes: prints docs/formats.md's table.

    python benchmarks/formats.py [--samples 1000] [--genes 8000] [--block 256] [--only NAME ...]

Every file holds the same numbers, float64, and was just written, so it is in the kernel's cache:
what is measured is the reader. Each is read by a new process, imports not counted; containers in
memory are made there before. *Open* is `jaxvp.expression.align` (names, alignment, a look for raw
counts, and the copy of a format that is turned); then all genes are read once, in turn, by one
thread. MB/s are those of the measurements (8 bytes each), not of the file, and count both. *Memory*
is by how much the peak of resident memory grows. A format whose package is missing is a row that
says so.
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

PACKAGES = (
    *("jaxvp", "numpy", "pandas", "pyarrow", "anndata", "h5py", "zarr", "scipy"),
    *("polars", "xarray", "dask"),
)


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
    import pyarrow as pa

    separator = "\t" if ".tsv" in path.name else ","
    with pa.output_stream(str(path), compression="detect") as stream:
        stream.write(frame.T.rename_axis("gene").to_csv(sep=separator).encode())


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
    "TSV": ("x.tsv", "whole", text),
    "CSV, gzip": ("x.csv.gz", "whole", text),
    "CSV, bzip2": ("x.csv.bz2", "whole", text),
    "CSV, zstd": ("x.csv.zst", "whole", text),
}


def _anndata(frame: pd.DataFrame, make: Callable):
    import anndata

    names = [pd.DataFrame(index=pd.Index(list(axis), dtype=object)) for axis in frame.axes]
    return anndata.AnnData(make(frame.to_numpy()), obs=names[0], var=names[1])


def _named(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.rename_axis("name").reset_index()


def _polars(frame: pd.DataFrame):
    import polars

    return polars.from_pandas(_named(frame))


def _arrow(frame: pd.DataFrame):
    import pyarrow as pa

    return pa.Table.from_pandas(_named(frame), preserve_index=False)


def _xarray(frame: pd.DataFrame):
    import xarray

    names = (frame.index.to_numpy(object), frame.columns.to_numpy(object))
    coords = dict(zip(("sample", "gene"), names, strict=True))
    return xarray.DataArray(frame.to_numpy(), dims=("sample", "gene"), coords=coords)


def _dask(frame: pd.DataFrame):
    import dask.array as da

    return da.from_array(frame.to_numpy(), chunks=(500, 500))


# name: (how it is read, what makes it of samples x genes)
IN_MEMORY: dict[str, tuple[str, Callable[[pd.DataFrame], object]]] = {
    "DataFrame of pandas, genes in columns": ("views", lambda f: f),
    "DataFrame of pandas, genes in rows": ("views", lambda f: f.T.copy()),
    "NumPy array": ("views", lambda f: f.to_numpy()),
    "polars DataFrame, genes in columns": ("streamed, columns as they lie", _polars),
    "pyarrow Table, genes in rows": ("streamed, columns as they lie", lambda f: _arrow(f.T)),
    "xarray DataArray": ("views", _xarray),
    "AnnData, dense": ("views", lambda f: _anndata(f, np.asarray)),
    "AnnData, CSR, 20 % stored": ("turned once, sparse", lambda f: _anndata(f, sparse("csr"))),
    "SciPy CSC, 20 % stored": ("streamed", lambda f: sparse("csc")(f.to_numpy())),
    "SciPy CSR, 20 % stored": ("turned once, sparse", lambda f: sparse("csr")(f.to_numpy())),
    "dask array, chunks of 500 x 500": ("streamed, whole chunks, panels of 64 MB", _dask),
}


def measure(path: Path, metadata: Path, block: int, name: str | None) -> dict[str, float]:
    """Read one file, in this process; or the container of that name that is made of a file."""
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

    source: object = path
    if name is not None:
        source = IN_MEMORY[name][1](pd.read_parquet(path))
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before, start = peak(), perf_counter()
    expression, _ = align(source, samples)
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
    """Write a file and have it read by a new process; or have a container made there and read."""
    in_memory = name in IN_MEMORY
    how = IN_MEMORY[name][0] if in_memory else FORMATS[name][1]
    path = folder / ("frame.parquet" if in_memory else FORMATS[name][0])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            frame.to_parquet(path) if in_memory else FORMATS[name][2](frame, path)
    except ImportError as error:
        return f"| {name} | {how} | not measured: {error.name} is not installed | | |"
    parts = list(path.rglob("*")) if path.is_dir() else [path]
    size = "" if in_memory else f"{sum(part.stat().st_size for part in parts) / 1e6:,.0f}"
    command = [sys.executable, __file__, "--measure", str(path), str(folder / "m.parquet")]
    command += ["--name", name] if in_memory else []
    done = subprocess.run([*command, "--block", str(block)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    found = json.loads(done.stdout.splitlines()[-1])
    return (
        f"| {name} | {how} | {size} | {found['open']:.2f} | {found['rate']:,.0f} "
        f"| {found['memory']:,.0f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--genes", type=int, default=8000)
    parser.add_argument("--block", type=int, default=256)
    parser.add_argument("--only", nargs="*", default=[*FORMATS, *IN_MEMORY])
    parser.add_argument("--measure", nargs=2, type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--name", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        warnings.simplefilter("ignore")
        print(json.dumps(measure(*options.measure, options.block, options.name)))
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
