"""One process and two, and what a scheduler costs per block: prints docs/cluster.md's numbers.

    python benchmarks/scaling.py [--samples 500] [--genes 8192] [--block 512] [--rounds 5]

*Fits.* A file that workers read themselves, a design of three crossed factors; pools of one and of
two processes, each held to one core and one BLAS thread, take turns; compiled before. Wall seconds
are the best of the rounds. On a machine with other work they say little, so CPU seconds (of the
workers and of this process together) stand beside them: what two processes spend more than one is
lost to distribution.

*Messages.* The bytes of a block's task and of its answer, pickled, with the measurements read by
the worker and with the measurements sent.

*Schedulers.* Tasks that do nothing, of the same bytes, through a process pool and through a
scheduler of Dask with two workers: seconds per task with many in flight (what the scheduler can
serve) and one at a time (what a worker waits). Of Dask, the CPU seconds of the process that holds
scheduler and client are given, too.

*On paper.* With ``s`` CPU seconds of scheduler and client per block and a round trip of ``r``,
``W`` workers whose blocks take ``b`` seconds each lose ``r / b`` of their time, and keep the
scheduler busy for ``W s / b`` of its time. The block must take ``b >= max(r / 0.02, 2 W s)``: 2 %
lost, and a scheduler that is idle half the time, so that workers do not queue.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import pickle
import platform
import tempfile
import time
from concurrent.futures import Executor, ProcessPoolExecutor, wait
from importlib.metadata import version
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import numpy as np  # noqa: E402

import jaxvp  # noqa: E402
from jaxvp import api, batch, executors  # noqa: E402
from jaxvp.executors import worker  # noqa: E402
from jaxvp.expression import reader_of  # noqa: E402

FORMULA = "~ Age + (1|Individual) + (1|Tissue) + (1|Batch)"
LEVELS = {"Individual": 100, "Tissue": 5, "Batch": 8}


def one_core(taken) -> None:
    """In a worker: a core of its own. A program of JAX uses all that it may use."""
    with taken.get_lock():
        taken.value += 1
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[taken.value % len(cores)]})
    jaxvp.enable_compile_cache()


def nothing(*_: object) -> None:
    """A task that does nothing."""


def cpu_of_worker(seconds: float) -> tuple[int, float]:
    """Which process, and its CPU seconds so far; slow enough that every process gets one."""
    time.sleep(seconds)
    return os.getpid(), time.process_time()


def cpu(pool: ProcessPoolExecutor, workers: int) -> float:
    """CPU seconds of all workers and of this process."""
    found = dict(pool.map(cpu_of_worker, [0.2] * (4 * workers)))
    assert len(found) == workers
    return sum(found.values()) + time.process_time()


def fits(path: Path, metadata, block: int, rounds: int) -> dict[int, tuple[float, float]]:
    """Best wall seconds and median CPU seconds of one process and of two."""
    context = multiprocessing.get_context("spawn")
    pools = {
        workers: ProcessPoolExecutor(
            workers, mp_context=context, initializer=one_core, initargs=(context.Value("i", 0),)
        )
        for workers in (1, 2)
    }

    def fit(workers: int) -> tuple[float, float]:
        before, began = cpu(pools[workers], workers), time.perf_counter()
        jaxvp.fit(path, FORMULA, metadata, block_size=block, executor=pools[workers])
        wall = time.perf_counter() - began
        return wall, cpu(pools[workers], workers) - before

    for workers in pools:
        fit(workers)
    taken = {workers: [] for workers in pools}
    for _ in range(rounds):
        for workers in pools:
            taken[workers].append(fit(workers))
    for pool in pools.values():
        pool.shutdown()
    return {
        workers: (min(wall for wall, _ in found), float(np.median([c for _, c in found])))
        for workers, found in taken.items()
    }


def messages(study: api.Study) -> dict[str, int]:
    """Bytes of a block's task, read by the worker or sent, and of its answer."""
    job = executors.Job(
        study.design, study.genes, False, "newton", "float64", study.block_size,
        reader_of(study.measurements), True,
    )  # fmt: skip
    stop = study.block_size
    y = np.ascontiguousarray(study.measurements.block(0, stop))
    answer = worker.fit_block(job, job.key, 0, stop, None)
    place = Path(tempfile.gettempdir(), "jaxvp-12345678", "job")
    return {
        "job, once": len(pickle.dumps(job)),
        "task, file": len(pickle.dumps((place, job.key, 0, stop, None))),
        "task, array": len(pickle.dumps((place, job.key, 0, stop, y))),
        "answer": len(pickle.dumps(answer)),
    }


def per_gene(study: api.Study) -> float:
    """CPU seconds of a gene, in blocks, compiled: reading, hashing, fitting."""
    fitter = batch.Fitter(
        study.design, study.compression, study.genes, reml=False, solver="newton",
        dtype="float64", block_size=study.block_size, devices=study.devices,
    )  # fmt: skip
    blocks = study.blocks()
    fitter(study.measurements.block(*blocks[0]))
    began = time.process_time()
    for start, stop in blocks:
        fitter(study.measurements.block(start, stop))
    return (time.process_time() - began) / study.genes


def large() -> api.Study:
    """Crossed factors of more levels, fewer genes."""
    made = jaxvp.simulate(512, 1000, {"Individual": 200, "Site": 45, "Tissue": 5}, seed=1)
    formula = "~ Age + (1|Individual) + (1|Site) + (1|Tissue)"
    return api.prepare(made.expression, formula, made.metadata, block_size=256)


def scheduler(executor: Executor, size: int, tasks: int = 2000) -> tuple[float, float, float]:
    """Seconds per task: many in flight, CPU of this process, one at a time."""
    load = bytes(size)
    wait([executor.submit(nothing, load, i) for i in range(100)])
    began, used = time.perf_counter(), time.process_time()
    wait([executor.submit(nothing, load, i) for i in range(tasks)])
    many = (time.perf_counter() - began) / tasks
    used = (time.process_time() - used) / tasks
    trips = []
    for i in range(100):
        began = time.perf_counter()
        executor.submit(nothing, load, -i).result()
        trips.append(time.perf_counter() - began)
    return many, used, float(np.median(trips))


def schedulers(size: int) -> dict[str, tuple[float, float, float]]:
    """Of a process pool and of Dask, two workers each."""
    context = multiprocessing.get_context("spawn")
    found = {}
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        found["process pool"] = scheduler(pool, size)
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        found["Dask"] = scheduler(client.get_executor(), size)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in (("samples", 500), ("genes", 32768), ("block", 512), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    jaxvp.enable_compile_cache()
    made = jaxvp.simulate(options.genes, options.samples, LEVELS, seed=1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.parquet")
        made.expression.to_parquet(path, row_group_size=options.block)
        study = api.prepare(path, FORMULA, made.metadata, block_size=options.block)
        load_before = os.getloadavg()[0]
        genes = {"small": per_gene(study), "large": per_gene(large())}
        sizes = messages(study)
        taken = fits(path, made.metadata, options.block, options.rounds)
        tasks = schedulers(sizes["task, file"])
        load = (load_before, os.getloadavg()[0])
    report(options, genes, sizes, taken, tasks, load)


def report(options, genes, sizes, taken, tasks, load) -> None:
    """Tables in Markdown."""
    size = f"{options.samples} samples x {options.genes:,} genes"
    print(f"{size}, blocks of {options.block}, {FORMULA}\n")
    print("| processes | wall, s | genes/s | CPU, s |\n|---|---|---|---|")
    for workers, (wall, used) in taken.items():
        print(f"| {workers} | {wall:.2f} | {options.genes / wall:,.0f} | {used:.2f} |")
    print(f"\nTwice the processes: {taken[1][0] / taken[2][0]:.2f} times as fast, ", end="")
    print(f"{taken[2][1] / taken[1][1] - 1:+.1%} CPU seconds.\n")
    print("| message | bytes |\n|---|---|")
    for name, size in sizes.items():
        print(f"| {name} | {size:,} |")
    print("\n| scheduler | ms a task, many in flight | ms CPU | ms round trip |\n|---|---|---|---|")
    for name, (many, used, trip) in tasks.items():
        print(f"| {name} | {many * 1e3:.2f} | {used * 1e3:.2f} | {trip * 1e3:.2f} |")
    took = ", ".join(f"{seconds * 1e6:,.0f} us ({name})" for name, seconds in genes.items())
    print(f"\nA gene takes of one core: {took}.\n")
    for name in tasks:
        _, serves, trip = tasks[name]
        print(f"| workers, {name} | a block must take, s | genes in it, {' | '.join(genes)} |")
        print("|---|---|" + "---|" * len(genes))
        for workers in (2, 10, 100, 1000) if name == "Dask" else (2, 16):
            least = max(trip / 0.02, 2 * workers * serves)
            cells = " | ".join(f"{least / seconds:,.0f}" for seconds in genes.values())
            print(f"| {workers:,} | {least:.2f} | {cells} |")
        print()
    names = ("jaxvp", "jax", "numpy", "distributed")
    print(f"Python {platform.python_version()}, ", end="")
    print(", ".join(f"{name} {version(name)}" for name in names), end="")
    print(f"; {os.cpu_count()} cores, load {load[0]:.1f} before and {load[1]:.1f} after.")


if __name__ == "__main__":
    main()
