"""jaxvp: variance partitioning of every gene of a study in one call, on JAX.

    result = jaxvp.fit(expression, "~ Age + (1|Individual) + (1|Tissue)", metadata)
    result.fractions        # genes x components, rows sum to 1

Names are imported when they are first used, so that ``import jaxvp`` costs little more than
``import jax``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxvp import datasets as datasets
    from jaxvp import plots as pl
    from jaxvp import pp as pp
    from jaxvp import sklearn as sklearn
    from jaxvp import tl as tl
    from jaxvp.api import FitError, fit
    from jaxvp.checks import DesignCheck, check_design
    from jaxvp.collinearity import canonical_correlations
    from jaxvp.design import DesignError
    from jaxvp.expression import DataError
    from jaxvp.formula import FormulaError
    from jaxvp.reporting import report
    from jaxvp.results import Results, load
    from jaxvp.runtime import enable_compile_cache
    from jaxvp.simulation import simulate

__version__ = "0.1.0"

# public name -> module that defines it, attribute there (None: the module itself)
_PUBLIC: dict[str, tuple[str, str | None]] = {
    "DataError": ("expression", "DataError"),
    "DesignCheck": ("checks", "DesignCheck"),
    "DesignError": ("design", "DesignError"),
    "FitError": ("api", "FitError"),
    "FormulaError": ("formula", "FormulaError"),
    "Results": ("results", "Results"),
    "canonical_correlations": ("collinearity", "canonical_correlations"),
    "check_design": ("checks", "check_design"),
    "datasets": ("datasets", None),
    "enable_compile_cache": ("runtime", "enable_compile_cache"),
    "fit": ("api", "fit"),
    "load": ("results", "load"),
    "pl": ("plots", None),
    "pp": ("pp", None),
    "report": ("reporting", "report"),
    "simulate": ("simulation", "simulate"),
    "sklearn": ("sklearn", None),
    "tl": ("tl", None),
}

__all__ = [
    "DataError",
    "DesignCheck",
    "DesignError",
    "FitError",
    "FormulaError",
    "Results",
    "canonical_correlations",
    "check_design",
    "datasets",
    "enable_compile_cache",
    "fit",
    "load",
    "pl",
    "pp",
    "report",
    "simulate",
    "sklearn",
    "tl",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'jaxvp' has no attribute {name!r}")
    module, attribute = _PUBLIC[name]
    loaded = importlib.import_module(f"jaxvp.{module}")
    value = loaded if attribute is None else getattr(loaded, attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
