"""Several devices: a CPU shown as several, each for blocks of its own; same numbers."""

import subprocess
import sys

import pytest

CODE = """
import jax
jax.config.update("jax_num_cpu_devices", 4)
import numpy as np
import jaxvp
study = jaxvp.simulate(50, 40, {"g": 8}, zero_probability=0.5, seed=1)
arguments = (study.expression, study.formula, study.metadata)
devices = jax.devices("cpu")
one = jaxvp.fit(*arguments, devices=devices[:1], block_size=7)
more = jaxvp.fit(*arguments, devices=devices[1:], block_size=7)
assert len(devices) == 4
for name in ("fractions", "theta", "coefficients", "log_likelihood"):
    assert np.array_equal(getattr(one, name), getattr(more, name)), name
assert (more.diagnostics["status"] == "converged").all()
print("same")
"""


def test_blocks_on_three_of_four_devices_give_the_same_bits():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=300)
    assert done.stdout == "same\n", done.stderr


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
    import jaxvp
    from jaxvp.batch import program

    solvers = program._programs({"xla_cpu_no_such_option": 1})
    for name, solver in zip(("_solve", "_solve_slopes"), solvers, strict=True):
        monkeypatch.setattr(program, name, solver)
    monkeypatch.setattr(program, "_compiled", set())
    study = jaxvp.simulate(4, 20, {"g": 4}, seed=1)
    result = jaxvp.fit(study.expression, study.formula, study.metadata)
    assert (result.diagnostics.status == "converged").all()
    assert program._solve is not solvers[0]


@pytest.mark.slow
@pytest.mark.parametrize("levels", [{"g": 8}, {"a": 90, "b": 70}], ids=["small", "large"])
def test_the_compiled_program_has_no_collectives(levels, monkeypatch):
    """Each block runs on one device: nothing is exchanged, nobody waits for another."""
    import jaxvp
    from jaxvp.batch import program

    texts = []
    solve = program._solve

    def spy(*arguments):
        texts.append(solve.lower(*arguments).compile().as_text())
        return solve(*arguments)

    monkeypatch.setattr(program, "_solve", spy)
    study = jaxvp.simulate(64, 300, levels, seed=1)
    jaxvp.fit(study.expression, study.formula, study.metadata)
    assert texts
    for text in texts:
        assert "fusion" in text  # it is the program's text
        for word in ("all-reduce", "all-gather", "all-to-all", "permute", "reduce-scatter"):
            assert f"collective-{word}" not in text and f" {word}(" not in text
