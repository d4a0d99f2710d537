"""jaxvp on a GPU: is it right there, how fast is it, and how far from what the GPU could do?

    python benchmarks/gpu.py                       # a machine with a GPU; JAX 0.10 to 0.12
    python benchmarks/gpu.py --allow-cpu --genes 20 --designs A,F    # does the script run at all?

One file that needs jaxvp and its dependencies only (`pip install ".[cuda12]"`), so that it can be
taken to a node alone; `tests/test_benchmarks.py` checks that its designs and its floor are those of
the other benchmarks.

1. Right: a study in one block, in many blocks, and on the CPU must give the same fractions,
   log-likelihoods, coefficients and sigma, to 1e-8 relative to max(1, |value|), and the same status
   for each gene. Otherwise the script ends with status 1.
2. Rates: float64 operations per second of a large matrix product, bytes per second of a large
   elementwise copy (read + written), bytes per second from the host's memory to the GPU's.
3. Designs A to F: microseconds a gene, whole `jaxvp.fit` calls from a DataFrame, against the floor
   (`benchmarks/floor.py`) at the GPU's rates. Where the memory of GPU or host is too small the
   genes are halved, and the table says how many there were.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxvp

GENES = 20_000
TOLERANCE = 1e-8
DESIGNS: dict[str, tuple[int, dict[str, int]]] = {
    "A": (100, {"Individual": 25, "Tissue": 3, "Batch": 4}),
    "B": (1_000, {"Individual": 300, "Tissue": 5, "Batch": 20}),
    "C": (10_000, {"Individual": 2_000, "Tissue": 10, "Batch": 100}),
    "D": (17_000, {"Individual": 950, "Tissue": 50, "Batch": 500}),
    "E": (100_000, {"Individual": 5_000, "Batch": 100}),
    "F": (1_000, {"Individual": 200}),
}
"""samples and levels"""


def main(arguments: list[str] | None = None) -> int:
    """Check, measure, print; the exit status."""
    options = _options(arguments)
    device = find_device(options.allow_cpu)
    print(f"Device: {device.device_kind} ({device.platform}). {_versions()}", flush=True)
    right = compare(device, min(options.genes, 2_000))
    small = device.platform == "cpu"
    rates = measure_rates(device, order=512 if small else 8192, mib=32 if small else 2048)
    print(
        f"Rates: {rates['flops'] / 1e9:,.0f} GFlop/s float64, "
        f"{rates['bytes_per_second'] / 1e9:,.0f} GB/s copied (read + written), "
        f"{rates['bus'] / 1e9:,.1f} GB/s from the host.\n",
        flush=True,
    )
    head = ["design", "samples", "genes", "K", "seconds", "us/gene: median", "min", "compile, s"]
    head += ["evaluations", "converged", "GPU peak, MiB", "floor, us/gene", "times the floor"]
    print(_line([*head, "bus, us/gene"]))
    print(_line(["---"] * (len(head) + 1)), flush=True)
    for name in options.designs.split(","):
        print(_line(row(name, device, options, rates)), flush=True)
    print("\nGPU peak: most bytes in use so far, over all designs. bus: moving a gene to the GPU.")
    return 0 if right else 1


def find_device(allow_cpu: bool = False) -> Any:
    """The first GPU; a clear refusal without one."""
    try:
        return jax.devices("gpu")[0]
    except RuntimeError:
        if allow_cpu:
            return jax.devices("cpu")[0]
        raise SystemExit(
            f"no GPU: JAX {jax.__version__} sees {', '.join(map(str, jax.devices()))}. With an "
            'NVIDIA driver install jaxvp with its GPU extra (pip install ".[cuda12]" or '
            '".[cuda13]"); --allow-cpu runs the script on the CPU, to see that it runs'
        ) from None


def compare(device: Any, genes: int) -> bool:
    """One block, many blocks, the CPU: the same numbers?"""
    try:
        cpu = jax.devices("cpu")[0]
    except RuntimeError:
        raise SystemExit("JAX has no CPU here to compare with: JAX_PLATFORMS=cuda,cpu") from None
    right = True
    for name in ("A", "B", "F"):
        study = simulate(name, genes)
        ways = {
            "one block": dict(block_size=genes, devices=[device]),
            "many blocks": dict(block_size=max(1, genes // 7), devices=[device]),
            "CPU": dict(devices=[cpu]),
        }
        found = {way: fit(study, **options) for way, options in ways.items()}
        for way in ("many blocks", "CPU"):
            worst = difference(found["one block"], found[way])
            kept = max(worst.values()) <= TOLERANCE
            right &= kept
            words = ", ".join(f"{what} {value:.1e}" for what, value in worst.items())
            print(f"{name}, one block against {way}: {'same' if kept else 'DIFFERENT'} ({words})")
    return right


def difference(one: jaxvp.Results, other: jaxvp.Results) -> dict[str, float]:
    """Largest |a - b| / max(1, |b|) of each table; infinite where only one of them is NaN."""
    worst = {}
    for what in ("fractions", "log_likelihood", "coefficients", "sigma"):
        a, b = np.asarray(getattr(one, what), float), np.asarray(getattr(other, what), float)
        alone = np.isnan(a) != np.isnan(b)
        both = ~(np.isnan(a) | np.isnan(b))
        gap = np.abs(a[both] - b[both]) / np.maximum(1, np.abs(b[both]))
        worst[what] = float("inf") if alone.any() else float(gap.max(initial=0.0))
    same = (one.diagnostics["status"] == other.diagnostics["status"]).all()
    return worst | {"status": 0.0 if same else float("inf")}


def measure_rates(device: Any, order: int, mib: int) -> dict[str, float]:
    """What the device can do at most: the best of ten tries each."""
    with _float64(), jax.default_device(device):
        host = np.ones((mib << 20) // 8)
        moved = _best(lambda: jax.device_put(host, device).block_until_ready())
        vector = jax.device_put(host, device)
        copy = jax.jit(lambda x: x + 1.0)
        copied = _best(lambda: copy(vector).block_until_ready())
        del vector
        matrix = jnp.asarray(np.random.default_rng(0).standard_normal((order, order)))
        product = jax.jit(lambda x: jnp.matmul(x, x, precision="highest"))
        multiplied = _best(lambda: product(matrix).block_until_ready())
    return {
        "flops": 2 * order**3 / multiplied,
        "bytes_per_second": 2 * host.nbytes / copied,
        "bus": host.nbytes / moved,
    }


def row(name: str, device: Any, options: argparse.Namespace, rates: dict[str, float]) -> list[str]:
    """One design: the cells of its row."""
    samples, _ = DESIGNS[name]
    genes = max(1, min(options.genes, int(options.most_gb * 1e9) // (8 * samples)))
    while True:
        try:
            study = simulate(name, genes)
            first, warm, result = _times(study, device, options.repeats)
            break
        except (MemoryError, RuntimeError) as error:  # jaxlib's error is a RuntimeError
            if not _out_of_memory(error) or genes < 2:
                return [name, f"{samples:,}", f"{genes:,}", f"failed: {_words(error)}"]
            genes //= 2
    status, counts = result.diagnostics["status"], result.diagnostics["iterations"]
    model = shape(result.design)
    seconds = floor(model, float(counts.mean()), rates)
    us = 1e6 * median(warm) / genes
    return [
        name,
        f"{samples:,}",
        f"{genes:,}",
        f"{model['K']:,}",
        f"{median(warm):.3g}",
        f"{us:.3g}",
        f"{1e6 * min(warm) / genes:.3g}",
        f"{first - median(warm):.1f}",
        f"{counts.mean():.1f} / {counts.quantile(0.99):.0f} / {counts.max()}",
        f"{(status == 'converged').mean():.2%}",
        _peak(device),
        f"{1e6 * seconds:.3g}",
        f"{us / (1e6 * seconds):.3g} x",
        f"{1e6 * 8 * samples / rates['bus']:.3g}",
    ]


def shape(design: Any) -> dict[str, int]:
    """The sizes of a model that decide what it costs (as `benchmarks.floor.Shape`)."""
    sizes = [np.bincount(codes) for codes in design.codes]
    largest = max(sizes, key=len)
    return {
        "n": design.n,
        "terms": len(sizes),
        "p": design.p,
        "K": sum(map(len, sizes)) - len(largest) + design.p,
        "classes": len(np.unique(largest)),
        "largest": len(largest),
    }


def floor(model: dict[str, int], evaluations: float, rates: dict[str, float]) -> float:
    """Seconds that a gene takes at least (as `benchmarks.floor.Shape.seconds`)."""
    n, terms, p, K = (model[name] for name in ("n", "terms", "p", "K"))
    products = 2 * n * (terms + p)
    classes = model["classes"]
    once = classes * K**2 + K**3
    if K > 64:
        once = min(2 * classes * K**2 + K**3 / 3, 4 * 2 * model["largest"] * K)
    operations = products + evaluations * 2 * once
    numbers = n + 2 * (terms + p) + 2 * p + terms + 2 + 5
    return max(operations / rates["flops"], 8 * numbers / rates["bytes_per_second"])


def simulate(name: str, genes: int) -> Any:
    """A study of a design."""
    samples, levels = DESIGNS[name]
    return jaxvp.simulate(genes, samples, levels, zero_probability=0.5, imbalance=0.5, seed=1)


def fit(study: Any, **options: Any) -> jaxvp.Results:
    """A whole call of jaxvp."""
    return jaxvp.fit(study.expression, study.formula, study.metadata, progress=False, **options)


def _times(study: Any, device: Any, repeats: int) -> tuple[float, list[float], jaxvp.Results]:
    """Seconds of the first call, of the others, and the result."""
    jax.clear_caches()  # or what `compare` compiled would not be compiled again
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        result = fit(study, devices=[device])
        seconds.append(time.perf_counter() - start)
    return seconds[0], seconds[1:], result


def _best(work: Callable[[], Any], tries: int = 10) -> float:
    work()  # compiles
    seconds = []
    for _ in range(tries):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def _float64() -> Any:
    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(True)
    from jax.experimental import enable_x64

    return enable_x64(True)


def _out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)


def _words(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _peak(device: Any) -> str:
    """Most bytes in use on the device so far, over all designs; JAX does not tell for a CPU."""
    stats = device.memory_stats() or {}
    return f"{stats['peak_bytes_in_use'] / 2**20:,.0f}" if "peak_bytes_in_use" in stats else "–"


def _versions() -> str:
    packages = ", ".join(f"{name} {version(name)}" for name in ("jaxvp", "jax", "jaxlib", "numpy"))
    return f"Python {platform.python_version()}, {packages}."


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--designs", default=",".join(DESIGNS), metavar="A,B", help="which, of A to F")
    add("--genes", type=int, default=GENES, metavar="N", help=f"at most, {GENES:,} if not given")
    add("--most-gb", type=float, default=8.0, metavar="GB", help="of measurements in host memory")
    add("--repeats", type=int, default=5, metavar="N", help="warm fits of each design")
    add("--allow-cpu", action="store_true", help="without a GPU run on the CPU, as a smoke test")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.designs.split(",") if name not in DESIGNS]
    if unknown:
        parser.error(f"no design {unknown[0]!r}; there are {', '.join(DESIGNS)}")
    return options


if __name__ == "__main__":
    sys.exit(main())
