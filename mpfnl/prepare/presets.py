"""Registration steps and their presets, by name.

The defaults of the linear steps follow the staging of ANTs' own scripts (mutual information, coarse to fine).
The deformable default takes mutual information as well, as contrast changes between the phases; local cross
correlation follows edges closer and takes about five times as long.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mpfnl.errors import InputError

Transform = Literal["Rigid", "Affine", "SyN"]


@dataclass(frozen=True)
class Step:
    """One stage of a registration, as ANTs' `antsRegistration` takes it.

    Args:
        name: How it is asked for.
        transform: What may change.
        gradient_step: Step length of the optimiser; for SyN that of the update field.
        metric: Mutual information (`MI`), or local cross correlation (`CC`).
        metric_size: Bins of the histogram for MI; radius in voxels for CC.
        sampling: Share of the voxels that the metric is taken from; None takes all.
        iterations: The most on each level, coarse to fine.
        shrink: Factor of each level.
        smoothing: Standard deviation on each level, in voxels.
        update_smoothing: Variance of the Gaussian that smooths SyN's update field, in voxels squared.
    """

    name: str
    transform: Transform
    gradient_step: float
    metric: Literal["MI", "CC"]
    metric_size: int
    sampling: float | None
    iterations: tuple[int, ...]
    shrink: tuple[int, ...]
    smoothing: tuple[float, ...]
    update_smoothing: float = 3.0

    def arguments(self, fixed: str, moving: str) -> list[str]:
        """The words of the command line of `antsRegistration`."""
        step = f"{self.gradient_step:g}"
        tail = f",{self.update_smoothing:g},0" if self.transform == "SyN" else ""
        sampled = "" if self.sampling is None else f",Regular,{self.sampling:g}"
        return [
            *("--transform", f"{self.transform}[{step}{tail}]"),
            *("--metric", f"{self.metric}[{fixed},{moving},1,{self.metric_size}{sampled}]"),
            *("--convergence", f"[{_by(self.iterations)},1e-6,10]"),
            *("--shrink-factors", _by(self.shrink)),
            *("--smoothing-sigmas", f"{_by(self.smoothing)}vox"),
        ]


def _by(values: tuple[float, ...]) -> str:
    return "x".join(f"{value:g}" for value in values)


_COARSE = ((200, 100), (4, 2), (2.0, 1.0))
_FINE = ((4, 2, 1), (2.0, 1.0, 0.0))
PRESETS: dict[str, Step] = {
    step.name: step
    for step in (
        Step("rigid", "Rigid", 0.1, "MI", 32, 0.25, *_COARSE),
        Step("affine", "Affine", 0.1, "MI", 32, 0.25, *_COARSE),
        Step("deformable-fast", "SyN", 0.25, "MI", 32, None, (60, 30), (4, 2), (2.0, 1.0)),
        Step("deformable", "SyN", 0.2, "MI", 32, None, (100, 70, 40), *_FINE),
        Step("deformable-accurate", "SyN", 0.2, "CC", 2, None, (100, 70, 40), *_FINE),
    )
}


def find_steps(names: list[str] | tuple[str, ...]) -> tuple[Step, ...]:
    """The steps of these names, in their order; `none` alone is no registration.

    Raises:
        InputError: A name is unknown, or a step comes after one with more freedom.
    """
    if tuple(names) == ("none",):
        return ()
    unknown = [name for name in names if name not in PRESETS]
    if unknown or not names:
        given = unknown[0] if unknown else "nothing"
        raise InputError(f"registration steps: {given!r} is none; choose none, or of {', '.join(PRESETS)}")
    steps = tuple(PRESETS[name] for name in names)
    freedom = [("Rigid", "Affine", "SyN").index(step.transform) for step in steps]
    if sorted(set(freedom)) != freedom:
        raise InputError(
            f"registration steps {' '.join(names)}: give each kind once, rigid then affine then deformable"
        )
    return steps
