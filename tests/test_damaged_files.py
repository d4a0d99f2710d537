"""Files that are missing, empty, cut short, overwritten, of another kind: one error names them."""

import os
import warnings

import numpy as np
import pandas as pd
import pytest
from containers import annotated, h5ad, named, npy, parquet, stored, text, zarr_array
from scipy import sparse

import jaxvp
from jaxvp.batch import Fitter
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


AGAIN = "copy or write it again"


@pytest.mark.parametrize("name", WRITE)
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_cut_short(tmp_path, frame, metadata, name, share):
    path = WRITE[name](frame, metadata, tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    found = message(path, metadata)
    # Of a table in text the header alone may be left: a row of names of which none is known.
    assert AGAIN in found or (share == 0.02 and name in ("x.csv", "x.tsv"))


@pytest.mark.parametrize("name", WRITE)
def test_weights_and_metadata_that_are_cut_short(tmp_path, frame, metadata, name):
    path = WRITE[name](frame.abs(), metadata, tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    expression, _ = align(frame, metadata)
    with pytest.raises(DataError) as caught:
        weights, _ = split_weights(path, expression, np.arange(SAMPLES))
        weights.block(0, GENES)
    assert str(path) in str(caught.value) and AGAIN in str(caught.value)
    with pytest.raises(DataError) as caught:
        align(frame, path)
    found = str(caught.value)
    assert str(path) in found and (AGAIN in found or ".parquet" in found)  # no table, whatever


OTHER = {
    "text": b"sample,a,b\ns1,1,2\n" * 9,
    "zeros": bytes(4000),
    "noise": np.random.default_rng(1).bytes(4000),
    "page": b"<!DOCTYPE html><html><body>404 not found</body></html>\n" * 9,
    "pickle": b"\x80\x04\x95\x10\x00cos\nsystem\n(S'touch PWNED'\ntR.",
    "workbook": b"PK\x03\x04" + bytes(400),
    "parquet": None,
}
LIKE = {
    "text": "like text: if it is that, its name must end in .csv or .tsv",
    "page": "like a web page, which is not read",
    "pickle": "like a pickle of Python, which is not read",
    "workbook": "like a zip archive (Excel, npz), which is not read",
    "parquet": "like Parquet: if it is that, its name must end in .parquet or .pq",
}


@pytest.mark.parametrize("name", WRITE)
@pytest.mark.parametrize("other", OTHER)
def test_of_another_kind(tmp_path, frame, metadata, name, other, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / name
    if other == "parquet":
        parquet(frame, tmp_path).rename(path)
    else:
        path.write_bytes(OTHER[other])
    assert not (tmp_path / "PWNED").exists()
    if other == "parquet" and name in ("x.parquet", "x.pq"):
        return
    with pytest.raises(DataError) as caught:
        align(path, metadata)
    found = str(caught.value)
    if other == "text" and name in ("x.csv", "x.tsv"):  # a table: of other samples, or one column
        assert "sample" in found or "separated" in found
        return
    assert str(path) in found
    assert LIKE.get(other, AGAIN) in found or "UTF-8" in found
    assert not (tmp_path / "PWNED").exists()


def touched(path):
    """Written to again, a moment later."""
    inner = max((p for p in path.rglob("*") if p.is_file()), default=path)
    os.utime(inner, ns=(1, os.stat(inner).st_mtime_ns + 1))


# Formats that are read block by block.
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


def csc_layer(frame, metadata, folder):
    return h5ad(frame, metadata, folder, part=sparse.csc_matrix(frame.to_numpy()))


FITTED = {
    "npy": (WRITE["x.npy"], {}),
    "npy, genes contiguous": (lambda f, m, d: npy(f, d, "F"), {}),
    "parquet": (WRITE["x.parquet"], {}),
    "parquet, genes in rows": (lambda f, m, d: parquet(f.T, d, 8), {}),
    "h5ad": (h5ad, {}),
    "h5ad, csc": (csc_layer, {"layer": "part"}),
    "zarr": (stored, {}),
    "zarr array": (lambda f, m, d: zarr_array(f, d), {}),
}


@pytest.mark.parametrize("name", FITTED)
def test_a_fit_whose_file_changes_meanwhile(tmp_path, frame, metadata, name, monkeypatch):
    """Whatever is streamed: no result comes of two versions of a file."""
    write, options = FITTED[name]
    path = write(frame, metadata, tmp_path)
    fit_block = Fitter.begin

    def during(self, y, weights):
        touched(path)
        return fit_block(self, y, weights)

    monkeypatch.setattr(Fitter, "begin", during)
    with pytest.raises(DataError, match="was changed while it was read: run again"):
        jaxvp.fit(open_file(path, **options), "~ x", metadata, block_size=20)


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


def chunk_files(array):
    """The files of its chunks, in the order of their places."""
    return sorted(f for f in array.rglob("*") if f.is_file() and "z" not in f.name)


@pytest.mark.parametrize("kind", ["array", "group", "sharded"])
def test_zarr_of_which_chunks_are_lost(tmp_path, frame, metadata, kind):
    """They read as zeros, as chunks of zeros do that were never written: both are counted."""
    zarr, frame = pytest.importorskip("zarr"), frame.abs()
    if kind == "group":
        path = stored(frame, metadata, tmp_path, chunks=(7, 3))
    else:
        sizes = {"chunks": (7, 3)} | ({"shards": (14, 9)} if kind == "sharded" else {})
        path = tmp_path / "x.zarr"
        zarr.create_array(path, shape=frame.shape, dtype="f8", **sizes)[:] = frame.to_numpy()
    chunks = chunk_files(path / "X" if kind == "group" else path)
    total = 21 if kind == "sharded" else 120
    assert len(chunks) == total
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        align(path, metadata)
    for file in chunks[2:4]:
        file.unlink()
    words = rf"{path}.*: 2 of its {total} chunks are not in the store and are read as 0.0"
    with pytest.warns(UserWarning, match=words):
        align(path, metadata)
    with pytest.warns(UserWarning, match=words):
        split_weights(path, align(frame, metadata)[0], np.arange(SAMPLES))
    for file in chunk_files(path / "X" if kind == "group" else path):
        file.unlink()
    with pytest.raises(DataError, match=f"damaged: none of its {total} chunks is in the store"):
        align(path, metadata)


def test_zeros_that_were_not_written_are_read(tmp_path, frame, metadata):
    """With a warning, since nothing tells them from zeros of lost files."""
    frame = frame.copy()
    frame.iloc[:7, :6] = 0
    with pytest.warns(UserWarning, match="2 of its 120 chunks are not in the store"):
        expression, _ = align(zarr_array(frame, tmp_path), metadata)
    np.testing.assert_array_equal(expression.block(0, GENES), frame)


@pytest.mark.parametrize("lost", ["indices", "data", "obs/name", "obs/age", "obs/flag"])
def test_zarr_of_anndata_that_lost_a_part(tmp_path, frame, metadata, lost):
    """A part of a sparse matrix, names of samples, their variables."""
    zarr = pytest.importorskip("zarr")
    table = metadata.rename_axis("name").assign(age=np.arange(SAMPLES) + 20, flag=False)
    values = sparse.csc_matrix(frame.to_numpy())
    path = stored(frame, table, tmp_path, part=values)
    (path / ".zmetadata").unlink(missing_ok=True)  # it would not know of what is changed
    obs = zarr.open_group(path / "obs")
    names = obs["_index"][:]
    del obs["_index"]
    for name, column in (("name", names), ("age", table["age"].to_numpy())):
        if name in obs:
            del obs[name]
        array = obs.create_array(name, shape=column.shape, dtype=column.dtype, chunks=(16,))
        array[:] = column
        array.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
    obs["name"].attrs["encoding-type"] = "string-array"
    obs.attrs["_index"] = "name"
    obs.attrs["column-order"] = ["x", "age", "flag"]
    opened = {"layer": "part"}
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        align(open_file(path, **opened), metadata)
    parts = path / lost if "/" in lost else path / "layers" / "part" / lost
    files = chunk_files(parts)
    if lost == "obs/flag":  # false everywhere: never written, and nothing to say about
        assert not files
        return
    files[0].unlink()
    if lost == "obs/name":
        found = message(path, metadata, **opened)
        assert "1 of its 3 chunks of names are not in the store" in found
    elif lost == "obs/age":
        with pytest.warns(UserWarning, match=r"\(obs\)/age: 1 of its 3 chunks are not"):
            align(open_file(path, **opened), metadata)
    else:
        assert "none of its 1 chunk is in the store" in message(path, metadata, **opened)


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
