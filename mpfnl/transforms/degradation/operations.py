"""The operations of a degradation: plain numbers in physical units that know how to apply themselves.

Here are those of the second-order model; what happens in a scanner is in `scanner`. A new kind is one more
frozen dataclass, listed in `records.KINDS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from numbers import Integral, Real
from typing import Any, ClassVar, Protocol, Self, TypeAlias

import torch
from torch import Tensor

from mpfnl.transforms.degradation.filters import gaussian_blur, gaussian_blurs
from mpfnl.transforms.degradation.memory import empty
from mpfnl.transforms.degradation.noise import counting_sd, gaussian_noise, poisson_noise, unit_noises
from mpfnl.transforms.degradation.random_field import MAX_SEED
from mpfnl.transforms.degradation.resampling import (
    Interpolation,
    resample_and_return,
    resample_and_return_each,
)

Triple: TypeAlias = tuple[float, float, float]
Json: TypeAlias = dict[str, Any]

MOST_HU = 1e5
"""Larger HU are none."""

MOST_MM = 100.0
"""What blurs more than this is no scan."""


class Operation(Protocol):
    """One step of a degradation, with every number that it needs."""

    kind: ClassVar[str]
    """The name under which the operation is recorded."""

    whole_slices: ClassVar[bool]
    """Whether it must see whole cross-sections of the body; the others work on patches too."""

    axial: ClassVar[bool]
    """Whether slices must lie along the third axis; the others take the axes as they are."""

    def apply(self, hu: Tensor, spacing: Sequence[float]) -> Tensor:
        """Applies the step to a volume `(x, y, z)` in HU with spacing in mm; never in place."""
        ...

    @classmethod
    def apply_each(cls, operations: Sequence[Self], hu: Tensor, spacings: Sequence[Triple]) -> Tensor:
        """Applies to each volume of a batch `(batch, x, y, z)` its own step of this kind."""
        ...

    def to_json(self) -> Json:
        """The step as plain JSON; `operation_from_json` is the inverse."""
        ...


class Recorded:
    """Base of the kinds: writes a frozen dataclass as plain JSON, and goes through a batch one by one."""

    kind: ClassVar[str]
    whole_slices: ClassVar[bool] = False
    axial: ClassVar[bool] = False

    def apply(self, hu: Tensor, spacing: Sequence[float]) -> Tensor:
        """Applies the step; each kind says how."""
        raise NotImplementedError

    @classmethod
    def apply_each(cls, operations: Sequence[Self], hu: Tensor, spacings: Sequence[Triple]) -> Tensor:
        """Applies to each volume its own step, one after the other."""
        each = zip(operations, hu, spacings, strict=True)
        return torch.stack([operation.apply(volume, spacing) for operation, volume, spacing in each])

    def to_json(self) -> Json:
        """The kind and the numbers, as JSON has them."""
        numbers = asdict(self)  # type: ignore[call-overload]
        return {"kind": self.kind} | {name: _plain(value) for name, value in numbers.items()}


@dataclass(frozen=True)
class Clip(Recorded):
    """Limits the volume to an HU window.

    Args:
        lower_hu: The smallest HU that is left.
        upper_hu: The largest HU that is left.
    """

    kind: ClassVar[str] = "clip"
    lower_hu: float
    upper_hu: float

    def __post_init__(self) -> None:
        for value in (self.lower_hu, self.upper_hu):
            check("a clip's lower_hu and upper_hu", value, -MOST_HU, MOST_HU)
        require(self.lower_hu < self.upper_hu, "a clip's lower_hu must be below its upper_hu")

    def apply(self, hu: Tensor, spacing: Sequence[float]) -> Tensor:
        """Clips; the spacing does not matter."""
        return torch.clamp(hu, self.lower_hu, self.upper_hu, out=empty(hu.shape, hu.device))


@dataclass(frozen=True)
class Blur(Recorded):
    """A Gaussian point spread function aligned to the axes.

    Args:
        fwhm_mm: Full width at half maximum in mm along x, y, z.
    """

    kind: ClassVar[str] = "blur"
    fwhm_mm: Triple

    def __post_init__(self) -> None:
        object.__setattr__(self, "fwhm_mm", triple("a blur's fwhm_mm", self.fwhm_mm, 0, MOST_MM))

    def apply(self, hu: Tensor, spacing: Sequence[float]) -> Tensor:
        """Blurs; see `gaussian_blur`."""
        return gaussian_blur(hu, spacing, self.fwhm_mm)

    @classmethod
    def apply_each(cls, operations: Sequence[Self], hu: Tensor, spacings: Sequence[Triple]) -> Tensor:
        """Blurs all volumes at once."""
        return gaussian_blurs(hu, spacings, [operation.fwhm_mm for operation in operations])


@dataclass(frozen=True)
class Resize(Recorded):
    """To coarser voxels and back to the grid.

    The factor along an axis is the coarse voxel over the spacing, at least 1 (an axis that is
    already as coarse stays as it is) and at most `max_factor`.

    Args:
        voxel_mm: Size of the coarse voxel in mm along x, y, z.
        down: The way to the coarse grid.
        up: The way back.
        max_factor: The largest factor; the paper's is 4.
        grid_shift: Of the coarse grid along x, y, z, in coarse voxels, from -1/2 to 1/2; at 0 it is centred
            on the volume (or patch).
    """

    kind: ClassVar[str] = "resize"
    voxel_mm: Triple
    down: Interpolation
    up: Interpolation
    max_factor: float = 4.0
    grid_shift: Triple = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "voxel_mm", triple("a resize's voxel_mm", self.voxel_mm, 0, MOST_MM))
        object.__setattr__(self, "grid_shift", triple("a resize's grid_shift", self.grid_shift, -0.5, 0.5))
        check("a resize's max_factor", self.max_factor, 1, 64)
        object.__setattr__(self, "down", Interpolation(self.down))
        object.__setattr__(self, "up", Interpolation(self.up))
        require(self.up is not Interpolation.AREA, "a resize's way up is linear or cubic")

    def factors(self, spacing: Sequence[float]) -> Triple:
        """The factor along each axis for a volume of that spacing in mm."""
        x, y, z = (
            min(max(voxel / step, 1.0), self.max_factor)
            for voxel, step in zip(self.voxel_mm, spacing, strict=True)
        )
        return x, y, z

    def apply(self, hu: Tensor, spacing: Sequence[float]) -> Tensor:
        """Resizes and returns; see `resample_and_return`."""
        return resample_and_return(hu, self.factors(spacing), self.down, self.up, self.grid_shift)

    @classmethod
    def apply_each(cls, operations: Sequence[Self], hu: Tensor, spacings: Sequence[Triple]) -> Tensor:
        """Resizes all volumes at once."""
        factors = [
            operation.factors(spacing) for operation, spacing in zip(operations, spacings, strict=True)
        ]
        ways = [(each.down, each.up) for each in operations]
        return resample_and_return_each(hu, factors, ways, [each.grid_shift for each in operations])


@dataclass(frozen=True)
class GaussianNoise(Recorded):
    """Normal noise, equally strong everywhere.

    Args:
        sd_hu: Standard deviation in HU.
        correlation_mm: Correlation length in mm; 0 is white noise.
        seed: Seed of the noise.
    """

    kind: ClassVar[str] = "gaussian_noise"
    sd_hu: float
    correlation_mm: float
    seed: int

    def __post_init__(self) -> None:
        check("a noise's sd_hu", self.sd_hu, 0, MOST_HU)
        check("a noise's correlation_mm", self.correlation_mm, 0, MOST_MM)
        object.__setattr__(self, "seed", checked_seed(self.seed))

    def apply(self, hu: Tensor, spacing: Sequence[float]) -> Tensor:
        """Adds the noise; see `gaussian_noise`."""
        return gaussian_noise(hu, spacing, self.sd_hu, self.correlation_mm, self.seed)

    @classmethod
    def apply_each(cls, operations: Sequence[Self], hu: Tensor, spacings: Sequence[Triple]) -> Tensor:
        """Adds the noise of all volumes at once."""
        return _noises(operations, [each.sd_hu for each in operations], hu, spacings).add_(hu)


@dataclass(frozen=True)
class PoissonNoise(Recorded):
    """Noise with a variance proportional to the attenuation.

    Args:
        sd_water_hu: Standard deviation in water in HU.
        correlation_mm: Correlation length in mm; 0 is white noise.
        seed: Seed of the noise.
    """

    kind: ClassVar[str] = "poisson_noise"
    sd_water_hu: float
    correlation_mm: float
    seed: int

    def __post_init__(self) -> None:
        check("a noise's sd_water_hu", self.sd_water_hu, 0, MOST_HU)
        check("a noise's correlation_mm", self.correlation_mm, 0, MOST_MM)
        object.__setattr__(self, "seed", checked_seed(self.seed))

    def apply(self, hu: Tensor, spacing: Sequence[float]) -> Tensor:
        """Adds the noise; see `poisson_noise`."""
        return poisson_noise(hu, spacing, self.sd_water_hu, self.correlation_mm, self.seed)

    @classmethod
    def apply_each(cls, operations: Sequence[Self], hu: Tensor, spacings: Sequence[Triple]) -> Tensor:
        """Adds the noise of all volumes at once."""
        noises = _noises(operations, [each.sd_water_hu for each in operations], hu, spacings)
        return noises.mul_(counting_sd(hu)).add_(hu)


def check(name: str, value: object, low: float, high: float) -> None:
    """Raises ValueError unless a value is a number in a range; records are written by hand, too."""
    number = isinstance(value, Real) and not isinstance(value, bool)
    require(number and low <= value <= high, f"{name} must be a number from {low:g} to {high:g}")  # type: ignore[operator]


def triple(name: str, values: object, low: float, high: float) -> Triple:
    """Three numbers in a range as a tuple, whatever sequence JSON made of them.

    Raises:
        ValueError: They are not.
    """
    if not isinstance(values, Sequence) or isinstance(values, str) or len(values) != 3:
        raise ValueError(f"{name} must be three numbers, along x, y and z")
    for value in values:
        check(name, value, low, high)
    x, y, z = values
    return x, y, z


def require(condition: bool, message: str) -> None:
    """Raises ValueError with the message unless the condition holds."""
    if not condition:
        raise ValueError(message)


def checked_seed(seed: object) -> int:
    """A seed of `normal_field` as an `int`.

    Raises:
        ValueError: It is none.
    """
    whole = int(seed) if isinstance(seed, Integral) and not isinstance(seed, bool) else -1
    require(0 <= whole <= MAX_SEED, "a noise's seed must be a whole number from 0 to 2^63 - 1")
    return whole


def _plain(value: object) -> object:
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return value.value if isinstance(value, StrEnum) else value


def _noises(
    operations: Sequence[GaussianNoise] | Sequence[PoissonNoise],
    sds: Sequence[float],
    hu: Tensor,
    spacings: Sequence[Triple],
) -> Tensor:
    """The noise of each volume of a batch, of its standard deviation in HU."""
    noises = unit_noises(
        hu.shape[1:],
        spacings,
        [operation.correlation_mm for operation in operations],
        [operation.seed for operation in operations],
        hu.device,
    )
    return noises.mul_(torch.tensor(sds, dtype=hu.dtype).to(hu.device)[:, None, None, None])
