"""Genes with rare holes are fitted together, whichever block they are of."""

import numpy as np
import pytest

import jaxvp
from jaxvp import batch
from jaxvp.api import prepare
from jaxvp.batch.waiting import Rest, Waiting
from jaxvp.solver import Status

BLOCK = 4


def rest(genes):
    return Rest(None, np.arange(genes), None)


def test_until_there_are_enough(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    waiting = Waiting()
    waiting.add((0, 4), rest(3))
    waiting.add((4, 8), rest(1))
    assert waiting.take() == []
    assert [block for block, _ in waiting.take(ready=False)] == [(0, 4), (4, 8)]
    assert waiting.take(ready=False) == waiting.take() == []
    waiting.add((0, 100), rest(64))
    assert len(waiting.take()) == 1
    waiting.add((0, 4), rest(1))
    assert waiting.take() == []
    now[0] += 1
    assert len(waiting.take()) == 1


# Ten seconds of compiling each, and half a minute with slopes.
CASES = [
    ("~ t + (1|g) + (1|h)", True),
    pytest.param("~ t + (1|g) + (1|h)", False, marks=pytest.mark.slow),
    ("~ 0 + (1|g) + (1|h)", False),
    pytest.param("~ 0 + (1|g) + (1|h)", True, marks=pytest.mark.slow),
    pytest.param("~ t + u + (t + u|g)", False, marks=pytest.mark.slow),
    pytest.param("~ t + u + (t + u|g)", True, marks=pytest.mark.slow),
    ("~ t + h", False),
    ("~ t + h", True),
]


@pytest.mark.parametrize("formula, weighted", CASES)
def test_numbers_are_those_of_a_block_alone(formula, weighted):
    """Holes of all kinds, in most blocks of many; every block is finished once."""
    study = jaxvp.simulate(74, 40, {"g": 8, "h": 4}, zero_probability=0.4, seed=6)
    table, rng = study.expression.copy(), np.random.default_rng(6)
    weights = rng.gamma(4, 0.25, 40) if weighted else None
    holes = rng.permutation(74)[:30]
    for gene in holes:
        table.iloc[gene, rng.permutation(40)[: rng.integers(1, 12)]] = np.nan
    table.iloc[holes[0]] = np.nan
    table.iloc[holes[1], 3:] = np.nan
    metadata = study.metadata.assign(t=np.tile(np.arange(5.0), 8), u=rng.normal(size=40))
    ready = prepare(table, formula, metadata, weights=weights, block_size=BLOCK)
    settings = {name: getattr(ready, name) for name in ("reml", "solver", "dtype", "block_size")}

    def fitter():
        return batch.Fitter(
            ready.design, ready.compression, ready.genes, devices=ready.devices, **settings
        )

    whole, seen = ready.empty(), []

    def finished(start, stop, found):
        seen.append((start, stop))
        whole.put(slice(start, stop), found)

    calls = []
    together = fitter()
    finish = together.finish
    together.finish = lambda blocks: calls.append(len(blocks)) or finish(blocks)
    batch.fit_all(together, ready.measurements.block, ready.blocks(), finished)
    assert sorted(seen) == ready.blocks()
    assert max(calls) > 1
    assert (whole.status == Status.TOO_FEW_OBSERVATIONS).sum() == 2
    one = fitter()
    for start, stop in ready.blocks():
        alone = one(ready.measurements.block(start, stop))
        for mine, its in zip(whole.take(slice(start, stop)), alone, strict=True):
            np.testing.assert_array_equal(mine, its)
