"""The benchmarks run, count right and say what is missing. What they measure is not tested."""

import dataclasses
import json
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from benchmarks import __main__ as command
from benchmarks import (
    checks,
    data,
    floor,
    gpu,
    gradient,
    hard,
    peers,
    process,
    settings,
    table,
    weights,
)
from benchmarks import report as report_page
from jaxvp.simulation import simulate


@pytest.mark.parametrize("size", ["full", "quick"])
def test_settings_parse(size):
    designs = settings.designs(size)
    assert set("ABCFG") <= set(designs)
    for design in designs.values():
        assert design.genes > 0 and design.repeats > 0
        assert set(design.peers) <= set(settings.PEERS)
    assert {sweep.name for sweep in settings.sweeps(size)} == {"samples", "levels", "genes", "K"}
    assert len({design.name for s in settings.sweeps(size) for _, design in s.points}) > 4
    wanted = [n for o in checks.settings().values() for n in o.get("designs", {}).get(size, [])]
    assert set(wanted) <= set(designs)


def test_full_gene_counts_are_the_promised_ones():
    counts = {name: design.genes for name, design in settings.designs("full").items()}
    many = dict.fromkeys("ABFST", 20_000)
    assert counts == many | {"C": 4_000, "U": 4_000, "D": 2_000, "E": 1_000, "G": 4_147, "H": 20}


def test_settings_name_what_is_wrong(tmp_path):
    path = tmp_path / "designs.toml"
    path.write_text('[A]\ntitle = "a"\ngenez = 3\n')
    with pytest.raises(settings.SettingsError, match="genez"):
        settings.designs("full", path)
    path.write_text('[A]\ntitle = "a"\nlevels = { g = 3 }\ngenes = { full = 3 }\n')
    with pytest.raises(settings.SettingsError, match="A: genes needs a value"):
        settings.designs("quick", path)
    path.write_text('[A]\ntitle = "a"\ngenes = { full = 3 }\nrepeats = { full = 1 }\n')
    with pytest.raises(settings.SettingsError, match="either levels"):
        settings.designs("full", path)


def test_floor_by_hand():
    """Three levels of `big` with 2, 2 and 4 samples, two of `small`, one covariate."""
    metadata = pd.DataFrame(
        {
            "big": list("aabbcccc"),
            "small": list("xyxyxyxy"),
            "age": [1.0, 2.0, 4.0, 3.0, 6.0, 5.0, 9.0, 7.0],
        },
        index=[f"s{i}" for i in range(8)],
    )
    shape = floor.shape("~ age + (1|small) + (1|big)", metadata)
    # p: intercept and age; K: 2 levels of small + 2; classes: sizes 2 and 4
    assert shape == floor.Shape(n=8, terms=2, p=2, K=4, classes=2, largest=3)
    # 2 * 8 * 4 = 64 for the products; 2 * (2 * 16 + 64) = 192 an evaluation
    assert shape.operations(3) == 64 + 3 * 192
    # fractions, variances: big, small, age, Residuals; coefficients and errors: 2 each; theta: 2;
    # sigma, log-likelihood; 5 diagnostics
    assert shape.results == 2 * 4 + 2 * 2 + 2 + 2 + 5
    assert shape.bytes == 8 * (8 + 21)
    assert shape.seconds(3, flops=640.0, bytes_per_second=1e9) == 1.0
    assert shape.seconds(3, flops=1e9, bytes_per_second=58.0) == 4.0
    # Of more columns the less of a factor and of four iterations.
    large = dataclasses.replace(shape, K=100, classes=1, largest=10)
    assert large.operations(1) == 64 + 2 * 4 * 2 * 10 * 100
    factored = dataclasses.replace(large, largest=10_000)
    assert factored.operations(1) == pytest.approx(64 + 2 * (2 * 100**2 + 100**3 / 3))


def test_slope_designs():
    """Days of every level, an expected formula, and the floor's counts of it."""
    design = dataclasses.replace(settings.designs("full")["S"], genes=3)
    expression, metadata, formula = data.growth(dataclasses.asdict(design))
    assert expression.shape == (3, 180) and formula == "~ Days + (Days|Subject)"
    assert (metadata.groupby("Subject")["Days"].nunique() == 10).all()
    # one class of levels, three pairs of two coefficients; K: intercept and Days
    shape = floor.shape(formula, metadata)
    assert shape == floor.Shape(n=180, terms=2, p=2, K=2, classes=3, largest=18)

    design = dataclasses.replace(settings.designs("full")["U"], genes=3)
    expression, metadata, formula = data.growth(dataclasses.asdict(design))
    assert expression.shape == (3, 400)
    assert formula == "~ Days + (Days|Subject) + (1|Batch)"
    assert metadata["Days"].nunique() == 400 and metadata["Batch"].nunique() == 10
    shape = floor.shape(formula, metadata)
    assert shape == floor.Shape(n=400, terms=3, p=2, K=12, classes=3 * 80, largest=80)


def test_floor_and_designs_of_the_gpu_script_are_the_same():
    from jaxvp.design import build
    from jaxvp.formula import Formula

    designs = settings.designs("full")
    for name, (samples, levels) in gpu.DESIGNS.items():
        assert (designs[name].samples, designs[name].levels) == (samples, levels)
    study = simulate(1, 60, {"g": 12, "h": 4}, imbalance=0.5)
    ours = floor.shape(study.formula, study.metadata)
    theirs = gpu.shape(build(Formula.parse(study.formula), study.metadata))
    assert theirs == ours.asdict()
    for flops in (1.0, 1e9):
        rates = {"flops": flops, "bytes_per_second": 1e5}
        assert gpu.floor(theirs, 5.5, rates) == pytest.approx(ours.seconds(5.5, **rates), rel=1e-15)


def test_gpu_script_refuses_without_a_gpu(monkeypatch):
    def none(kind=None):
        if kind == "gpu":
            raise RuntimeError("no such platform")
        return ["cpu:0"]

    monkeypatch.setattr(gpu.jax, "devices", none)
    with pytest.raises(SystemExit, match="no GPU.*--allow-cpu"):
        gpu.main([])


def test_missing_peers_become_rows(monkeypatch, tmp_path):
    monkeypatch.setattr(peers.shutil, "which", lambda name: None)
    monkeypatch.setattr(peers.importlib.util, "find_spec", lambda name: None)
    peers.missing.cache_clear()
    try:
        found = [peers.run(name, tmp_path, 10, 2) for name in settings.PEERS]
    finally:
        peers.missing.cache_clear()
    assert {peer.missing for peer in found} == {
        "mixedlm is not installed",
        "statsmodels is not installed",
        "Rscript is not installed",
    }
    page = table.markdown(report(found))
    assert page.count("| not installed |") >= 1
    assert "Rscript is not installed" in page


def test_a_peer_that_fails_becomes_a_row(monkeypatch, tmp_path):
    """The folder is empty: the worker ends with an error, the run goes on."""
    monkeypatch.setattr(peers, "missing", lambda name: None)
    peer = peers.run("mixedlm", tmp_path, 10, 2, cores=1)
    assert peer.missing.startswith("failed: ") and "expression.npy" in peer.missing
    assert "| failed |" in table.markdown(report([peer]))


def test_gaps():
    ours = np.array([-10.0, -20.0, np.nan])
    one = peers.Peer("mixedlm", sample=[0, 1], log_likelihood=[-10.5, -20.5])
    two = peers.Peer("lme4", sample=[0], log_likelihood=[-9.0])
    assert peers.gaps(ours, [one, two]) == {"mixedlm": -0.5, "lme4": 1.0, "best": 1.0}
    two = peers.Peer("lme4", sample=[2, 1], log_likelihood=[-9.0, np.nan])
    assert peers.gaps(ours, [one, two])["best"] == np.inf
    assert peers.gaps(ours, [peers.Peer("lmer", missing="not installed")]) == {}


def test_short():
    """Below the best of all, ours among them; a gene without a fit is short, too."""
    ours = np.array([-10.0, -20.0, np.nan, -5.0])
    one = peers.Peer("mixedlm", sample=[0, 1, 2], log_likelihood=[-10.5, -20.0005, -7.0])
    two = peers.Peer("lme4", sample=[0, 2, 3], log_likelihood=[-9.0, -6.0, np.nan])
    assert peers.short(ours, [one, two]) == {
        "mixedlm": {"genes": 2, "most": 1.5},
        "lme4": {"genes": 1, "most": 0.0},
    }
    assert peers.short(ours, [peers.Peer("lmer", missing="not installed")]) == {}


SAYS = """
import json, os, sys
spec = json.loads(sys.stdin.readline())
count = len(os.listdir({folder!r}))
open(os.path.join({folder!r}, str(count)), "w").close()
if count < {stuck} and not ({polite} and spec.get("last")):
    print("again")
else:
    print("ready", flush=True)
    sys.stdin.readline()
    print('{{"value": 7}}')
"""


def test_a_child_that_asks_for_it_is_started_again(tmp_path):
    def race(stuck, polite):
        for path in tmp_path.iterdir():
            path.unlink()
        code = SAYS.format(folder=str(tmp_path), stuck=stuck, polite=polite)
        return process.race([sys.executable, "-c", code], [{}])

    assert race(2, True) == [{"value": 7, "starts": 3}]
    assert race(99, True) == [{"value": 7, "starts": process._MOST_STARTS}]
    with pytest.raises(process.ProcessFailed, match="again"):
        race(99, False)


def test_samples_are_nested():
    assert data.sample(100, 5) == data.sample(100, 20)[:5]
    assert sorted(data.sample(4, 9)) == [0, 1, 2, 3]


def test_hard_genes():
    study = simulate(40, 60, {"g": 12, "h": 4}, seed=3)
    before = study.expression.copy()
    harder = hard.harden(study.expression, study.metadata, 0.5)
    finite = harder[np.isfinite(harder).all(axis=1)]
    pd.testing.assert_frame_equal(study.expression, before)
    changed = ~((harder == before).all(axis=1))
    assert changed.sum() == 20
    assert len(finite) == 36  # twice each kind, two of the ten are not finite
    assert (finite.std(axis=1) == 0).sum() == 2
    pd.testing.assert_frame_equal(harder, hard.harden(study.expression, study.metadata, 0.5))


def report(found=(), **ours):
    """A report of one design with invented numbers."""
    design = dataclasses.asdict(settings.designs("full")["A"])
    ours = {
        "genes": 1000,
        "cold": 5.0,
        "first": 3.0,
        "warm": [0.02, 0.01, 0.03],
        "peak": 500 << 20,
        "input": 100 << 20,
        "shape": floor.Shape(n=100, terms=3, p=2, K=9, classes=8, largest=25).asdict(),
        "evaluations": {"mean": 5.0, "99 %": 9.0, "99.9 %": 11.0, "max": 12},
        "converged": 0.999,
        "status": {"converged": 999, "zero_variance": 1},
        "singular": 0.5,
        **ours,
    }
    log_likelihood = np.zeros(1000)
    return {
        "size": "full",
        "date": "2000-01-01 00:00",
        "command": "python -m benchmarks",
        "machine": {"cpu": "a CPU", "cores": 2, "memory_gb": 8.0, "system": "Linux"},
        "rates": {"flops": 1e10, "bytes_per_second": 1e10},
        "versions": {"jaxvp": "0"},
        "designs": [
            {
                "design": design,
                "ours": ours,
                "peers": [dataclasses.asdict(peer) for peer in found],
                "gaps": peers.gaps(log_likelihood, list(found)),
                "short": peers.short(log_likelihood, list(found)),
            }
        ],
        "checks": [checks.row("a | b", 1.3, "x", "at most 1.2 x", False)],
    }


def test_markdown():
    peer = peers.Peer(
        "mixedlm",
        version="1.0",
        sample=[3, 4],
        processes=2,
        starts=5,
        us_per_gene=2000.0,
        start=1.0,
        log_likelihood=[2e-6, -1.0],
    )
    page = table.markdown(report([peer]), "figure.png")
    assert "| 20.0 | 10.0 | 0.0200 | 100 x |" in page  # median, min, whole, ratio
    row = "| A | mixedlm `refit` | 1.0 | 2 of 1,000 | 2 (3 started again) | 1.00 | 2,000 | 2.00 s"
    assert f"{row} | 1 | 1.00 |" in page
    assert "| A | 5.00 | 2.98 | 0.0200 | 100 | 500 | 400 |" in page
    assert "| 5.0 / 9 / 11 / 12 | 99.90% | 1 zero_variance | 50% | 2 | 2.0e-06 | **no** |" in page
    assert "| a \\| b | 1.30 x | at most 1.2 x | **no** |" in page
    assert "](figure.png)" in page
    for lines in re.findall(r"(?:^\|.*\n?)+", page, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines.splitlines()}) == 1


def test_markdown_of_a_design_that_failed():
    failed = report()
    failed["designs"][0].pop("ours")
    failed["designs"][0]["failed"] = "failed: out of memory"
    assert "failed: out of memory" in table.markdown(failed)


def test_numbers():
    assert [table.number(x) for x in (12345.6, 99.96, 1.234, 0.01234, 0, float("nan"))] == [
        *("12,346", "100.0", "1.23", "0.0123", "0", "–")
    ]


def test_seconds_of_the_demo():
    text = "Cold: 1,234 genes per second (3.36 s: import)\nWarm: 9 genes per second (0.50 s: fit)\n"
    assert checks.printed_seconds(text) == {"Cold": 3.36, "Warm": 0.5}


def test_a_report_without_a_browser_is_a_row():
    names = ("load", "ready", "sort number", "sort names", "search")
    found = {"write": [2.0, 1.0], "bytes": 2_500_000, "browser": "chromium is not installed"}
    rows = report_page.lines(found | dict.fromkeys(names, []), 1000)
    assert rows["size"][1:] == (2.5, "MB") and rows["next"][1:] == (1.0, "s")
    what, value, _ = rows["load"]
    assert what == "report of 1,000 genes: open (chromium is not installed)" and value != value
    found |= dict.fromkeys(names, [300.0, 100.0, 200.0]) | {"browser": "Chromium 1"}
    rows = report_page.lines(found, 1000)
    assert rows["load"][:2] == ("report of 1,000 genes: open in Chromium 1, median of 3", 0.2)
    assert set(rows) == {"first", "next", "size", *names}


def test_unknown_designs_are_refused():
    with pytest.raises(SystemExit, match="no design 'Z'"):
        command.main(["--quick", "--designs", "A,Z"])


def test_only_a_complete_run_writes_the_documentation():
    parse = command.parser().parse_args
    assert command.complete(parse([]))
    for less in ("--quick", "--designs=A", "--genes=5", "--no-peers", "--no-checks"):
        assert not command.complete(parse([less]))


def test_children_get_the_threads_they_shall_have(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert "OMP_NUM_THREADS" not in process.environment()
    assert process.environment(threads=1)["OMP_NUM_THREADS"] == "1"


def test_a_child_that_fails_says_why():
    with pytest.raises(process.ProcessFailed, match="No module named"):
        process.call("benchmarks.no_such_module", {})


@pytest.mark.slow
def test_end_to_end(tmp_path, monkeypatch, capsys):
    """Every stage on a few genes, with the peers that are here."""
    monkeypatch.setattr(command, "RESULTS", tmp_path / "results")
    page = tmp_path / "page.md"
    options = ["--quick", "--designs", "A", "--genes", "20", "--out", str(page)]
    command.main(options)
    text = page.read_text()
    assert text in capsys.readouterr().out
    assert "variancePartition: call sequence re-enacted in lme4" in text
    assert "hard genes" in text and "violins of 20 genes" in text and "demo" in text
    assert "compile cache of an earlier one" in text
    assert "report of 20 genes: write" in text and "report of 20 genes: open" in text
    (saved,) = (tmp_path / "results").glob("quick-*.json")
    (entry,) = json.loads(saved.read_text())["designs"]
    assert entry["ours"]["genes"] == 20
    mixedlm = next(peer for peer in entry["peers"] if peer["name"] == "mixedlm")
    assert mixedlm["missing"] is None and np.isfinite(mixedlm["log_likelihood"]).all()
    assert entry["gaps"]["best"] <= 1e-6


@pytest.mark.slow
def test_gpu_script_runs_on_a_cpu():
    arguments = ["--allow-cpu", "--genes", "10", "--designs", "F", "--repeats", "1"]
    done = subprocess.run(
        [sys.executable, gpu.__file__, *arguments], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(": same (") == 6
    assert re.search(r"^\| F \| 1,000 \| 10 \| 2 \|", done.stdout, re.MULTILINE)


def test_weights_settings():
    for size in ("full", "quick"):
        found = weights.studies(size)
        assert set(found) == {"A", "B", "proteins", "slopes"}
        assert all(0 < study["peer"] <= study["genes"] for study in found.values())


@pytest.mark.slow
def test_weights_run(capsys):
    weights.main(["--quick", "--studies", "A"])
    head, _, values = (line.split(" | ") for line in capsys.readouterr().out.splitlines())
    row = dict(zip(head, values, strict=True))
    assert row["converged"] == "100.00%"
    assert float(row["worst gap |"].strip(" |")) < 1e-6


@pytest.mark.slow
def test_gradient_runs(capsys):
    gradient.main(["--quick"])
    _, _, head, _, values = (line.split(" | ") for line in capsys.readouterr().out.splitlines())
    row = dict(zip(head, values, strict=True))
    assert row["parameters"] == "10"
    assert float(row["largest gap |"].strip(" |")) < 1e-5
