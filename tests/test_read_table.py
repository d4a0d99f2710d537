"""Tables from files: what pandas wrote is read back, and what cannot be read is named."""

import gzip

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxvp.expression import DataError, align, read_table

SUFFIXES = [".csv", ".csv.gz", ".tsv", ".tsv.gz", ".txt", ".tab.bz2", ".parquet", ".pq", ".CSV"]


def write(frame, path, **options):
    if any(suffix in path.name for suffix in (".parquet", ".pq")):
        frame.to_parquet(path)
    else:
        separator = "," if ".csv" in path.name.lower() else "\t"
        frame.to_csv(path, sep=separator, **options)
    return path


def text(tmp_path, content, name="x.csv"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def message(path, **options):
    with pytest.raises(DataError) as caught:
        read_table(path, **options)
    assert str(path) in str(caught.value)
    return str(caught.value).replace(str(path), "")


@pytest.fixture
def study():
    values = np.random.default_rng(0).normal(size=(6, 4))
    values[2, 1], values[3, 0] = np.nan, -np.inf
    frame = pd.DataFrame(values, [f"g{i}" for i in range(6)], [f"s{i}" for i in range(4)])
    return frame.rename_axis("gene")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("name", ["gene", None])
@pytest.mark.parametrize("turned", [False, True])
def test_what_pandas_writes_is_read_back(tmp_path, study, suffix, name, turned):
    frame = (study.T if turned else study).rename_axis(index=name, columns=None)
    found = read_table(write(frame, tmp_path / f"x{suffix}"))
    pd.testing.assert_frame_equal(found, frame, rtol=1e-15, check_column_type=False)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_names_in_another_column(tmp_path, study, suffix):
    path = write(study.assign(symbol=list("abcdef")), tmp_path / f"x{suffix}")
    found = read_table(path, names_column="symbol")
    assert list(found.index) == list("abcdef") and found.index.name == "symbol"
    assert sorted(found.columns) == ["gene", "s0", "s1", "s2", "s3"]
    assert "symbol" in message(path, names_column="Symbol")
    assert "s0, s1, s2, s3" in message(path, names_column="nothing like it")


def test_first_column_of_a_parquet_file_without_an_index(tmp_path, study):
    path = tmp_path / "x.parquet"
    study.reset_index().to_parquet(path)
    pd.testing.assert_frame_equal(read_table(path), study, check_column_type=False)
    study.reset_index().to_parquet(path, index=False)
    pd.testing.assert_frame_equal(read_table(path), study, check_column_type=False)


@pytest.mark.parametrize("suffix", [".csv", ".tsv.gz"])
def test_names_stay_text(tmp_path, suffix):
    frame = pd.DataFrame({"x": [1, 2, 3]}, index=["007", "1e5", "2020-01-01"])
    assert list(read_table(write(frame, tmp_path / f"x{suffix}")).index) == list(frame.index)


def test_names_of_a_parquet_file_become_text(tmp_path):
    frame = pd.DataFrame({"x": [1, 2]}, index=pd.Index([7, 8], name="id"))
    for index in (frame.index, pd.CategoricalIndex(["7", "8"])):
        path = write(frame.set_axis(index), tmp_path / "x.parquet")
        assert list(read_table(path).index) == ["7", "8"]


def test_what_columns_hold(tmp_path):
    found = read_table(
        text(
            tmp_path,
            "id,whole,real,holes,truth,words,day,minute,none\n"
            'a,1,0.5,,TRUE,"x, y",2020-01-03,12:30,\n'
            "b,2,inf,3,FALSE,NA,2020-01-05,09:05,NA\n",
        )
    )
    kinds = {name: pd.api.types.infer_dtype(found[name], skipna=True) for name in found}
    assert kinds == {
        **{"whole": "integer", "real": "floating", "holes": "floating", "truth": "boolean"},
        **{"words": "string", "day": "string", "minute": "string", "none": "empty"},
    }
    assert list(found["day"]) == ["2020-01-03", "2020-01-05"]
    assert list(found["minute"]) == ["12:30", "09:05"]
    assert found["words"].iloc[0] == "x, y" and found["words"].isna().tolist() == [False, True]


@pytest.mark.parametrize(
    "content",
    [
        "s1\ts2\ng1\t1\t2\ng2\t3\t4\n",  # R's write.table
        '"s1"\t"s2"\n"g1"\t1\t2\n"g2"\t3\t4\n',
        "\ts1\ts2\ng1\t1\t2\ng2\t3\t4\n",  # its col.names=NA
        "\n\ngene\ts1\ts2\n\ng1\t1\t2\n\n\ng2\t3\t4",
        "gene\ts1\ts2\r\ng1\t1\t2\r\ng2\t3\t4\r\n",
        b"\xef\xbb\xbfgene\ts1\ts2\ng1\t1\t2\ng2\t3\t4\n",  # a spreadsheet's byte order mark
        '"ge\nne"\ts1\ts2\ng1\t1\t2\ng2\t3\t4\n',
        "gene\ts1\ts2\ng1\t 1\t2 \ng2\t3\t4\n",
    ],
)
def test_habits_of_other_programs(tmp_path, content):
    found = read_table(text(tmp_path, content, "x.tsv"))
    assert found.to_numpy().tolist() == [[1, 2], [3, 4]]
    assert list(found.index) == ["g1", "g2"] and list(found.columns) == ["s1", "s2"]


def test_header_alone_is_a_table_without_rows(tmp_path):
    found = read_table(text(tmp_path, "gene,s1,s2\n"))
    assert found.shape == (0, 2)
    metadata = pd.DataFrame({"x": [1, 2]}, index=["s2", "s1"])
    assert align(found, metadata)[0].block(0, 0).shape == (2, 0)


def test_repeated_names_are_for_align_to_refuse(tmp_path):
    found = read_table(text(tmp_path, "gene,s1,s1,s2\ng1,1,2,3\ng2,3,4,5\n"))
    assert list(found.columns) == ["s1", "s1", "s2"]
    with pytest.raises(DataError, match="'s1' \\(2 times\\)"):
        align(found, pd.DataFrame({"x": [1, 2]}, index=["s1", "s2"]))


def test_many_rows_or_columns_in_several_pieces(tmp_path):
    """More than one block of pyarrow, and a column whose type shows only in the last rows."""
    frame = pd.DataFrame({"a": np.arange(60_000) * 10**9, "b": 1}, dtype=np.int64)
    frame = pd.concat([frame] * 6, axis=1).set_axis([f"s{i}" for i in range(12)], axis=1)
    frame = frame.astype({"s1": float})
    frame.iloc[-1, 1] = 0.25
    found = read_table(write(frame, tmp_path / "tall.csv"))
    np.testing.assert_array_equal(found.to_numpy(), frame.to_numpy())
    wide = frame.iloc[:6000].T + 0.5
    found = read_table(write(wide, tmp_path / "wide.csv"))
    np.testing.assert_array_equal(found.to_numpy(), wide.to_numpy())
    # Put together, so that blocks of genes are views.
    metadata = pd.DataFrame({"x": range(12)}, index=wide.index)
    expression, _ = align(found, metadata)
    assert np.shares_memory(expression.block(5, 9), found.to_numpy())


@given(
    st.lists(st.floats(allow_nan=False, width=64), min_size=1, max_size=20),
    st.sampled_from([".csv", ".tsv.gz", ".parquet"]),
)
def test_every_bit_of_a_number_is_kept(tmp_path_factory, values, suffix):
    frame = pd.DataFrame({"x": values, "y": 0.5}, index=[f"g{i}" for i in range(len(values))])
    found = read_table(write(frame, tmp_path_factory.mktemp("bits") / f"x{suffix}"))
    assert found["x"].astype(float).tolist() == values


# Errors


def test_no_such_file(tmp_path):
    assert "no such file" in message(tmp_path / "none.csv")
    (tmp_path / "folder.csv").mkdir()
    assert "a folder" in message(tmp_path / "folder.csv")


@pytest.mark.parametrize("name", ["x", "x.xlsx", "x.gz", "x.csv.zip", "x.rds"])
def test_unknown_formats(tmp_path, name):
    found = message(text(tmp_path, "a,b\n1,2\n", name))
    assert ".csv" in found and ".parquet" in found and ".gz" in found


@pytest.mark.parametrize("content", ["", "\n\n", b"\xef\xbb\xbf"], ids=repr)
@pytest.mark.parametrize("name", ["x.csv", "x.tsv"])
def test_empty_files(tmp_path, content, name):
    assert "is empty" in message(text(tmp_path, content, name))


def test_empty_files_of_other_kinds(tmp_path):
    message(text(tmp_path, "", "x.parquet"))
    assert "is empty" in message(text(tmp_path, gzip.compress(b""), "x.csv.gz"))
    pd.DataFrame().to_parquet(tmp_path / "y.parquet", index=False)
    assert "no columns" in message(tmp_path / "y.parquet")


@pytest.mark.parametrize(
    "content, name",
    [
        ("gene,s1\ng1,1\ng2,2\n", "x.parquet"),
        ("gene,s1\ng1,1\ng2,2\n", "x.csv.gz"),
        (gzip.compress(b"gene,s1\n" + b"g1,1\n" * 9999, mtime=0)[:40], "x.csv.gz"),
        (gzip.compress(b"gene,s1\ng1,1\n", mtime=0), "x.csv"),
        ("gene,s1\ng1,\xe9\n".encode("latin-1"), "x.csv"),
        ("gene,s1,s2\ng1,1,2\ng2,1\n", "x.csv"),
        ("gene,s1,s2\ng1,1,2\ng2,1,2,3\n", "x.csv"),
        (b"PAR1" + b"\x00" * 50 + b"PAR1", "x.parquet"),
    ],
    # Workers that share the tests must collect the same names; compressed bytes differ by zlib.
    ids=[
        "text as parquet",
        "text as gzip",
        "gzip cut off",
        "gzip without its suffix",
        "latin-1",
        "short line",
        "long line",
        "parquet without a footer",
    ],
)
def test_broken_files(tmp_path, content, name):
    assert "cannot be read: " in message(text(tmp_path, content, name))


def test_a_short_line_is_shown(tmp_path):
    found = message(text(tmp_path, "gene,s1,s2\ng1,1,2\ng2,1\n"))
    assert "Expected 3 columns, got 2" in found and "g2,1" in found


@pytest.mark.parametrize("row", [0, 500])  # the first is looked at here, the others by pyarrow
@pytest.mark.parametrize("column", [0, 1])
def test_text_that_is_not_utf_8(tmp_path, row, column):
    lines = [[f"g{i}", "word"] for i in range(1000)]
    lines[row][column] += "\xe9"
    content = "\n".join(map(",".join, [["gene", "s1"], *lines]))
    assert "UTF-8" in message(text(tmp_path, content.encode("latin-1")))


@pytest.mark.parametrize(
    "name, content, shown",
    [
        ("x.csv", "gene;s1;s2\ng1;1;2\n", "';'"),
        ("x.csv", "gene\ts1\ts2\ng1\t1\t2\n", r"'\t'"),
        ("x.tsv", "gene,s1,s2\ng1,1,2\n", "','"),
        ("x.csv", ";".join(f"a_long_name_of_a_sample_{i}" for i in range(9000)), "';'"),
    ],
)
def test_another_separator(tmp_path, name, content, shown):
    found = message(text(tmp_path, content, name))
    assert "separated by" in found and shown in found


def test_one_column_is_names_alone(tmp_path):
    found = read_table(text(tmp_path, "sample\na\nb\n"))
    assert found.shape == (2, 0) and list(found.index) == ["a", "b"]
