"""Files that are missing, empty, cut short, overwritten, of another kind: one error names them."""

import os

import numpy as np
import pandas as pd
import pytest
from containers import annotated, h5ad, named, npy, parquet, stored, text, zarr_array
from scipy import sparse

from jaxvp.expression import DataError, align, open_file, split_weights

SAMPLES, GENES = 40, 60
pytestmark = [
    pytest.mark.filterwarnings("ignore:The 'mode.chained_assignment' option"),
    pytest.mark.filterwarnings("ignore::FutureWarning:anndata"),
]


def compressed(frame, folder, name):
    """Parquet, and that compressed as a whole."""
    import pyarrow as pa

    content = parquet(frame, folder).read_bytes()
    with pa.output_stream(str(folder / name), compression="detect") as stream:
        stream.write(content)
    return folder / name


WRITE = {
    "x.npy": lambda f, m, d: npy(f, d, "C"),
    "x.parquet": lambda f, m, d: parquet(f, d),
    "x.pq": lambda f, m, d: parquet(f, d).rename(d / "x.pq"),
    "x.parquet.gz": lambda f, m, d: compressed(f, d, "x.parquet.gz"),
    "x.csv": lambda f, m, d: text(f, d, "x.csv", ","),
    "x.csv.gz": lambda f, m, d: text(f, d, "x.csv.gz", ","),
    "x.csv.bz2": lambda f, m, d: text(f, d, "x.csv.bz2", ","),
    "x.csv.zst": lambda f, m, d: zstandard(f, d),
    "x.tsv": lambda f, m, d: text(f, d, "x.tsv", "\t"),
    "x.tsv.gz": lambda f, m, d: text(f, d, "x.tsv.gz", "\t"),
    "x.h5ad": h5ad,
}


def zstandard(frame, folder):
    """pandas wants a package for it that pyarrow does not need."""
    import pyarrow as pa

    with pa.output_stream(str(folder / "x.csv.zst"), compression="zstd") as stream:
        stream.write(named(frame).to_csv(index=False).encode())
    return folder / "x.csv.zst"


@pytest.fixture(scope="module")
def metadata():
    return pd.DataFrame({"x": np.arange(SAMPLES) / 4}, index=[f"s{i}" for i in range(SAMPLES)])


@pytest.fixture(scope="module")
def frame(metadata):
    values = np.random.default_rng(0).normal(size=(SAMPLES, GENES))
    return pd.DataFrame(values, metadata.index, [f"g{i}" for i in range(GENES)])


def message(path, metadata, **options):
    """Wherever it is found, before blocks are read or with them."""
    with pytest.raises(DataError) as caught:
        expression, _ = align(open_file(path, **options), metadata)
        expression.block(0, expression.n_genes)
    assert str(path) in str(caught.value)
    return str(caught.value).replace(str(path), "")


NAMES = [*WRITE, "x.zarr", "x.tab", "x.txt.zst"]


@pytest.mark.parametrize("name", NAMES)
def test_missing(tmp_path, metadata, name):
    assert "there is no such file" in message(tmp_path / name, metadata)


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_for_a_file_and_the_other_way_round(tmp_path, metadata, name):
    if name == "x.zarr":
        (tmp_path / name).write_text("x")
    else:
        (tmp_path / name).mkdir()
    assert "a file" in message(tmp_path / name, metadata) or name != "x.zarr"


@pytest.mark.parametrize("name", NAMES)
def test_empty(tmp_path, metadata, name):
    if name == "x.zarr":
        (tmp_path / name).mkdir()
        message(tmp_path / name, metadata)
        return
    (tmp_path / name).write_bytes(b"")
    assert "is empty" in message(tmp_path / name, metadata)


@pytest.mark.parametrize("name", WRITE)
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_cut_short(tmp_path, frame, metadata, name, share):
    path = WRITE[name](frame, metadata, tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    message(path, metadata)


OTHER = {
    "text": b"sample,a,b\ns1,1,2\n" * 9,
    "zeros": bytes(4000),
    "noise": np.random.default_rng(1).bytes(4000),
    "page": b"<!DOCTYPE html><html><body>404 not found</body></html>\n" * 9,
    "pickle": b"\x80\x04\x95\x10\x00cos\nsystem\n(S'touch PWNED'\ntR.",
    "parquet": None,
}


@pytest.mark.parametrize("name", WRITE)
@pytest.mark.parametrize("other", OTHER)
def test_of_another_kind(tmp_path, frame, metadata, name, other, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / name
    if other == "parquet" and not name.endswith(("parquet", "pq")):
        parquet(frame, tmp_path).rename(path)
    else:
        path.write_bytes(OTHER[other] or OTHER["noise"])
    with pytest.raises(DataError) as caught:
        align(path, metadata)
    # Text that is a table, of other samples, has nothing wrong but its names.
    assert str(path) in str(caught.value) or (
        other in ("text", "page") and name in ("x.csv", "x.tsv")
    )
    assert not (tmp_path / "PWNED").exists()


def touched(path):
    """Written to again, a moment later."""
    inner = max((p for p in path.rglob("*") if p.is_file()), default=path)
    os.utime(inner, ns=(1, os.stat(inner).st_mtime_ns + 1))


STREAMED = ["x.npy", "x.parquet", "x.pq", "x.h5ad"]


@pytest.mark.parametrize("name", STREAMED)
def test_a_file_that_changes_between_two_blocks(tmp_path, frame, metadata, name):
    path = WRITE[name](frame, metadata, tmp_path)
    expression, _ = align(path, metadata)
    expression.block(0, 3)
    touched(path)
    with pytest.raises(DataError, match="was changed while it was read: run again") as caught:
        expression.block(3, 6)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("make", [stored, lambda f, m, d: zarr_array(f, d)], ids=["group", "array"])
def test_a_store_that_changes_while_it_is_read(tmp_path, frame, metadata, make):
    """Of a store of many files that is looked at when all is read."""
    path = make(frame, metadata, tmp_path)
    expression, _ = align(path, metadata)
    touched(path)
    with pytest.raises(DataError, match="was changed while it was read: run again"):
        expression.origin.check_all()


@pytest.mark.parametrize("name", [name for name in WRITE if ".csv" in name or ".tsv" in name])
def test_a_table_that_changes_between_its_header_and_its_end(
    tmp_path, frame, metadata, name, monkeypatch
):
    from pyarrow import csv

    path, real = WRITE[name](frame, metadata, tmp_path), csv.read_csv

    def read(*args, **options):
        touched(path)
        return real(*args, **options)

    monkeypatch.setattr(csv, "read_csv", read)
    assert "was changed while it was read" in message(path, metadata)
    with pytest.raises(DataError, match="was changed while it was read"):
        align(frame, path)  # as metadata


def test_weights_that_change_while_they_are_read(tmp_path, frame, metadata):
    weights = npy(frame.abs(), tmp_path, "F")
    expression, _ = align(frame, metadata)
    own, _ = split_weights(weights, expression, np.arange(SAMPLES))
    touched(weights)
    with pytest.raises(DataError, match="was changed while it was read"):
        own.block(0, 3)


@pytest.mark.parametrize("make", [stored, lambda f, m, d: zarr_array(f, d)], ids=["group", "array"])
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_store_whose_files_are_cut_short(tmp_path, frame, metadata, make, share):
    path = make(frame, metadata, tmp_path)
    for file in sorted(path.rglob("*")):
        if file.is_file() and "z" not in file.name:
            file.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)])
    message(path, metadata)


def test_pages_of_parquet_that_were_overwritten(tmp_path, frame, metadata):
    """The file is whole at its end, where it is described."""
    path = parquet(frame, tmp_path)
    content = bytearray(path.read_bytes())
    for place in range(400, 9000, 50):
        content[place : place + 20] = b"\xff" * 20
    path.write_bytes(content)
    assert "cannot be read" in message(path, metadata)


def test_arrays_that_are_none(tmp_path, metadata):
    path = tmp_path / "x.npy"
    np.save(path, np.array([{}], dtype=object), allow_pickle=True)
    assert "Python objects" in message(path, metadata)
    with open(path, "wb") as file:
        np.savez(file, a=np.ones(3))
    assert "npz" in message(path, metadata)
    np.save(path, np.ones((SAMPLES, 2, 2)))
    assert "two axes" in message(path, metadata)
    np.save(path, np.ones(SAMPLES))
    assert "two axes" in message(path, metadata)


def test_arrays_of_no_numbers(tmp_path, metadata):
    np.save(tmp_path / "x.npy", np.full((SAMPLES, 2), "high"))
    with pytest.raises(DataError, match="'high'"):
        align(tmp_path / "x.npy", metadata)


def test_hdf5_that_is_no_anndata(tmp_path, frame, metadata):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "x.h5ad"
    with h5py.File(path, "w") as file:
        file["X"] = frame.to_numpy()
    assert "it has no table obs" in message(path, metadata)
    annotated(frame, metadata).write_h5ad(path)
    with h5py.File(path, "a") as file:
        del file["X"]
        file["X"] = frame.to_numpy()[:7]
    assert "shape (7, 60)" in message(path, metadata)
    with h5py.File(path, "a") as file:
        del file["X"], file["var"]
    assert "it has no table var" in message(path, metadata)


@pytest.mark.parametrize("format", ["csr", "csc"])
@pytest.mark.parametrize("part", ["indptr", "indices", "data", "far", "encoding"])
def test_sparse_matrices_whose_parts_do_not_fit(tmp_path, frame, metadata, format, part):
    h5py = pytest.importorskip("h5py")
    sparse_layer = sparse.csc_matrix(frame.to_numpy()).asformat(format)
    path = h5ad(frame, metadata, tmp_path, part=sparse_layer)
    with h5py.File(path, "a") as file:
        group = file["layers/part"]
        if part == "far":
            group["indices"][5] = 10_000
        elif part == "encoding":
            group.attrs["encoding-type"] = "nothing"
        else:
            values = group[part][:-1]
            del group[part]
            group[part] = values
    assert "damaged" in message(path, metadata, layer="part") or part == "encoding"


def test_zarr_of_which_a_chunk_is_damaged(tmp_path, frame, metadata):
    path = stored(frame, metadata, tmp_path)
    chunks = [file for file in (path / "X").rglob("*") if file.is_file() and "z" not in file.name]
    for file in chunks:
        file.write_bytes(b"nothing that was compressed")
    assert "cannot be read" in message(path, metadata)


def test_zarr_without_its_description(tmp_path, frame, metadata):
    path = zarr_array(frame, tmp_path)
    for content in (b"{}", b"{", b""):
        (path / "zarr.json").write_bytes(content)
        message(path, metadata)


def test_zarr_that_is_no_matrix(tmp_path, metadata):
    zarr = pytest.importorskip("zarr")
    pytest.importorskip("anndata")
    zarr.create_array(tmp_path / "x.zarr", shape=(3,), dtype=float)
    assert "two axes" in message(tmp_path / "x.zarr", metadata)
    assert "no layers" in message(tmp_path / "x.zarr", metadata, layer="counts")
    zarr.create_group(tmp_path / "y.zarr")
    assert "it has no table obs" in message(tmp_path / "y.zarr", metadata)


@pytest.mark.parametrize("name", ["x", "x.xlsx", "x.gz", "x.h5ad.gz", "x.npy.gz", "x.rds", "x.npz"])
def test_unknown_formats(tmp_path, metadata, name):
    (tmp_path / name).write_text("a")
    found = message(tmp_path / name, metadata)
    assert ".h5ad" in found and ".parquet" in found and ".gz" in found


def test_tables_without_the_column_of_names(tmp_path, frame, metadata):
    named(frame).to_parquet(tmp_path / "x.parquet", index=False)
    assert "no column 'gene'" in message(tmp_path / "x.parquet", metadata, names_column="gene")
    pd.DataFrame().to_parquet(tmp_path / "y.parquet", index=False)
    assert "no columns" in message(tmp_path / "y.parquet", metadata)
