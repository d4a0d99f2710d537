"""Results: a file holds what was saved, whoever reads it, and it is whole or not there."""

import io
import json
import time
import zipfile
from dataclasses import fields, replace

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from hypothesis import given

import jaxvp
from jaxvp.design import build
from jaxvp.formula import Formula
from jaxvp.results import SERIES, TABLES, Results, by_median

MIXED = "~ Age + Sex + (1|Site/Plate)"


def design(text):
    metadata = pd.DataFrame(
        {
            "Age": np.linspace(20, 80, 24) ** 1.5,
            "Sex": list("fm") * 12,
            "Site": list("abc") * 8,
            "Plate": [f"p{i}" for i in np.arange(24) // 6],
        },
        index=[f"s{i}" for i in range(24)],
    )
    metadata.loc["s3", "Age"] = np.nan
    return build(Formula.parse(text), metadata)


@pytest.fixture(scope="module", autouse=True)
def designs():
    with pytest.warns(UserWarning):
        made = {text: design(text) for text in (MIXED, "~ Age + Sex")}
    return made | {"~ 0 + (1|Site)": design("~ 0 + (1|Site)")}


def make(design, genes, values=None):
    """A result with numbers of no meaning."""
    columns = {
        "coefficients": design.columns,
        "theta": design.random_names,
    }
    columns["standard_errors"] = columns["coefficients"]
    columns["fractions"] = (*sorted(design.random_names), *design.columns[1:], "Residuals")
    columns["variances"] = columns["fractions"]
    widths = {name: len(columns[name]) for name in columns} | {name: 1 for name in SERIES}
    random = np.random.default_rng(0)
    arrays = {name: random.normal(size=(len(genes), width)) for name, width in widths.items()}
    for array in arrays.values() if values is not None else ():
        array.flat = np.resize(values, array.size)
    tables = {
        name: pd.DataFrame(arrays[name], index=genes, columns=list(columns[name]))
        for name in columns
    }
    tables["diagnostics"] = pd.DataFrame(
        {
            "status": np.resize(np.array(["converged", "zero_variance"], object), len(genes)),
            "n_obs": np.full(len(genes), design.n),
            "iterations": np.arange(len(genes), dtype=np.int32),
            "gradient": random.random(len(genes)),
            "singular": random.random(len(genes)) < 0.5,
        },
        index=genes,
    )
    series = {name: pd.Series(arrays[name][:, 0], index=genes, name=name) for name in SERIES}
    return Results(
        **tables,
        **series,
        design=design,
        formula=design.formula.text,
        reml=True,
        weighted=True,
        block_size=128,
        options={"reml": False, "solver": "newton", "block_size": 128},
        versions={"jaxvp": "0.1.0", "python": "3.11"},
    )


@pytest.fixture
def result(designs):
    return make(designs[MIXED], pd.Index([f"g{i}" for i in range(7)], name="symbol"))


def bits(values):
    """Floats as integers: tells -0.0 from 0.0; NaN is NaN whatever its payload."""
    values = np.where(np.isnan(values), np.nan, values)
    return np.ascontiguousarray(values).view(np.int64)


def check_same(found, expected):
    for name in (*TABLES, *SERIES):
        one, other = getattr(found, name), getattr(expected, name)
        check = pd.testing.assert_series_equal if name in SERIES else pd.testing.assert_frame_equal
        check(one, other, check_exact=True, check_index_type="exact", check_names=True)
        if name != "diagnostics":
            np.testing.assert_array_equal(bits(one.to_numpy()), bits(other.to_numpy()))
    for name in ("formula", "reml", "weighted", "block_size", "options", "versions"):
        assert getattr(found, name) == getattr(expected, name)
    check_same_design(found.design, expected.design)


def check_same_design(one, other):
    for field in fields(other):
        mine, theirs = getattr(one, field.name), getattr(other, field.name)
        if field.name in ("X", "codes", "kept"):
            assert len(mine) == len(theirs)
            for a, b in zip(mine, theirs, strict=True):
                assert a.dtype == b.dtype
                np.testing.assert_array_equal(a, b)
        else:
            assert mine == theirs
    assert one.X.shape == other.X.shape


# One file


@pytest.mark.parametrize("text", [MIXED, "~ Age + Sex", "~ 0 + (1|Site)"])
@pytest.mark.parametrize(
    "genes",
    [
        pd.Index([f"g{i}" for i in range(5)]),
        pd.Index(["ünï", "a,b", 'q"q', " ", "", "line\nbreak"], name="gene"),
        pd.RangeIndex(5),
        pd.Index([3, 1, 2], name="fractions"),
        pd.Index([], dtype="str"),
        pd.RangeIndex(0),
    ],
    ids=["text", "odd text", "range", "numbers", "empty", "empty range"],
)
def test_load_gives_what_was_saved(designs, text, genes, tmp_path):
    result = make(designs[text], genes)
    result.save(tmp_path / "r.zip")
    check_same(jaxvp.load(tmp_path / "r.zip"), result)


@given(values=hnp.arrays(np.float64, 12, elements=st.floats(width=64)))
def test_every_bit_comes_back(designs, tmp_path_factory, values):
    path = tmp_path_factory.getbasetemp() / "bits.zip"
    result = make(designs[MIXED], pd.RangeIndex(4), values)
    result.save(path)
    check_same(jaxvp.load(path), result)


def test_result_without_design(result, tmp_path):
    replace(result, design=None).save(tmp_path / "r.zip")
    found = jaxvp.load(tmp_path / "r.zip")
    assert found.design is None
    pd.testing.assert_frame_equal(found.theta, result.theta)
    assert "samples" not in repr(found)


def test_file_needs_no_jaxvp(result, tmp_path):
    """Zip, JSON and Parquet are all it takes, and nothing in it is a pickle."""
    import pyarrow.parquet

    result.save(tmp_path / "r.zip")
    with zipfile.ZipFile(tmp_path / "r.zip") as archive:
        assert archive.testzip() is None
        parts = {name: archive.read(name) for name in archive.namelist()}
    manifest = json.loads(parts.pop("result.json"))
    assert (manifest["format"], manifest["version"]) == ("jaxvp.Results", 2)
    assert manifest["formula"] == MIXED
    assert manifest["design"]["levels"][0] == ["a", "b", "c"]
    tables = {n: pyarrow.parquet.read_table(io.BytesIO(part)) for n, part in parts.items()}
    assert set(tables) == {f"{name}.parquet" for name in (*TABLES, *SERIES)} | {
        f"design/{name}.parquet" for name in ("X", "codes", "samples")
    }
    assert tables["fractions.parquet"]["Residuals"].to_pylist() == list(result.fractions.Residuals)
    assert tables["fractions.parquet"]["symbol"].to_pylist() == list(result.fractions.index)
    assert tables["design/samples.parquet"]["sample"].to_pylist() == list(result.design.samples)


def test_same_result_same_bytes(result, tmp_path, monkeypatch):
    result.save(tmp_path / "one.zip")
    monkeypatch.setattr(time, "time", lambda: 2e9)
    result.save(tmp_path / "two.zip")
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()


def rewritten(path, **changes):
    """The archive at `path` with other entries in its manifest."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    manifest = json.loads(parts["result.json"]) | changes
    parts["result.json"] = json.dumps(manifest).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, part in parts.items():
            archive.writestr(name, part)


def test_unknown_version_is_refused(result, tmp_path):
    result.save(tmp_path / "r.zip")
    rewritten(tmp_path / "r.zip", version=3, versions={"jaxvp": "9.1"})
    with pytest.raises(jaxvp.DataError, match=r"has version 3 .* reads versions 1 and 2.*9\.1"):
        jaxvp.load(tmp_path / "r.zip")


def test_another_format_is_refused(result, tmp_path):
    result.save(tmp_path / "r.zip")
    rewritten(tmp_path / "r.zip", format="someone.Else")
    with pytest.raises(jaxvp.DataError, match=r"r\.zip holds 'someone\.Else', not a result"):
        jaxvp.load(tmp_path / "r.zip")


def damage(path, how):
    content = path.read_bytes()
    if how == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif how == "bits":
        path.write_bytes(
            content[:4000] + bytes(b ^ 255 for b in content[4000:4100]) + content[4100:]
        )
    elif how == "text":
        path.write_text("gene,a\n")
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "npz":
        np.savez(path.with_suffix(".npz"), a=np.arange(3))
        path.with_suffix(".npz").rename(path)
    elif how == "list":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("result.json", "[1, 2]")
    elif how == "no table":
        with zipfile.ZipFile(path) as archive:
            manifest = archive.read("result.json")
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("result.json", manifest)


@pytest.mark.parametrize("how", ["cut", "bits", "text", "empty", "npz", "list", "no table"])
def test_broken_file_is_named(result, tmp_path, how):
    result.save(tmp_path / "r.zip")
    damage(tmp_path / "r.zip", how)
    with pytest.raises(jaxvp.DataError, match=r"r\.zip is not a whole saved result of jaxvp"):
        jaxvp.load(tmp_path / "r.zip")


def test_missing_file_and_folder(result, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        jaxvp.load(tmp_path / "nowhere.zip")
    with pytest.raises(FileNotFoundError, match="there is no folder .*nowhere to save r.zip in"):
        result.save(tmp_path / "nowhere" / "r.zip")


# Interrupted writing


def interrupt_after(monkeypatch, tables):
    """Ctrl-C while the table after so many is written, with half of it on disk."""
    import pyarrow.parquet

    write, done = pyarrow.parquet.write_table, []

    def interrupted(table, where, *arguments, **options):
        if len(done) == tables:
            if hasattr(where, "write_bytes"):
                where.write_bytes(b"PAR1 half")
            raise KeyboardInterrupt
        done.append(where)
        return write(table, where, *arguments, **options)

    monkeypatch.setattr(pyarrow.parquet, "write_table", interrupted)


@pytest.mark.parametrize("before", [None, b"what was there before"])
def test_interrupted_save_leaves_what_was_there(result, tmp_path, monkeypatch, before):
    path = tmp_path / "r.zip"
    if before:
        path.write_bytes(before)
    interrupt_after(monkeypatch, 3)
    with pytest.raises(KeyboardInterrupt):
        result.save(path)
    assert [p.name for p in tmp_path.iterdir()] == (["r.zip"] if before else [])
    assert not before or path.read_bytes() == before


def test_interrupted_tables_are_all_old_ones(result, tmp_path, monkeypatch):
    """Not some of this run and some of the last one."""
    result.write_tables(tmp_path)
    old = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    interrupt_after(monkeypatch, 5)
    with pytest.raises(KeyboardInterrupt):
        replace(result, sigma=result.sigma + 1, theta=result.theta + 1).write_tables(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == old


# One file a table


@pytest.mark.parametrize("format", ["parquet", "csv"])
@pytest.mark.parametrize("text", [MIXED, "~ Age + Sex"])
@pytest.mark.parametrize("genes", [pd.Index(["a,b", 'q"q', "ü"]), pd.RangeIndex(3)], ids=str)
def test_tables_of_a_folder(designs, tmp_path, format, text, genes):
    result = make(designs[text], genes, [0.1, 1e-300, -1e300, 5e-324, 1 / 3, np.nan, np.inf, -0.0])
    result.write_tables(tmp_path / "new" / "out", format=format)
    written = sorted(path.name for path in (tmp_path / "new" / "out").iterdir())
    assert written == sorted(f"{name}.{format}" for name in (*TABLES, *SERIES))
    for name in (*TABLES, *SERIES):
        path = tmp_path / "new" / "out" / f"{name}.{format}"
        if format == "csv":
            # Python's float() reads correctly rounded, pandas' default parser may not.
            raw = pd.read_csv(path, index_col=0, dtype=str, keep_default_na=False)
        else:
            raw = pd.read_parquet(path)
        assert raw.index.name == "gene"
        assert list(raw.index.astype(str)) == list(map(str, genes))
        expected = getattr(result, name)
        expected = expected.to_frame() if name in SERIES else expected
        assert list(raw.columns) == list(expected.columns)
        if name == "diagnostics":
            assert list(raw["status"]) == list(expected["status"])
            assert list(raw["singular"].astype(str).str.lower()) == [
                str(value).lower() for value in expected["singular"]
            ]
        else:
            found = np.array(
                [[float("nan" if v == "" else v) for v in row] for row in raw.to_numpy()]
            )
            found = found.reshape(expected.shape)
            np.testing.assert_array_equal(bits(found), bits(expected.to_numpy()))


def test_gene_column_gives_way_to_a_component(result, tmp_path):
    """A variable may be called like the column of names."""
    names = {"Site": "gene", "Sex[T.m]": "symbol"}
    renamed = replace(
        result,
        fractions=result.fractions.rename(columns=names),
        variances=result.variances.rename(columns=names),
    )
    renamed.write_tables(tmp_path, format="csv")
    header = (tmp_path / "fractions.csv").read_text().splitlines()[0].replace('"', "").split(",")
    assert header == ["gene name", *renamed.fractions.columns]


def test_another_format_of_tables_is_refused(result, tmp_path):
    with pytest.raises(jaxvp.DataError, match="format='xlsx': use one of 'parquet', 'csv'"):
        result.write_tables(tmp_path / "out", format="xlsx")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("how", ["save", "write_tables"])
def test_names_of_mixed_types_lose_no_fit(designs, tmp_path, how):
    result = make(designs[MIXED], pd.Index(["A", 1, 2.5], dtype=object, name="gene"))
    with pytest.warns(UserWarning, match="several types .*written as text"):
        getattr(result, how)(tmp_path / "r")
    saved = tmp_path / "r"
    found = jaxvp.load(saved).theta if how == "save" else pd.read_parquet(saved / "theta.parquet")
    assert list(found.index) == ["A", "1", "2.5"]
    np.testing.assert_array_equal(found, result.theta)


# Tables in memory


def test_summary_is_that_of_numpy(result):
    table = result.fractions.copy()
    table.iloc[2] = np.nan
    found = replace(result, fractions=table).summary()
    assert list(found.columns) == ["median", "mean", "25%", "75%"]
    assert list(found.index) == list(table.columns)
    fitted = np.delete(result.fractions.to_numpy(), 2, axis=0)
    np.testing.assert_allclose(found["median"], np.median(fitted, axis=0), rtol=1e-14)
    np.testing.assert_allclose(found["mean"], fitted.mean(axis=0), rtol=1e-13)
    quartiles = np.percentile(fitted, [25, 75], axis=0)
    np.testing.assert_allclose(found[["25%", "75%"]].T, quartiles, rtol=1e-14)


def test_sort_columns(designs):
    result = make(designs[MIXED], pd.RangeIndex(3))
    medians = {"Plate:Site": 0.1, "Site": 0.3, "Age": 0.1, "Sex[T.m]": 0.2, "Residuals": 0.3}
    assert list(result.fractions) == list(medians)
    rows = np.outer([0.5, 1.0, 1.5], list(medians.values()))
    result = replace(result, fractions=pd.DataFrame(rows, columns=list(medians)))
    before = result.fractions.copy()
    found = result.sort_columns()
    order = ["Site", "Sex[T.m]", "Plate:Site", "Age", "Residuals"]
    assert list(found.fractions) == list(found.variances) == order
    pd.testing.assert_frame_equal(found.fractions[list(medians)], before)
    pd.testing.assert_frame_equal(found.variances[list(medians)], result.variances)
    assert list(result.fractions) == list(medians), "the result itself stays as it is"
    assert found.theta is result.theta


def test_order_without_residuals_and_with_failures():
    table = pd.DataFrame({"a": [0.1, np.nan], "b": [np.nan, np.nan], "c": [0.4, np.nan]})
    assert by_median(table) == ["c", "a", "b"]


def test_no_gene_and_no_fitted_gene(designs):
    """Tables of the right shape, no warning about empty means."""
    empty = make(designs[MIXED], pd.RangeIndex(0))
    failed = make(designs[MIXED], pd.RangeIndex(3), [np.nan])
    for result in (empty, failed):
        summary = result.summary()
        assert summary.isna().all().all()
        assert list(summary.index) == list(result.fractions.columns)
        assert list(result.sort_columns().fractions)[-1] == "Residuals"
    assert "0 genes" in repr(empty)


def test_repr(result, designs):
    status = ["converged"] * 6 + ["zero_variance"]
    singular = [True] * 2 + [False] * 5
    diagnostics = result.diagnostics.assign(status=status, singular=singular)
    shown = repr(replace(result, diagnostics=diagnostics))
    for part in ("7 genes x 5 components", MIXED, "REML", "23 samples", "Residuals"):
        assert part in shown
    assert "converged: 85.7% of genes; singular (a component is exactly zero): 28.6%" in shown
    assert len(shown.splitlines()) == 4
    fixed = repr(make(designs["~ Age + Sex"], pd.RangeIndex(2)))
    assert "singular" not in fixed and "~ Age + Sex, least squares" in fixed


def test_all_is_said_of_all_only(designs):
    """One failure in 20,000 is not `100.0 %`."""
    result = make(designs[MIXED], pd.RangeIndex(20_000))
    status = np.full(20_000, "converged", dtype=object)
    assert "converged: 100.0%" in repr(
        replace(result, diagnostics=result.diagnostics.assign(status=status))
    )
    status[7] = "non_finite"
    assert "converged: 99.9%" in repr(
        replace(result, diagnostics=result.diagnostics.assign(status=status))
    )


@pytest.mark.parametrize("name", [name for name in (*TABLES, *SERIES) if name != "fractions"])
def test_tables_of_other_genes_are_refused(result, name):
    table = getattr(result, name)
    with pytest.raises(jaxvp.DataError, match=f"genes of `{name}` are not those of `fractions`"):
        replace(result, **{name: table.iloc[::-1]})


def test_other_components_are_refused(result):
    with pytest.raises(jaxvp.DataError, match="components of `variances`"):
        replace(result, variances=result.variances.iloc[:, ::-1])


def test_the_result_of_a_fit(tmp_path):
    """What `fit` hands over fits in."""
    study = jaxvp.simulate(6, 60, {"Individual": 12})
    result = jaxvp.fit(study.expression, study.formula, study.metadata)
    result.save(tmp_path / "r.zip")
    check_same(jaxvp.load(tmp_path / "r.zip"), result)
