"""Runs `jaxvp fit` again and again, kills it at random moments, and compares the tables' bytes.

    python tests/killed_runs.py FOLDER KILLS [SEED] -- arguments of `jaxvp fit` but for -o

Prints one JSON object: the runs that a signal ended (rounds, of one or two such runs each, are
added until there are so many: a run may be faster than the signal), runs that went on from finished
blocks, exit codes of the last run of a round, files that differ from those of a run that was left
alone, and files that were left over.

Everything is imported once; each run is a fork, made before JAX starts any thread. A part is
written with every block, so that there is something to kill.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import formulaic  # noqa: F401
import pandas  # noqa: F401
import pyarrow.parquet  # noqa: F401

import jaxvp.runs.parts
from jaxvp import executors  # noqa: F401
from jaxvp.cli import main


def start(arguments, out):
    """A run in a process of its own."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            with open(os.devnull, "w") as nowhere:
                os.dup2(nowhere.fileno(), 1)
            code = main(["fit", *arguments, "-o", str(out)])
        finally:
            os._exit(code)
    return child


def ended(child):
    """The exit code of a run that is left alone."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def wait(out, moment):
    """For so many parts to be there (an int), or so many seconds, or the end."""
    if isinstance(moment, float):
        return time.sleep(moment)
    while len(list(out.glob("unfinished/part-*"))) < moment and not (out / "run.json").exists():
        time.sleep(0.001)


def tables(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.parquet")}


def run(folder, kills, seed, arguments):
    jaxvp.runs.parts.INTERVAL = jaxvp.runs.parts.SHARE = 0
    draw = random.Random(seed)
    for _ in range(1 + ("|" in " ".join(arguments))):  # a mixed model compiles the first time
        began = time.perf_counter()
        assert ended(start(arguments, folder / "whole")) == 0
        seconds = time.perf_counter() - began
    expected = tables(folder / "whole")
    assert len(expected) == 8
    found = {"kills": 0, "continued": 0, "codes": [], "differ": [], "left": []}
    while found["kills"] < kills and len(found["codes"]) < 5 * kills:
        i = len(found["codes"])
        out = folder / f"killed-{i}"
        for moment in (draw.randint(1, 6), draw.uniform(0, 1) * seconds)[: draw.randint(1, 2)]:
            child = start(arguments, out)
            wait(out, moment)
            os.kill(child, signal.SIGKILL)
            found["kills"] += ended(child) == -signal.SIGKILL
        found["continued"] += any(out.glob("unfinished/part-*"))
        found["codes"].append(ended(start(arguments, out)))
        now = tables(out)
        found["differ"] += [f"{i}/{name}" for name in expected if now.get(name) != expected[name]]
        found["left"] += [
            path.name for path in out.iterdir() if path.name not in (*expected, "run.json")
        ]
    return found


if __name__ == "__main__":
    split = sys.argv.index("--")
    folder, kills, seed = (*sys.argv[1:split], "0")[:3]
    print(json.dumps(run(Path(folder), int(kills), int(seed), sys.argv[split + 1 :])))
