"""Numbers from processes of their own: start, wait, read what they found, see what they used.

`call(module, spec)` runs `python -m module` with `spec` as JSON on its standard input, and returns
the JSON on the last line of its output. The child's side is `main(measure)`.

`race` is for peers: one process a core, each prepares, says "ready", and waits; when all are ready
all are told to go, so that they share caches and memory as they would in a real run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
THREADS = (
    *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS"),
    *("VECLIB_MAXIMUM_THREADS", "NUMEXPR_NUM_THREADS", "RAYON_NUM_THREADS"),
)
READY, GO, AGAIN = "ready", "go", "again"
_MOST_STARTS = 12
"""of one child that asks to be started again (lme4.R): of one design two of three do, of some all;
its spec says that it is the last one, and it goes on as it is"""


class ProcessFailed(RuntimeError):
    """A child ended badly; the text is the end of what it said."""


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def environment(threads: int | None = None, **extra: str) -> dict[str, str]:
    """The environment of a child: all cores (what libraries do by default), or `threads`."""
    left_out = {*THREADS, "JAX_COMPILATION_CACHE_DIR", "XLA_FLAGS"}
    env = {name: value for name, value in os.environ.items() if name not in left_out}
    if threads is not None:
        env |= dict.fromkeys(THREADS, str(threads))
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return env | {"PYTHONPATH": path, "JAX_PLATFORMS": "cpu", "MPLBACKEND": "Agg"} | extra


def call(module: str, spec: dict[str, Any], *, threads: int | None = None) -> dict[str, Any]:
    """Run `python -m module` on `spec`; what it found.

    Raises
    ------
    ProcessFailed
    """
    command = [sys.executable, "-W", "ignore", "-m", module]
    started = time.time()
    done = subprocess.run(
        command,
        input=json.dumps(spec | {"started": started}),
        capture_output=True,
        text=True,
        env=environment(threads),
    )
    return _found(module, done.returncode, done.stdout, done.stderr)


def main(measure: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """The child's side of `call`."""
    print(json.dumps(measure(json.loads(sys.stdin.read()))), flush=True)


def race(command: Sequence[str], specs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Run one single-threaded process for each of `specs`, all at the same time.

    A child reads its spec from the first line of its input, prints "ready" when it has prepared,
    reads "go" from the second, and prints its result as a line of JSON. A child that prints "again"
    ends and is started anew; `starts` of its result counts them, `last` of its spec is whether it
    may not ask any more.

    Raises
    ------
    ProcessFailed
        With the words of the first child that failed.
    """
    children = [_started(command, spec) for spec in specs]
    starts = [1] * len(specs)
    try:
        for i, spec in enumerate(specs):
            while (line := children[i].stdout.readline().strip()) != READY:
                out, err = children[i].communicate()
                if line != AGAIN or starts[i] == _MOST_STARTS:
                    words = err or out or line
                    raise ProcessFailed(_words(command[0], children[i].returncode, words))
                starts[i] += 1
                children[i] = _started(command, spec | {"last": starts[i] == _MOST_STARTS})
        for child in children:
            _tell(child, GO)
        found = []
        for child, count in zip(children, starts, strict=True):
            out, err = child.communicate()
            found.append(_found(command[0], child.returncode, out, err) | {"starts": count})
        return found
    finally:
        for child in children:
            if child.poll() is None:
                child.kill()
                child.wait()


def _started(command: Sequence[str], spec: dict[str, Any]) -> subprocess.Popen:
    child = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(threads=1),
    )
    _tell(child, json.dumps(spec))
    return child


def _tell(child: subprocess.Popen, line: str) -> None:
    try:
        child.stdin.write(line + "\n")
        child.stdin.flush()
    except BrokenPipeError:  # it is gone already: reading its output will tell why
        pass


def wait_for_go() -> None:
    """The child's side of the start of a `race`."""
    print(READY, flush=True)
    sys.stdin.readline()


def _found(name: str, code: int, out: str, err: str) -> dict[str, Any]:
    lines = out.strip().splitlines()
    if code or not lines:
        raise ProcessFailed(_words(name, code, err or out))
    return json.loads(lines[-1])


def _words(name: str, code: int | None, text: str) -> str:
    last = text.strip().splitlines()[-1:] or ["no output"]
    return f"{Path(name).name} ended with {code}: {last[0][:300]}"


def peak_memory() -> int:
    """Most bytes of memory this process has held so far.

    Linux counts them for the program itself (VmHWM); `getrusage` would count its parent's before
    the `exec` too.
    """
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
