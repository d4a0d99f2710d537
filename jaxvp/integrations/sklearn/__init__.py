"""Estimators of scikit-learn: samples x features in, metadata routed beside them.

Rows of X and of the metadata are the same samples in the same order, as everywhere in scikit-learn;
names do not align them. Inside a `Pipeline` or a search, the metadata reaches a step that asks for
it (`set_fit_request(metadata=True)`, with ``sklearn.set_config(enable_metadata_routing=True)``).

`VariancePartition` fits and scores a formula, `VarianceSelector` keeps features by their shares,
`MixedEffectsResidualizer` takes estimated effects out of X (`fitting` is what they share).
"""

try:
    import sklearn  # noqa: F401  # pyright: ignore[reportMissingImports]
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "jaxvp.sklearn needs scikit-learn: pip install 'jaxvp[sklearn]'"
    ) from error

from .partition import VariancePartition
from .residualizer import MixedEffectsResidualizer
from .selector import VarianceSelector

__all__ = ["MixedEffectsResidualizer", "VariancePartition", "VarianceSelector"]
