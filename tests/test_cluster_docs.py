"""The scripts of docs/cluster.md run as they stand there, on a small study."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import jaxvp
from jaxvp.cli import main
from jaxvp.simulation import simulate

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "cluster.md").read_text()
FORMULA = "~ Age + (1|Donor)"


def script(heading, language):
    """The code of a section."""
    section = PAGE.split(f"### {heading}\n")[1].split("\n### ")[0]
    return re.search(rf"```{language}\n(.*?)```", section, re.S)[1]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = simulate(60, 30, {"Donor": 10}, seed=2)
    study.expression.rename_axis("gene").to_parquet("expression.parquet", row_group_size=20)
    study.metadata.rename_axis("sample").to_csv("samples.csv")
    tables = 'expression = "expression.parquet"\nmetadata = "samples.csv"\n'
    Path("study.toml").write_text(
        f'{tables}formula = "{FORMULA}"\nout = "results"\nblock_size = 2\n'
    )
    return tmp_path


@pytest.fixture
def environment(tmp_path):
    """Where `jaxvp` is this one, and writes every block at once."""
    home = tmp_path / "bin"
    home.mkdir()
    (home / "jaxvp").write_text(
        f"#!{sys.executable}\nimport sys\n"
        "from jaxvp.runs import parts\nfrom jaxvp.cli import main\n"
        "parts.INTERVAL = parts.SHARE = 0\nsys.exit(main())\n"
    )
    (home / "jaxvp").chmod(0o755)
    path = f"{home}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PATH": path, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(tmp_path)}


@pytest.mark.slow
def test_an_array_of_jobs_one_of_them_killed(folder, environment, compile_cache):
    Path("fit.sh").write_text(script("SLURM", "bash"))

    def job(i):
        task = {"SLURM_ARRAY_TASK_ID": str(i), "SLURM_ARRAY_TASK_COUNT": "3"}
        return subprocess.Popen(
            ["bash", "fit.sh"], env=environment | task | {"SLURM_CPUS_PER_TASK": "1"},
            start_new_session=True,
        )  # fmt: skip

    jobs = {i: job(i) for i in (1, 2, 3)}
    while not list(Path("results").glob("shard-2-of-3/part-*")):
        time.sleep(0.005)
    os.killpg(jobs[2].pid, signal.SIGKILL)
    assert [jobs[i].wait() for i in (1, 3)] == [0, 0]
    assert jobs[2].wait() == -signal.SIGKILL
    assert main(["merge", "results"]) == 2
    assert job(2).wait() == 0
    assert main(["merge", "results"]) == 0
    assert main(["fit", "--config", "study.toml", "--out", "whole"]) == 0
    for path in Path("whole").glob("*.parquet"):
        assert path.read_bytes() == Path("results", path.name).read_bytes()
    assert json.loads(Path("results/run.json").read_text())["genes"] == 60


# In the command's script: a shard that is killed when its first block is kept, the first time.
KILLED_ONCE = """
import os, signal
def add(self, *block, real=parts.Parts.add):
    real(self, *block)
    if "2/3" in sys.argv and not os.path.exists("killed"):
        open("killed", "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
parts.Parts.add = add
"""


@pytest.mark.slow
def test_snakemake_and_a_shard_that_is_killed(folder, environment, compile_cache):
    snakemake = shutil.which("snakemake") or ROOT / ".venv" / "snakemake" / "bin" / "snakemake"
    if not Path(snakemake).exists():
        pytest.skip("no snakemake (make test-all installs it where it can be)")
    Path("Snakefile").write_text(script("Snakemake", "python").replace("N = 8", "N = 3"))
    command = Path("bin/jaxvp")
    command.write_text(
        command.read_text().replace("parts.INTERVAL", f"{KILLED_ONCE}parts.INTERVAL")
    )
    done = subprocess.run(
        [snakemake, "--cores", "2"], env=environment, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert Path("killed").exists() and "Continued: " in done.stderr
    assert main(["fit", "--config", "study.toml", "--out", "whole"]) == 0
    for path in Path("whole").glob("*.parquet"):
        assert path.read_bytes() == Path("results", path.name).read_bytes()


@pytest.mark.slow
def test_a_process_pool(folder, environment):
    Path("pool.py").write_text(script("A process pool", "python"))
    subprocess.run([sys.executable, "pool.py"], env=environment, check=True)
    jaxvp.fit("expression.parquet", FORMULA, "samples.csv").write_tables("whole")
    for path in Path("whole").glob("*.parquet"):
        assert path.read_bytes() == Path("results", path.name).read_bytes()


@pytest.mark.parametrize(
    ("heading", "language"),
    [("Snakemake", "python"), ("Nextflow", "groovy"), ("Dask on a queue", "python")],
)
def test_what_cannot_run_here_names_what_there_is(heading, language):
    """Options of the command, arguments of the function, files that a run leaves."""
    text = script(heading, language)
    options = set(re.findall(r"--([a-z-]+)", text))
    known = {option for name in ("fit", "merge") for option in _options(name)}
    assert options <= known
    for shard in re.findall(r"shard-\S+?-of-\S+?(?=[/\"])", text):
        assert re.fullmatch(r"shard-\$?\{i\}-of-\$?\{(params\.)?n\}", shard)


def _options(command):
    from jaxvp.cli import cli

    return [opt.lstrip("-") for p in cli.commands[command].params for opt in p.opts]
