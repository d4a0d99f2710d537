"""Several devices: a CPU shown as several, a block on each, one program for all; same numbers."""

import subprocess
import sys

import pytest

# Fits on one device and on several, in a process that has four. What is compiled is counted by what
# JAX logs about it.
FITS = """
import logging, sys
import jax
jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_log_compiles", True)
import numpy as np, pandas as pd
import jaxvp
from jaxvp.batch import compiled as programs
from jaxvp.batch.compiled import PROGRAMS

compiled, calls = [], {}
if sys.argv[1] == "slow":  # ten programs: as `conftest` has them, compiled sooner
    options = programs._OPTIONS.items()
    options = {name: name != programs._NEWER and value for name, value in options}
    PROGRAMS.update(programs._programs(options))

class Listener(logging.Handler):
    def emit(self, record):
        words = record.getMessage()
        if words.startswith("Finished XLA compilation of jit("):
            compiled.append(words.split("jit(")[1].split(")")[0])

logger = logging.getLogger("jax")
logger.addHandler(Listener())
logger.propagate = False

def spied(program):
    def spy(*arguments):  # one of each shape
        calls.setdefault(str(jax.tree.map(np.shape, arguments[3:])), (program, arguments))
        return program(*arguments)
    return spy

for name in PROGRAMS:
    if name.startswith("spread "):
        PROGRAMS[name] = spied(PROGRAMS[name])

def without_collectives():
    assert calls
    for program, arguments in calls.values():
        with jax.enable_x64(True):
            text = program.lower(*arguments).compile().as_text()
        assert "fusion" in text  # it is the program's text
        assert f"num_partitions={arguments[0].size}" in text.splitlines()[0]
        for word in ("all-reduce", "all-gather", "all-to-all", "permute", "reduce-scatter"):
            assert f"collective-{word}" not in text and f" {word}(" not in text
    calls.clear()

def alike(one, more, exactly):
    for name in ("fractions", "theta", "coefficients", "log_likelihood", "standard_errors"):
        mine, its = getattr(more, name), getattr(one, name)
        if exactly:
            assert np.array_equal(mine, its, equal_nan=True), name
        else:
            np.testing.assert_allclose(mine, its, rtol=1e-12, atol=1e-12, err_msg=name)
    for name in ("status", "iterations", "n_obs"):
        assert (one.diagnostics[name] == more.diagnostics[name]).all(), name
    assert (one.diagnostics["status"] == "converged").mean() > 0.9

small = jaxvp.simulate(210, 40, {"g": 8}, zero_probability=0.5, seed=1)
E, formula, metadata = small.expression, small.formula, small.metadata

def case(name):
    if name == "intercepts":
        return (E, formula, metadata), dict(block_size=40)  # the last has 10
    if name == "weights":
        weights = np.random.default_rng(1).uniform(1, 2, E.shape)
        weights = pd.DataFrame(weights, E.index, E.columns)
        return (E, formula, metadata), dict(block_size=40, weights=weights)
    if name == "patterns":
        holes = E.copy()
        holes.iloc[:70, 1] = holes.iloc[70:75, 2] = np.nan
        return (holes, formula, metadata), dict(block_size=70)
    if name == "slopes":
        ages = metadata.assign(t=np.tile(np.arange(5.0), 8))
        return (E.iloc[:20], "~ t + (t|g)", ages), dict(block_size=6)
    large = jaxvp.simulate(50, 300, {"a": 90, "b": 70}, seed=1)
    return (large.expression, large.formula, large.metadata), dict(block_size=16)

devices = jax.devices("cpu")
assert len(devices) == 4
for name in sys.argv[2:]:
    arguments, options = case(name)

    def fit(some):
        compiled.clear()
        found = jaxvp.fit(*arguments, devices=some, **options)
        return found, [name for name in compiled if "solve" in name]

    one, for_one = fit(devices[:1])
    assert for_one and "_solve_spread" not in for_one
    three, for_three = fit(devices[:0:-1])
    assert for_three == ["_solve_spread"] * len(for_one), (for_one, for_three)
    alike(one, three, exactly=False)
    if sys.argv[1] == "slow" or name == "intercepts":
        without_collectives()
    if sys.argv[1] == "slow":
        alike(three, fit(devices)[0], exactly=True)
        assert not fit(devices)[1]
        calls.clear()
print("same")
"""


def _fits(*arguments):
    done = subprocess.run(
        [sys.executable, "-c", FITS, *arguments], capture_output=True, text=True, timeout=600
    )
    assert done.stdout == "same\n", done.stderr[-3000:]


def test_several_devices_share_one_program_without_collectives():
    """Compiled as often as for one device; numbers are the same to rounding."""
    _fits("quick", "intercepts")


@pytest.mark.slow
def test_on_any_number_of_several_devices_the_bits_are_the_same():
    _fits("slow", "intercepts", "weights", "patterns", "slopes", "large")


LAUNCHES = """
import threading, time
from concurrent.futures import ThreadPoolExecutor
import jax
jax.config.update("jax_num_cpu_devices", 4)
import numpy as np
from jaxvp.batch.devices import Devices

(devices,) = Devices.alike(jax.devices("cpu"))
gate, launched = threading.Event(), []

def launch(gene, wanted):
    assert len(gene.sharding.device_set) == 4
    launched.append(int(np.asarray(wanted).any(1).sum()))
    gate.wait()
    if (np.asarray(gene) == 13).any():
        raise ValueError("no 13")
    return {"twice": 2 * gene}

def one(number, kind="a"):
    return devices.spread(kind, np.full((2, 3), number), np.ones(3, bool), launch)["twice"]

def wait_for(condition):
    while not condition():
        time.sleep(0.001)

with ThreadPoolExecutor(16) as pool:
    first = [pool.submit(one, number) for number in range(4)]
    wait_for(lambda: len(launched) == 4)
    more = [pool.submit(one, number) for number in range(4, 9)]
    more.append(pool.submit(one, 9, "another design"))
    wait_for(lambda: len(devices._waiting) == 6)
    gate.set()
    for number, found in enumerate(first + more):
        assert np.array_equal(found.result(), np.full((2, 3), 2 * number))
assert launched[:4] == [1] * 4  # as they come, each on its own device
assert sorted(launched[4:]) == [1, 1, 4], launched  # those that have waited, of one kind
try:
    one(13)
except ValueError as error:
    assert str(error) == "no 13"
    assert np.array_equal(one(14), np.full((2, 3), 28))
    print("same")
"""


def test_blocks_are_launched_as_they_come_and_together_where_they_wait():
    done = subprocess.run(
        [sys.executable, "-c", LAUNCHES], capture_output=True, text=True, timeout=300
    )
    assert done.stdout == "same\n", done.stderr[-3000:]


@pytest.mark.parametrize("fits", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_a_fit_in_a_child_process_ends(fits):
    """JAX's CPU thread pool can hang for ever where LAPACK calls run at once: a large system."""
    code = (
        "import jaxvp\n"
        "s = jaxvp.simulate(64, 300, {'a': 90, 'b': 70}, seed=1)\n"
        f"for _ in range({fits}):\n"
        "    r = jaxvp.fit(s.expression, s.formula, s.metadata, block_size=16)\n"
        "print((r.diagnostics['status'] == 'converged').all())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stdout == "True\n", done.stderr


def test_an_option_that_xla_does_not_know_is_left_out(monkeypatch):
    """Alone, whatever else is asked of XLA."""
    import jaxvp
    from jaxvp.batch import compiled

    known = compiled._OPTIONS
    monkeypatch.setattr(compiled, "_OPTIONS", known | {"xla_cpu_no_such_option": 1})
    programs = compiled._programs(compiled._OPTIONS)
    for name, program in programs.items():
        monkeypatch.setitem(compiled.PROGRAMS, name, program)
    monkeypatch.setattr(compiled, "_compiled", set())
    study = jaxvp.simulate(4, 20, {"g": 4}, seed=1)
    result = jaxvp.fit(study.expression, study.formula, study.metadata)
    assert (result.diagnostics.status == "converged").all()
    assert compiled.PROGRAMS["intercepts"] is not programs["intercepts"]
    assert known == compiled._OPTIONS
