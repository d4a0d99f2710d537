"""The same measurements in every container and every file that `jaxvp.fit` takes.

`CONTAINERS` maps a name to a function of (table, metadata, folder); the table is samples x genes,
with names. One that needs a package which is not there skips its test.
"""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from scipy import sparse


def plain(names):
    """Names as anndata writes them, whatever pandas would make of them."""
    return pd.Index(list(names), dtype=object)


def annotated(frame, metadata, **layers):
    anndata = pytest.importorskip("anndata")
    obs = pd.DataFrame(index=plain(frame.index))
    for name, column in metadata.loc[frame.index].items():
        numeric = pd.api.types.is_numeric_dtype(column)
        values = column.to_numpy()
        obs[name] = values if numeric else pd.Categorical(values, plain(sorted(set(values))))
    var = pd.DataFrame(index=plain(frame.columns))
    adata = anndata.AnnData(frame.to_numpy(), obs=obs, var=var)
    for name, values in layers.items():
        adata.layers[name] = values
    return adata


class Lookalike:
    """As much of an AnnData as a fit needs, where the package is not installed."""

    __module__ = "anndata"

    def __init__(self, X, obs, var_names):
        self.X, self.obs, self.var_names, self.obs_names = X, obs, var_names, obs.index
        self.layers, self.varm, self.uns = {}, {}, {}

    def __getitem__(self, rows):
        return Lookalike(self.X[rows], self.obs.iloc[rows], self.var_names)


def h5ad(frame, metadata, folder, **layers):
    path = folder / "x.h5ad"
    annotated(frame, metadata, **layers).write_h5ad(path)
    return path


def stored(frame, metadata, folder, chunks=None, **layers):
    """The same in zarr."""
    pytest.importorskip("zarr")
    path = folder / "x.zarr"
    annotated(frame, metadata, **layers).write_zarr(path, chunks=chunks)
    return path


def backed(frame, metadata, folder):
    anndata = pytest.importorskip("anndata")
    return anndata.read_h5ad(h5ad(frame, metadata, folder), backed="r")


def layer(make, format):
    from jaxvp.expression import open_file

    def build(frame, metadata, folder):
        values = sparse.csc_matrix(frame.to_numpy()).asformat(format)
        return open_file(make(frame, metadata, folder, part=values), layer="part")

    return build


def named(frame):
    """Names in the first column, as files have them."""
    return frame.rename_axis(index="name", columns=None).reset_index()


def polars(frame):
    return pytest.importorskip("polars").from_pandas(named(frame))


def arrow(frame):
    table = pa.Table.from_pandas(frame)
    half = table.num_rows // 2  # several chunks a column
    return pa.concat_tables([table.slice(0, half), table.slice(half)])


def xarray(frame, chunks=None):
    array = pytest.importorskip("xarray").DataArray(
        frame.to_numpy(),
        dims=("row", "column"),
        coords={"row": frame.index.to_numpy(object), "column": frame.columns.to_numpy(object)},
    )
    if chunks:
        pytest.importorskip("dask")
        array = array.chunk(dict(zip(array.dims, chunks, strict=True)))
    return array


def lazy_xarray(frame, folder):
    """Read from the disk as it is needed, without dask."""
    pytest.importorskip("h5py")
    pytest.importorskip("zarr")
    module = pytest.importorskip("xarray")
    xarray(frame).to_dataset(name="x").to_zarr(folder / "dataset.zarr", consolidated=False)
    return module.open_zarr(folder / "dataset.zarr", chunks=None, consolidated=False)["x"]


def dask(frame):
    array = pytest.importorskip("dask.array")
    return array.from_array(frame.to_numpy(), chunks=(7, 3))


def npy(frame, folder, order):
    np.save(folder / "x.npy", np.asarray(frame.to_numpy(), order=order))
    return folder / "x.npy"


def memmap(frame, folder, order):
    return np.load(npy(frame, folder, order), mmap_mode="r")


def hdf5(frame, folder, chunks):
    h5py = pytest.importorskip("h5py")
    with h5py.File(folder / "x.h5", "w") as file:
        file.create_dataset("x", data=frame.to_numpy(), chunks=chunks)
    return h5py.File(folder / "x.h5")["x"]


def zarr_array(frame, folder):
    zarr = pytest.importorskip("zarr")
    array = zarr.create_array(
        folder / "x.zarr", shape=frame.shape, dtype=frame.to_numpy().dtype, chunks=(7, 3)
    )
    array[:] = frame.to_numpy()
    return folder / "x.zarr"


def parquet(frame, folder, rows=None):
    frame.rename_axis("name").to_parquet(folder / "x.parquet", row_group_size=rows)
    return folder / "x.parquet"


def text(frame, folder, name, separator):
    named(frame).to_csv(folder / name, sep=separator, index=False)
    return folder / name


# By name: either way round where a table can lie either way.
NAMED = {
    "AnnData": lambda f, m, d: annotated(f, m),
    "AnnData, view": lambda f, m, d: annotated(f.iloc[::-1, ::-1], m)[::-1, ::-1],
    "AnnData, backed": backed,
    "h5ad": h5ad,
    "h5ad, csc layer": layer(h5ad, "csc"),
    "h5ad, csr layer": layer(h5ad, "csr"),
    "AnnData in zarr": stored,
    "AnnData in zarr, csc layer": layer(stored, "csc"),
    "polars": lambda f, m, d: polars(f),
    "polars, genes in rows": lambda f, m, d: polars(f.T),
    "pyarrow": lambda f, m, d: arrow(f),
    "pyarrow, genes in rows": lambda f, m, d: arrow(f.T),
    "pyarrow batch": lambda f, m, d: pa.RecordBatch.from_pandas(named(f)),
    "xarray": lambda f, m, d: xarray(f),
    "xarray, genes in rows": lambda f, m, d: xarray(f.T),
    "xarray of dask": lambda f, m, d: xarray(f.T, (2, 11)),
    "xarray on disk": lambda f, m, d: lazy_xarray(f, d),
    "parquet": lambda f, m, d: parquet(f, d),
    "parquet, samples in groups": lambda f, m, d: parquet(f, d, 5),
    "parquet, genes in rows": lambda f, m, d: parquet(f.T, d, 2),
    "csv": lambda f, m, d: text(f, d, "x.csv", ","),
    "csv.gz, genes in rows": lambda f, m, d: text(f.T, d, "x.csv.gz", ","),
    "tsv": lambda f, m, d: text(f, d, "x.tsv", "\t"),
    "tsv.gz, genes in rows": lambda f, m, d: text(f.T, d, "x.tsv.gz", "\t"),
}
# By position, samples x genes.
UNNAMED = {
    "npy": lambda f, m, d: npy(f, d, "C"),
    "npy, genes contiguous": lambda f, m, d: npy(f, d, "F"),
    "memmap": lambda f, m, d: memmap(f, d, "C"),
    "memmap, genes contiguous": lambda f, m, d: memmap(f, d, "F"),
    "csr": lambda f, m, d: sparse.csr_matrix(f.to_numpy()),
    "csc": lambda f, m, d: sparse.csc_array(f.to_numpy()),
    "coo": lambda f, m, d: sparse.coo_array(f.to_numpy()),
    "AnnData's layer": lambda f, m, d: annotated(f, m, a=sparse.csr_matrix(f.to_numpy())).layers[
        "a"
    ],
    "dask": lambda f, m, d: dask(f),
    "hdf5": lambda f, m, d: hdf5(f, d, None),
    "hdf5 in chunks": lambda f, m, d: hdf5(f, d, (5, 2)),
    "zarr": lambda f, m, d: zarr_array(f, d),
}
CONTAINERS = NAMED | UNNAMED
