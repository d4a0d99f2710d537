"""What docs/functional.md says of its example holds: the cells of the page, run as they stand."""

import re

import jax
import numpy as np
import pytest
from documents import DOCS

CELLS = re.findall(
    r"^```{code-cell}[^\n]*\n(.*?)^```", (DOCS / "functional.md").read_text(), re.M | re.S
)


@pytest.mark.slow
def test_the_embedding_forgets_the_batch():
    """Linear and MLP: Batch falls, Condition rises, for donors that training has not seen."""
    page = {"__name__": "page"}
    with jax.enable_x64(True):
        for cell in CELLS:
            exec(cell.replace('jax.config.update("jax_enable_x64", True)', ""), page)
    for curves in (page["linear_curves"], page["mlp_curves"]):
        assert np.isfinite(curves).all()
        (_, held_out_before), (_, held_out_after) = curves[0], curves[-1]
        assert held_out_after[0] < 0.5 * held_out_before[0]
        assert held_out_after[1] > held_out_before[1]
