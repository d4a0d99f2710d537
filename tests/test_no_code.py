"""Formulas are never code: what looks like it is refused, or is the name of a column.

Texts that would run something under Python's or formulaic's evaluation go through every door: the
function, the command line, a config file. An audit hook sees whatever starts a process or evaluates
code, wherever it is hidden.
"""

import builtins
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import jaxvp
from jaxvp.cli import main

SYSTEM = "__import__('os').system('touch PWNED')"
ATTEMPTS = [
    f"~ {SYSTEM}",
    f"~ I({SYSTEM})",
    f"~ I(x + {SYSTEM})",
    f"~ log(log({SYSTEM}))",
    f"~ {{{SYSTEM}}}",
    f"~ x + (1|{SYSTEM})",
    f"~ (x|{{{SYSTEM}}})",
    f"~ C(g, {SYSTEM})",
    f"~ poly(x, degree={SYSTEM})",
    f"~ scale(x, center={SYSTEM})",
    f"~ bs(x, df=5, degree={SYSTEM})",
    f"~ x\n{SYSTEM}",
    f"~ x; {SYSTEM}",
    f"~ x # {SYSTEM}\n + {SYSTEM}",
    f"{SYSTEM} ~ x",
    "~ __import__(os).system(touch)",
    "~ __import__(`os`)",
    "~ I(__import__(`os`))",
    "~ I(`os`.system(`touch PWNED`))",
    "~ x.__class__.__base__.__subclasses__()",
    "~ x.__class__",
    "~ I(x.__init__.__globals__)",
    "~ (lambda: x)()",
    "~ lambda q: q(x)",
    "~ I((lambda q: q)(x))",
    "~ [q for q in x]",
    "~ {q: q for q in x}",
    "~ I([q for q in x][0])",
    "~ (q := x)",
    "~ f'{x}'",
    "~ f\"{open('PWNED', 'w')}\"",
    "~ '{0.__class__}'.format(x)",
    "~ I('%s' % x)",
    "~ open(x)",
    "~ open('PWNED', 'w')",
    "~ eval(x)",
    "~ exec(x)",
    "~ compile(x)",
    "~ getattr(x, y)",
    "~ np.load(x)",
    "~ pd.read_pickle(x)",
    "~ I(np.os.system(x))",
    "~ log(x)(x)",
    "~ log(x).tofile(x)",
    "~ x.to_csv(`PWNED`)",
    "~ x.map(print)",
    "~ Q(`x`)",
    "~ import os",
    "~ `x`.system",
    "~ x if x else x",
    "~ x @ x",
    "~ *x",
    "~ **x",
    "~ log(*x)",
    "~ log(**x)",
    "~ I(x, x)",
    "~ x[0]",
    "~ x\\\n.y(x)",
]
WATCHED = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "subprocess.Popen", "pty.spawn")
_seen: list[str] | None = None


def _hook(event, args):
    if _seen is not None and event in WATCHED:
        _seen.append(f"{event} {args}")


@pytest.fixture(scope="module", autouse=True)
def hook():
    sys.addaudithook(_hook)  # for good: Python has no way to take it off


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A study in files, and the watch over what is run."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    samples = [f"s{i}" for i in range(12)]
    table = pd.DataFrame({"x": rng.normal(size=12), "g": list("abcd") * 3}, index=samples)
    table["y"] = table["x"] ** 2
    table.rename_axis("sample").to_csv("samples.csv")
    genes = pd.DataFrame(rng.normal(size=(2, 12)), ["g1", "g2"], samples)
    genes.rename_axis("gene").to_csv("expression.csv")
    before = sorted(tmp_path.rglob("*"))
    seen: list[str] = []
    monkeypatch.setattr(sys.modules[__name__], "_seen", seen)

    def watched(real):
        def evaluate(text, *rest, **options):
            # Imports, data classes and checked annotations evaluate texts of their own.
            if isinstance(text, str) and ("PWNED" in text or "__import__" in text):
                seen.append(f"evaluated {text!r}")
            return real(text, *rest, **options)

        return evaluate

    for name in ("eval", "exec"):
        monkeypatch.setattr(builtins, name, watched(getattr(builtins, name)))
    yield table, genes
    monkeypatch.undo()
    assert not seen
    assert not list(tmp_path.rglob("PWNED"))
    assert sorted(path for path in tmp_path.rglob("*") if path.suffix != ".toml") == before


def test_refused_by_the_functions(folder):
    metadata, genes = folder
    for text in ATTEMPTS:
        with pytest.raises(jaxvp.FormulaError) as error:
            jaxvp.fit(genes, text, metadata)
        assert len(str(error.value)) > 20
        with pytest.raises(jaxvp.FormulaError):
            jaxvp.check_design(text, metadata)


@pytest.mark.parametrize("command", ["fit", "check"])
def test_refused_on_the_command_line(folder, compile_cache, capsys, command):
    tables = ["-m", "samples.csv"]
    tables += ["-e", "expression.csv", "-o", "out"] if command == "fit" else []
    for text in ATTEMPTS:
        assert main([command, *tables, f"--formula={text}"]) == 2
        said = capsys.readouterr().err
        assert said.startswith("Error: ") and "Traceback" not in said


@pytest.mark.parametrize("command", ["fit", "check"])
def test_refused_in_a_config_file(folder, compile_cache, capsys, command):
    for text in ATTEMPTS:
        Path("study.toml").write_text(
            'expression = "expression.csv"\nmetadata = "samples.csv"\nout = "out"\n'
            f"formula = {json.dumps(text)}\n"
        )
        assert main([command, "--config", "study.toml"]) == 2
        said = capsys.readouterr().err
        assert said.startswith("Error: ") and "Traceback" not in said


# In backticks anything but a backtick is a name.
COLUMNS = [
    SYSTEM,
    f"{{{SYSTEM}}}",
    "x.__class__",
    "lambda: 0",
    "{0.__class__}",
    "%(x)s",
    "x; import os",
    "np.log(x)",
    "1",
    "a ~ b",
    "x:y",
    "I(x)",
    "\\",
    "'''",
]


@pytest.mark.parametrize("name", COLUMNS)
def test_a_column_of_that_name_is_a_column(folder, name):
    metadata, genes = folder
    metadata = metadata.rename(columns={"x": name})
    result = jaxvp.fit(genes, f"~ `{name}` + I(`{name}` ^ 2)", metadata)
    assert list(result.coefficients)[1] == name
    x = metadata[name].to_numpy()
    X = np.column_stack([np.ones(12), x, x**2])
    expected = np.linalg.lstsq(X, genes.to_numpy().T)[0]
    np.testing.assert_allclose(result.coefficients, expected.T, rtol=1e-9)


@pytest.mark.parametrize("name", COLUMNS)
def test_a_level_of_that_name_is_a_level(folder, name):
    metadata, genes = folder
    order = ["a", name, "c", "d"]  # the first has no column of its own
    metadata["g"] = pd.Categorical(metadata["g"].replace({"b": name}), order)
    result = jaxvp.fit(genes, "~ g", metadata)
    assert f"g[T.{name}]" in list(result.coefficients)


def test_what_is_not_there_is_only_named(folder):
    metadata, genes = folder
    for name in COLUMNS:
        with pytest.raises(jaxvp.DesignError, match="not a column of the metadata") as error:
            jaxvp.fit(genes, f"~ `{name}`", metadata)
        assert name in str(error.value)
