"""Settings of a preparation, and the registration steps that they choose from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias, get_args

from mpfnl.errors import OptionError

PREPARATION = 1
"""Version of the preparation; raised whenever the same scans and settings give other files than before."""

CropMethod: TypeAlias = Literal["none", "body", "segmentation"]
"""Method that finds the abdomen on the portal venous scan."""

Interpolator: TypeAlias = Literal["linear", "bspline"]
"""Interpolation of the registered phases; linear never leaves the range of the neighbouring voxels."""

Freedom = Literal["Rigid", "Affine", "SyN"]


@dataclass(frozen=True)
class Step:
    """One stage of a registration, with the parameters of ANTs' `antsRegistration`.

    The linear steps follow the staging of ANTs' own scripts (mutual information, coarse to fine). The
    deformable default takes mutual information as well, as contrast changes between the phases; local cross
    correlation follows edges more closely and takes about five times as long.

    Args:
        name: Name of the step.
        transform: Kind of the transform.
        gradient_step: Step length of the optimiser; for SyN that of the update field.
        metric: Mutual information (`MI`) or local cross correlation (`CC`).
        metric_size: Histogram bins for MI; radius in voxels for CC.
        sampling: Share of the voxels on which the metric is computed; None takes all.
        iterations: Maximum of iterations on each level, coarse to fine.
        shrink: Downsampling factor of each level.
        smoothing: Standard deviation of the smoothing on each level, in voxels.
        update_smoothing: Variance of the Gaussian that smooths SyN's update field, in voxels squared.
    """

    name: str
    transform: Freedom
    gradient_step: float
    metric: Literal["MI", "CC"]
    metric_size: int
    sampling: float | None
    iterations: tuple[int, ...]
    shrink: tuple[int, ...]
    smoothing: tuple[float, ...]
    update_smoothing: float = 3.0


_COARSE = ((200, 100), (4, 2), (2.0, 1.0))
_FINE = ((4, 2, 1), (2.0, 1.0, 0.0))
STEPS: dict[str, Step] = {
    step.name: step
    for step in (
        Step("rigid", "Rigid", 0.1, "MI", 32, 0.25, *_COARSE),
        Step("affine", "Affine", 0.1, "MI", 32, 0.25, *_COARSE),
        Step("deformable-fast", "SyN", 0.25, "MI", 32, None, (60, 30), (4, 2), (2.0, 1.0)),
        Step("deformable", "SyN", 0.2, "MI", 32, None, (100, 70, 40), *_FINE),
        Step("deformable-accurate", "SyN", 0.2, "CC", 2, None, (100, 70, 40), *_FINE),
    )
}
"""The registration steps by name."""


def find_steps(names: Sequence[str]) -> tuple[Step, ...]:
    """The registration steps of these names; no name, or `none` alone, is no registration.

    Raises:
        OptionError: A name is unknown, or a step follows one with more degrees of freedom.
    """
    if tuple(names) in ((), ("none",)):
        return ()
    unknown = [name for name in names if name not in STEPS]
    if unknown:
        raise OptionError(
            f"steps {' '.join(names)}: there is no {unknown[0]!r}; choose none, or from {', '.join(STEPS)}"
        )
    steps = tuple(STEPS[name] for name in names)
    freedom = [get_args(Freedom).index(step.transform) for step in steps]
    if sorted(set(freedom)) != freedom:
        raise OptionError(f"steps {' '.join(names)}: give each kind once, rigid then affine then deformable")
    return steps


@dataclass(frozen=True)
class PrepareSettings:
    """Settings of a preparation, the same for every study.

    Args:
        steps: Names of the registration steps, in their order; none keeps the scanner's coordinates.
        grid_mm: Voxel size in mm of the grid on which the phases are registered.
        interpolation: Interpolation of the registered phases: `linear` or `bspline`.
        crop: Method that finds the abdomen: `body`, `segmentation`, or `none` for no crop.
        margin_mm: Margin around the abdomen in mm.
        seed: Seed of the registration's sampling.

    Raises:
        OptionError: A step or method is unknown, or a size is not positive.

    Example:
        >>> settings = PrepareSettings(steps=("rigid", "affine"), crop="none")
        >>> [step.transform for step in settings.registration]
        ['Rigid', 'Affine']
        >>> PrepareSettings(grid_mm=0)
        Traceback (most recent call last):
        mpfnl.errors.OptionError: grid_mm 0: give a voxel size in mm
    """

    steps: tuple[str, ...] = ("rigid", "affine", "deformable")
    grid_mm: float = 4.0
    interpolation: Interpolator = "linear"
    crop: CropMethod = "body"
    margin_mm: float = 10.0
    seed: int = 1

    def __post_init__(self) -> None:
        find_steps(self.steps)
        if not self.grid_mm > 0:
            raise OptionError(f"grid_mm {self.grid_mm:g}: give a voxel size in mm")
        if not self.margin_mm >= 0:
            raise OptionError(f"margin_mm {self.margin_mm:g}: give a margin in mm, 0 or more")
        for name, value, known in (
            ("interpolation", self.interpolation, get_args(Interpolator)),
            ("crop", self.crop, get_args(CropMethod)),
        ):
            if value not in known:
                raise OptionError(f"{name} {value!r}: give {' or '.join(known)}")

    @property
    def registration(self) -> tuple[Step, ...]:
        """The registration steps."""
        return find_steps(self.steps)

    def to_json(self) -> dict[str, Any]:
        """The settings as plain JSON, with the parameters of each step."""
        steps = [asdict(step) for step in self.registration]
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self) | {"steps": steps}))
        return {"preparation": PREPARATION, **plain}
