"""Registration of a phase to the portal venous scan with ANTs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import SimpleITK as sitk

from mpfnl.errors import GridError, InputError, MissingExtraError
from mpfnl.prepare.alignment import SOFT_TISSUE_HU
from mpfnl.prepare.resampling import Image, coarse
from mpfnl.prepare.settings import Step

SMALLEST = 8
"""Least number of voxels of the registration grid along each axis of a scan."""


def register(
    fixed: Image, moving: Image, steps: Sequence[Step], grid_mm: float, folder: Path, seed: int = 1
) -> sitk.Transform:
    """Registers one scan to another.

    Both are smoothed onto isotropic grids and clipped to soft tissue. The registration starts from the
    scanner's coordinates, which the phases of a study share. With ITK limited to one thread (see
    `execution`) the result is the same in each run.

    Args:
        fixed: Portal venous scan in HU.
        moving: Another phase in HU.
        steps: Registration steps in their order; none gives the identity.
        grid_mm: Voxel size in mm of the registration grid.
        folder: Folder for the files that ANTs reads and writes; the caller removes it.
        seed: Seed of the metric's sampling.

    Returns:
        Transform (LPS, mm) from points of `fixed` to points of `moving`.

    Raises:
        GridError: A scan is too small.
        InputError: ANTs failed.
        MissingExtraError: antspyx is not installed.
    """
    transform = sitk.CompositeTransform(3)
    if not steps:
        return transform
    files = {name: folder / f"{name}.nii" for name in ("fixed", "moving")}
    for (name, file), image in zip(files.items(), (fixed, moving), strict=True):
        small = sitk.Clamp(coarse(image, grid_mm), lowerBound=SOFT_TISSUE_HU[0], upperBound=SOFT_TISSUE_HU[1])
        if min(small.GetSize()) < SMALLEST:
            raise GridError(
                f"the {name} scan covers only {_extent(image)} mm; registration needs"
                f" {SMALLEST * grid_mm:g} mm along each axis"
            )
        sitk.WriteImage(small, str(file))
    arguments = [*("--dimensionality", "3"), *("--float", "1"), *("--random-seed", str(seed))]
    arguments += ["--output", str(folder / "stage"), "--initial-moving-transform", "Identity"]
    for step in steps:
        arguments += step_arguments(step, str(files["fixed"]), str(files["moving"]))
    _run_ants(arguments)
    for matrix in sorted(folder.glob("stage*GenericAffine.mat")):
        transform.AddTransform(sitk.ReadTransform(str(matrix)))
    for warp in sorted(folder.glob("stage*[0-9]Warp.nii.gz")):
        if "Inverse" not in warp.name:
            field = sitk.ReadImage(str(warp), sitk.sitkVectorFloat64)
            transform.AddTransform(sitk.DisplacementFieldTransform(field))
    if transform.GetNumberOfTransforms() == 0:
        raise InputError("the registration ended without a transform")
    return transform


def step_arguments(step: Step, fixed: str, moving: str) -> list[str]:
    """The command-line arguments of `antsRegistration` for one step."""
    tail = f",{step.update_smoothing:g},0" if step.transform == "SyN" else ""
    sampling = "" if step.sampling is None else f",Regular,{step.sampling:g}"
    return [
        *("--transform", f"{step.transform}[{step.gradient_step:g}{tail}]"),
        *("--metric", f"{step.metric}[{fixed},{moving},1,{step.metric_size}{sampling}]"),
        *("--convergence", f"[{_by_level(step.iterations)},1e-6,10]"),
        *("--shrink-factors", _by_level(step.shrink)),
        *("--smoothing-sigmas", f"{_by_level(step.smoothing)}vox"),
    ]


def _by_level(values: Sequence[float]) -> str:
    return "x".join(f"{value:g}" for value in values)


def _run_ants(arguments: list[str]) -> None:
    try:
        import ants
    except ImportError as error:
        raise MissingExtraError("antspyx", "register") from error
    try:
        ants.registration(arguments, None)
    except RuntimeError as error:
        raise InputError(f"the registration failed ({' '.join(str(error).split())})") from error


def _extent(image: Image) -> str:
    return " by ".join(f"{n * s:.0f}" for n, s in zip(image.GetSize(), image.GetSpacing(), strict=True))
