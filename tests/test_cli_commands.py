"""The command line around `jaxvp fit`: help, usage errors, `jaxvp simulate`, `jaxvp demo`."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import jaxvp
from jaxvp.cli import main
from jaxvp.simulation import simulate

pytestmark = pytest.mark.usefixtures("compile_cache")


def table(path):
    frame = pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)
    return frame if frame.index.name else frame.set_index(frame.columns[0])


# Help and versions


@pytest.mark.parametrize("command", [[], ["check"], ["fit"], ["demo"], ["simulate"]])
def test_help_has_examples(command, capsys):
    assert main([*command, "--help"]) == 0
    examples = capsys.readouterr().out.partition("Examples:")[2]
    assert f"  {' '.join(['jaxvp', *command])}" in examples


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"jaxvp {jaxvp.__version__}\n"


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from jaxvp.cli import main; main(['fit', '--help']);"
        "print([m for m in ('jax', 'numpy', 'pandas', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["fit"], "--expression, --metadata, --formula, --out must be given"),
        (["fit", "-e", "x.csv", "-o", "out"], "--metadata, --formula must be given"),
        (["fit", "--dataset", "influenza", "-e", "x.csv"], "--dataset takes the place"),
        (["fit", "--config", "none.toml"], "none.toml: no such config file"),
        (["fit", "--block-size", "0"], "--block-size"),
        (["fit", "--formla", "~ a"], "--formula"),
        (["fitt"], "fitt"),
        (["simulate", "--level", "a", "-o", "s"], "'a' is not NAME=NUMBER"),
        (["simulate", "--level", "a=many", "-o", "s"], "'a=many' is not NAME=NUMBER"),
        (["simulate", "--level", "a=5000", "-o", "s"], "5000 levels"),
        (["simulate", "-o", "x.csv"], "is a file, not a folder"),
        (["demo", "-o", "x.csv"], "is a file, not a folder"),
    ],
)
def test_wrong_usage_is_2(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    tmp_path.joinpath("x.csv").touch()
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["x.csv"]


def test_the_installed_command_exits_with_the_code(tmp_path):
    code = "import sys; from jaxvp.cli import main; sys.exit(main(['fit', '-o', 'out']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2 and "must be given" in done.stderr


# simulate and demo


@pytest.mark.parametrize("format", ["parquet", "csv"])
def test_simulate_then_fit(tmp_path, format, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    options = ["--genes", "5", "--samples", "60", "--seed", "4", "--level", "a=12"]
    options += ["--level", "b=3", "--covariate", "pH", "--fraction", "a=0.6"]
    options += ["--student-t", "5", "--format", format]
    assert main(["simulate", "--out", "s", *options]) == 0
    printed = capsys.readouterr().out.splitlines()[-1]
    assert "-f '~ pH + (1|a) + (1|b)'" in printed
    same = simulate(
        *(5, 60, {"a": 12, "b": 3}),
        covariates=("pH",),
        fractions={"a": 0.6},
        student_t=5,
        seed=4,
    )
    found = table(tmp_path / "s" / f"expression.{format}")
    pd.testing.assert_frame_equal(found, same.expression, check_names=False)
    found = table(tmp_path / "s" / f"truth.{format}")
    pd.testing.assert_frame_equal(found, same.truth, check_names=False, check_dtype=False)
    assert main(shlex.split(printed)[1:]) == 0
    found = table(tmp_path / "s" / "results" / "fractions.parquet")
    expected = jaxvp.fit(same.expression, same.formula, same.metadata).fractions
    pd.testing.assert_frame_equal(found, expected, rtol=1e-9, atol=1e-12, check_names=False)


def test_simulate_draws_zeros(tmp_path, capsys):
    options = ["--genes", "50", "--zero-probability", "0.5"]
    assert main(["simulate", "--out", str(tmp_path), *options]) == 0
    truth = table(tmp_path / "truth.parquet")
    assert list(truth.columns) == ["Batch", "Individual", "Tissue", "Age", "Residuals"]
    assert 0.3 < (truth.drop(columns="Residuals") == 0).mean(axis=None) < 0.7


def test_simulate_draws_uneven_levels(tmp_path, capsys):
    assert main(["simulate", "--out", str(tmp_path), "--genes", "1", "--imbalance", "1.5"]) == 0
    found = table(tmp_path / "metadata.parquet")
    same = simulate(1, 100, imbalance=1.5).metadata
    pd.testing.assert_frame_equal(found, same, check_names=False, check_dtype=False)
    assert found["Batch"].value_counts().max() > 30


FIXED = "~ Age + Hours + Gender + Condition"


@pytest.mark.parametrize("model", ["fixed", pytest.param("its own", marks=pytest.mark.slow)])
def test_demo(tmp_path, capsys, monkeypatch, model):
    """All of it; without `slow` a model that has nothing to compile."""
    from matplotlib import image

    words = ["4,147 genes x 252 samples", "Gender", "Residuals", "genes per second", "Cold", "Warm"]
    if model == "fixed":
        monkeypatch.setattr(sys.modules["jaxvp.cli.demo"], "FORMULA", FIXED)
    else:
        words += ["Subject", "Singular"]
    assert main(["demo", "--out", str(tmp_path / "d")]) == 0
    printed = capsys.readouterr().out
    assert all(word in printed for word in words)
    picture = image.imread(tmp_path / "d" / "fractions.png")
    assert picture.shape[0] > 400 and picture.std() > 0
    fractions = table(tmp_path / "d" / "fractions.parquet")
    assert fractions.shape == (4147, 5 if model == "fixed" else 6)
    summary = json.loads((tmp_path / "d" / "run.json").read_text())
    assert sum(summary["status"].values()) == 4147


@pytest.mark.slow
def test_the_committed_configuration_runs(tmp_path):
    """Beside the demo: the same genes and model."""
    config = Path(__file__).parents[1] / "configs" / "influenza.toml"
    assert main(["fit", "--config", str(config), "--out", str(tmp_path / "f")]) == 0
    assert main(["demo", "--out", str(tmp_path / "d")]) == 0
    fitted, demo = (table(tmp_path / name / "fractions.parquet") for name in "fd")
    pd.testing.assert_frame_equal(fitted, demo)
