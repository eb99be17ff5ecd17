"""The operations of a degradation: plain numbers in physical units that know how to apply themselves.

A new kind of degradation is one more frozen dataclass here, listed in `KINDS`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any, ClassVar, Protocol, TypeAlias

from torch import Tensor

from mpfnl.errors import InputError
from mpfnl.transforms.degradation.filters import Interpolation, gaussian_blur, resample_and_return
from mpfnl.transforms.degradation.noise import gaussian_noise, poisson_noise

Triple: TypeAlias = tuple[float, float, float]
Json: TypeAlias = dict[str, Any]


class Operation(Protocol):
    """One step of a degradation, with every number that it needs."""

    @property
    def kind(self) -> str:
        """The name under which the operation is recorded."""
        ...

    def apply(self, hu: Tensor, spacing: Sequence[float]) -> Tensor:
        """Applies the step to a volume `(x, y, z)` in HU with spacing in mm; never in place."""
        ...

    def to_json(self) -> Json:
        """The step as plain JSON; `operation_from_json` is the inverse."""
        ...


class _Recorded:
    """Writes a frozen dataclass as plain JSON."""

    kind: ClassVar[str]

    def to_json(self) -> Json:
        """The kind and the numbers, as JSON has them."""
        numbers = asdict(self)  # type: ignore[call-overload]
        return {"kind": self.kind} | {name: _plain(value) for name, value in numbers.items()}


@dataclass(frozen=True)
class Clip(_Recorded):
    """Limits the volume to an HU window.

    Args:
        lower_hu: The smallest HU that is left.
        upper_hu: The largest HU that is left.
    """

    kind: ClassVar[str] = "clip"
    lower_hu: float
    upper_hu: float

    def __post_init__(self) -> None:
        _require(self.lower_hu < self.upper_hu, "a clip's lower_hu must be below its upper_hu")

    def apply(self, hu: Tensor, spacing: Sequence[float]) -> Tensor:
        """Clips; the spacing does not matter."""
        return hu.clamp(self.lower_hu, self.upper_hu)


@dataclass(frozen=True)
class Blur(_Recorded):
    """A Gaussian point spread function aligned to the axes.

    Args:
        fwhm_mm: Full width at half maximum in mm along x, y, z.
    """

    kind: ClassVar[str] = "blur"
    fwhm_mm: Triple

    def __post_init__(self) -> None:
        _require(min(self.fwhm_mm) >= 0, "a blur's fwhm_mm must be 0 or more")
        object.__setattr__(self, "fwhm_mm", _triple(self.fwhm_mm))

    def apply(self, hu: Tensor, spacing: Sequence[float]) -> Tensor:
        """Blurs; see `gaussian_blur`."""
        return gaussian_blur(hu, spacing, self.fwhm_mm)


@dataclass(frozen=True)
class Resize(_Recorded):
    """To coarser voxels and back to the grid.

    The factor along an axis is the coarse voxel over the spacing, at least 1 (an axis that is
    already as coarse stays as it is) and at most `max_factor`.

    Args:
        voxel_mm: Size of the coarse voxel in mm along x, y, z.
        down: The way to the coarse grid.
        up: The way back.
        max_factor: The largest factor; the paper's is 4.
    """

    kind: ClassVar[str] = "resize"
    voxel_mm: Triple
    down: Interpolation
    up: Interpolation
    max_factor: float = 4.0

    def __post_init__(self) -> None:
        _require(min(self.voxel_mm) >= 0, "a resize's voxel_mm must be 0 or more")
        object.__setattr__(self, "voxel_mm", _triple(self.voxel_mm))
        object.__setattr__(self, "down", Interpolation(self.down))
        object.__setattr__(self, "up", Interpolation(self.up))
        _require(self.up is not Interpolation.AREA, "a resize's way up is linear or cubic")

    def factors(self, spacing: Sequence[float]) -> Triple:
        """The factor along each axis for a volume of that spacing in mm."""
        x, y, z = (
            min(max(voxel / step, 1.0), self.max_factor)
            for voxel, step in zip(self.voxel_mm, spacing, strict=True)
        )
        return x, y, z

    def apply(self, hu: Tensor, spacing: Sequence[float]) -> Tensor:
        """Resizes and returns; see `resample_and_return`."""
        return resample_and_return(hu, self.factors(spacing), self.down, self.up)


@dataclass(frozen=True)
class GaussianNoise(_Recorded):
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
        _require(self.sd_hu >= 0, "a noise's sd_hu must be 0 or more")
        _require(self.correlation_mm >= 0, "a noise's correlation_mm must be 0 or more")

    def apply(self, hu: Tensor, spacing: Sequence[float]) -> Tensor:
        """Adds the noise; see `gaussian_noise`."""
        return gaussian_noise(hu, spacing, self.sd_hu, self.correlation_mm, self.seed)


@dataclass(frozen=True)
class PoissonNoise(_Recorded):
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
        _require(self.sd_water_hu >= 0, "a noise's sd_water_hu must be 0 or more")
        _require(self.correlation_mm >= 0, "a noise's correlation_mm must be 0 or more")

    def apply(self, hu: Tensor, spacing: Sequence[float]) -> Tensor:
        """Adds the noise; see `poisson_noise`."""
        return poisson_noise(hu, spacing, self.sd_water_hu, self.correlation_mm, self.seed)


KINDS: dict[str, type[Clip | Blur | Resize | GaussianNoise | PoissonNoise]] = {
    cls.kind: cls for cls in (Clip, Blur, Resize, GaussianNoise, PoissonNoise)
}
"""Every operation by the name under which it is recorded."""


def operation_from_json(record: Mapping[str, Any]) -> Operation:
    """Reads an operation back from plain JSON.

    Args:
        record: What `Operation.to_json` wrote.

    Returns:
        The operation, equal to the one that was written.

    Raises:
        InputError: The kind is unknown, or the numbers are not the kind's.
    """
    cls = KINDS.get(str(record.get("kind")))
    if cls is None:
        known = ", ".join(KINDS)
        raise InputError(f"unknown degradation operation {record.get('kind')!r}: use one of {known}")
    numbers = {name: value for name, value in record.items() if name != "kind"}
    try:
        return cls(**numbers)
    except (TypeError, ValueError) as error:
        names = ", ".join(field.name for field in fields(cls))
        raise InputError(f"bad degradation operation {cls.kind!r} (it takes {names}): {error}") from error


def _plain(value: object) -> object:
    if isinstance(value, tuple):
        return list(value)
    return value.value if isinstance(value, StrEnum) else value


def _triple(values: Sequence[float]) -> Triple:
    x, y, z = values
    return x, y, z


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)
