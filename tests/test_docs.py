"""README and documentation say what is so: every block runs, every link leads somewhere, it builds.

Pages are `documents.PAGES`. Blocks of one page run in order, in a folder of their own that holds a
small study by the names that the pages use; Python blocks of a page share their variables. Cells of
pages that are notebooks are run by the build.
"""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from documents import DOCS, NAMES, PAGES, ROOT, blocks, is_notebook, runnable

import jaxvp
from jaxvp import config
from jaxvp.simulation import simulate

# Languages of blocks that are not for typing.
SHOWN = {"text", "toml", "bibtex"}
EACH = pytest.mark.parametrize("page", PAGES, ids=NAMES)
RUN = [page for page in PAGES if runnable(page)]


@EACH
def test_every_block_is_run_or_says_why_not(page):
    for block in blocks(page):
        where = f"{page.name}:{block.line}"
        assert block.language, f"{where}: name the language of the block"
        known = block.language in SHOWN | {"python", "bash"} or block.language.startswith("{")
        assert known or block.reason, f"{where}: nothing runs {block.language!r}: say why not"
        if is_notebook(page) and block.language == "python":
            assert block.reason, f"{where}: a notebook runs cells: make it a {{code-cell}}"


@EACH
def test_no_code_hides_in_an_indent(page):
    """Formulas may be indented; what can be typed is fenced, so that it is run."""
    text = re.sub(r"^(```+).*?^\1", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    typed = (
        r"\n\n {4}((?:jaxvp|python|pip|make|import|from|for|Rscript|dask|sbatch)\b|\w+ ?= ?\w+[.(])"
    )
    for found in re.finditer(typed + r"([^\n]*)", text):
        pytest.fail(f"{page.name}: fence {found[1] + found[2]!r} and name its language")


@EACH
def test_fractions_have_braces(page):
    """TeX reads a half where docutils reads twelve over what comes next, or fails."""
    found = re.search(r"\\(?:[dt]?frac|sqrt)\s*\d", page.read_text())
    assert found is None, found and found[0]


@EACH
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        assert (page.parent / link).exists(), link


@EACH
def test_make_targets_exist(page):
    lines = "".join(b.text for b in blocks(page) if b.language == "bash")
    lines = lines.replace("\\\n", " ").splitlines()
    for words in (shlex.split(line, comments=True) for line in lines):
        if words[:1] == ["make"]:
            command = ["make", "-n", "PYTHON=python3", *words[1:]]
            subprocess.run(command, cwd=ROOT, check=True, capture_output=True)


def test_config_of_the_docs_is_valid(tmp_path):
    study(tmp_path)
    assert config.load(tmp_path / "study.toml").formula == "~ Age + (1|Individual) + (1|Tissue)"


def study(folder: Path) -> None:
    """The files that the pages name."""
    (toml,) = [b.text for b in blocks(DOCS / "cli.md") if b.language == "toml"]
    (folder / "study.toml").write_text(toml)
    expression, metadata, _ = simulate(20, 60, {"Individual": 12, "Tissue": 3, "Batch": 4})
    metadata = metadata.rename_axis(index="sample").assign(Donor=metadata["Individual"])
    expression.to_csv(folder / "expression.csv.gz")
    expression.to_parquet(folder / "expression.parquet")
    metadata.to_csv(folder / "samples.csv")


# Python blocks share a namespace and the lines of their errors are those of the page; a block for a
# shell runs between them, where the page has it.
DRIVER = """
import json, subprocess, sys
namespace = {"__name__": "page"}
for language, line, text in json.load(sys.stdin):
    if language == "python":
        exec(compile("\\n" * (line - 1) + text, sys.argv[1], "exec"), namespace)
    else:
        subprocess.run(["bash", "-euo", "pipefail", "-c", text], check=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN, ids=[str(page.relative_to(ROOT)) for page in RUN])
def test_blocks_run(page, tmp_path):
    """A process for every page: what it sets is gone with it."""
    study(tmp_path)
    scripts = str(Path(sys.executable).parent)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg"}
    environment["PATH"] = os.pathsep.join([scripts, environment["PATH"]])
    environment["XDG_CACHE_HOME"] = str(DOCS / "_build" / "cache")
    typed = json.dumps([(b.language, b.line, b.text) for b in runnable(page)])
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, str(page.relative_to(ROOT))],
        input=typed,
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


@pytest.mark.slow
def test_the_documentation_builds(tmp_path):
    """Warnings are errors, an exception in a notebook too."""
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-j", "auto"]
    command += ["-d", str(tmp_path / "doctrees"), str(DOCS), str(tmp_path / "html")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    for page in PAGES:
        if DOCS in page.parents:
            built = tmp_path / "html" / page.relative_to(DOCS).with_suffix(".html")
            assert built.is_file(), built
    lesson = (tmp_path / "html" / "lessons" / "4-use-case.html").read_text()
    assert "cell_output" in lesson and "gene_1" in lesson


def test_every_public_name_is_in_the_reference():
    listed = set(re.findall(r"auto\w+:: (?:jaxvp\.)?([\w.]+)", (DOCS / "api.md").read_text()))
    modules = {"datasets", "functional", "pl", "pp", "sklearn", "tl"}
    missing = set(jaxvp.__all__) - modules - listed
    missing |= {name for name in jaxvp.pl.__all__ if f"plots.{name}" not in listed}
    missing |= {name for name in jaxvp.datasets.__all__ if f"datasets.{name}" not in listed}
    missing |= {f"tl.{name}" for name in jaxvp.tl.__all__ if f"tl.{name}" not in listed}
    missing |= {f"pp.{name}" for name in jaxvp.pp.__all__ if f"pp.{name}" not in listed}
    estimators = ("MixedEffectsResidualizer", "VariancePartition", "VarianceSelector")
    missing |= {name for name in estimators if f"sklearn.{name}" not in listed}
    missing |= {name for name in jaxvp.functional.__all__ if f"functional.{name}" not in listed}
    assert not missing, f"add to docs/api.md: {', '.join(sorted(missing))}"
