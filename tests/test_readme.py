"""What README and docs tell people to type, typed."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from jaxvp import config
from jaxvp.cli import main
from jaxvp.simulation import simulate

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def commands(page: Path, program: str) -> list[list[str]]:
    """Lines of bash blocks that call `program`, continued lines joined, comments dropped."""
    lines = "\n".join(blocks(page, "bash")).replace("\\\n", " ").splitlines()
    split = [shlex.split(line, comments=True) for line in lines]
    return [words for words in split if words[:1] == [program]]


def test_python_of_the_readme_runs():
    code = "\n".join(blocks(ROOT / "README.md", "python"))
    namespace = {}
    exec(compile(code, "README.md", "exec"), namespace)
    result = namespace["result"]
    assert result.fractions.shape == (4147, 6)
    assert abs(result.fractions.sum(axis=1) - 1).max() < 1e-12


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:these variables say the same")
@pytest.mark.parametrize(
    ("page", "says"), [("collinearity.md", "can be fitted"), ("longitudinal.md", "Subject.Time")]
)
def test_python_of_the_docs_runs(page, says, capsys):
    code = "\n".join(blocks(ROOT / "docs" / page, "python"))
    exec(compile(code, page, "exec"), {})
    assert says in capsys.readouterr().out


def test_commands_of_the_readme_run(tmp_path, monkeypatch, capsys):
    study = simulate(20, 60, {"Individual": 12, "Tissue": 3})
    study.expression.to_csv(tmp_path / "expression.csv.gz")
    study.metadata.to_csv(tmp_path / "samples.csv")
    monkeypatch.chdir(tmp_path)
    (command,) = commands(ROOT / "README.md", "jaxvp")
    assert main(command[1:]) == 0
    assert (tmp_path / "results" / "run.json").is_file()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_make_targets_exist(page):
    targets = [words[1] for words in commands(page, "make")]
    for target in targets:
        command = ["make", "-n", "PYTHON=python3", target]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    assert targets or page.parent.name == "docs"


def test_config_of_the_docs_is_valid(tmp_path):
    (text,) = blocks(ROOT / "docs" / "cli.md", "toml")
    (tmp_path / "fit.toml").write_text(text)
    assert config.load(tmp_path / "fit.toml").formula == "~ Age + (1|Individual) + (1|Tissue)"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        assert (page.parent / link).exists(), link
