"""`jaxvp fit`: every kind of table, every option, every exit code, what is written and what not."""

import json
import re

import jax
import numpy as np
import pandas as pd
import pytest
from containers import h5ad, stored, zarr_array

import jaxvp
from jaxvp.cli import main
from jaxvp.simulation import simulate

pytestmark = pytest.mark.usefixtures("compile_cache")
FORMULA = "~ Age + (1|Individual) + (1|Tissue)"


@pytest.fixture(scope="module")
def study():
    return simulate(12, 60, {"Individual": 12, "Tissue": 3}, seed=3)


@pytest.fixture(scope="module")
def expected(study):
    return jaxvp.fit(study.expression, FORMULA, study.metadata)


@pytest.fixture
def folder(tmp_path, study, monkeypatch):
    """A working folder with the study's tables as people have them."""
    monkeypatch.chdir(tmp_path)
    study.expression.rename_axis("gene").to_csv("x.csv")
    study.metadata.rename_axis("sample").to_csv("m.csv")
    return tmp_path


def run(*arguments, expression="x.csv", metadata="m.csv", formula=FORMULA, out="out"):
    tables = ["-e", expression, "-m", metadata, "-f", formula, "-o", out]
    return main(["fit", *map(str, tables), *map(str, arguments)])


def table(path):
    frame = pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)
    return frame if frame.index.name else frame.set_index(frame.columns[0])


def check_fractions(expected, out, format="parquet", names=True):
    found = table(out / f"fractions.{format}")
    assert list(found.columns) == list(expected.fractions.columns)
    if names:
        assert list(found.index) == list(expected.fractions.index)
    np.testing.assert_allclose(found, expected.fractions, rtol=1e-9, atol=1e-12)


# Input


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet"])
@pytest.mark.parametrize("genes_in", ["rows", "columns"])
def test_every_format_either_way_round(folder, study, expected, suffix, genes_in):
    frame = study.expression if genes_in == "rows" else study.expression.T
    frame = frame.rename_axis(index="name", columns=None).reset_index()
    metadata = study.metadata.rename_axis("sample").reset_index()
    for name, data in (("e", frame), ("s", metadata)):
        if suffix == ".parquet":
            data.to_parquet(name + suffix, index=False)
        else:
            data.to_csv(name + suffix, sep="\t" if ".tsv" in suffix else ",", index=False)
    assert run(expression="e" + suffix, metadata="s" + suffix) == 0
    check_fractions(expected, folder / "out")


def test_names_in_other_columns(folder, study, expected):
    frame = study.expression.rename_axis("symbol").reset_index()
    frame[[*frame.columns[1:], "symbol"]].to_csv("x.csv", index=False)
    frame = study.metadata.rename_axis("library").reset_index()
    frame[[*frame.columns[1:], "library"]].to_csv("m.csv", index=False)
    assert run("--gene-column", "symbol", "--sample-column", "library") == 0
    check_fractions(expected, folder / "out")


def test_sample_column_of_expression_with_samples_in_rows(folder, study, expected):
    frame = study.expression.T.rename_axis("library").reset_index()
    frame[[*frame.columns[1:], "library"]].to_csv("x.csv", index=False)
    study.metadata.rename_axis("library").to_csv("m.csv")
    assert run("--genes-in", "columns", "--sample-column", "library") == 0
    check_fractions(expected, folder / "out")


@pytest.mark.parametrize("genes_in", ["rows", "columns"])
def test_genes_in_where_names_do_not_decide(folder, study, capsys, genes_in):
    """As many genes as samples, of the same names: only the option tells which is which."""
    names = list(study.metadata.index[:12])
    square = study.expression.iloc[:, :12].set_axis(names, axis=0)
    metadata = study.metadata.iloc[:12]
    metadata.rename_axis("sample").to_csv("m.csv")
    (square if genes_in == "rows" else square.T).rename_axis("name").to_csv("x.csv")
    assert run(formula="~ Age") == 2
    assert "--genes-in" in capsys.readouterr().err
    assert run("--genes-in", genes_in, formula="~ Age") == 0
    by_position = jaxvp.fit(square.to_numpy().T, "~ Age", metadata)
    check_fractions(by_position, folder / "out", names=False)
    assert list(table(folder / "out" / "fractions.parquet").index) == names


@pytest.mark.parametrize("options", [[], ["--genes-in", "columns"], ["--genes-in", "rows"]])
def test_npy_goes_by_position(folder, study, expected, options):
    values = study.expression.to_numpy()
    np.save("x.npy", values if "rows" in options else values.T)
    assert run(*options, expression="x.npy") == 0
    check_fractions(expected, folder / "out", names=False)


def test_npy_the_other_way_round_is_told_the_option(folder, study, capsys):
    np.save("x.npy", study.expression.to_numpy())
    assert run(expression="x.npy") == 2
    assert "x.npy has genes in rows" in (error := capsys.readouterr().err)
    assert error.endswith("say --genes-in rows\n")
    np.save("x.npy", study.expression.to_numpy().T)
    assert run("--genes-in", "rows", expression="x.npy") == 2
    assert capsys.readouterr().err.endswith("say --genes-in columns\n")


def test_names_in_another_column_are_told_the_option(folder, study, expected, capsys):
    """Not `set_index`, which nobody can type in a shell."""
    study.metadata.rename_axis("library id").reset_index()[
        [*study.metadata.columns, "library id"]
    ].to_csv("m.csv", index=False)
    assert run() == 2
    error = capsys.readouterr().err
    assert "60 values of its column 'library id' are: say --sample-column 'library id'" in error
    assert run("--sample-column", "library id") == 0
    check_fractions(expected, folder / "out")


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_anndata_needs_no_metadata(folder, study, expected, capsys, suffix):
    pytest.importorskip("anndata")
    pytest.importorskip("zarr")
    frame = study.expression.T
    write = h5ad if suffix == "h5ad" else stored
    write(frame + 1, study.metadata, folder, logcounts=frame.to_numpy())
    arguments = ["fit", "-e", f"x.{suffix}", "-f", FORMULA, "--layer", "logcounts"]
    assert main([*arguments, "-o", "own"]) == 0
    check_fractions(expected, folder / "own")
    assert main([*arguments, "-o", "other", "-m", "m.csv"]) == 0
    check_fractions(expected, folder / "other")
    assert main([*arguments[:-1], "counts", "-o", "none"]) == 2
    assert "its layers: 'logcounts'" in capsys.readouterr().err


def test_an_array_of_zarr(folder, study, expected):
    pytest.importorskip("zarr")
    zarr_array(study.expression.T, folder)
    assert run(expression="x.zarr") == 0
    check_fractions(expected, folder / "out", names=False)


@pytest.mark.parametrize("kind", ["table", "turned", "column"])
def test_weights(folder, study, kind):
    """By name, like the expression: one a measurement, or one a sample."""
    w = study.expression.abs() + 0.1
    given, told = {
        "table": (w.rename_axis("gene"), w),
        "turned": (w.T.rename_axis("sample"), w),
        "column": (w.iloc[[0]].T.rename_axis("sample"), w.iloc[0]),
    }[kind]
    given.to_csv("w.csv")
    assert run("--weights", "w.csv", formula="~ Age") == 0
    want = jaxvp.fit(study.expression, "~ Age", study.metadata, weights=told)
    check_fractions(want, folder / "out")


def test_weights_must_be_there(folder, capsys):
    assert run("--weights", "none.csv") == 2
    assert "--weights: no such file: none.csv" in capsys.readouterr().err


def test_dataset_and_config(folder, expected):
    folder.joinpath("fit.toml").write_text(
        f'expression = "x.csv"\nmetadata = "m.csv"\nformula = "{FORMULA}"\nout = "from_file"\n'
    )
    assert main(["fit", "--config", "fit.toml"]) == 0
    check_fractions(expected, folder / "from_file")
    assert main(["fit", "--config", "fit.toml", "--format", "csv", "--out", "here"]) == 0
    check_fractions(expected, folder / "here", "csv")
    assert main(["fit", "--dataset", "influenza", "-f", "~ Age", "-o", "flu"]) == 0
    assert table(folder / "flu" / "fractions.parquet").shape == (4147, 2)


# Output


def test_tables_are_the_results(folder, expected, capsys):
    assert run("--format", "csv") == 0
    out = folder / "out"
    for name in ("variances", "coefficients", "standard_errors", "theta"):
        found = table(out / f"{name}.csv")
        pd.testing.assert_frame_equal(
            found, getattr(expected, name), rtol=1e-7, atol=1e-7, check_names=False
        )
    assert list(table(out / "diagnostics.csv")["status"]) == ["converged"] * 12
    printed = capsys.readouterr()
    for name, median in expected.fractions.median().items():
        assert f"{name:<10}  {median:.4f}" in printed.out
    assert "12 converged" in printed.out
    assert printed.err == ""  # no progress bar, no warning: nobody watches


def test_run_summary(folder, capsys):
    assert run() == 0
    first = json.loads((folder / "out" / "run.json").read_text())
    assert first["formula"] == FORMULA
    assert first["status"] == {"converged": 12}
    assert (first["genes"], first["samples"], first["reml"]) == (12, 60, False)
    assert first["block_size"] > 0
    assert first["options"]["expression"] == "x.csv"
    assert first["versions"]["jax"] == jax.__version__
    assert set(first["host"]["seconds"]) == {"read", "fit", "write"}


def test_report(folder, study, capsys):
    """A page beside the tables, with the command that makes it and the check of the metadata."""
    gap = study.metadata.copy()
    gap.loc[gap.index[0], "Age"] = np.nan
    gap.rename_axis("sample").to_csv("m.csv")
    folder.joinpath("fit.toml").write_text("reml = false\nreport = true\n")
    fixed = "~ Age + Tissue"  # of other samples a mixed model would be compiled anew
    assert run("--config", "fit.toml", "--format", "csv", formula=fixed) == 0
    assert "Tables and report.html in out" in capsys.readouterr().out
    page = (folder / "out" / "report.html").read_text()
    command = "jaxvp fit --expression x.csv --metadata m.csv --formula &#39;~ Age + Tissue&#39;"
    assert command in page and "--out out --format csv --report --ml</code>" in page
    assert "59 of 60; without a value of Age (1)" in page
    summary = json.loads((folder / "out" / "run.json").read_text())
    assert summary["options"]["report"] == "True"
    assert set(summary["host"]["seconds"]) == {"read", "fit", "write", "report"}


def test_a_report_that_fails_leaves_the_tables(folder, monkeypatch):
    def broken(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(jaxvp, "report", broken)
    assert run("--report") == 4
    assert (folder / "out" / "fractions.parquet").exists()
    assert not (folder / "out" / "run.json").exists()


def test_only_the_summary_knows_time_and_host(folder, capsys):
    """A second run writes the same bytes, but for the `host` of `run.json`."""

    def written():
        files = {path.name: path.read_bytes() for path in (folder / "out").iterdir()}
        summary = json.loads(files.pop("run.json"))
        return files, {key: value for key, value in summary.items() if key != "host"}

    assert run() == 0
    first = written()
    assert len(first[0]) == 8
    assert run() == 0
    assert written() == first


@pytest.mark.parametrize(
    "options, given",
    [
        ([], {}),
        (["--reml", "--solver", "optax"], {"reml": True, "solver": "optax"}),
        (["--ml", "--block-size", "7"], {"reml": False, "block_size": 7}),
    ],
)
def test_options_reach_the_fit(folder, study, monkeypatch, options, given):
    """What is not said is left to the defaults of `jaxvp.fit`."""

    def recorded(expression, formula, metadata, *, executor, block_size, **options):
        pd.testing.assert_frame_equal(metadata, study.metadata, check_names=False)
        options |= {} if block_size == "auto" else {"block_size": block_size}
        raise jaxvp.DataError(f"{formula} {options}")

    monkeypatch.setattr("jaxvp.api.prepare", recorded)
    printed = []
    monkeypatch.setattr("click.echo", lambda text, **_: printed.append(text))
    assert run(*options) == 2
    assert printed == [f"Error: {FORMULA} {given}"]


def test_warnings_are_one_line_each(folder, study, capsys):
    more = pd.concat([study.metadata, study.metadata.iloc[:3].rename("other_{}".format)])
    more.rename_axis("sample").to_csv("m.csv")
    assert run() == 0
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("Warning: ") and "3" in lines[0]


def test_a_fixed_model_is_least_squares(folder, capsys):
    """No word of likelihoods and singular genes, which it does not have."""
    assert run(formula="~ Age") == 0
    printed = capsys.readouterr().out
    assert printed.startswith("12 genes x 60 samples, ~ Age, least squares\n")
    assert "Singular" not in printed


# Exit codes


@pytest.mark.parametrize(
    "options, message",
    [
        ({"formula": "~ Age + (1|Tisue)"}, "Tissue"),
        ({"formula": "~ Age + + (1|"}, "\\^|position"),
        ({"formula": "~ __import__('os').getcwd()"}, "__import__"),
        ({"expression": "none.csv"}, "--expression: no such file: none.csv"),
        ({"metadata": "."}, "--metadata: no such file: ."),
        ({"expression": "corrupt.parquet"}, "corrupt.parquet"),
        ({"expression": "corrupt.npy"}, "corrupt.npy"),
        ({"expression": "flat.npy"}, "two axes"),
        ({"expression": "corrupt.h5ad"}, "corrupt.h5ad"),
        ({"expression": "none.zarr"}, "--expression: no such file: none.zarr"),
        ({"expression": "empty.csv"}, "empty.csv"),
        ({"metadata": "other.csv"}, "sample"),
        ({"out": "x.csv"}, "--out: x.csv is a file, not a folder"),
    ],
)
def test_bad_input_is_one_message_and_2(folder, capsys, options, message):
    for name in ("corrupt.parquet", "corrupt.npy", "corrupt.h5ad"):
        folder.joinpath(name).write_bytes(b"not what the suffix says")
    folder.joinpath("empty.csv").write_bytes(b"")
    np.save("flat.npy", np.zeros(3))
    folder.joinpath("other.csv").write_text("sample,Age,Individual,Tissue\nz1,1,a,b\nz2,2,c,d\n")
    assert run(**options) == 2
    printed = capsys.readouterr()
    assert re.search(message, printed.err)
    assert "Traceback" not in printed.err and printed.out == ""
    assert not (folder / "out").exists()


def test_layers_and_metadata_are_asked_for_where_there_are_any(folder, capsys):
    assert run("--layer", "counts") == 2
    assert "--layer: only .h5ad and .zarr have layers" in capsys.readouterr().err
    assert main(["fit", "-e", "x.csv", "-f", FORMULA, "-o", "out"]) == 2
    assert "--metadata must be given" in capsys.readouterr().err


def test_strict_is_3(folder, study, capsys):
    """A constant gene is counted; whether it fails the command is the caller's to say."""
    bad = study.expression.copy()
    bad.iloc[4] = 7.0
    bad.rename_axis("gene").to_csv("x.csv")
    assert run() == 0
    assert run("--strict") == 3
    summary = json.loads((folder / "out" / "run.json").read_text())
    assert summary["status"] == {"converged": 11, "zero_variance": 1}
    assert table(folder / "out" / "fractions.parquet").iloc[4].isna().all()
    assert "11 converged, 1 zero_variance" in capsys.readouterr().out


def test_interrupt_is_130_and_leaves_no_half_result(folder, monkeypatch, capsys):
    assert run() == 0

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(jaxvp.Results, "write_tables", interrupted)
    assert run() == 130
    assert capsys.readouterr().err.splitlines()[-1] == "jaxvp: interrupted"
    assert not (folder / "out" / "run.json").exists()


def test_a_bug_keeps_its_traceback(folder, monkeypatch):
    def broken(*args, **kwargs):
        raise ValueError("of our own")

    monkeypatch.setattr("jaxvp.api.prepare", broken)
    with pytest.raises(ValueError, match="of our own"):
        run()
