"""Every container gives the numbers of a DataFrame, bit for bit; what is unfit is named."""

import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from containers import CONTAINERS, NAMED, annotated, h5ad, named, parquet, stored, xarray
from scipy import sparse

import jaxvp
from jaxvp.expression import DataError, align, open_file

SAMPLES, GENES = 24, 9
FORMULA = "~ Age + Batch"  # nothing is compiled for it: blocks are what containers differ in
# anndata 0.12.6 sets an option that pandas 3 has deprecated.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The 'mode.chained_assignment' option"),
    pytest.mark.filterwarnings("ignore::FutureWarning:anndata"),
]


@pytest.fixture(scope="module")
def metadata():
    rng = np.random.default_rng(1)
    return pd.DataFrame(
        {"Age": rng.normal(40, 9, SAMPLES), "Batch": list("abcd") * (SAMPLES // 4)},
        index=[f"s{i}" for i in range(SAMPLES)],
    )


@pytest.fixture(scope="module")
def frame(metadata):
    """Samples x genes, with zeros."""
    rng = np.random.default_rng(2)
    values = rng.normal(size=(SAMPLES, GENES)) + rng.normal(size=(4, GENES))[np.arange(SAMPLES) % 4]
    values[rng.random(values.shape) < 0.25] = 0
    return pd.DataFrame(values, metadata.index, [f"g{i}" for i in range(GENES)])


@pytest.fixture(scope="module")
def expected(frame, metadata):
    return jaxvp.fit(frame, FORMULA, metadata)


def everything(expression):
    return expression.block(0, expression.n_genes)


def message(expression, metadata=None):
    with pytest.raises(DataError) as caught:
        everything(align(expression, metadata)[0])
    return str(caught.value)


# The same numbers


@pytest.mark.parametrize("name", CONTAINERS)
def test_every_container_serves_the_blocks_of_a_frame(name, frame, metadata, tmp_path):
    expression, kept = align(CONTAINERS[name](frame, metadata, tmp_path), metadata)
    reference, _ = align(frame, metadata)
    assert kept is metadata
    names = list(frame.columns) if name in NAMED else list(range(GENES))
    assert list(expression.gene_names) == names
    assert list(expression.sample_names) == list(metadata.index)
    rows = np.array([5, 2, 23, 0])
    for start, stop in ((0, GENES), (0, 1), (3, 7), (8, 99), (4, 4)):
        block = expression.block(start, stop)
        assert block.dtype == np.float64
        np.testing.assert_array_equal(block, reference.block(start, stop))
        np.testing.assert_array_equal(
            expression.take(rows).block(start, stop), reference.take(rows).block(start, stop)
        )


@pytest.mark.parametrize("name", CONTAINERS)
def test_every_container_gives_the_fit_of_a_frame(name, frame, metadata, expected, tmp_path):
    result = jaxvp.fit(CONTAINERS[name](frame, metadata, tmp_path), FORMULA, metadata)
    for table in ("fractions", "coefficients", "log_likelihood", "theta"):
        found, wanted = getattr(result, table), getattr(expected, table)
        np.testing.assert_array_equal(found.to_numpy(), wanted.to_numpy())
    if name in NAMED:
        assert list(result.fractions.index) == list(frame.columns)


@pytest.mark.parametrize("name", NAMED)
def test_samples_go_by_name(name, frame, metadata, tmp_path):
    """Some samples, in another order."""
    wanted = metadata.iloc[[20, 3, 11, 4]]
    with pytest.warns(UserWarning, match="20 of 24 of the expression"):
        expression, _ = align(NAMED[name](frame, metadata, tmp_path), wanted)
    np.testing.assert_array_equal(everything(expression), frame.loc[wanted.index])


@pytest.mark.parametrize("dtype", [np.float32, np.int16])
@pytest.mark.parametrize("name", CONTAINERS)
def test_single_precision_is_kept_and_integers_are_doubles(name, dtype, metadata, tmp_path):
    values = np.random.default_rng(3).integers(0, 2, size=(SAMPLES, GENES)).astype(dtype)
    frame = pd.DataFrame(values, metadata.index, [f"g{i}" for i in range(GENES)])
    block = everything(align(CONTAINERS[name](frame, metadata, tmp_path), metadata)[0])
    text = "sv" in name
    assert block.dtype == (np.float32 if dtype is np.float32 and not text else np.float64)
    np.testing.assert_array_equal(block, values)


@pytest.mark.parametrize("name", [name for name in CONTAINERS if "cs" not in name])
def test_missing_values_are_nan(name, frame, metadata, tmp_path):
    holes = frame.mask(np.random.default_rng(4).random(frame.shape) < 0.2)
    block = everything(align(CONTAINERS[name](holes, metadata, tmp_path), metadata)[0])
    np.testing.assert_array_equal(block, holes)


@pytest.mark.parametrize("name", CONTAINERS)
def test_threads_read_at_once(name, frame, metadata, tmp_path, monkeypatch):
    monkeypatch.setattr("jaxvp.expression.panels.PANEL_BYTES", 3 * 8 * SAMPLES)
    expression, _ = align(CONTAINERS[name](frame, metadata, tmp_path), metadata)
    gate = threading.Barrier(3)

    def read(worker):
        gate.wait()
        starts = [(7 * i + worker) % GENES for i in range(12)]
        return [(i, expression.block(i, i + 2).copy()) for i in starts]

    with ThreadPoolExecutor(3) as pool:
        for blocks in pool.map(read, range(3)):
            for start, block in blocks:
                np.testing.assert_array_equal(block, frame.iloc[:, start : start + 2])


# Metadata


def test_anndata_brings_its_own_metadata(frame, metadata, expected, tmp_path):
    for container in (
        annotated(frame, metadata),
        h5ad(frame, metadata, tmp_path),
        str(stored(frame, metadata, tmp_path)),
    ):
        result = jaxvp.fit(container, FORMULA)
        np.testing.assert_array_equal(result.fractions, expected.fractions)


def test_nothing_else_does(frame, metadata, tmp_path):
    for container in (frame, frame.to_numpy(), parquet(frame, tmp_path), pa.table(named(frame))):
        text = message(container)
        assert "metadata must be given" in text and "AnnData" in text


def test_metadata_from_a_file(frame, metadata, expected, tmp_path):
    path = parquet(frame, tmp_path)
    metadata.rename_axis("sample").to_csv(tmp_path / "m.csv")
    result = jaxvp.fit(str(path), FORMULA, str(tmp_path / "m.csv"))
    np.testing.assert_allclose(result.fractions, expected.fractions, rtol=1e-9, atol=1e-12)
    assert "there is no such file" in message(path, tmp_path / "none.csv")


# What says which way round


def test_genes_in_rows_of_an_array(frame, metadata, tmp_path):
    np.save(tmp_path / "x.npy", frame.T.to_numpy())
    opened = open_file(tmp_path / "x.npy", genes_in="rows")
    np.testing.assert_array_equal(everything(align(opened, metadata)[0]), frame)
    assert "pass expression.T" in message(tmp_path / "x.npy", metadata)
    assert 'use "rows" or "columns"' in str(
        pytest.raises(DataError, open_file, tmp_path / "x.npy", genes_in="row").value
    )


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_genes_in_where_both_sides_match(frame, metadata, tmp_path, suffix):
    square = frame.iloc[:GENES].set_axis(metadata.index[:GENES], axis=1)
    path = tmp_path / f"x.{suffix}"
    if suffix == "csv":
        square.rename_axis("name").to_csv(path)
    else:
        square.to_parquet(path)
    assert "both axes" in message(path, metadata[:GENES])
    for genes_in, wanted in (("columns", square), ("rows", square.T)):
        block = everything(align(open_file(path, genes_in=genes_in), metadata[:GENES])[0])
        np.testing.assert_array_equal(block, wanted)


def test_the_samples_of_anndata_are_its_rows(frame, metadata):
    text = message(annotated(frame, metadata).T.copy(), metadata)
    assert "on the other axis" in text and "'g0'" in text


def test_names_in_another_column_of_parquet(frame, metadata, tmp_path):
    table = frame.T.reset_index(names="symbol").assign(ensembl=[f"E{i}" for i in range(GENES)])
    table.to_parquet(tmp_path / "x.parquet", index=False)
    opened = open_file(tmp_path / "x.parquet", names_column="ensembl")
    with pytest.warns(UserWarning, match="1 of 25 of the expression"):  # the column of symbols
        expression, _ = align(opened, metadata)
    assert list(expression.gene_names)[:2] == ["E0", "E1"]
    np.testing.assert_array_equal(everything(expression), frame)


def test_names_with_dots(metadata, tmp_path):
    """Parquet takes them for paths: "HLA" is also the parent of "HLA.A"."""
    frame = pd.DataFrame(
        np.arange(SAMPLES * 3.0).reshape(-1, 3) / 8, metadata.index, ["HLA", "HLA.A", "HLA.A.1"]
    )
    expression, _ = align(parquet(frame, tmp_path), metadata)
    for i in range(3):
        np.testing.assert_array_equal(expression.block(i, i + 1), frame.iloc[:, [i]])


# What is unfit


@pytest.mark.parametrize("kind", ["arrow", "parquet"])
@pytest.mark.parametrize("turned", [False, True])
def test_columns_of_text_are_named(frame, metadata, tmp_path, kind, turned):
    table = frame.T if turned else frame
    table = table.astype({table.columns[3]: object})
    table[table.columns[3]] = ["high"] * len(table)
    container = pa.Table.from_pandas(table) if kind == "arrow" else parquet(table, tmp_path)
    text = message(container, metadata)
    gene, sample = ("g0", "s3") if turned else ("g3", "s0")
    assert f"'{gene}'" in text and f"'{sample}'" in text and "'high'" in text


def test_columns_of_other_types_are_named(frame, metadata):
    table = pa.Table.from_pandas(frame)
    dates = pa.array(pd.date_range("2020", periods=SAMPLES))
    for column in (dates, pa.array([[1.0]] * SAMPLES), pa.array([1] * SAMPLES).dictionary_encode()):
        text = message(table.set_column(2, "g2", column), metadata)
        assert "'g2'" in text


def test_what_arrow_has_instead_of_numbers(metadata):
    from decimal import Decimal

    columns = {
        "name": list(metadata.index),
        "decimal": [Decimal("1.5")] * SAMPLES,
        "truth": [True, None] * (SAMPLES // 2),
        "nothing": pa.nulls(SAMPLES),
        "large": [2**60 + 1] * SAMPLES,
    }
    block = everything(align(pa.table(columns), metadata)[0])
    np.testing.assert_array_equal(
        block[:2], [[1.5, 1, np.nan, 2.0**60], [1.5, *[np.nan] * 2, 2**60]]
    )


def test_tables_without_names(frame, metadata):
    text = message(pa.Table.from_pandas(frame, preserve_index=False), metadata)
    assert "no column of text" in text and "to_numpy()" in text


def test_polars_that_is_no_table(frame, metadata):
    polars = pytest.importorskip("polars")
    table = polars.from_pandas(named(frame))
    assert ".collect()" in message(table.lazy(), metadata)
    assert "polars.Series" in message(table["g1"], metadata)


def test_anndata_without_a_matrix(frame, metadata, tmp_path):
    adata = annotated(frame, metadata, counts=frame.to_numpy())
    adata.X = None
    assert "'counts'" in message(adata)
    adata.write_h5ad(tmp_path / "x.h5ad")
    assert "has no X; its layers: 'counts'" in message(tmp_path / "x.h5ad")
    text = str(pytest.raises(DataError, open_file, tmp_path / "x.h5ad", layer="count").value)
    assert "layer 'count'" in text and "'counts'" in text
    expression, _ = align(open_file(tmp_path / "x.h5ad", layer="counts"))
    np.testing.assert_array_equal(everything(expression), frame)


def test_options_of_other_formats(frame, metadata, tmp_path):
    path = h5ad(frame, metadata, tmp_path)
    for options, words in (({"names_column": "a"}, "names_column"), ({"genes_in": "rows"}, "var")):
        assert words in str(pytest.raises(DataError, open_file, path, **options).value)
    with pytest.raises(DataError, match="layers"):
        open_file(parquet(frame, tmp_path), layer="counts")


def test_xarray_that_is_no_matrix(frame, metadata):
    array = xarray(frame)
    assert "dataset[name]" in message(array.to_dataset(name="x"), metadata)
    assert "two axes" in message(array[0], metadata)
    bare = array.drop_vars(["row", "column"])
    np.testing.assert_array_equal(everything(align(bare, metadata)[0]), frame)


def test_sparse_matrices_that_are_no_measurements(frame, metadata):
    values = frame.to_numpy()
    assert "complex" in message(sparse.csr_array(values * 1j), metadata)
    assert "pass expression.T" in message(sparse.csr_array(values.T), metadata)


def test_values_at_one_place_are_added_up(metadata):
    values = sparse.coo_array(([0.5, 0.25, 2], ([0, 0, 3], [1, 1, 0])), shape=(SAMPLES, 2))
    np.testing.assert_array_equal(everything(align(values, metadata)[0]), values.toarray())


@pytest.mark.parametrize(
    "package, extra, name",
    [
        ("anndata", "anndata", "x.h5ad"),
        ("zarr", "zarr", "x.zarr"),
        ("anndata", "anndata,zarr", "x.zarr"),
    ],
)
def test_an_extra_that_is_missing_is_named(
    package, extra, name, frame, metadata, tmp_path, monkeypatch
):
    path = {"x.h5ad": h5ad, "x.zarr": stored}[name](frame, metadata, tmp_path)
    monkeypatch.setitem(sys.modules, package, None)
    assert f"{path}" in message(path) and f'pip install "jaxvp[{extra}]"' in message(path)


def test_what_is_read_is_not_imported():
    """A container's package is there if the container is; nothing is imported to look for it."""
    before = set(sys.modules)
    align(np.random.default_rng(0).normal(size=(3, 2)), pd.DataFrame({"x": [1, 2, 3]}))
    assert not {"anndata", "polars", "xarray", "zarr", "dask"} & (set(sys.modules) - before)


def test_warnings_are_few(frame, metadata, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        for name in ("h5ad", "parquet", "polars", "zarr", "csr"):
            (tmp_path / name).mkdir()
            align(CONTAINERS[name](frame, metadata, tmp_path / name), metadata)
