"""Second-order degradation of CT in physical units: torch, NumPy and SciPy are all it needs."""

from mpfnl.transforms.degradation.filters import (
    FWHM_PER_SIGMA,
    Interpolation,
    gaussian_blur,
    resample_and_return,
)
from mpfnl.transforms.degradation.noise import gaussian_noise, poisson_noise, unit_noise
from mpfnl.transforms.degradation.operations import (
    Blur,
    Clip,
    GaussianNoise,
    Operation,
    PoissonNoise,
    Resize,
    operation_from_json,
)
from mpfnl.transforms.degradation.presets import SECOND_ORDER_V1, Preset, Stage
from mpfnl.transforms.degradation.sampling import apply_parameters, operations_of, sample_parameters

__all__ = [
    "FWHM_PER_SIGMA",
    "SECOND_ORDER_V1",
    "Blur",
    "Clip",
    "GaussianNoise",
    "Interpolation",
    "Operation",
    "PoissonNoise",
    "Preset",
    "Resize",
    "Stage",
    "apply_parameters",
    "gaussian_blur",
    "gaussian_noise",
    "operation_from_json",
    "operations_of",
    "poisson_noise",
    "resample_and_return",
    "sample_parameters",
    "unit_noise",
]
