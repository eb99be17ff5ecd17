"""Degradation of CT in physical units: torch, NumPy and SciPy are all it needs."""

from mpfnl.transforms.degradation.batch import apply_batch
from mpfnl.transforms.degradation.catalogue import PRESETS, find_preset
from mpfnl.transforms.degradation.filters import FWHM_PER_SIGMA, gaussian_blur
from mpfnl.transforms.degradation.low_dose import add_low_dose_noise
from mpfnl.transforms.degradation.metal import Implant, metal_streaks
from mpfnl.transforms.degradation.motion import motion_blur
from mpfnl.transforms.degradation.noise import gaussian_noise, poisson_noise, unit_noise
from mpfnl.transforms.degradation.operations import (
    Blur,
    Clip,
    GaussianNoise,
    Operation,
    PoissonNoise,
    Resize,
)
from mpfnl.transforms.degradation.presets import SECOND_ORDER_V1, Preset
from mpfnl.transforms.degradation.random_field import normal_field
from mpfnl.transforms.degradation.records import operation_from_json, operations_of
from mpfnl.transforms.degradation.resampling import Interpolation, resample_and_return
from mpfnl.transforms.degradation.sampling import apply_parameters, sample_parameters
from mpfnl.transforms.degradation.scanner import LowDose, MetalStreaks, MotionBlur, ThickSlices
from mpfnl.transforms.degradation.stages import (
    LowDoseStage,
    MetalStage,
    MotionStage,
    SecondOrderStage,
    Stage,
    ThickSlicesStage,
)
from mpfnl.transforms.degradation.thick_slices import SliceProfile, thick_slices

__all__ = [
    "FWHM_PER_SIGMA",
    "PRESETS",
    "SECOND_ORDER_V1",
    "Blur",
    "Clip",
    "GaussianNoise",
    "Implant",
    "Interpolation",
    "LowDose",
    "LowDoseStage",
    "MetalStage",
    "MetalStreaks",
    "MotionBlur",
    "MotionStage",
    "Operation",
    "PoissonNoise",
    "Preset",
    "Resize",
    "SecondOrderStage",
    "SliceProfile",
    "Stage",
    "ThickSlices",
    "ThickSlicesStage",
    "add_low_dose_noise",
    "apply_batch",
    "apply_parameters",
    "find_preset",
    "gaussian_blur",
    "gaussian_noise",
    "metal_streaks",
    "motion_blur",
    "normal_field",
    "operation_from_json",
    "operations_of",
    "poisson_noise",
    "resample_and_return",
    "sample_parameters",
    "thick_slices",
    "unit_noise",
]
