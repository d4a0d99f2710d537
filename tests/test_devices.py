"""Several devices: a CPU shown as several, each for blocks of its own; same numbers."""

import subprocess
import sys

CODE = """
import jax
jax.config.update("jax_num_cpu_devices", 3)
import numpy as np
import jaxvp
study = jaxvp.simulate(50, 40, {"g": 8}, zero_probability=0.5, seed=1)
arguments = (study.expression, study.formula, study.metadata)
devices = jax.devices("cpu")
one = jaxvp.fit(*arguments, devices=devices[:1], block_size=7)
two = jaxvp.fit(*arguments, devices=devices[1:], block_size=7)
assert len(devices) == 3
for name in ("fractions", "theta", "coefficients", "log_likelihood"):
    assert np.array_equal(getattr(one, name), getattr(two, name)), name
assert (two.diagnostics["status"] == "converged").all()
print("same")
"""


def test_blocks_on_two_of_three_devices_give_the_same_bits():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=300)
    assert (done.stdout, done.stderr) == ("same\n", ""), done.stderr


def test_a_fit_in_a_child_process_ends():
    """JAX's CPU thread pool can hang for ever where LAPACK calls run at once: a large system."""
    code = (
        "import jaxvp\n"
        "s = jaxvp.simulate(12, 300, {'a': 90, 'b': 70}, seed=1)\n"
        "for _ in range(3):\n"
        "    r = jaxvp.fit(s.expression, s.formula, s.metadata, block_size=3)\n"
        "print((r.diagnostics['status'] == 'converged').all())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert (done.stdout, done.stderr) == ("True\n", ""), done.stderr
