"""Blocks of genes on executors: the bits of a fit in this process, whatever happens to workers."""

import concurrent.futures
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import warnings
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor

import numpy as np
import pandas as pd
import pytest

import jaxvp
from jaxvp.cli import main
from jaxvp.executors import Job, schedule, worker
from jaxvp.expression import Expression, align, open_file, reader_of
from jaxvp.simulation import simulate

FIXED = "~ Age + Tissue"
MIXED = "~ Age + (1|Individual) + (1|Tissue)"
TABLES = ("fractions", "variances", "coefficients", "standard_errors", "theta", "diagnostics")


@pytest.fixture(scope="module")
def study():
    return simulate(26, 60, {"Individual": 12, "Tissue": 3}, seed=3)


@pytest.fixture(scope="module")
def files(study, tmp_path_factory):
    """The same measurements in files that workers read themselves."""
    folder = tmp_path_factory.mktemp("files")
    np.save(folder / "x.npy", study.expression.to_numpy().T)
    study.expression.to_parquet(folder / "x.parquet", row_group_size=7)
    study.metadata.rename_axis("sample").to_csv(folder / "m.csv")
    return folder


@pytest.fixture(scope="module")
def expected(study):
    return jaxvp.fit(study.expression, FIXED, study.metadata, block_size=4)


def check(result, expected, but=()):
    """Bit for bit, save for some genes (and names, which arrays have not)."""
    keep = ~result.fractions.index.isin(list(but))
    for name in TABLES:
        found, wanted = getattr(result, name), getattr(expected, name)
        pd.testing.assert_frame_equal(
            found[keep].reset_index(drop=True),
            wanted[keep].reset_index(drop=True),
            check_exact=True,
        )


class Here(Executor):
    """Computes when it is asked, after `meddle` had its say about a block."""

    def __init__(self, meddle=lambda start, count: None):
        self.meddle, self.count, self.starts, self.sizes = meddle, 0, [], []

    def submit(self, fn, /, *args):
        future = Future()
        self.count += 1
        self.starts.append(args[2])
        self.sizes.append(len(pickle.dumps(args)))
        try:
            self.meddle(args[2], self.count)
            future.set_result(pickle.loads(pickle.dumps(fn(*args))))
        except BrokenExecutor:
            raise
        except concurrent.futures.CancelledError:
            future.cancel()
            future.set_running_or_notify_cancel()
        except Exception as error:
            future.set_exception(error)
        return future


def test_threads(study, expected):
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        result = jaxvp.fit(study.expression, FIXED, study.metadata, block_size=4, executor=pool)
    check(result, expected)


@pytest.mark.parametrize("name", ["x.npy", "x.parquet"])
def test_workers_read_their_own_blocks(files, study, expected, monkeypatch, name):
    """Nothing is read here but a few genes, to see whether they are counts."""
    read = []
    block = Expression.block
    monkeypatch.setattr(
        Expression, "block", lambda self, a, b: read.append((a, b)) or block(self, a, b)
    )
    before = len(read)
    metadata = study.metadata.sample(frac=0.8, random_state=1) if name == "x.parquet" else None
    wanted = expected
    if metadata is not None:  # other samples, in another order
        wanted = jaxvp.fit(study.expression, FIXED, metadata, block_size=4)
        read.clear()
    executor = Here()
    metadata = study.metadata if metadata is None else metadata
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = jaxvp.fit(files / name, FIXED, metadata, block_size=4, executor=executor)
    assert before == 0 and all(b - a > 4 for a, b in read)
    assert executor.starts == list(range(0, 26, 4))
    check(result, wanted)


def test_text_is_read_once_and_sent(files, study, expected, tmp_path):
    study.expression.rename_axis("gene").to_csv(tmp_path / "x.csv")
    executor = Here()
    result = jaxvp.fit(tmp_path / "x.csv", FIXED, files / "m.csv", block_size=4, executor=executor)
    check(result, expected)
    assert min(executor.sizes[:-1]) > 4 * 60 * 8


def test_what_is_sent_does_not_grow_with_the_genes(study):
    expression, table = align(study.expression, study.metadata)
    design = jaxvp.api.build(jaxvp.api.Formula.parse(MIXED), table)
    sizes = [
        len(pickle.dumps(Job(design, genes, False, "newton", "float64", 128, None)))
        for genes in (10, 10_000_000)
    ]
    assert abs(sizes[1] - sizes[0]) < 10
    assert sizes[0] < 10_000 + 8 * design.X.size + 4 * sum(c.size for c in design.codes)


def test_a_reader_serves_what_the_expression_does(files, study):
    expression, _ = align(files / "x.parquet", study.metadata)
    part = expression.take(np.array([5, 2, 40]))
    again = pickle.loads(pickle.dumps(reader_of(part)))
    np.testing.assert_array_equal(again.open(4)(3, 11), part.block(3, 11))
    assert reader_of(align(study.expression, study.metadata)[0]) is None


def test_a_worker_reads_little_more_than_its_block(files, study, monkeypatch):
    """Not a panel of 64 MB, of which the other blocks go to others: a row group, or two."""
    expression, _ = align(files / "x.parquet", study.metadata)
    read = []
    real = jaxvp.expression.parquet.ParquetTable._columns
    monkeypatch.setattr(
        jaxvp.expression.parquet.ParquetTable,
        "_columns",
        lambda self, names, groups=None: read.append(groups) or real(self, names, groups),
    )
    np.testing.assert_array_equal(reader_of(expression).open(4)(8, 12), expression.block(8, 12))
    assert read == [[1]]  # and this process has its panel from a look for counts


def test_another_file_on_the_worker(files, study, tmp_path):
    np.save(tmp_path / "x.npy", study.expression.to_numpy().T)
    expression, _ = align(open_file(tmp_path / "x.npy"), study.metadata)
    reader = reader_of(expression)
    os.utime(tmp_path / "x.npy", (1, 1))
    with pytest.raises(jaxvp.DataError, match="is not the same file on the worker"):
        reader.open(4)
    (tmp_path / "x.npy").unlink()
    with pytest.raises(jaxvp.DataError, match="same path on every machine"):
        reader.open(4)


@pytest.mark.parametrize("kind", ["of each gene", "of each sample"])
@pytest.mark.parametrize("name", ["x.npy", None], ids=["read by workers", "sent"])
def test_weights(files, study, kind, name):
    """Those of each gene go with its block, wherever the measurements come from."""
    rng = np.random.default_rng(0)
    weights = rng.uniform(0.5, 2, 60 if kind == "of each sample" else (60, 26))
    weights[3] = 0
    options = {"weights": weights, "block_size": 4, "rescale_weights": False}
    local = jaxvp.fit(study.expression.to_numpy().T, FIXED, study.metadata, **options)
    expression = study.expression.to_numpy().T if name is None else files / name
    executor = Here()
    found = jaxvp.fit(expression, FIXED, study.metadata, executor=executor, **options)
    check(found, local)
    assert (found.diagnostics["n_obs"] == 59).all() and found.weighted
    sent = 8 * 60 * 4 * ((name is None) + (kind == "of each gene"))
    assert sent <= min(executor.sizes[:-1]) < sent + 20_000


# Losses


def test_a_block_that_fails_is_named_and_the_others_stay(study, expected):
    def fail(start, count):
        if start == 8:
            raise MemoryError("no memory on this worker")

    with pytest.warns(UserWarning) as caught:
        result = jaxvp.fit(
            study.expression, FIXED, study.metadata, block_size=4, executor=Here(fail)
        )
    genes = study.expression.index[8:12]
    message = str(caught[0].message)
    assert f"1 block of genes could not be computed: {genes[0]} to {genes[-1]}" in message
    assert "MemoryError: no memory on this worker" in message
    assert set(result.diagnostics.loc[genes, "status"]) == {"block_failed"}
    assert result.fractions.loc[genes].isna().all(axis=None)
    check(result, expected, but=genes)
    with pytest.raises(jaxvp.FitError, match=r"block_failed\)"), pytest.warns(UserWarning):
        jaxvp.fit(
            study.expression, FIXED, study.metadata, block_size=4, on_error="raise",
            executor=Here(fail),
        )  # fmt: skip


def test_nothing_but_failures_is_an_error(study):
    def fail(start, count):
        raise MemoryError("none anywhere")

    with pytest.raises(jaxvp.FitError, match="7 blocks .*none anywhere"):
        jaxvp.fit(study.expression, FIXED, study.metadata, block_size=4, executor=Here(fail))


def test_lost_blocks_go_out_again_a_few_times(study, expected):
    def lose(start, count):
        if start == 4 and count < 9 or start == 12:
            raise concurrent.futures.CancelledError

    executor = Here(lose)
    with pytest.warns(UserWarning, match="1 block of genes could not be computed"):
        result = jaxvp.fit(study.expression, FIXED, study.metadata, block_size=4, executor=executor)
    assert executor.starts.count(12) == schedule.ATTEMPTS
    check(result, expected, but=study.expression.index[12:16])


def test_an_executor_that_breaks_leaves_the_rest_to_this_process(study, expected):
    def end(start, count):
        if count == 4:
            raise BrokenExecutor("gone")

    with pytest.warns(UserWarning, match="the executor is lost"):
        result = jaxvp.fit(
            study.expression, FIXED, study.metadata, block_size=4, executor=Here(end)
        )
    check(result, expected)


def test_a_changed_file_is_everybodys_error(files, study, tmp_path):
    np.save(tmp_path / "x.npy", study.expression.to_numpy().T)
    executor = Here(lambda *_: os.utime(tmp_path / "x.npy", (1, 1)))
    with pytest.raises(jaxvp.DataError, match="not the same file|was changed"):
        jaxvp.fit(tmp_path / "x.npy", FIXED, study.metadata, block_size=4, executor=executor)


@pytest.mark.parametrize(
    ("executor", "options", "message"),
    [
        (4, {}, "use one of concurrent.futures"),
        (type("Client", (), {"get_executor": None})(), {}, r"pass client.get_executor\(\)"),
        (Here(), {"devices": ["cpu"]}, "devices= is for this process"),
    ],
)
def test_what_is_refused(executor, options, message):
    with pytest.raises(jaxvp.DataError, match=message):
        jaxvp.executors.check_executor(executor, options.get("devices"))


# Real processes


def poison():
    """In a worker: the block at gene 8 ends the process, as one that is too large would."""
    fit_block = worker.fit_block

    def deadly(sent, key, start, stop, *block):
        if start == 8:
            os.kill(os.getpid(), signal.SIGKILL)
        return fit_block(sent, key, start, stop, *block)

    deadly.__qualname__, deadly.__module__ = fit_block.__qualname__, fit_block.__module__
    worker.fit_block = deadly


@pytest.mark.slow
def test_a_block_that_kills_its_process_is_found(files, study, expected):
    context = multiprocessing.get_context("spawn")
    lost = pytest.warns(UserWarning, match="1 block of genes could not be computed")
    with ProcessPoolExecutor(1, mp_context=context, initializer=poison) as pool, lost:
        result = jaxvp.fit(files / "x.npy", FIXED, study.metadata, block_size=4, executor=pool)
    check(result, expected, but=result.fractions.index[8:12])


class Accident(ProcessPoolExecutor):
    """Loses a process when the fifth block is handed to it."""

    count = 0

    def submit(self, fn, /, *args, **options):
        self.count += 1
        if self.count == 5:
            os.kill(next(iter(self._processes)), signal.SIGKILL)
        return super().submit(fn, *args, **options)


@pytest.mark.slow
@pytest.mark.parametrize("source", ["file", "arrays"])
def test_a_pool_that_loses_a_process(files, study, source):
    local = jaxvp.fit(study.expression, MIXED, study.metadata, block_size=2)
    data = files / "x.parquet" if source == "file" else study.expression
    with Accident(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        result = jaxvp.fit(data, MIXED, study.metadata, block_size=2, executor=pool)
    check(result, local)


@pytest.fixture
def cluster():
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as cluster:
        yield cluster


@pytest.mark.slow
@pytest.mark.parametrize("source", ["file", "arrays"])
def test_a_cluster_that_loses_a_worker(files, study, cluster, source, monkeypatch):
    """The bytes of the tables: workers and this process have the same number of BLAS threads."""
    from distributed import Client

    local = jaxvp.fit(study.expression, MIXED, study.metadata, block_size=1)
    data = files / "x.parquet" if source == "file" else study.expression
    back, dead = [], []
    receive = schedule._Schedule._receive
    with Client(cluster) as client:
        processes = client.run(os.getpid)

        def kill(self, future):
            back.append(future)
            if len(back) == 3:
                dead.append(min(processes.values()))
                os.kill(dead[0], signal.SIGKILL)
            return receive(self, future)

        monkeypatch.setattr(schedule._Schedule, "_receive", kill)
        result = jaxvp.fit(
            data, MIXED, study.metadata, block_size=1, executor=client.get_executor()
        )
        deadline = time.monotonic() + 60
        while len(client.run(os.getpid)) < 2 and time.monotonic() < deadline:
            time.sleep(0.2)
        assert dead[0] not in client.run(os.getpid).values()
    check(result, local)


@pytest.mark.slow
def test_the_command_on_a_cluster(files, cluster, compile_cache, monkeypatch, capsys):
    monkeypatch.chdir(files)
    arguments = ["fit", "-e", "x.parquet", "-m", "m.csv", "-f", MIXED, "--block-size", "4"]
    assert main([*arguments, "-o", "local"]) == 0
    assert main([*arguments, "-o", "dask", "--dask", cluster.scheduler_address]) == 0
    for path in (files / "local").glob("*.parquet"):
        assert path.read_bytes() == (files / "dask" / path.name).read_bytes()
    assert threading.active_count() < 100


def test_dask_is_an_extra(files, compile_cache, monkeypatch, capsys):
    monkeypatch.chdir(files)
    monkeypatch.setitem(sys.modules, "distributed", None)
    arguments = ["fit", "-e", "x.parquet", "-m", "m.csv", "-f", FIXED, "-o", "none"]
    assert main([*arguments, "--dask", "tcp://127.0.0.1:1"]) == 2
    assert 'pip install "jaxvp[dask]"' in capsys.readouterr().err


def test_no_scheduler(files, compile_cache, monkeypatch, capsys):
    pytest.importorskip("distributed")
    monkeypatch.chdir(files)
    monkeypatch.setattr("jaxvp.executors.dask.PATIENCE", 1)
    arguments = ["fit", "-e", "x.parquet", "-m", "m.csv", "-f", FIXED, "-o", "none"]
    assert main([*arguments, "--dask", "tcp://127.0.0.1:1"]) == 2
    assert "no scheduler answers at 'tcp://127.0.0.1:1'" in capsys.readouterr().err
