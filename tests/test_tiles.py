"""Tiles of genes, finished together or in parts, against the whole."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvp.statistics.tiles import in_tiles

WIDTH, CAPACITY = 4, 40


@pytest.mark.parametrize("some", [2, None, 8, 20])
def test_all_genes_are_there(some):
    """Of tiles of four: halves, tiles, and two and five of them; the last ones overlap."""
    genes = np.arange(1.0, CAPACITY + 1) * [[1], [100]]

    def tile(begin):
        return jax.lax.dynamic_slice_in_dim(jnp.asarray(genes), begin, WIDTH, 1)

    def finish(found):
        return found**2, found.sum(axis=0) > 400

    run = jax.jit(lambda count: in_tiles(tile, WIDTH, CAPACITY, count, finish, some))
    for count in (1, 3, 4, 7, 19, 20, 21, 38, 40):
        squares, large = run(count)
        np.testing.assert_array_equal(squares[:, :count], genes[:, :count] ** 2)
        np.testing.assert_array_equal(large[:count], genes[:, :count].sum(axis=0) > 400)
        # What nobody reads is a number.
        beyond = max(count, WIDTH, some or 0)
        np.testing.assert_array_equal(squares[:, beyond:], 1)
        assert np.isfinite(squares).all()
