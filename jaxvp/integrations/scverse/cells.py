"""Samples of cells: the cells of one sample and one group (a cell type) are added up, or averaged.

Cells of one donor are no independent samples of the population: what varies between donors is seen
once a donor, however many cells were measured. The model is therefore one of *samples*: row r of
the result is ``sum_{c in r} x_c``, or that over the number of cells n_r. A mean of n_r cells has a
variance that falls with n_r, so that `n_cells` is a weight for it.

The sum is the product of a sparse indicator (rows x cells) with the matrix, in chunks of cells: a
sparse matrix stays sparse, one in a file is read once, and what is dense is the result.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from jaxtyping import Bool, Float, Int

from jaxvp.design.variables import interaction
from jaxvp.expression import DataError
from jaxvp.expression.annotated import from_object
from jaxvp.expression.extras import require
from jaxvp.expression.lazy import Lazy
from jaxvp.expression.reading import reading
from jaxvp.expression.sparse import Stored

from .given import check_annotated, column_of, groups_of

MODES = ("sum", "mean")
N_CELLS = "n_cells"
# Of a chunk of cells, if it is dense.
_BYTES = 128 * 2**20


def pseudobulk(
    adata: Any,
    sample: str,
    group: str | None = None,
    layer: str | None = None,
    mode: str = "sum",
    *,
    min_cells: int = 1,
) -> Any:
    """Add up or average the cells of every sample, or of every group within every sample.

    Parameters
    ----------
    adata : AnnData
        Cells in `obs`; in memory or backed. It is not changed.
    sample
        The column of `obs` that says what was sampled at once: a donor, or a donor at a visit.
    group
        The column with the groups within a sample, such as ``"cell_type"``. None: there are none.
    layer
        What to add up: counts as they are, not logarithms. None: `X`.
    mode
        ``"sum"``, for counts; or ``"mean"``.
    min_cells
        Rows of fewer cells are left out.

    Returns
    -------
    AnnData
        One row for every sample and group that has cells, ``"sample:group"``, its `X` a dense array
        of float64. `obs` has those columns that are constant within every row, the number of cells
        `n_cells` beside them (``weights="n_cells"`` in `jaxvp.tl.variance_partition`); `var` is
        that of the cells, ``uns["pseudobulk"]`` says how it was made.

    Raises
    ------
    DataError
        If it is no AnnData, a column or the layer is unknown (close matches are listed), a value is
        no number, or no cells are left.

    Warns
    -----
    UserWarning
        If cells have no sample or group: they are left out.

    Notes
    -----
    Why samples and not cells are the unit: Squair et al. (2021), Nature Communications 12:5692.

    Examples
    --------
    >>> samples = jaxvp.pp.pseudobulk(adata, sample="donor", group="cell_type", layer="counts")
    >>> samples.X = np.log2((samples.X + 0.5) / (samples.X.sum(1, keepdims=True) + 1) * 1e6)
    >>> jaxvp.tl.variance_partition(samples, "~ (1|donor) + (1|cell_type)", weights="n_cells")
    """
    check_annotated(adata, "jaxvp.pp.pseudobulk", layer)
    anndata = require("anndata", "anndata", "jaxvp.pp.pseudobulk")
    _check_options(adata, mode, min_cells)
    by = [name for name in (sample, group) if name is not None]
    values = _values(adata, layer)
    cells, factors = groups_of([column_of(adata, name) for name in by])
    codes, names = interaction(factors)
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(
            f"two rows would be called {twice!r}: take ':' out of the values of "
            f"{by[0]!r} and {by[1]!r}"
        )
    sizes = np.bincount(codes, minlength=len(names))
    kept = sizes >= min_cells
    if not kept.any():
        raise DataError(
            f"no row of {' and '.join(map(repr, by))} has {min_cells:,} cells, the most is "
            f"{sizes.max():,}: no cells are left; lower min_cells"
        )
    rows = np.where(kept, np.cumsum(kept) - 1, -1)[codes]
    cells, rows, sizes = cells[rows >= 0], rows[rows >= 0], sizes[kept]
    X = sums(values, cells, rows, len(sizes))
    if mode == "mean":
        X /= sizes[:, None]
    labels = [name for name, keep in zip(names, kept, strict=True) if keep]
    made = {"sample": sample, "group": group, "layer": layer, "mode": mode}
    return anndata.AnnData(
        X,
        obs=_describe(adata.obs.iloc[cells], rows, labels).assign(**{N_CELLS: sizes}),
        var=adata.var.copy(),
        uns={"pseudobulk": {name: value for name, value in made.items() if value is not None}},
    )


def _check_options(adata: Any, mode: str, min_cells: int) -> None:
    if mode not in MODES:
        raise DataError(f"mode={mode!r}: use {' or '.join(map(repr, MODES))}")
    whole = isinstance(min_cells, int | np.integer) and not isinstance(min_cells, bool)
    if not whole or min_cells < 1:
        raise DataError(f"min_cells={min_cells!r}: use a whole number of cells, 1 or more")
    if N_CELLS in adata.obs.columns:
        raise DataError(
            f"adata.obs has a column {N_CELLS!r}, which pseudobulk writes: rename or drop it"
        )


def _values(adata: Any, layer: str | None) -> Any:
    """The matrix as the AnnData has it, once it is known to be one of numbers."""
    matrix = from_object(adata, layer)
    culprit = matrix.find(False, np.arange(matrix.shape[0]))
    if culprit is not None:
        raise DataError(
            f"{matrix.what} must be numbers and holds {culprit.what} in "
            f"{adata.obs_names[culprit.sample]!r}, {adata.var_names[culprit.gene]!r}"
        )
    return matrix.values


def sums(
    values: Any, cells: Int[np.ndarray, " counted"], rows: Int[np.ndarray, " counted"], count: int
) -> Float[np.ndarray, "rows genes"]:
    """The sum of the cells of every row.

    Parameters
    ----------
    values
        Cells x genes: an array, a sparse matrix, or one of them in a file.
    cells
        Positions of the cells that count, ascending.
    rows
        The row that each of them belongs to.
    count
        Number of rows.
    """
    total, genes = values.shape
    if isinstance(values, Stored) and values.by_columns:
        values = values.lines(0, genes)  # by columns: any slice of rows would read it all
    step = total if sp.issparse(values) else _BYTES // (8 * max(genes, 1)) + 1
    out = np.zeros((count, genes))
    for start in range(0, total, max(step, 1)):
        stop = min(start + step, total)
        mine = slice(*np.searchsorted(cells, (start, stop)))
        if mine.start == mine.stop:
            continue
        part = _part(values, start, stop)
        places = rows[mine], cells[mine] - start
        indicator = sp.csr_array((np.ones(len(places[0])), places), shape=(count, stop - start))
        if sp.issparse(part):
            found = (indicator @ part).tocoo()
            out[found.row, found.col] += found.data  # a product has every place once
        else:
            out += indicator @ np.asarray(part, dtype=np.float64)
    return out


def _part(values: Any, start: int, stop: int) -> Any:
    """Some of the cells, sparse or dense as they are stored."""
    if isinstance(values, Stored):
        return values.lines(start, stop)
    if isinstance(values, Lazy):
        with reading(values.what):
            return values.get(slice(start, stop), slice(0, values.shape[1]))
    return values if sp.issparse(values) else values[start:stop]  # a sparse one is taken whole


def _describe(
    obs: pd.DataFrame, rows: Int[np.ndarray, " cells"], labels: list[str]
) -> pd.DataFrame:
    """The columns that are the same in all cells of every row, once a row."""
    _, first = np.unique(rows, return_index=True)
    constant = [i for i in range(obs.shape[1]) if _is_constant(obs.iloc[:, i], rows, first).all()]
    table = obs.iloc[first, constant].set_axis(pd.Index(labels, dtype=object), axis=0)
    return table.copy()


def _is_constant(
    column: pd.Series, rows: Int[np.ndarray, " cells"], first: Int[np.ndarray, " rows"]
) -> Bool[np.ndarray, " cells"]:
    """Where a cell has the value of the first one of its row; no value is a value of its own."""
    try:
        codes, _ = pd.factorize(column)
    except TypeError:  # values without a hash: lists
        return np.zeros(len(column), dtype=bool)
    return codes == codes[first][rows]
