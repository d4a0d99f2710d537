"""The machine: what it is, and how fast it can compute and move bytes at all.

The two rates are the ceiling that `floor` measures against: float64 operations per second in a
large NumPy matrix product on all cores, and bytes per second, read and written both counted, in
a large copy by as many threads as there are cores. The best of several tries: other programs can
only make them lower.

    python -m benchmarks.machine    # prints them
"""

from __future__ import annotations

import json
import platform
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("jaxvp", "jax", "jaxlib", "numpy", "scipy", "pandas", "pyarrow")


def describe() -> dict[str, Any]:
    """CPU model, cores, memory, system; nothing that says whose machine it is."""
    from benchmarks.process import cores

    return {
        "cpu": _cpu(),
        "cores": cores(),
        "memory_gb": round(_memory() / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
    }


def versions(packages: tuple[str, ...] = PACKAGES) -> dict[str, str]:
    """Version of Python and of each package that is installed."""
    found = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def rates(spec: dict[str, Any]) -> dict[str, float]:
    """`flops` and `bytes_per_second`; `spec` may give the matrix's `order` and the copy's `mib`."""
    order, mib, tries = spec.get("order", 3000), spec.get("mib", 512), spec.get("tries", 5)
    return {"flops": _product(order, tries), "bytes_per_second": _copy(mib << 20, tries)}


def _product(order: int, tries: int) -> float:
    import numpy as np

    a, out = np.random.default_rng(0).standard_normal((order, order)), np.empty((order, order))
    return max(2 * order**3 / _seconds(lambda: np.matmul(a, a, out=out)) for _ in range(tries))


def _copy(size: int, tries: int) -> float:
    import numpy as np

    from benchmarks.process import cores

    # Larger than any cache; NumPy lets go of the interpreter's lock while it copies.
    source, target = np.ones(size // 8), np.zeros(size // 8)
    threads = cores()
    pieces = list(
        zip(np.array_split(target, threads), np.array_split(source, threads), strict=True)
    )
    with ThreadPoolExecutor(threads) as pool:

        def copy() -> None:
            list(pool.map(lambda piece: np.copyto(*piece), pieces))

        copy()
        return max(2 * size / _seconds(copy) for _ in range(tries))


def _seconds(work: Any) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory() -> int:
    import os

    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return 0


def _measure(spec: dict[str, Any]) -> dict[str, Any]:
    return rates(spec)


if __name__ == "__main__":
    import sys

    if sys.stdin.isatty():
        print(json.dumps(describe() | rates({}), indent=2))
    else:
        from benchmarks.process import main

        main(_measure)
