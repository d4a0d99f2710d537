"""The one public verb: sample names, their intersection, design, blocks of genes, results.

More than 300 lines: a fifth are the docstring of `fit`, which is the contract, and its options are
checked where they are taken.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jaxvp import batch, fractions
from jaxvp.design import Design, build, check_counting
from jaxvp.executors import Failure, check_executor, describe
from jaxvp.expression import DataError, align, split_weights
from jaxvp.formula import Formula
from jaxvp.progress import bar
from jaxvp.results import Results
from jaxvp.runtime import using_blas_threads
from jaxvp.solver import SOLVERS, Status
from jaxvp.study import Study, Weights
from jaxvp.warning import warn

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger("jaxvp")


class FitError(RuntimeError):
    """Some genes could not be fitted and ``on_error="raise"`` was asked for."""


def fit(
    expression: Any,
    formula: str,
    metadata: pd.DataFrame | str | os.PathLike[str] | None = None,
    *,
    weights: Any = None,
    rescale_weights: bool = True,
    reml: bool = False,
    dtype: str = "float64",
    block_size: int | str = "auto",
    devices: Sequence[batch.Device] | None = None,
    solver: str = "newton",
    progress: bool | None = None,
    on_error: str = "status",
    executor: Executor | None = None,
) -> Results:
    """Fit one linear (mixed) model per gene and partition its variance.

    All genes have the same formula and the same samples; what differs is what was measured.

    Parameters
    ----------
    expression
        Measurements. With names, aligned to ``metadata.index`` by them: a DataFrame of pandas or
        polars, a Table of pyarrow, a DataArray of xarray (genes x samples or the other way round),
        an AnnData (its `X`). Without, aligned by position, samples x genes: an array of NumPy (also
        memory-mapped), dask, h5py or zarr, or a sparse matrix of SciPy. Or the path of a file:
        ``.csv``, ``.tsv``, ``.parquet``, ``.h5ad``, ``.zarr``, ``.npy``. What a file allows is read
        block by block.
    formula
        ``"~ Age + (1|Individual) + (1|Tissue)"``. With a random term, ``(1|g)`` or one with slopes,
        ``(Time|g)``, a mixed model is fitted, without one ordinary least squares.
    metadata
        One row a sample; the index holds the sample names. Or the path of such a table, names in
        its first column. None only with an AnnData, for its own `obs`.
    weights
        Precision weights: the residual variance of an observation is ``sigma^2 / weight``. One a
        measurement, a table of genes and samples aligned like the expression (voom's weights), or
        one a sample, a Series by sample name. An array goes by position: of the shape of the
        expression, or one number for each of its samples. An observation with weight zero is left
        out of its gene.
    rescale_weights
        Divide the weights of every gene by their mean over the observations that count, so that
        sigma is that of an average observation. False keeps them; theta, sigma and the residual's
        share are then in their units.
    reml
        Restricted maximum likelihood instead of maximum likelihood. Fractions of variancePartition
        are ML.
    dtype
        Of the solver: ``"float64"``, or ``"float32"``, whose rounding limits the log-likelihood to
        about 1e-5 relative.
    block_size
        Genes fitted at a time: peak memory, not results, depends on it. ``"auto"`` depends on the
        design and on the kind of device, and is less where memory is short.
    devices
        JAX devices to use, each for blocks of its own; None is all that JAX has
        (``jax.local_devices()``). A CPU is used with all its cores. Several GPUs of one kind run
        one compiled program; its numbers are those of one GPU to rounding.
    solver
        ``"newton"``, or ``"optax"``: L-BFGS on the same deviance, slow, an independent check of
        models with random intercepts.
    progress
        True shows a progress bar, False none; None shows it where a person watches.
    on_error
        ``"status"``: a gene that cannot be fitted has NaN in every table and a ``status`` that says
        why. ``"raise"``: `FitError`.
    executor
        Any executor of `concurrent.futures`, to which blocks of genes are sent: a process pool
        (``"spawn"`` or ``"forkserver"``: JAX does not survive a fork), `Client.get_executor()` of
        Dask, MPI's. Workers read their own blocks where the file allows that, else they get them
        as arrays; each uses the devices it has. Blocks of lost workers are computed again. The
        genes of a block that fails have the status ``block_failed``, with a warning.

    Returns
    -------
    Results
        ``.fractions`` (genes x components, rows sum to 1), ``.variances``, ``.coefficients``,
        ``.standard_errors``, ``.theta``, ``.sigma``, ``.log_likelihood``, ``.diagnostics``.

    Raises
    ------
    FormulaError, DesignError, DataError
        Before any fit, naming the culprit and the remedy.
    FitError
        With ``on_error="raise"``, naming the first genes that could not be fitted.

    Notes
    -----
    Model and definition of the fractions: Hoffman and Schadt (2016), BMC Bioinformatics 17:483;
    likelihood: Bates et al. (2015), J. Stat. Softw. 67(1).

    Examples
    --------
    >>> expression, metadata = jaxvp.datasets.influenza()
    >>> result = jaxvp.fit(expression, "~ Age + (1|Subject) + (1|Hours)", metadata)
    >>> result.fractions.median()
    >>> jaxvp.fit("expression.parquet", "~ Age + (1|Individual)", "samples.csv")
    >>> jaxvp.fit(adata, "~ (1|donor) + (1|batch)").to_anndata(adata)
    """
    if progress is not None:
        _check_switches(progress=progress)
    study = prepare(
        expression,
        formula,
        metadata,
        weights=weights,
        rescale_weights=rescale_weights,
        reml=reml,
        dtype=dtype,
        block_size=block_size,
        devices=devices,
        solver=solver,
        on_error=on_error,
        executor=executor,
    )
    if block_size == "auto":
        study = study.in_memory()
    fitted = study.empty()

    def finished(start: int, stop: int, found: batch.Fitted, _: str | None) -> None:
        fitted.put(slice(start, stop), found)
        report(stop - start)

    with bar(progress, study.genes) as report:
        failures = study.fit_blocks(study.blocks(), finished)
    if failures:
        _name_failed_blocks(study, fitted, failures)
    given = study.weights
    result = replace(
        results(study, fitted),
        measurements=study.measurements,
        weights=None if given is None else given.shared if given.own is None else given.own,
    )
    _report_failures(result, fitted.status, on_error)
    return result


def prepare(
    expression: Any,
    formula: str,
    metadata: Any = None,
    *,
    weights: Any = None,
    rescale_weights: bool = True,
    reml: bool = False,
    dtype: str = "float64",
    block_size: int | str = "auto",
    devices: Sequence[batch.Device] | None = None,
    solver: str = "newton",
    on_error: str = "status",
    executor: Executor | None = None,
) -> Study:
    """Everything before the first gene: options, names, design, what all genes share.

    Parameters, errors and warnings are those of `fit`.
    """
    parsed = Formula.parse(formula)
    _check_switches(reml=reml, rescale_weights=rescale_weights)
    chosen = _check_options(dtype, block_size, devices, solver, on_error, executor)
    aligned, table = align(expression, metadata)
    design = build(parsed, table, reml)
    if design.slopes and solver != "newton":
        raise DataError(
            f'solver={solver!r} fits random intercepts; random slopes need solver="newton"'
        )
    measurements = aligned.take(design.kept)
    own, shared_weights = split_weights(weights, aligned, design.kept)
    given = None if weights is None else Weights(own, shared_weights, bool(rescale_weights))
    if shared_weights is not None:
        check_counting(design, shared_weights > 0, reml)
        if design.slopes:
            _check_zero_weights(design, shared_weights)
    with using_blas_threads(1):  # as in the fit: last bits depend on it
        compression = batch.compression_of(design, shared_weights)
    if block_size == "auto":
        platform = batch.platform_of(chosen)
        size = batch.block_genes(compression.shared, design.n, measurements.n_genes, platform)
    else:
        size = int(block_size)
    asked = block_size if block_size == "auto" else size  # a plain int, also of NumPy's
    return Study(
        parsed, design, measurements, compression, reml, solver, dtype, size, asked, chosen,
        executor, given,
    )  # fmt: skip


def results(study: Study, fitted: batch.Fitted, genes: slice = slice(None)) -> Results:
    """The tables of all genes, or of a run of them that begins where a block does."""
    names = study.measurements.gene_names
    names = names.view() if genes == slice(None) else names[genes]
    options = {
        "reml": bool(study.reml),
        "dtype": study.dtype,
        "solver": study.solver,
        "block_size": study.asked,
    }
    if study.weights is not None:
        options["rescale_weights"] = study.weights.rescale
    return _results(
        study.design,
        fitted,
        names,
        study.formula,
        study.block_size,
        options,
        weighted=study.weights is not None,
    )


def _name_failed_blocks(study: Study, fitted: batch.Fitted, failures: list[Failure]) -> None:
    """Their genes get a status; where there is nothing else, it is an error."""
    text = describe(failures, study.measurements.gene_names)
    if len(failures) == len(study.blocks()):
        raise FitError(text) from failures[0].error
    warn(f"{text}. Their genes have the status {Status.BLOCK_FAILED.label!r}")
    for failure in failures:
        fitted.status[failure.start : failure.stop] = Status.BLOCK_FAILED
        fitted.gradient[failure.start : failure.stop] = np.nan


_LOST = {
    Status.TOO_FEW_OBSERVATIONS: "there are no more of them than columns, or levels of a term",
    Status.SINGLE_LEVEL: "a random term has one level there",
    Status.RANK_DEFICIENT: "columns say the same there, as where a level of a factor is lost",
}


def _check_zero_weights(design: Design, weights: np.ndarray) -> None:
    """Samples of weight zero are left out of all genes: the others must determine the slopes."""
    left = weights > 0
    status = Status.CONVERGED if left.all() else batch.status_of(design, left)
    if status != Status.CONVERGED:
        raise DataError(
            f"weights leave {left.sum():,} of {len(left):,} samples, the others have weight zero, "
            f"and {design.formula.text} cannot be fitted to these: {_LOST[status]}. Leave a term "
            "out, or give these samples a weight"
        )


def _check_switches(**switches: Any) -> None:
    """Text such as "no" is true to Python: only True and False are taken."""
    for name, value in switches.items():
        if not isinstance(value, bool | np.bool_):
            raise DataError(f"{name}={value!r}: use True or False")


def _check_options(dtype, block_size, devices, solver, on_error, executor) -> list[batch.Device]:
    """Refuse what cannot be, before any work; the devices to use."""
    if not isinstance(dtype, str) or dtype not in ("float64", "float32"):
        raise DataError(f'dtype={dtype!r}: use "float64" (the default) or "float32"')
    whole = isinstance(block_size, int | np.integer) and not isinstance(block_size, bool)
    if not (block_size >= 1 if whole else isinstance(block_size, str) and block_size == "auto"):
        raise DataError(
            f'block_size={block_size!r}: use a whole number of genes, 1 or more, or "auto"'
        )
    if not isinstance(solver, str) or solver not in SOLVERS:
        raise DataError(f"solver={solver!r}: use one of {', '.join(map(repr, SOLVERS))}")
    if not isinstance(on_error, str) or on_error not in ("status", "raise"):
        raise DataError(f'on_error={on_error!r}: use "status" (the default) or "raise"')
    check_executor(executor, devices)
    if executor is not None:
        return []
    if devices is None:
        return jax.local_devices()
    one = isinstance(devices, jax.Device) or not isinstance(devices, Iterable)
    devices = [devices] if one else list(devices)
    if not devices or not all(isinstance(device, jax.Device) for device in devices):
        raise DataError(
            f"devices={devices!r}: give a list of JAX devices, such as jax.devices()[:1], or None"
        )
    return devices


def _results(
    design: Design,
    fitted: batch.Fitted,
    genes: pd.Index,
    formula: Formula,
    size: int,
    options: dict[str, Any],
    weighted: bool,
) -> Results:
    import pandas as pd

    if design.codes:
        components = fractions.mixed(design, fitted.gamma, fitted.sigma, fitted.fixed_part)
    else:
        components = fractions.fixed(design, fitted.n_obs, fitted.sigma, fitted.fixed_part)
    singular = (fitted.theta[:, design.theta_diagonal] == 0).any(axis=1)
    # Text of few values is taken from them: made one by one it is most of what a table costs.
    labels = pd.Series([status.label for status in Status]).array

    def table(array: np.ndarray, columns: pd.Index) -> pd.DataFrame:
        return pd.DataFrame(array, index=genes, columns=columns, copy=False)

    shares, coefficients = pd.Index(components.names), pd.Index(design.columns)

    diagnostics = pd.DataFrame(
        {
            "status": labels.take(fitted.status),
            "n_obs": fitted.n_obs.astype(np.int64),
            "iterations": fitted.iterations,
            "gradient": fitted.gradient,
            "singular": singular,
        },
        index=genes,
    )
    return Results(
        fractions=table(np.asarray(components.fractions), shares),
        variances=table(np.asarray(components.variances), shares),
        coefficients=table(fitted.coefficients, coefficients),
        standard_errors=table(fitted.standard_errors, coefficients),
        theta=table(fitted.theta, pd.Index(design.theta_names)),
        sigma=pd.Series(fitted.sigma, index=genes, name="sigma"),
        log_likelihood=pd.Series(fitted.log_likelihood, index=genes, name="log_likelihood"),
        diagnostics=diagnostics,
        design=design,
        formula=formula.text,
        reml=options["reml"],
        weighted=weighted,
        block_size=size,
        options=options,
        versions=versions(),
    )


def versions() -> dict[str, str]:
    """Of Python and of the packages that numbers come from."""
    return dict(_versions())


@functools.cache
def _versions() -> Mapping[str, str]:
    import platform
    from importlib.metadata import version

    packages = ("jaxvp", "jax", "jaxlib", "numpy", "pandas")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def _report_failures(result: Results, statuses: np.ndarray, on_error: str) -> None:
    failing = statuses != Status.CONVERGED
    if not failing.any():
        return
    failed = result.diagnostics.loc[failing, "status"]
    counts = ", ".join(f"{count} {name}" for name, count in failed.value_counts().items())
    logger.info("%d of %d genes were not fitted: %s", len(failed), len(statuses), counts)
    if on_error == "raise":
        first = ", ".join(f"{gene} ({why})" for gene, why in failed.head(5).items())
        raise FitError(
            f"{len(failed)} of {len(statuses)} genes could not be fitted: {first}"
            f"{', ...' if len(failed) > 5 else ''}; "
            'on_error="status" keeps the others and says why in .diagnostics'
        )
