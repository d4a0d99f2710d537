"""Free memory: what the system says, and blocks that fit into it."""

from pathlib import Path

import numpy as np
import pytest

import jaxvp
from jaxvp import memory
from jaxvp.batch import compiled


def test_the_smaller_of_system_and_control_group(tmp_path, monkeypatch):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 9000 kB\nMemAvailable: 5000 kB\n")
    monkeypatch.setattr(memory, "_MEMINFO", meminfo)
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    assert memory.available() == 5000 << 10
    tmp_path.joinpath("memory.max").write_text("max\n")
    tmp_path.joinpath("memory.current").write_text("7\n")
    assert memory.available() == 5000 << 10
    tmp_path.joinpath("memory.max").write_text("1000\n")
    assert memory.available() == 993


def test_a_real_system_has_some():
    found = memory.available()
    assert found is None or 0 < found < 1 << 50


@pytest.fixture
def study():
    return jaxvp.simulate(600, 30, {"g": 6}, seed=1)


@pytest.mark.parametrize("formula", ["~ g", pytest.param("~ (1|g)", marks=pytest.mark.slow)])
def test_blocks_are_halved_until_they_fit(study, monkeypatch, formula):
    arguments = (study.expression, formula, study.metadata)
    whole = jaxvp.fit(*arguments)
    assert whole.block_size >= 600
    monkeypatch.setattr(memory, "available", lambda: 150_000)
    halved = jaxvp.fit(*arguments)
    assert halved.block_size < 600 and halved.block_size % 16 == 0
    np.testing.assert_allclose(halved.fractions, whole.fractions, rtol=1e-9, atol=1e-12)
    asked = jaxvp.fit(*arguments, block_size=600)
    assert asked.block_size == 600


def test_too_little_memory_for_a_single_block(study, monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 1000)
    with pytest.raises(jaxvp.DataError, match="a block of .* genes takes .* GB and .* are free"):
        jaxvp.fit(study.expression, study.formula, study.metadata)


def _mappings():
    return len(Path("/proc/self/maps").read_text().splitlines())


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="counts mappings as Linux does")
def test_a_process_keeps_few_programs(monkeypatch):
    """One design after the other: each compiles, and mappings of memory do not run out."""
    monkeypatch.setattr(compiled, "_KEPT", 1)
    compiled._forget()
    after, keys = [], set()
    for levels in (10, 4, 5):
        study = jaxvp.simulate(4, 20, {"g": levels}, seed=1)
        jaxvp.fit(study.expression, study.formula, study.metadata)
        assert len(compiled._compiled) == 1
        keys |= compiled._compiled
        after.append(_mappings())
    assert len(keys) == 3
    # The third program is in the place of the second, which was as large.
    assert after[2] - after[1] < 200
