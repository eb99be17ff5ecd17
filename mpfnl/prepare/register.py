"""Registration of a phase to the portal venous one, by ANTs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import SimpleITK as sitk

from mpfnl.errors import InputError, MissingExtraError
from mpfnl.prepare.images import Image, coarse
from mpfnl.prepare.presets import Step

WINDOW_HU = (-200.0, 300.0)
"""What registration sees: soft tissue, with air and bone clipped."""

SMALLEST = 8
"""Voxels of the registration grid that a scan must have along each axis."""


def register(
    fixed: Image, moving: Image, steps: Sequence[Step], grid_mm: float, folder: Path, seed: int = 1
) -> sitk.Transform:
    """Finds where the points of one scan lie in another.

    Both are smoothed onto isotropic grids and clipped to soft tissue. The start is the scanner's own
    coordinates: the phases of one study share them. With ITK kept to one thread (see `worker`) the result is
    the same at each run.

    Args:
        fixed: The portal venous scan in HU.
        moving: The other phase in HU.
        steps: The stages in turn; none gives the identity.
        grid_mm: Voxel size of the grid on which they are registered.
        folder: For the files that ANTs reads and writes; left to the caller to remove.
        seed: Of the metric's sampling.

    Returns:
        A transform (LPS, mm) from points of `fixed` to points of `moving`.

    Raises:
        InputError: A scan is too small, or the registration broke off.
        MissingExtraError: antspyx is not installed.
    """
    transform = sitk.CompositeTransform(3)
    if not steps:
        return transform
    files = {name: folder / f"{name}.nii" for name in ("fixed", "moving")}
    for (name, file), image in zip(files.items(), (fixed, moving), strict=True):
        small = sitk.Clamp(coarse(image, grid_mm), lowerBound=WINDOW_HU[0], upperBound=WINDOW_HU[1])
        if min(small.GetSize()) < SMALLEST:
            raise InputError(
                f"the {name} scan covers only {_extent(image)} mm; registration needs"
                f" {SMALLEST * grid_mm:g} mm along each axis"
            )
        sitk.WriteImage(small, str(file))
    words = [*("--dimensionality", "3"), *("--float", "1"), *("--random-seed", str(seed))]
    words += ["--output", str(folder / "found"), "--initial-moving-transform", "Identity"]
    for step in steps:
        words += step.arguments(str(files["fixed"]), str(files["moving"]))
    _run_ants(words)
    for matrix in sorted(folder.glob("found*GenericAffine.mat")):
        transform.AddTransform(sitk.ReadTransform(str(matrix)))
    for warp in sorted(folder.glob("found*[0-9]Warp.nii.gz")):
        if "Inverse" not in warp.name:
            field = sitk.ReadImage(str(warp), sitk.sitkVectorFloat64)
            transform.AddTransform(sitk.DisplacementFieldTransform(field))
    if transform.GetNumberOfTransforms() == 0:
        raise InputError("the registration ended without a transform")
    return transform


def _run_ants(words: list[str]) -> None:
    try:
        import ants
    except ImportError as error:
        raise MissingExtraError("antspyx", "register") from error
    try:
        ants.registration(words, None)
    except RuntimeError as error:
        raise InputError(f"the registration broke off ({' '.join(str(error).split())})") from error


def _extent(image: Image) -> str:
    return " by ".join(f"{n * s:.0f}" for n, s in zip(image.GetSize(), image.GetSpacing(), strict=True))
