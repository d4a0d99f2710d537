"""What can be said of the arguments while they are traced: shapes and types, no values."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxvp.expression import DataError
from jaxvp.functional.model import Design


def checked(
    name: str, y: Any, design: Any, weights: Any, axes: int
) -> tuple[jax.Array, jax.Array | None]:
    """Arrays of one floating type, or an error that says what to do."""
    if not isinstance(design, Design):
        raise DataError(
            f"design is a {type(design).__name__}: make one with "
            "jaxvp.functional.design(formula, metadata)"
        )
    y = _real(name, y)
    n = len(design.samples)
    what = f"{n} samples" + (" x genes" if axes == 2 else "")
    found = " x ".join(map(str, y.shape)) or "a number"
    if y.ndim != axes:
        other = "fit_genes" if axes == 1 else "fit_gene"
        hint = f"{other} takes {'a matrix' if axes == 1 else 'one gene'}"
        raise DataError(f"{name} is {found} and should be {what}: {hint}")
    if y.shape[0] != n:
        hint = "rows of Y are the samples of the design, those of design.kept"
        if axes == 2 and y.shape[1] == n:
            hint = "samples are rows: pass Y.T"
        raise DataError(f"{name} is {found} and should be {what}: {hint}")
    if axes == 2 and not y.shape[1]:
        raise DataError(f"{name} has no genes")
    if weights is None:
        return y, None
    weights = _real("weights", weights).astype(y.dtype)
    if weights.shape not in ((n,), y.shape):
        shapes = f"({n},)" if axes == 1 else f"({n},) or {y.shape}"
        raise DataError(f"weights are {weights.shape} and should be {shapes}, as {name} is")
    return y, weights


def _real(name: str, array: Any) -> jax.Array:
    """As an array of JAX, in the type that it has."""
    kind = getattr(array, "dtype", None)
    kind = np.asarray(array).dtype if kind is None else kind
    if kind == np.float64 and jax.dtypes.canonicalize_dtype(np.float64) != np.float64:
        raise DataError(
            f"{name} is float64, and JAX computes in float32 here: call inside of `with "
            f"jax.enable_x64(True):` (or set jax_enable_x64), or pass {name} as float32"
        )
    if not (jnp.issubdtype(kind, jnp.floating) or jnp.issubdtype(kind, jnp.integer)):
        raise DataError(f"{name} is {kind}: real numbers are needed, float32 or float64")
    array = jnp.asarray(array)
    if array.dtype not in (jnp.float32, jnp.float64):
        array = array.astype(jnp.result_type(float))
    return array
