"""The command that prepares a cohort."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from mpfnl.errors import IncompleteError, InputError

if TYPE_CHECKING:
    from mpfnl.prepare.cohort import Prepared

Crop: TypeAlias = Literal["body", "segmentation", "none"]
Interpolation: TypeAlias = Literal["linear", "bspline"]
_DEFAULT_STEPS = ("rigid", "affine", "deformable")


def prepare(
    manifest: Path,
    *,
    output: Path,
    steps: list[str] = list(_DEFAULT_STEPS),  # noqa: B006  # never changed; the parser shows it
    grid_mm: float = 4.0,
    interpolation: Interpolation = "linear",
    crop: Crop = "body",
    margin_mm: float = 10.0,
    jobs: int = 1,
    scheduler: str | None = None,
    threads: int = 1,
    deterministic: bool = False,
) -> None:
    """Prepare a cohort: crop, registration to the portal venous scan, quality record.

    Interrupted and started again it does only what is missing. A study that fails is named at the end and in
    failures.csv, and does not stop the others; the exit status is then 1. Look at index.html before training:
    the thresholds of its verdicts were calibrated on phantoms.

    Args:
        manifest: The raw cohort's CSV; a phase is a NIfTI, NRRD or MetaImage file or a DICOM folder.
        output: The prepared cohort's folder.
        steps: Registration, in this order, of rigid, affine, and deformable-fast, deformable or
            deformable-accurate; or none.
        grid_mm: Voxel size of the grid on which the phases are registered.
        interpolation: Of the non-contrast and arterial scan on the portal venous grid.
        crop: How the abdomen is found; segmentation takes TotalSegmentator.
        margin_mm: Kept around it.
        jobs: Studies at once, a process each.
        scheduler: Address of a Dask scheduler, such as tcp://node:8786; its workers do the work.
        threads: Of each process; with more than one the last digits differ from run to run.
        deterministic: Refuse whatever would not give the same files again.
    """
    from mpfnl.data.manifest import read_manifest
    from mpfnl.prepare.cohort import Scale, prepare_cohort
    from mpfnl.prepare.presets import find_steps
    from mpfnl.prepare.settings import Crop as CropBy
    from mpfnl.prepare.settings import Interpolation as InterpolateBy
    from mpfnl.prepare.settings import PrepareSettings

    if deterministic and threads > 1:
        raise InputError(f"--deterministic --threads {threads}: only --threads 1 gives the same files again")
    if not (grid_mm > 0 and margin_mm >= 0):
        raise InputError(f"--grid-mm {grid_mm} --margin-mm {margin_mm}: give sizes in mm")
    settings = PrepareSettings(
        find_steps(steps), grid_mm, InterpolateBy(interpolation), CropBy(crop), margin_mm
    )
    raw = read_manifest(manifest, check_files=False)  # a missing file is one study's failure
    _tell(prepare_cohort(raw, output, settings, Scale(jobs, scheduler, threads), progress=True), output)


def _tell(prepared: Prepared, output: Path) -> None:
    from mpfnl.data.manifest import Quality
    from mpfnl.prepare.names import FAILURES, INDEX, MANIFEST

    counts = {quality: prepared.with_quality(quality) for quality in Quality}
    told = ", ".join(f"{len(studies)} {quality}" for quality, studies in counts.items())
    if prepared.manifest is not None:
        print(f"{output / MANIFEST}: {len(prepared.manifest)} studies prepared: {told}")
        print(f"look at {output / INDEX}")
    for quality in (Quality.WARN, Quality.FAIL):
        if counts[quality]:
            print(f"{quality}: {', '.join(counts[quality])}")
    for study_id, reason in prepared.failures.items():
        print(f"not prepared: {study_id}: {reason}")
    if prepared.failures:
        total = len(prepared.failures) + (len(prepared.manifest) if prepared.manifest else 0)
        raise IncompleteError(
            f"{len(prepared.failures)} of {total} studies could not be prepared; see {output / FAILURES}"
        )
