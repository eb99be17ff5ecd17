"""Motion between the phases: the patient shifts and breathes to a different depth each time.

The amounts follow a public table of centroid distances between phases of real studies before
deformable registration (multi-phase_registration project, full summary of the baseline, commit
09fe8371): mean and standard deviation in mm over studies, arterial against its reference phase, and
venous against it. The venous row is used here for the non-contrast phase, as portal venous is the
reference on this side.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mpfnl.phantoms.habitus import Habitus
from mpfnl.phantoms.texture import Array, SmoothField
from mpfnl.phases import Phase

MeanSd: TypeAlias = tuple[float, float]

MEASURED_MM: dict[Phase, dict[str, MeanSd]] = {
    Phase.ARTERIAL: {
        "pancreas": (6.5008, 7.5395),
        "liver": (5.7029, 6.5618),
        "spleen": (6.3031, 7.3252),
        "kidney_left": (5.2945, 6.2085),
        "aorta": (5.0091, 4.1641),
        "vertebrae_L1": (2.4887, 6.0185),
    },
    Phase.NONCONTRAST: {
        "pancreas": (5.76, 4.928),
        "liver": (4.981, 4.9133),
        "spleen": (6.2748, 5.8265),
        "kidney_left": (5.0077, 4.7048),
        "aorta": (3.8244, 3.8637),
        "vertebrae_L1": (1.9626, 2.5763),
    },
}
"""Centroid distance to the reference phase over real studies: (mean, standard deviation) in mm."""

_SHIFT_CAP, _BREATH_CAP = 15.0, 26.0  # mm: what is further off is a failed scan rather than a breath
_SHIFT: dict[Phase, MeanSd] = {Phase.ARTERIAL: (2.9, 5.0), Phase.NONCONTRAST: (2.2, 3.0)}
_BREATH: dict[Phase, MeanSd] = {Phase.ARTERIAL: (6.3, 9.5), Phase.NONCONTRAST: (5.2, 6.0)}
_LOCAL_MM = 0.8  # standard deviation per axis of the smooth irregular part, at a breath of 5 mm


@dataclass(frozen=True)
class Motion:
    """Displacement from a voxel of the portal venous grid to its tissue in another phase.

    Args:
        habitus: Build of the patient, with the position of spine and wall.
        shift: Rigid part in mm, (x, y, z).
        breath: Respiratory part in mm of the organs under the diaphragm, (x, y, z).
        local: Smooth irregular part, one field an axis, and its amplitude in mm.
    """

    habitus: Habitus
    shift: tuple[float, float, float]
    breath: tuple[float, float, float]
    local: tuple[SmoothField, SmoothField, SmoothField]
    local_mm: float

    def displacement(self, axes: tuple[Array, Array, Array]) -> Array:
        """Displacement in mm on the grid spanned by three axes, shape (3, x, y, z)."""
        x, y, z = axes[0][:, None, None], axes[1][None, :, None], axes[2][None, None, :]
        freedom = self._freedom(x, y, z)
        out = np.empty((3, *freedom.shape), dtype=np.float32)
        for axis in range(3):
            out[axis] = np.float32(self.shift[axis]) + freedom * np.float32(self.breath[axis])
            if self.local_mm:
                out[axis] += np.float32(self.local_mm) * freedom * self.local[axis].on(axes)
        return out

    def at(self, point: NDArray[np.float64]) -> NDArray[np.float64]:
        """Displacement in mm at one point (x, y, z) in mm."""
        axes = tuple(np.array([p], dtype=np.float32) for p in point)
        return np.asarray(self.displacement((axes[0], axes[1], axes[2]))[:, 0, 0, 0], dtype=np.float64)

    def to_json(self) -> dict[str, list[float] | float]:
        """The vectors in mm, rounded to 0.001."""
        return {
            "shift_mm": [round(v, 3) for v in self.shift],
            "breath_mm": [round(v, 3) for v in self.breath],
            "local_sd_mm": round(self.local_mm, 3),
        }

    def _freedom(self, x: Array, y: Array, z: Array) -> Array:
        """Fraction of the respiratory motion: 0 at the spine, low at the wall, 1 under the diaphragm."""
        spine = self.habitus.spine_axis(z).astype(np.float32)
        free: Array = _step((np.hypot(0.8 * x, y - spine) - 15) / 22)
        free = free * _step((y - spine + 62) / 50)  # the muscles of the back stay
        depth = -self.habitus.body_distance(x, y, z)
        free = free * (0.12 + 0.88 * _step((depth - 14) / 34))
        return np.asarray(free * (0.45 + 0.55 * _step((z + 120) / 110)), dtype=np.float32)


def draw_motion(rng: np.random.Generator, habitus: Habitus, phase: Phase, scale: float) -> Motion:
    """Draws the motion of one phase against portal venous; `scale` 1 is as measured, 0 is none.

    Raises:
        ValueError: The phase is portal venous, the reference grid.
    """
    if phase not in _SHIFT:
        raise ValueError(f"{phase} is the reference grid and does not move")
    turn = rng.standard_normal(3)
    shift = _amount(rng, _SHIFT[phase], _SHIFT_CAP) * turn / np.linalg.norm(turn)
    way = np.array([0.12 * rng.standard_normal(), 0.3 + 0.12 * rng.standard_normal(), -0.92])
    breath = rng.choice([-1, 1]) * _amount(rng, _BREATH[phase], _BREATH_CAP) * way / np.linalg.norm(way)
    local = (SmoothField.draw(rng, 55.0), SmoothField.draw(rng, 55.0), SmoothField.draw(rng, 55.0))
    local_mm = _LOCAL_MM * min(1.0, float(np.linalg.norm(breath)) / 5 + 0.4)
    return Motion(habitus, _vector(shift * scale), _vector(breath * scale), local, local_mm * scale)


def _amount(rng: np.random.Generator, mean_sd: MeanSd, cap: float) -> float:
    """A log-normal length with this mean and standard deviation, cut off at `cap`."""
    mean, sd = mean_sd
    spread = np.log1p((sd / mean) ** 2)
    return min(float(rng.lognormal(np.log(mean) - spread / 2, np.sqrt(spread))), cap)


def _vector(values: NDArray[np.float64]) -> tuple[float, float, float]:
    return (float(values[0]), float(values[1]), float(values[2]))


def _step(t: NDArray[Any]) -> Array:
    """0 below 0, 1 above 1, smooth between."""
    s = np.clip(t, 0, 1)
    return np.asarray(s * s * (3 - 2 * s), dtype=np.float32)
