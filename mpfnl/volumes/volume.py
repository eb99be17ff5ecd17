"""A scan in memory: voxels in HU, and where they lie in the patient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mpfnl.phases import Phase

Voxels: TypeAlias = NDArray[Any]
"""A scan's voxels (x, y, z): int16 or int32 where they are whole numbers, else float32 or float64."""

Affine: TypeAlias = NDArray[np.float64]
"""A (4, 4) matrix from voxel indices to world positions in mm (RAS+, as in NIfTI)."""

SCANNER_SPACE = 1
"""The NIfTI code of scanner coordinates (NIFTI_XFORM_SCANNER_ANAT)."""


def describe(path: Path, phase: Phase | None = None) -> str:
    """How a message names a file: its path, and its phase where it has one."""
    return str(path) if phase is None else f"{path} ({phase_name(phase)})"


def phase_name(phase: Phase) -> str:
    """A phase in words, as in "portal venous phase"."""
    return f"{phase.value.replace('_', ' ')} phase"


class Placed(Protocol):
    """What lies on a grid in the patient: a volume in memory, or a scan that is read slab by slab."""

    @property
    def path(self) -> Path:
        """The file it comes from, or that it will be written to."""

    @property
    def phase(self) -> Phase | None:
        """Its contrast phase, where it has one."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """The number of voxels along x, y and z."""

    @property
    def affine(self) -> Affine:
        """Voxel indices to world positions in mm, (4, 4)."""

    @property
    def space(self) -> int:
        """The NIfTI code of the world's coordinates."""

    @property
    def storage(self) -> np.dtype[Any]:
        """The number type in which it is written again."""

    @property
    def name(self) -> str:
        """The file and the phase, as messages name it."""


@dataclass(frozen=True, eq=False)
class Volume:
    """A scan in HU on its grid.

    Args:
        data: Voxels (x, y, z) in HU.
        affine: Voxel indices to world positions in mm, (4, 4).
        path: The file it comes from, or that it will be written to.
        phase: Its contrast phase, where it has one.
        storage: The number type in which it is written again; by default that of `data`.
        space: The NIfTI code of the world's coordinates (1 is the scanner's).

    Raises:
        ValueError: The voxels are not (x, y, z) or the affine is not (4, 4).
    """

    data: Voxels
    affine: Affine
    path: Path
    phase: Phase | None = None
    storage: np.dtype[Any] = field(default=np.dtype(np.void))
    space: int = SCANNER_SPACE

    def __post_init__(self) -> None:
        if self.data.ndim != 3:
            raise ValueError(f"a volume has three axes; these voxels have the shape {self.data.shape}")
        if self.affine.shape != (4, 4):
            raise ValueError(f"an affine is 4 by 4; this one has the shape {self.affine.shape}")
        object.__setattr__(self, "affine", np.asarray(self.affine, dtype=np.float64))
        if self.storage == np.void:
            object.__setattr__(self, "storage", self.data.dtype)

    @property
    def shape(self) -> tuple[int, int, int]:
        """The number of voxels along x, y and z."""
        x, y, z = self.data.shape
        return x, y, z

    @property
    def spacing(self) -> tuple[float, float, float]:
        """The distance between neighbouring voxels along x, y and z, in mm."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(x), float(y), float(z)

    @property
    def name(self) -> str:
        """The file and the phase, as messages name it."""
        return describe(self.path, self.phase)


def numbers(values: Sequence[float] | NDArray[Any]) -> str:
    """A few numbers as a message shows them: "(0.8, 0.8, 5)"."""
    return "(" + ", ".join(f"{value:.6g}" for value in np.asarray(values).ravel().tolist()) + ")"
