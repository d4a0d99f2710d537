"""Measurements: which axis holds the samples, who is dropped, what a block holds and costs.

A block must be what pandas' own `.loc` picks, whatever the container, its orientation, the order of
the samples and the layout in memory. Every unfit input gets an error that names culprit and remedy.
"""

import re
import threading
import tracemalloc
import warnings
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxvp.expression import DataError, Expression, align

GENES, SAMPLES = 7, 5
GENE_NAMES = [f"ENSG{i}" for i in range(GENES)]
SAMPLE_NAMES = [f"s{i}" for i in range(SAMPLES)]


@pytest.fixture
def metadata():
    return pd.DataFrame({"Age": np.arange(SAMPLES) + 30.0}, index=SAMPLE_NAMES)


def table(values=None):
    """Genes x samples."""
    if values is None:
        values = np.random.default_rng(1).normal(size=(GENES, SAMPLES))
    return pd.DataFrame(values, index=GENE_NAMES, columns=SAMPLE_NAMES)


def everything(expression: Expression):
    return expression.block(0, expression.n_genes)


def message(expression, metadata, error=DataError):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(error) as caught:
            align(expression, metadata)
    return str(caught.value)


def silently(expression, metadata):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return align(expression, metadata)


# Alignment


@st.composite
def studies(draw):
    """A table and its metadata: shuffled samples, some on one side only, in any container."""
    n, extra, missing = (draw(st.integers(low, 6)) for low in (2, 0, 0))
    genes = draw(st.integers(0, 9))
    names = [f"s{i}" for i in range(n + extra + missing)]
    in_table = draw(st.permutations(names[: n + extra]))
    in_metadata = draw(st.permutations(names[:n] + names[n + extra :]))
    values = (
        np.arange(genes * len(in_table), dtype=np.float64).reshape(genes, len(in_table)) / 8 - 3
    )
    frame = pd.DataFrame(values, index=[f"g{i}" for i in range(genes)], columns=in_table)
    dtype = draw(st.sampled_from(["float64", "float32", "Float64", "double[pyarrow]", "object"]))
    frame = frame.astype(dtype)
    if draw(st.booleans()) and dtype != "object":  # a second dtype, in columns of both kinds
        frame[frame.columns[0]] = np.arange(genes)
    if draw(st.booleans()):
        frame = frame.T
        if draw(st.booleans()):
            frame = frame.copy()
    if draw(st.booleans()) and genes:  # no two columns in one array
        frame = pd.concat([frame.iloc[:, [i]] for i in range(frame.shape[1])], axis=1)
    return frame, pd.DataFrame({"x": range(len(in_metadata))}, index=in_metadata)


@given(studies(), st.data())
def test_blocks_are_what_pandas_picks_by_name(study, data):
    frame, metadata = study
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        expression, kept = align(frame, metadata)
    genes = frame.columns if frame.columns.isin(["g0"]).any() else frame.index
    if frame.index.isin(metadata.index).any():
        genes, named = frame.columns, frame
    else:
        genes, named = frame.index, frame.T
    common = [name for name in metadata.index if name in named.index]
    pd.testing.assert_frame_equal(kept, metadata.loc[common])
    assert list(expression.sample_names) == common
    assert list(expression.gene_names) == list(genes)
    assert (expression.n_samples, expression.n_genes) == (len(common), len(genes))
    assert len(caught) == (len(common) < max(len(metadata), len(named)))

    rows = np.array(data.draw(st.permutations(range(len(common)))))[: data.draw(st.integers(2, 6))]
    start = data.draw(st.integers(0, len(genes)))
    stop = data.draw(st.integers(start, len(genes)))
    taken = expression.take(rows)
    block = taken.block(start, stop)
    expected = named.loc[[common[i] for i in rows]].iloc[:, start:stop].astype(float)
    assert block.dtype in (np.float64, np.float32)
    np.testing.assert_array_equal(block, expected.to_numpy().reshape(len(rows), stop - start))
    assert list(taken.sample_names) == [common[i] for i in rows]
    # Taken twice is taken from what was taken.
    np.testing.assert_array_equal(taken.take(np.array([1])).block(start, stop), block[1:2])


def test_metadata_is_the_same_object_if_nobody_is_dropped(metadata):
    assert silently(table(), metadata)[1] is metadata


@pytest.mark.parametrize("turned", [False, True])
def test_one_warning_counts_who_is_dropped(metadata, turned):
    frame = table().rename(columns={"s0": "x0", "s1": "x1"})
    with pytest.warns(UserWarning) as caught:
        expression, kept = align(frame.T if turned else frame, metadata)
    assert len(caught) == 1
    text = str(caught[0].message)
    assert re.search(r"2 of 5 .*metadata.*s0.*s1", text)
    assert re.search(r"2 of 5 .*expression.*x0.*x1", text)
    assert "3" in text
    assert list(kept.index) == list(expression.sample_names) == ["s2", "s3", "s4"]
    np.testing.assert_array_equal(everything(expression), frame[["s2", "s3", "s4"]].T)


def test_column_of_gene_names_is_named_in_the_warning(metadata):
    """A table whose first column was not made the index."""
    frame = table().rename_axis("Symbol").reset_index()
    with pytest.warns(UserWarning, match=r"set_index\('Symbol'\)"):
        expression, _ = align(frame, metadata)
    np.testing.assert_array_equal(everything(expression), table().T)


def test_an_array_goes_by_position(metadata):
    values = np.random.default_rng(0).normal(size=(SAMPLES, GENES))
    expression, kept = silently(values, metadata)
    assert kept is metadata
    assert expression.gene_names.equals(pd.RangeIndex(GENES))
    assert everything(expression).base is values


@pytest.mark.parametrize("convert", [np.ndarray.tolist, memoryview], ids=["lists", "memoryview"])
def test_what_numpy_can_read_is_an_array(metadata, convert):
    values = np.arange(10.0).reshape(SAMPLES, 2) / 4
    np.testing.assert_array_equal(everything(silently(convert(values), metadata)[0]), values)


def test_a_jax_array_is_an_array(metadata):
    import jax.numpy as jnp

    values = np.arange(10, dtype=np.float32).reshape(SAMPLES, 2) / 4
    np.testing.assert_array_equal(everything(silently(jnp.asarray(values), metadata)[0]), values)


@pytest.mark.parametrize("turned", [False, True])
def test_zero_genes(metadata, turned):
    frame = table().iloc[:0].T if turned else table().iloc[:0]
    for container in (frame, frame.astype("Int64"), frame.astype(object), np.ones((SAMPLES, 0))):
        expression, _ = silently(container, metadata)
        assert expression.n_genes == 0
        assert everything(expression).shape == (SAMPLES, 0)
        assert everything(expression.take(np.array([2, 0]))).shape == (2, 0)


def test_names_of_any_one_type_match():
    for names in (
        pd.Index([3, 1, 2]),
        pd.CategoricalIndex(["c", "a", "b"]),
        pd.DatetimeIndex(["2020-01-03", "2020-01-01", "2020-01-02"]),
        pd.Index([("a", 1), ("a", 2), ("b", 1)], tupleize_cols=False),
    ):
        frame = pd.DataFrame([[0.5, 1.5, 2.5]], index=["g"], columns=names)
        turned = names[[2, 0, 1]]
        expression, _ = silently(frame, pd.DataFrame({"x": range(3)}, index=turned))
        np.testing.assert_array_equal(everything(expression)[:, 0], [2.5, 0.5, 1.5])


def test_categories_match_their_text():
    metadata = pd.DataFrame({"x": range(3)}, index=pd.CategoricalIndex(["b", "a", "c"]))
    frame = pd.DataFrame([[0.5, 1.5, 2.5]], index=["g"], columns=["a", "b", "c"])
    for names in (metadata, metadata.set_axis(metadata.index.astype(str))):
        for columns in (frame.columns, pd.CategoricalIndex(frame.columns, ["c", "b", "a", "z"])):
            expression, _ = silently(frame.set_axis(columns, axis=1), names)
            np.testing.assert_array_equal(everything(expression)[:, 0], [1.5, 0.5, 2.5])


# Values and memory

WHOLE = [int, np.int8, np.uint64, bool, "Int64", "UInt8", "boolean", "int32[pyarrow]"]
FLOAT = [np.float16, np.float32, np.longdouble, ">f8", "Float32", "double[pyarrow]", object]


@pytest.mark.parametrize("dtype", WHOLE + FLOAT, ids=str)
@pytest.mark.parametrize("turned", [False, True])
def test_every_dtype_of_numbers(metadata, dtype, turned):
    values = np.random.default_rng(2).integers(0, 2, size=(GENES, SAMPLES)) / (
        1 if dtype in WHOLE else 4
    )
    frame = table(values).astype(dtype)
    expression, _ = silently(frame.T.astype(dtype) if turned else frame, metadata)
    block = expression.block(2, 6)
    np.testing.assert_array_equal(block, values.T[:, 2:6])
    assert block.dtype == (np.float32 if dtype is np.float32 else np.float64)
    assert block.dtype.isnative
    np.testing.assert_array_equal(
        expression.take(np.array([3, 1])).block(2, 6), values.T[[3, 1], 2:6]
    )


def test_columns_of_several_dtypes(metadata):
    frame = table(np.arange(GENES * SAMPLES).reshape(GENES, SAMPLES) / 2)
    frame = frame.T.astype({"ENSG0": int, "ENSG1": "float32", "ENSG2": "Float64", "ENSG3": object})
    for container in (frame, frame.iloc[:, ::-1].iloc[:, ::-1]):
        expression, _ = silently(container, metadata)
        np.testing.assert_array_equal(everything(expression), frame.astype(float))


@pytest.mark.parametrize("turned", [False, True])
def test_one_column_of_float64_keeps_its_digits(metadata, turned):
    frame = table(np.full((GENES, SAMPLES), 0.1))
    frame = frame.T if turned else frame
    frame = frame.astype({frame.columns[i]: np.float32 for i in range(1, 5)})
    np.testing.assert_array_equal(everything(silently(frame, metadata)[0])[0, 0], 0.1)


@pytest.mark.parametrize("turned", [False, True])
def test_a_last_block_may_be_short(metadata, turned):
    for frame in (table(), table().astype("Float64"), split(table())):
        expression, _ = silently(frame.T if turned else frame, metadata)
        np.testing.assert_array_equal(expression.block(4, 99), table().T.iloc[:, 4:])


@pytest.mark.parametrize("missing", [np.nan, None, pd.NA], ids=repr)
@pytest.mark.parametrize("dtype", ["float64", "Float64", "double[pyarrow]", object])
@pytest.mark.parametrize("turned", [False, True])
def test_missing_values_become_nan(metadata, missing, dtype, turned):
    frame = table().astype(object)
    frame.iloc[2, 3] = missing
    if dtype == "float64":
        missing = np.nan
        frame.iloc[2, 3] = missing
    frame = frame.T.astype(dtype) if turned else frame.astype(dtype)
    expected = table().T.to_numpy().copy()
    expected[3, 2] = np.nan
    np.testing.assert_array_equal(everything(silently(frame, metadata)[0]), expected)


def test_numbers_kept_as_objects(metadata):
    frame = table(np.full((GENES, SAMPLES), 1.5)).astype(object)
    frame.iloc[0] = [1, 2.5, Decimal("0.5"), np.float32(4), True]
    np.testing.assert_array_equal(
        everything(silently(frame, metadata)[0])[:, 0], [1, 2.5, 0.5, 4, 1]
    )


@pytest.mark.parametrize("step", [1, 2, -1])
@pytest.mark.parametrize("order", ["C", "F"])
def test_strides_and_read_only(metadata, step, order):
    values = np.random.default_rng(3).normal(size=(SAMPLES * abs(step), GENES * abs(step)))
    values = np.asarray(values, order=order)[::step, ::step]
    values.setflags(write=False)
    expression, _ = silently(values, metadata)
    np.testing.assert_array_equal(expression.block(1, 4), values[:, 1:4])
    np.testing.assert_array_equal(
        expression.take(np.array([4, 0, 2])).block(1, 4), values[[4, 0, 2], 1:4]
    )
    if step == 1:
        frame = pd.DataFrame(values, index=SAMPLE_NAMES, columns=GENE_NAMES, copy=False)
        assert np.shares_memory(silently(frame, metadata)[0].block(1, 4), values)


def test_nothing_is_written_into_the_input(metadata):
    frame = table()
    before = frame.copy()
    expression, _ = silently(frame, metadata)
    expression.take(np.array([1, 0])).block(0, 3)[:] = 0  # a gathered block is the reader's own
    pd.testing.assert_frame_equal(frame, before)


def large(genes=4000, samples=200):
    """Genes x samples, and their metadata."""
    names = [f"s{i}" for i in range(samples)]
    values = np.random.default_rng(0).normal(size=(genes, samples))
    frame = pd.DataFrame(values, index=[f"g{i}" for i in range(genes)], columns=names)
    return frame, pd.DataFrame({"x": range(samples)}, index=names)


def split(frame):
    """The same table, every column in an array of its own, as a file is read."""
    return pa.Table.from_pandas(frame).to_pandas(split_blocks=True)


CONTAINERS = {
    "genes x samples": lambda frame: frame,
    "samples x genes": lambda frame: frame.T,
    "split genes x samples": split,
    "split samples x genes": lambda frame: split(frame.T),
    "array": lambda frame: frame.T.to_numpy(),
    "integers": lambda frame: (10 * frame).astype(int),
    "nullable": lambda frame: frame.astype("Float64"),
}


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("shuffled", [False, True])
def test_blocks_cost_what_a_block_costs(container, shuffled):
    # A column in an array of its own costs more than a kilobyte, whatever it holds.
    frame, metadata = large(200, 4000) if container == "split samples x genes" else large()
    source = CONTAINERS[container](frame)
    if shuffled and container != "array":
        metadata = metadata.iloc[::-1].copy()
    size = 20
    tracemalloc.start()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expression, _ = align(source, metadata)
    for start in range(0, expression.n_genes, 10 * size):
        expression.block(start, start + size)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # Look-up tables of names take some memory; the measurements are 6.4 MB.
    assert peak < 1.5e6 + 3 * 8 * size * len(metadata)


@pytest.mark.parametrize("container", ["genes x samples", "samples x genes", "array"])
def test_samples_in_order_are_served_as_views(container):
    frame, metadata = large()
    source = CONTAINERS[container](frame)
    expression, _ = silently(source, metadata)
    values = source if isinstance(source, np.ndarray) else source.to_numpy()
    assert np.shares_memory(expression.block(3, 9), values)
    assert np.shares_memory(expression.take(np.arange(20, 80)).block(3, 9), values)


@pytest.mark.parametrize("container", CONTAINERS)
def test_threads_read_at_once(container):
    frame, metadata = large(150)
    metadata = metadata.iloc[::-1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expression, _ = align(CONTAINERS[container](frame), metadata)
    alone = [expression.block(i, i + 25).copy() for i in range(0, 150, 25)]
    gate = threading.Barrier(4)

    def read(worker):
        gate.wait()
        return [expression.block(i, i + 25) for i in range(0, 150, 25)]

    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(read, range(4)):
            for one, other in zip(found, alone, strict=True):
                np.testing.assert_array_equal(one, other)


# Errors: sample names


def test_names_in_a_column_of_the_metadata(metadata):
    moved = metadata.rename_axis("library").reset_index()
    for frame in (table(), table().T):
        text = message(frame, moved)
        assert "'library'" in text and "metadata.set_index('library')" in text


def test_names_in_a_column_of_the_metadata_as_numbers():
    metadata = pd.DataFrame({"id": [101, 102, 103], "dose": [1, 2, 3]}, index=list("abc"))
    frame = pd.DataFrame(np.ones((2, 3)), index=["g1", "g2"], columns=["103", "101", "102"])
    assert "'id'" in message(frame, metadata)


def test_names_in_a_column_of_the_expression(metadata):
    frame = table().T.rename_axis("library").reset_index()
    assert "expression.set_index('library')" in message(frame, metadata)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("numbers_in", ["metadata", "expression"])
@pytest.mark.parametrize("kind", [int, float])
def test_numbers_against_text(numbers_in, turned, kind):
    numbers, text = pd.Index([kind(i) for i in (101, 102, 103)]), ["103", "102", "101"]
    inner, outer = (numbers, text) if numbers_in == "metadata" else (text, numbers)
    frame = pd.DataFrame(np.ones((2, 3)), index=["g1", "g2"], columns=outer)
    metadata = pd.DataFrame({"x": range(3)}, index=inner)
    found = message(frame.T if turned else frame, metadata)
    assert "text" in found and "numbers" in found
    axis = "index" if turned or numbers_in == "metadata" else "columns"
    assert f"{numbers_in}.{axis} = {numbers_in}.{axis}" in found
    # What it says works.
    mended = {"metadata": metadata, "expression": frame.T if turned else frame, "int": int}
    remedy = re.search(rf"{numbers_in}\.{axis} = \S+astype\(str\)", found)
    assert remedy
    exec(remedy.group(), {"str": str, "int": int}, mended)
    silently(mended["expression"], mended["metadata"])


@pytest.mark.parametrize("turned", [False, True])
def test_no_names_on_either_side(turned):
    frame = pd.DataFrame(np.ones((SAMPLES, GENES)), columns=GENE_NAMES)
    metadata = pd.DataFrame({"x": range(SAMPLES)})
    text = message(frame.T if turned else frame, metadata)
    assert "RangeIndex" in text and "set_index" in text and "to_numpy()" in text


def test_no_names_at_all():
    """Row numbers on every axis: they match, and mean nothing."""
    text = message(pd.DataFrame(np.ones((SAMPLES, GENES))), pd.DataFrame({"x": range(SAMPLES)}))
    assert "both axes" in text and "RangeIndex" in text and "to_numpy()" in text


def test_two_tables_read_without_an_index():
    """Rows are numbered on both sides, and in the expression they are genes."""
    frame = table().rename_axis("gene").reset_index()
    metadata = pd.DataFrame({"sex": list("fmfmf"), "library": SAMPLE_NAMES})
    for turned in (frame, frame.T):
        text = message(turned, metadata)
        assert "RangeIndex" in text and "metadata.set_index('library')" in text
        text = message(turned, metadata[["sex"]])
        assert "RangeIndex" in text and "set_index" in text and "to_numpy" not in text


@pytest.mark.parametrize("turned", [False, True])
def test_row_numbers_against_text(turned):
    """Numbered samples, whose numbers are text in the metadata."""
    frame = pd.DataFrame(np.ones((2, 3)), index=["g", "h"])
    text = message(frame.T if turned else frame, pd.DataFrame({"x": range(3)}, index=list("201")))
    axis = "index" if turned else "columns"
    assert "text" in text and f"expression.{axis} = expression.{axis}.astype(str)" in text


def test_expression_without_names_of_samples(metadata):
    frame = pd.DataFrame(np.ones((SAMPLES, GENES)), columns=GENE_NAMES)
    text = message(frame, metadata)
    assert "RangeIndex" in text and "expression.to_numpy()" in text
    assert "expression.T.to_numpy()" in message(frame.T, metadata)


def test_names_that_differ_in_punctuation(metadata):
    """R's make.names and its friends."""
    renamed = table().rename(columns=lambda name: name.upper().replace("S", "S-"))
    text = message(renamed, metadata)
    assert "'s0'" in text and "'S-0'" in text


def test_names_that_differ_in_zeros():
    """A spreadsheet has made numbers of them."""
    frame = pd.DataFrame(np.ones((2, 3)), index=["g", "h"], columns=["007", "008", "010"])
    text = message(frame, pd.DataFrame({"x": range(3)}, index=[10, 7, 8]))
    assert "leading zeros" in text and "'10'" in text and "'010'" in text


def test_names_with_nothing_in_common(metadata):
    text = message(table().add_prefix("other_"), metadata)
    assert "no sample name" in text
    assert all(word in text for word in ("s0", "other_s0", "ENSG0", "set_index", "astype(str)"))


def test_both_axes_match(metadata):
    frame = table().rename(index={"ENSG0": "s1", "ENSG1": "s2"})
    for turned in (frame, frame.T):
        text = message(turned, metadata)
        assert "both axes" in text and "2 in" in text and "5 in" in text


@pytest.mark.parametrize("turned", [False, True])
def test_names_must_be_unique(metadata, turned):
    def check(frame, metadata):
        return message(frame.T if turned else frame, metadata)

    text = check(table().rename(columns={"s0": "s3"}), metadata)
    assert "sample names of the expression" in text and "'s3' (2 times)" in text
    text = check(table(), metadata.rename(index={"s0": "s3"}))
    assert "sample names of the metadata" in text and "'s3' (2 times)" in text
    text = check(table().rename(index={"ENSG0": "ENSG4", "ENSG1": "ENSG4"}), metadata)
    assert "gene names of the expression" in text and "'ENSG4' (3 times)" in text
    # Too many to list.
    text = check(table().rename(index=lambda name: "same"), metadata)
    assert "'same' (7 times)" in text


def test_duplicate_names_of_samples_beside_an_array(metadata):
    text = message(np.ones((SAMPLES, 2)), metadata.rename(index={"s0": "s3"}))
    assert "'s3' (2 times)" in text


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("missing", [None, np.nan, pd.NA], ids=repr)
def test_missing_names(metadata, missing, turned):
    names = pd.Index([*SAMPLE_NAMES[:-1], missing], dtype=object)
    frame = table().set_axis(names, axis=1)
    assert "missing" in message(frame.T if turned else frame, metadata)
    assert "missing" in message(table(), metadata.set_axis(names))
    frame = table().set_axis(pd.Index([*GENE_NAMES[:-1], missing], dtype=object))
    text = message(frame.T if turned else frame, metadata)
    assert "gene names" in text and "missing" in text


@pytest.mark.parametrize("turned", [False, True])
def test_names_of_several_levels(metadata, turned):
    levels = pd.MultiIndex.from_product([["a"], SAMPLE_NAMES])
    frame = table().set_axis(levels, axis=1)
    assert "MultiIndex" in message(frame.T if turned else frame, metadata.set_axis(levels))
    assert "MultiIndex" in message(frame.T if turned else frame, metadata)
    assert "MultiIndex" in message(table(), metadata.set_axis(levels))
    frame = table().set_axis(pd.MultiIndex.from_product([["a"], GENE_NAMES]))
    assert "MultiIndex" in message(frame.T if turned else frame, metadata)


# Errors: shape


def test_array_with_the_wrong_number_of_rows(metadata):
    text = message(np.ones((GENES, SAMPLES)), metadata)
    assert "expression.T" in text and f"({GENES}, {SAMPLES})" in text
    text = message(np.ones((GENES, GENES)), metadata)
    assert "expression.T" not in text and "7 rows" in text and "5 samples" in text


@pytest.mark.parametrize("shape", [(SAMPLES,), (SAMPLES, 2, 2)])
def test_array_of_other_than_two_axes(metadata, shape):
    text = message(np.ones(shape), metadata)
    assert "two axes" in text and str(shape) in text


def test_no_samples(metadata):
    assert "no samples" in message(table(), metadata.iloc[:0])
    assert "no samples" in message(np.ones((0, 3)), metadata.iloc[:0])
    assert "no sample" in message(table().iloc[:, :0], metadata)
    assert "0 rows" in message(np.ones((0, 3)), metadata)


def test_one_sample(metadata):
    assert "one sample" in message(table()[["s1"]], metadata.loc[["s1"]])
    assert "one sample" in message(np.ones((1, 3)), metadata.iloc[:1])
    text = message(table().rename(columns={f"s{i}": f"x{i}" for i in range(4)}), metadata)
    assert "one sample" in text and "'s4'" in text and "x0" in text


# Errors: types


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("dtype", [object, "str", "category", "string[pyarrow]"])
def test_text(metadata, turned, dtype):
    frame = table().round(2).astype(object)
    if dtype is object:
        frame.iloc[4, 2] = "high"
        text = message(frame.T if turned else frame, metadata)
        assert "'ENSG4'" in text and "'s2'" in text and "'high'" in text
        return
    if turned:
        frame = frame.T.astype({"ENSG4": dtype})
        text = message(frame, metadata)
        assert "'ENSG4'" in text and "'s0'" in text
        assert "drop(columns=['ENSG4'])" in text and "to_numeric" in text
    else:
        frame = frame.astype({"s2": dtype})
        text = message(frame, metadata)
        assert "'s2'" in text and "'ENSG0'" in text


def test_text_of_a_sample_that_is_dropped_does_not_matter(metadata):
    frame = table().astype(object)
    frame.iloc[:, 1] = "?"
    with pytest.warns(UserWarning, match="1 of 5"):
        expression, _ = align(frame, metadata.drop(index="s1"))
    np.testing.assert_array_equal(everything(expression), table().T.drop(index="s1"))


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("at_once", [1, 8, 1000])
def test_culprit_of_many(metadata, monkeypatch, apart, turned, at_once):
    """The first one, by its names, in whatever order the samples are wanted."""
    monkeypatch.setattr("jaxvp.expression.values.OBJECTS_AT_ONCE", at_once)
    frame = table().astype(object)
    frame.loc["ENSG5", ["s1", "s3"]] = "low"
    frame = frame.T if turned else frame
    if apart:
        frame[frame.columns[0]] = frame[frame.columns[0]].astype(float)
    with pytest.raises(DataError, match="'ENSG5' holds text, 'low' in sample 's3'"):
        align(frame, metadata.loc[["s4", "s3", "s0"]])


def test_text_in_an_array(metadata):
    values = np.ones((SAMPLES, GENES), dtype=object)
    values[3, 6] = "0.5"
    text = message(values, metadata)
    assert "row 3" in text and "column 6" in text and "'0.5'" in text
    assert "text" in message(values.astype(str), metadata)


@pytest.mark.parametrize("dtype", [complex, "datetime64[s]", "timedelta64[s]"])
@pytest.mark.parametrize("turned", [False, True])
def test_no_numbers_of_the_real_line(metadata, dtype, turned):
    frame = table(np.ones((GENES, SAMPLES), dtype=int)).astype(dtype)
    kind = {"c": "complex", "d": "datetime", "t": "timedelta"}[str(np.dtype(dtype))[0]]
    text = message(frame.T if turned else frame, metadata)
    assert (
        "'ENSG0'" in text and "'s0'" in text and kind in text.lower().replace("stamp", "datetime")
    )
    text = message(frame.T.to_numpy(), metadata)
    assert "row 0" in text and kind in text.lower()


@pytest.mark.parametrize(
    "thing, remedy",
    [
        ({"Age": [1, 2]}, "pandas.DataFrame(metadata, index=sample_names)"),
        (pd.Series([1, 2], name="Age"), "metadata.to_frame()"),
        (np.ones((SAMPLES, 2)), "pandas.DataFrame(metadata, index=sample_names, columns="),
        (pa.table({"Age": [1, 2]}), "metadata.to_pandas().set_index("),
        (None, "samples in rows"),
    ],
    ids=["dict", "series", "array", "arrow", "none"],
)
def test_metadata_must_be_a_data_frame(thing, remedy):
    text = message(table(), thing)
    assert "pandas DataFrame" in text and remedy in text


def test_sparse_columns_are_read(metadata):
    """As `AnnData.to_df` gives them."""
    values = np.random.default_rng(0).binomial(1, 0.3, size=(SAMPLES, GENES)) / 2
    frame = pd.DataFrame(values, SAMPLE_NAMES, GENE_NAMES).astype(pd.SparseDtype(float, 0.0))
    for container, picked in ((frame, values), (frame.iloc[::-1], values)):
        expression, _ = silently(container, metadata)
        np.testing.assert_array_equal(everything(expression), picked)


@pytest.mark.parametrize(
    "thing",
    [{"s0": [1.0]}, [[1.0, 2.0], [3.0]], pd.Series([1.0] * SAMPLES, SAMPLE_NAMES), None, 3.0],
    ids=["dict", "ragged", "series", "none", "number"],
)
def test_what_is_no_table(metadata, thing):
    assert type(thing).__name__ in message(thing, metadata)


def test_masked_arrays_would_lose_their_mask(metadata):
    masked = np.ma.masked_less(np.ones((SAMPLES, 2)), 0)
    assert "filled" in message(masked, metadata)


# Raw counts


@pytest.mark.parametrize("dtype", [int, float, "Int64", object])
@pytest.mark.parametrize("turned", [False, True])
def test_raw_counts_get_one_warning(metadata, dtype, turned):
    counts = np.random.default_rng(0).negative_binomial(1, 0.001, size=(GENES, SAMPLES))
    frame = table(counts).astype(dtype)
    with pytest.warns(UserWarning, match="raw counts.*log") as caught:
        align(frame.T if turned else frame, metadata)
    assert len(caught) == 1


@pytest.mark.parametrize(
    "values",
    [
        np.round(np.arange(35.0).reshape(GENES, SAMPLES)),  # whole, but a log could be as large
        1000 * np.random.default_rng(0).normal(size=(GENES, SAMPLES)).round(),  # negative
        1000 + np.random.default_rng(0).normal(size=(GENES, SAMPLES)),
        np.full((GENES, SAMPLES), np.nan),
        1e150 * np.arange(35.0).reshape(GENES, SAMPLES),  # whole like every float of that size
    ],
    ids=["small", "negative", "fractions", "nan", "absurd"],
)
def test_no_raw_counts(metadata, values):
    silently(table(values), metadata)


@pytest.mark.parametrize("largest, shown", [(12_345, "12,345"), (3e12, r"3\.0e\+12")])
def test_the_largest_count_is_short(metadata, largest, shown):
    with pytest.warns(UserWarning, match=rf"some as large as {shown}\)"):
        align(table(np.full((GENES, SAMPLES), largest)), metadata)


def test_counts_with_holes(metadata):
    counts = table(1000.0 * np.arange(GENES * SAMPLES).reshape(GENES, SAMPLES))
    counts.iloc[:2] = np.nan
    counts.iloc[3, 3] = np.inf
    with pytest.warns(UserWarning, match="raw counts"):
        align(counts, metadata)


def test_the_look_for_counts_is_a_sample(monkeypatch):
    """Of 800,000 values `align` reads some thousands."""
    frame, metadata = large()
    read, block = [], Expression.block

    def spy(self, start, stop):
        found = block(self, start, stop)
        read.append(found.size)
        return found

    monkeypatch.setattr(Expression, "block", spy)
    with pytest.warns(UserWarning, match="raw counts"):
        align((1000 * frame).abs().round(), metadata)
    assert 0 < sum(read) < 50_000


def test_repr(metadata):
    assert repr(align(table(), metadata)[0]) == "Expression: 5 samples x 7 genes"
