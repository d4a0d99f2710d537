"""Runs that are killed, started again, refused; shards and what joins them.

The measure is bytes: tables of whatever happened against those of a run that was left alone. Models
are fixed ones where nothing depends on it, since these compile nothing.
"""

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest

import jaxvp
from jaxvp import runs, runtime
from jaxvp.cli import main
from jaxvp.runs import RunError, Shard, parts
from jaxvp.simulation import simulate

pytestmark = pytest.mark.usefixtures("compile_cache")
MIXED = "~ Age + (1|Individual) + (1|Tissue)"
FIXED = "~ Age + Tissue"
SCRIPT = Path(__file__).with_name("killed_runs.py")


@pytest.fixture(scope="module")
def study():
    return simulate(26, 60, {"Individual": 12, "Tissue": 3}, seed=3)


@pytest.fixture
def folder(tmp_path, study, monkeypatch):
    """A working folder in which every block is a part as soon as it is finished."""
    monkeypatch.chdir(tmp_path)
    study.expression.rename_axis("gene").to_csv("x.csv")
    np.save("x.npy", study.expression.to_numpy().T)
    study.metadata.rename_axis("sample").to_csv("m.csv")
    monkeypatch.setattr(parts, "INTERVAL", 0)
    return tmp_path


def fit(*options, out="out", expression="x.csv", metadata="m.csv", formula=FIXED, size=4):
    arguments = ["-e", expression, "-m", metadata, "-f", formula, "-o", out]
    sized = ["--block-size", size] if size else []
    return main(["fit", *map(str, [*arguments, *sized, *options])])


def tables(folder):
    return {path.name: path.read_bytes() for path in Path(folder).glob("*.parquet")}


def stop_after(monkeypatch, blocks, error=KeyboardInterrupt):
    """The next run ends, as if it were interrupted, when so many blocks are finished."""
    add, left = parts.Parts.add, [blocks]

    def counted(self, *block):
        if not left[0]:
            raise error
        left[0] -= 1
        add(self, *block)

    monkeypatch.setattr(parts.Parts, "add", counted)


def stopped(monkeypatch, blocks=3, **options):
    with monkeypatch.context() as patch:
        stop_after(patch, blocks)
        assert fit(**options) == 130
    assert list(Path(options.get("out", "out"), "unfinished").glob("part-*"))


# Killed and continued


def killed(tmp_path, kills, formula):
    """So many runs are killed in truth, and all tables are those of a run that was not."""
    arguments = ["-e", "x.csv", "-m", "m.csv", "-f", formula, "--block-size", "2"]
    command = [sys.executable, str(SCRIPT), str(tmp_path), str(kills), "--", *arguments]
    environment = os.environ | {"PYTHONPATH": str(SCRIPT.parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert kills <= found["kills"] <= 2 * len(found["codes"]), found
    assert set(found["codes"]) == {0} and found["continued"], found
    assert found["differ"] == [] and found["left"] == []


def test_killed_at_random_moments(folder):
    killed(folder, 3, FIXED)


@pytest.mark.slow
def test_killed_at_random_moments_often(folder):
    killed(folder, 20, MIXED)


def test_what_is_finished_is_not_computed_again(folder, monkeypatch, capsys):
    assert fit(out="whole") == 0
    stopped(monkeypatch, 3)
    assert not (folder / "out" / "fractions.parquet").exists()
    seen = []
    real = jaxvp.batch.Fitter.begin
    monkeypatch.setattr(
        jaxvp.batch.Fitter,
        "begin",
        lambda self, y, weights: seen.append(y.shape[1]) or real(self, y, weights),
    )
    assert fit(size=None) == 0  # with the block size of the run that it continues
    assert "Continued: 12 genes were finished before" in capsys.readouterr().err
    assert sorted(seen) == [2, 4, 4, 4]
    assert tables("out") == tables("whole")
    assert sorted(path.name for path in Path("out").iterdir()) == sorted(
        [*tables("out"), "run.json"]
    )


@pytest.mark.parametrize("formula", [FIXED, pytest.param(MIXED, marks=pytest.mark.slow)])
def test_the_command_and_the_function_write_the_same_bytes(folder, study, formula):
    assert fit(formula=formula) == 0
    result = jaxvp.fit("x.csv", formula, "m.csv", block_size=4)
    result.write_tables("function")
    assert tables("out") == tables("function")


def test_parts_are_tables_that_anybody_reads(folder, study, monkeypatch):
    stopped(monkeypatch, 2)
    table = pd.concat(map(pd.read_parquet, sorted(Path("out/unfinished").glob("*.parquet"))))
    result = jaxvp.fit(study.expression, FIXED, study.metadata, block_size=4)
    table = table.set_index("gene").sort_index()
    expected = result.fractions.loc[table.index, "Age"]
    np.testing.assert_array_equal(table["fractions.Age"], expected)


def test_bits_do_not_depend_on_threads_of_blas(folder, monkeypatch):
    """Products of these models' (512 genes) do: a run may go on where there are more cores."""
    larger = simulate(512, 400, {"Individual": 60, "Tissue": 5, "Batch": 8}, seed=3)
    np.save("x.npy", larger.expression.to_numpy().T)
    larger.metadata.rename_axis("sample").to_csv("m.csv")
    model = {"expression": "x.npy", "formula": "~ Age + Tissue + Batch", "size": 128}
    with runtime.using_blas_threads(2):
        assert fit(out="whole", **model) == 0
        stopped(monkeypatch, 2, **model)
    with runtime.using_blas_threads(1):
        assert fit(**model) == 0
    assert tables("out") == tables("whole")


def test_small_runs_write_no_parts(folder, monkeypatch):
    monkeypatch.setattr(parts, "INTERVAL", 2.0)
    monkeypatch.setattr(parts.Parts, "_flush", None)
    assert fit() == 0


def test_a_queue_that_says_so_before_it_kills(folder, monkeypatch):
    """SIGTERM: what was finished is written, though no part was due."""
    assert fit(out="whole") == 0
    add = parts.Parts.add

    def told(self, start, *rest):
        add(self, start, *rest)
        if start == 8:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("jaxvp.batch.fitter.threads_of", lambda *_: 1)
    with monkeypatch.context() as patch:
        patch.setattr(parts, "SHARE", 1e9)
        patch.setattr(parts.Parts, "add", told)
        assert fit() == 130
    assert len(list(Path("out/unfinished").glob("part-*"))) == 1
    assert fit() == 0
    assert tables("out") == tables("whole")


def test_what_a_kill_leaves_half_written_is_removed(folder, monkeypatch):
    stopped(monkeypatch, 2)
    ours = [".fractions.parquet.0123abcd", ".finished-0123abcd", "unfinished/.part-00009-a.x"]
    for name in ours[::2]:
        Path("out", name).write_text("half")
    Path("out", ours[1]).mkdir()
    Path("out/.mine.0123abcd").write_text("a file of the user's")
    assert fit() == 0
    left = {path.name for path in Path("out").iterdir()} - set(tables("out"))
    assert left == {"run.json", ".mine.0123abcd"}


def test_a_damaged_part_is_computed_again(folder, monkeypatch, capsys):
    assert fit(out="whole") == 0
    stopped(monkeypatch, 4)
    first, second, *_ = sorted(Path("out/unfinished").glob("part-*"))
    content = bytearray(first.read_bytes())
    content[len(content) // 3] ^= 1  # one bit of one page
    first.write_bytes(content)
    second.write_bytes(second.read_bytes()[:-20])
    assert fit() == 0
    errors = capsys.readouterr().err
    assert f"{first} is damaged" in errors and f"{second} is damaged" in errors
    assert tables("out") == tables("whole")


# Refused


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"formula": "~ Age"}, "formula: '~ Age + Tissue' before, '~ Age' now"),
        ({"size": 5}, "block size: 4 before, 5 now"),
        ({"metadata": "other.csv"}, "the metadata: other samples"),
        ({"expression": "fewer.csv"}, "genes: 26 before, 25 now"),
        ({"expression": "renamed.csv"}, "the names of the genes"),
        ({"expression": "changed.csv"}, "the measurements: those of gene_0 to gene_3 changed"),
    ],
)
def test_something_else_is_refused(folder, study, monkeypatch, capsys, change, message):
    study.metadata.assign(Age=study.metadata["Age"] * 2).rename_axis("s").to_csv("other.csv")
    frame = study.expression.set_axis([f"gene_{i}" for i in range(26)]).rename_axis("gene")
    frame.to_csv("x.csv")
    frame.iloc[:-1].to_csv("fewer.csv")
    frame.rename({"gene_7": "other"}).to_csv("renamed.csv")
    changed = frame.copy()
    changed.iloc[1, 5] += 1
    changed.to_csv("changed.csv")
    monkeypatch.setattr("jaxvp.batch.fitter.threads_of", lambda *_: 1)  # blocks in their order
    stopped(monkeypatch, 2)
    before = sorted(Path("out/unfinished").iterdir())
    assert fit(**change) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "delete out/unfinished to start over" in error
    assert sorted(Path("out/unfinished").iterdir()) == before


def test_options_and_versions_are_compared(folder, monkeypatch, capsys):
    stopped(monkeypatch, 2)
    assert fit("--solver", "optax") == 2
    assert "solver: 'newton' before, 'optax' now" in capsys.readouterr().err
    path = Path("out/unfinished/manifest.json")
    path.write_text(path.read_text().replace(f'"jaxvp": "{jaxvp.__version__}"', '"jaxvp": "0.0.7"'))
    assert fit() == 2
    assert "the version of jaxvp: '0.0.7' before" in capsys.readouterr().err
    path.write_text("{")
    assert fit() == 2
    assert "delete the folder out/unfinished" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["of each gene", "of each sample"])
def test_weights_are_part_of_the_run(folder, study, monkeypatch, capsys, kind):
    """Continued, in shards or left alone: the same bytes; other weights are another run."""
    monkeypatch.setattr("jaxvp.batch.fitter.threads_of", lambda *_: 1)
    table = study.expression.abs() + 0.1
    if kind == "of each sample":
        table = table.iloc[[0]].T.rename_axis("sample")
    table.rename_axis(table.index.name or "gene").to_csv("w.csv")
    changed = table.copy()
    changed.iloc[0, 0] += 1
    changed.rename_axis(table.index.name or "gene").to_csv("other.csv")
    assert fit("--weights", "w.csv", out="whole") == 0
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        assert fit("--weights", "w.csv") == 130
    assert fit("--weights", "other.csv") == 2
    assert "weights: '" in capsys.readouterr().err
    assert fit() == 2
    assert "' before, None now" in capsys.readouterr().err
    assert fit("--weights", "w.csv") == 0
    assert tables("out") == tables("whole")
    for i in (1, 2):
        assert fit("--weights", "w.csv", "--shard", f"{i}/2", out="shards") == 0
    assert main(["merge", "shards", "-o", "merged"]) == 0
    assert tables("merged") == tables("whole")


def test_a_copy_of_the_file_is_the_same_data(folder, study, monkeypatch):
    """Its time differs: the finished blocks are read again and compared, and the run goes on."""
    assert fit(out="whole") == 0
    monkeypatch.setattr("jaxvp.batch.fitter.threads_of", lambda *_: 1)
    stopped(monkeypatch, 2)
    os.utime("x.csv", (1, 1))
    read = []
    monkeypatch.setattr(
        "jaxvp.runs.folder.digest", lambda y: read.append(y) or jaxvp.expression.digest(y)
    )
    assert fit() == 0
    assert len(read) == 2
    assert tables("out") == tables("whole")


def test_the_old_file_put_back_is_noticed(folder, study, monkeypatch, capsys):
    """After blocks of a newer one were fitted: its time is that of the first start."""
    monkeypatch.setattr("jaxvp.batch.fitter.threads_of", lambda *_: 1)
    stopped(monkeypatch, 2)
    shutil.copy2("x.csv", "old.csv")
    frame = study.expression.copy()
    frame.iloc[9] *= 3
    frame.rename_axis("gene").to_csv("x.csv")
    stopped(monkeypatch, 1)
    shutil.copy2("old.csv", "x.csv")
    assert fit() == 2
    assert "the measurements: those of" in capsys.readouterr().err


def test_what_is_not_fitted_yet_may_change(folder, study, monkeypatch):
    """No number of the old file is in the tables: they are those of the new one."""
    monkeypatch.setattr("jaxvp.batch.fitter.threads_of", lambda *_: 1)
    stopped(monkeypatch, 2)
    frame = study.expression.copy()
    frame.iloc[20] *= 3
    frame.rename_axis("gene").to_csv("x.csv")
    assert fit() == 0
    assert fit(out="whole") == 0
    assert tables("out") == tables("whole")


def test_a_file_that_changes_during_the_run(folder, monkeypatch, capsys):
    monkeypatch.setattr("jaxvp.batch.fitter.threads_of", lambda *_: 1)
    real = jaxvp.batch.Fitter.begin

    def touched(self, y, weights):
        os.utime("x.npy", (5, 5))
        return real(self, y, weights)

    monkeypatch.setattr(jaxvp.batch.Fitter, "begin", touched)
    assert fit(expression="x.npy") == 2
    assert "x.npy was changed while it was read: run again" in capsys.readouterr().err
    assert not tables("out")


def test_one_run_at_a_time(folder, capsys):
    Path("out").mkdir()
    with runs.locked(Path("out")):
        assert fit() == 2
        error = capsys.readouterr().err
        assert "out is in use by another run" in error and f"process {os.getpid()} on" in error
    assert list(Path("out").iterdir()) == []
    Path("out", ".jaxvp.lock").write_text("of a run that was killed")
    assert fit() == 0


def test_a_full_disk(folder, monkeypatch, capsys):
    """The kernel refuses to let a file grow beyond two kilobytes, and then there is room again."""
    assert fit(out="whole") == 0
    stopped(monkeypatch, 2)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        assert fit() == 4
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    error = capsys.readouterr().err
    assert "out/unfinished: no room is left" in error and "give the same command again" in error
    assert "Traceback" not in error
    assert not (folder / "out" / "run.json").exists()
    assert fit() == 0
    assert "Continued: 8 genes" in capsys.readouterr().err
    assert tables("out") == tables("whole")


def test_no_room_for_the_tables(folder, monkeypatch, capsys):
    """What was fitted is kept though no part had been written."""
    with monkeypatch.context() as patch:
        patch.setattr(parts, "SHARE", 1e9)
        full = OSError(errno.ENOSPC, "No space left on device")
        patch.setattr(jaxvp.Results, "write_tables", Mock(side_effect=full))
        assert fit() == 4
    assert "out: no room is left" in capsys.readouterr().err
    assert fit() == 0
    assert "Continued: 26 genes" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["/sys/jaxvp", "/proc/jaxvp"])
def test_a_folder_that_cannot_be_written(folder, capsys, name):
    assert fit(out=name) in (2, 4)
    error = capsys.readouterr().err
    assert name.rsplit("/", 1)[0] in error and "Traceback" not in error


# Shards


@pytest.mark.parametrize(
    "text",
    ["0/3", "4/3", "3", "a/b", "1/0", "-1/3", "", "1/" + "9" * 5000],
    ids=lambda text: text[:9],
)
def test_what_is_no_shard(text):
    with pytest.raises(RunError, match="i/N"):
        Shard.parse(text)


@pytest.mark.parametrize("blocks", [0, 1, 7, 64])
@pytest.mark.parametrize("count", [1, 3, 8])
def test_slices_are_all_blocks_once(blocks, count):
    slices = [Shard(i, count).slice(list(range(blocks))) for i in range(1, count + 1)]
    assert [block for part in slices for block in part] == list(range(blocks))
    assert max(map(len, slices)) - min(map(len, slices)) <= 1


@pytest.mark.parametrize(
    ("genes", "count", "expected"),
    [(20_000, 8, 1280), (20_000, 1, 2048), (300, 100, 3), (1_000_000, 8, 2048), (0, 3, 1)],
)
def test_every_shard_has_work(genes, count, expected):
    size = Shard(1, count).block_size(genes, 2048, 128)
    assert size == expected
    blocks = jaxvp.batch.blocks_of(genes, size)
    shares = [len(Shard(i, count).slice(blocks)) for i in range(1, count + 1)]
    assert not genes or min(shares) >= 1


def shard(i, n, **options):
    return fit("--shard", f"{i}/{n}", **options)


def test_shards_are_merged_to_the_same_bytes(folder, monkeypatch, capsys):
    assert fit(out="whole") == 0
    with monkeypatch.context() as patch:
        stop_after(patch, 1)
        assert shard(2, 3) == 130
    assert shard(1, 3) == 0
    capsys.readouterr()
    assert main(["merge", "out"]) == 2
    error = capsys.readouterr().err
    assert "2 of 3 shards are missing" in error
    assert "2/3 (1 of 2 blocks are done), 3/3 (nothing is there)" in error
    assert shard(2, 3) == shard(3, 3) == 0
    assert "4 genes were finished before" in capsys.readouterr().err
    assert main(["merge", "out"]) == 0
    assert tables("out") == tables("whole")
    summary = json.loads(Path("out/run.json").read_text())
    assert (summary["genes"], summary["samples"], summary["block_size"]) == (26, 60, 4)
    # A finished shard is not fitted again; folders may be anywhere.
    monkeypatch.setattr(jaxvp.batch.Fitter, "begin", None)
    assert shard(2, 3) == 0
    shutil.move("out/shard-1-of-3", "shard-1-of-3")
    assert main(["merge", "shard-1-of-3", "out", "-o", "elsewhere", "--format", "csv"]) == 0
    assert pd.read_csv("elsewhere/sigma.csv").shape == (26, 2)


@pytest.mark.parametrize("expression", ["x.npy", "x.csv"])
def test_more_shards_than_blocks(folder, study, expression):
    """Of an array without names, and of a table."""
    if expression == "x.csv":
        study.expression.iloc[:2].rename_axis("symbol").to_csv("x.csv")
    else:
        np.save("x.npy", study.expression.iloc[:2].to_numpy().T)
    for i in (1, 2, 3):
        assert shard(i, 3, expression=expression) == 0
    assert main(["merge", "out"]) == 0
    assert fit(out="whole", expression=expression) == 0
    assert tables("out") == tables("whole")


def test_shards_that_do_not_belong_together(folder, capsys):
    assert main(["merge", "."]) == 2
    assert ".: no shards" in capsys.readouterr().err
    assert shard(1, 2) == shard(2, 2, formula="~ Age", out="other") == 0
    assert main(["merge", "out", "other", "-o", "joined"]) == 2
    error = capsys.readouterr().err
    assert "shards 1/2 and 2/2 are not of the same run" in error
    assert "formula: '~ Age + Tissue' in shard 1/2, '~ Age' in shard 2/2" in error
    shutil.copytree("out/shard-1-of-2", "twice/shard-1-of-2")
    assert main(["merge", "out", "twice", "-o", "joined"]) == 2
    assert "shard 1/2 is there twice" in capsys.readouterr().err
    Path("out/shard-1-of-5").mkdir()
    assert main(["merge", "out"]) == 2
    assert "there are shards of 2 and of 5" in capsys.readouterr().err
    assert main(["merge", "out", "other"]) == 2
    assert "--out must be given" in capsys.readouterr().err


@pytest.mark.slow
def test_a_real_interrupt_leaves_no_half_written_file(tmp_path):
    """Ctrl-C in a shell, wherever it hits: what is there can be read, and the code is 130."""
    many = simulate(400, 60, {"Individual": 12}, seed=1)
    many.expression.to_csv(tmp_path / "x.csv")
    many.metadata.to_csv(tmp_path / "m.csv")
    out = tmp_path / "out"
    code = "import sys; from jaxvp.cli import main; sys.exit(main())"
    options = ["fit", "-e", "x.csv", "-m", "m.csv", "-f", many.formula, "--block-size", "4"]
    environment = os.environ | {"PYTHONPATH": str(SCRIPT.parents[1])}
    with subprocess.Popen(
        [sys.executable, "-c", code, *options, "--out", str(out)],
        cwd=tmp_path,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        deadline = time.monotonic() + 200
        while not list(out.glob("unfinished/part-*")) and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        errors = process.communicate(timeout=200)[1]
    assert process.returncode in (0, 130), errors  # 0: it was faster
    for file in out.rglob("*.parquet"):
        pd.read_parquet(file)
    if process.returncode == 130:
        assert "Traceback" not in errors
        assert not (out / "run.json").exists()
