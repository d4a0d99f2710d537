"""What holds for every test: devices and threads, checked shapes, hypothesis profiles.

The environment is set before anything imports JAX. Tests run on the CPU unless `JAX_PLATFORMS` says
otherwise (`make test-gpu` does), with few threads, so that a laptop and a 64-core node see the same
schedule. Every jaxtyping annotation of the package is checked by beartype at run time.
"""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# The oracles' matrices have a hundred rows. BLAS threads wait for each other by spinning: on two
# busy cores two of them took ten times as long as one, and more.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
os.environ.setdefault("MPLBACKEND", "Agg")

from importlib.metadata import version  # noqa: E402

# Most of the tests' time is XLA's compiler. Its older emitters of kernels take half of it, and with
# code that is not optimised, in this process and for CPUs, a quarter. Programs of fits name theirs
# (`_compiler`, below). A flag that XLA does not know ends the process; these versions know them.
_OLDER_KNOWN = tuple(map(int, version("jaxlib").split(".")[:2])) <= (0, 12)
_LEVEL, _USERS_LEVEL = "xla_backend_optimization_level", 3
_NOT_OPTIMISED = _OLDER_KNOWN and os.environ["JAX_PLATFORMS"] == "cpu"
if _OLDER_KNOWN:
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_use_fusion_emitters=false".strip()
    os.environ["XLA_FLAGS"] = f"{flags} --{_LEVEL}=0" if _NOT_OPTIMISED else flags

import pkgutil  # noqa: E402
from pathlib import Path  # noqa: E402

import hypothesis  # noqa: E402
import jax  # noqa: E402
import jaxtyping  # noqa: E402
import pytest  # noqa: E402

if _NOT_OPTIMISED:
    jax.devices()  # reads the flags, of which processes that tests start shall not have the last
    os.environ["XLA_FLAGS"] = flags

# All but the parser: it has no arrays, and functions inside of functions are decorated at every
# call (a formula of half a second took forty).
parts = pkgutil.iter_modules([str(Path(__file__).parent.parent / "jaxvp")])
checked = [f"jaxvp.{part.name}" for part in parts if part.name != "formula"]
jaxtyping.install_import_hook(checked, "beartype.beartype")

# No deadlines: a first example compiles. The default repeats itself, so that a red test stays red;
# `make fuzz` looks elsewhere each time.
hypothesis.settings.register_profile("default", deadline=None, max_examples=25, derandomize=True)
hypothesis.settings.register_profile("fuzz", deadline=None, max_examples=1000, print_blob=True)
hypothesis.settings.load_profile("default")


def _gpus():
    try:
        return jax.devices("gpu")
    except RuntimeError:
        return []


def pytest_collection_modifyitems(items):
    """Skip what is marked `gpu` where there is none."""
    marked = [item for item in items if "gpu" in item.keywords]
    if marked and not _gpus():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="no GPU in sight of JAX (make test-gpu)"))


@pytest.fixture(autouse=True, scope="module")
def _room_for_programs():
    """Forget what was compiled before memory's mappings run out: tests compile thousands."""
    from jaxvp.batch import compiled

    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > 20_000:  # of 65,530
        compiled._forget()
        jax.clear_caches()
    yield


# Where fits are compared with other programs, or to the last bit with other processes, layouts or
# compiled programs, or compiling is what is tested: some of these, and with the slow tests all.
_AS_USED = {"test_devices", "test_exact_influenza"}
_AS_USED_IN_ALL = {
    "test_cluster_docs",
    "test_exact_simulated",
    "test_executors",
    "test_invariance",
    "test_large_design",
    "test_measurements",
    "test_reference_classics",
    "test_weighted_slopes_lme4",
    "test_weights_lme4",
}
# Programs of either kind, and which of them are compiled.
_programs = {}


@pytest.fixture(autouse=True, scope="module")
def _compiler(request):
    """Fits are compiled as they are for users in some modules, and sooner in all others."""
    from jaxvp.batch import compiled

    slow_ones_too = "not slow" not in request.config.option.markexpr
    as_used = _AS_USED | _AS_USED_IN_ALL if slow_ones_too else _AS_USED
    if not _OLDER_KNOWN or compiled._NEWER not in compiled._OPTIONS:
        yield
        return
    used = request.module.__name__.split(".")[-1] in as_used
    if used not in _programs:
        options = {_LEVEL: _USERS_LEVEL} if used else {compiled._NEWER: False}
        _programs[used] = compiled._programs(compiled._OPTIONS | options), set()
    before = dict(compiled.PROGRAMS), compiled._compiled
    programs, compiled._compiled = _programs[used]
    compiled.PROGRAMS.update(programs)
    yield
    compiled.PROGRAMS.update(before[0])
    compiled._compiled = before[1]


@pytest.fixture
def gpu():
    """The first GPU, for tests marked `gpu`."""
    return _gpus()[0]


@pytest.fixture
def compile_cache(tmp_path_factory, monkeypatch):
    """Commands switch JAX's compile cache on: here in a folder of the test run, and off again."""
    from jax.experimental.compilation_cache.compilation_cache import reset_cache

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
    names = ["jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs"]
    before = {name: getattr(jax.config, name) for name in names}
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    reset_cache()
