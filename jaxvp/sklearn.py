"""Estimators and transformers of scikit-learn: ``from jaxvp.sklearn import VariancePartition``."""

from jaxvp.integrations.sklearn import (
    MixedEffectsResidualizer,
    VariancePartition,
    VarianceSelector,
)

__all__ = ["MixedEffectsResidualizer", "VariancePartition", "VarianceSelector"]
