"""Files are read in pieces: which pieces, how often, and how much memory that takes."""

import errno
import tracemalloc

import numpy as np
import pandas as pd
import pytest
from containers import hdf5, npy, parquet
from scipy import sparse

from jaxvp.expression import DataError, align, mapped, open_file, panels
from jaxvp.expression.lazy import Lazy
from jaxvp.expression.panels import PanelSource, even_edges, joined_edges
from jaxvp.expression.parquet import ParquetTable

SAMPLES, GENES = 20, 30


@pytest.fixture(scope="module")
def metadata():
    return pd.DataFrame({"x": range(SAMPLES)}, index=[f"s{i}" for i in range(SAMPLES)])


@pytest.fixture(scope="module")
def frame(metadata):
    values = np.random.default_rng(0).normal(size=(SAMPLES, GENES))
    return pd.DataFrame(values, metadata.index, [f"g{i}" for i in range(GENES)])


class Counted:
    """A loader of panels that remembers what it was asked for."""

    def __init__(self, values):
        self.values, self.asked = values, []

    def __call__(self, rows, start, stop):
        self.asked.append((start, stop))
        return self.values[rows, start:stop]


def small_panels(monkeypatch, genes, largest=None):
    monkeypatch.setattr(panels, "PANEL_BYTES", genes * 8 * SAMPLES)
    if largest is not None:
        for module in ("lazy", "parquet"):
            monkeypatch.setattr(f"jaxvp.expression.{module}.LARGEST_PANEL", largest)


# Panels


def test_blocks_in_turn_read_every_panel_once(frame):
    load = Counted(frame.to_numpy())
    source = PanelSource(load, np.array([0, 8, 16, 30]), SAMPLES)
    for start in range(0, GENES, 4):
        block = source.read(slice(None), start, min(start + 4, GENES))
        np.testing.assert_array_equal(block, frame.iloc[:, start : start + 4])
    assert load.asked == [(0, 8), (8, 16), (16, 30)]
    source.read(slice(None), 9, 20)  # both are still there
    assert len(load.asked) == 3
    source.read(slice(None), 0, 1)  # gone, and so is the one that was used least lately
    assert load.asked[3:] == [(0, 8)]
    source.read(slice(None), 16, 17)
    source.read(slice(None), 8, 9)
    assert load.asked[4:] == [(8, 16)]


@pytest.mark.parametrize("by_rows", [False, True])
def test_any_block_of_any_panels(frame, by_rows):
    rng = np.random.default_rng(1)
    load = Counted(frame.to_numpy())
    source = PanelSource(load, np.array([0, 1, 8, 9, 25, 30]), SAMPLES, by_rows)
    for _ in range(60):
        start, stop = np.sort(rng.integers(0, GENES + 1, 2))
        rows = rng.permutation(SAMPLES)[: rng.integers(1, SAMPLES)]
        for chosen in (rows, slice(2, 9)):
            block = source.read(chosen, int(start), int(stop))
            np.testing.assert_array_equal(block, frame.to_numpy()[chosen, start:stop])


def test_a_panel_that_could_not_be_read_is_read_again(frame):
    values, broken = frame.to_numpy(), [True]

    def load(rows, start, stop):
        if broken:
            broken.clear()
            raise DataError("a moment")
        return values[rows, start:stop]

    source = PanelSource(load, np.array([0, GENES]), SAMPLES)
    with pytest.raises(DataError, match="a moment"):
        source.read(slice(None), 0, 3)
    np.testing.assert_array_equal(source.read(slice(None), 0, 3), values[:, :3])


def test_edges(monkeypatch):
    monkeypatch.setattr(panels, "PANEL_BYTES", 100)
    assert even_edges(10, 30).tolist() == [0, 3, 6, 9, 10]
    assert even_edges(10, 30, 2).tolist() == [0, 2, 4, 6, 8, 10]
    assert even_edges(10, 30, 7).tolist() == [0, 7, 10]  # no part of a chunk
    assert even_edges(9, 1000).tolist() == list(range(10))
    assert even_edges(0, 30).tolist() == [0]
    assert joined_edges([1, 1, 2, 5, 1], 30).tolist() == [0, 2, 4, 9, 10]
    assert joined_edges([0, 2, 0, 2], 30).tolist() == [0, 2, 4]
    assert joined_edges([], 30).tolist() == [0]


# Parquet


@pytest.fixture
def reads(monkeypatch):
    """The columns and row groups that are read from Parquet files."""
    asked, read = [], ParquetTable._read

    def spy(self, names, groups=None):
        asked.append((list(names), groups))
        return read(self, names, groups)

    monkeypatch.setattr(ParquetTable, "_read", spy)
    return asked


def test_parquet_reads_the_columns_of_a_panel(frame, metadata, tmp_path, reads, monkeypatch):
    small_panels(monkeypatch, 4)
    expression, _ = align(parquet(frame, tmp_path), metadata)
    assert reads[0] == (["name"], None)
    looked_at = [name for names, _ in reads[1:] for name in names]  # for raw counts
    assert len(looked_at) <= 16
    del reads[:]
    np.testing.assert_array_equal(expression.block(17, 22), frame.iloc[:, 17:22])
    assert [names for names, _ in reads] == [
        [f"g{i}" for i in range(16, 20)],
        [f"g{i}" for i in range(20, 24)],
    ]


def test_parquet_reads_the_row_groups_of_a_panel(frame, metadata, tmp_path, reads, monkeypatch):
    small_panels(monkeypatch, 6)
    path = parquet(frame.T, tmp_path, rows=3)
    expression, _ = align(path, metadata)
    del reads[:]
    np.testing.assert_array_equal(expression.block(25, 29), frame.iloc[:, 25:29])
    assert [groups for _, groups in reads] == [[8, 9]]
    # Of samples that nobody wants, nothing is read.
    with pytest.warns(UserWarning, match="18 of 20"):
        expression, _ = align(path, metadata.iloc[[7, 3]])
    del reads[:]
    np.testing.assert_array_equal(expression.block(0, 2), frame.iloc[[7, 3], :2])
    assert reads == [(["s7", "s3"], [0, 1])]


def test_parquet_of_one_large_row_group_is_turned_once(
    frame, metadata, tmp_path, reads, monkeypatch
):
    small_panels(monkeypatch, 6, largest=100)
    monkeypatch.setattr("jaxvp.expression.spool.PANEL_BYTES", 7 * 8 * GENES)
    expression, _ = align(parquet(frame.T, tmp_path), metadata)
    assert [len(names) for names, _ in reads] == [1, 7, 7, 6]
    np.testing.assert_array_equal(expression.block(0, GENES), frame)
    rows = np.array([4, 1])
    np.testing.assert_array_equal(expression.take(rows).block(2, 5), frame.iloc[rows, 2:5])
    assert len(reads) == 4


def test_a_parquet_file_that_changes(frame, metadata, tmp_path, monkeypatch):
    small_panels(monkeypatch, 4)
    path = parquet(frame, tmp_path)
    expression, _ = align(path, metadata)
    parquet(frame + 1, tmp_path)
    with pytest.raises(DataError, match="was changed while it was read"):
        expression.block(0, 30)


# Arrays in chunks


def test_chunks_are_read_once(frame, metadata, tmp_path, monkeypatch):
    small_panels(monkeypatch, 10)
    asked = []

    def get(rows, columns):
        asked.append((columns.start, columns.stop))
        return frame.to_numpy()[rows, columns]

    source = Lazy(get, frame.shape, np.dtype(float), (5, 4)).source()
    for start in range(0, GENES, 3):
        source.read(slice(None), start, start + 3)
    assert asked == [(0, 8), (8, 16), (16, 24), (24, 30)]


def test_chunks_as_wide_as_the_table_are_turned_once(frame, metadata, tmp_path, monkeypatch):
    small_panels(monkeypatch, 6, largest=100)
    monkeypatch.setattr("jaxvp.expression.spool.PANEL_BYTES", 9 * 8 * GENES)
    asked = []

    def get(rows, columns):
        asked.append((rows.start, rows.stop))
        return frame.to_numpy()[rows, columns]

    source = Lazy(get, frame.shape, np.dtype(float), (4, GENES)).source()
    assert asked == [(0, 8), (8, 16), (16, 20)]
    np.testing.assert_array_equal(source.read(slice(None), 3, 9), frame.iloc[:, 3:9])
    expression, _ = align(hdf5(frame, tmp_path, (4, GENES)), metadata)
    np.testing.assert_array_equal(expression.block(0, GENES), frame)


def test_no_room_for_a_turned_copy(frame, metadata, tmp_path, monkeypatch):
    small_panels(monkeypatch, 6, largest=100)

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(DataError, match="No space left on device.*TMPDIR"):
        align(parquet(frame.T, tmp_path), metadata)


# Sparse matrices


@pytest.mark.parametrize("kind", ["csc", "csr", "csr in h5ad", "csc in h5ad"])
def test_a_sparse_matrix_is_never_dense_as_a_whole(tmp_path, kind):
    """Dense it would be 80 MB."""
    n, genes = 500, 20_000
    values = sparse.random_array((n, genes), density=0.002, rng=np.random.default_rng(0))
    matrix = values.asformat(kind[:3])
    metadata = pd.DataFrame({"x": range(n)}, index=[f"s{i}" for i in range(n)])
    source = matrix
    if "h5ad" in kind:
        anndata = pytest.importorskip("anndata")
        obs, var = (
            pd.DataFrame(index=pd.Index([f"{side}{i}" for i in range(length)], dtype=object))
            for side, length in (("s", n), ("g", genes))
        )
        source = tmp_path / "x.h5ad"
        anndata.AnnData(matrix, obs=obs, var=var).write_h5ad(source)
    tracemalloc.start()
    expression, _ = align(source, metadata)
    total = sum(expression.block(i, i + 100).sum() for i in range(0, genes, 100))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == pytest.approx(matrix.sum())
    assert peak < 20e6


# Memory-mapped arrays


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("opened", ["path", "memmap"])
def test_a_mapped_array_stays_on_the_disk(tmp_path, order, opened, monkeypatch):
    """Blocks of an array of 16 MB take the memory of some blocks."""
    monkeypatch.setattr(panels, "PANEL_BYTES", 400_000)
    values = np.random.default_rng(0).normal(size=(200, 10_000))
    path = npy(pd.DataFrame(values), tmp_path, order)
    metadata = pd.DataFrame({"x": range(200)})
    expected = values.sum()
    tracemalloc.start()
    source = path if opened == "path" else np.load(path, mmap_mode="r")
    expression, _ = align(source, metadata)
    total = sum(expression.block(i, i + 100).sum() for i in range(0, 10_000, 100))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_allclose(total, expected)
    assert peak < 3e6


def test_pages_are_given_back(tmp_path):
    """What was read of a mapped file does not stay in the process."""
    path = npy(pd.DataFrame(np.ones((2000, 2000))), tmp_path, "F")
    values = np.load(path, mmap_mode="r")
    source = mapped.mapped_source(values)
    assert isinstance(source, mapped.MappedSource)

    def resident():
        with open("/proc/self/smaps") as file:
            text = file.read()
        part = text[text.index(str(path)) :]
        return int(part[part.index("Rss:") + 4 : part.index("kB", part.index("Rss:"))])

    try:
        resident()
    except (OSError, ValueError):
        pytest.skip("no /proc/self/smaps")
    values.sum()
    assert resident() > 30_000
    source.read(slice(None), 0, 10)
    assert resident() < 1000


def test_what_was_written_to_a_private_copy_is_kept(tmp_path):
    path = npy(pd.DataFrame(np.ones((30, 4))), tmp_path, "C")
    values = np.load(path, mmap_mode="c")
    values[3] = 7
    expression, _ = align(values, pd.DataFrame({"x": range(30)}))
    assert expression.block(0, 4)[3].tolist() == [7] * 4
    assert values[3].tolist() == [7] * 4


def test_a_path_is_mapped_and_not_loaded(tmp_path):
    path = npy(pd.DataFrame(np.ones((30, 4))), tmp_path, "C")
    assert isinstance(open_file(path).values, np.memmap)
