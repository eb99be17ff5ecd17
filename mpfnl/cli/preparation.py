"""The command that prepares a cohort."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mpfnl.errors import IncompleteError, OptionError
from mpfnl.prepare.settings import CropMethod, Interpolator, PrepareSettings

if TYPE_CHECKING:
    from mpfnl.prepare.cohort import PreparedCohort

_STEPS = list(PrepareSettings.steps)


def prepare(
    manifest: Path,
    *,
    output: Path,
    steps: list[str] = _STEPS,
    grid_mm: float = PrepareSettings.grid_mm,
    interpolation: Interpolator = PrepareSettings.interpolation,
    crop: CropMethod = PrepareSettings.crop,
    margin_mm: float = PrepareSettings.margin_mm,
    jobs: int = 1,
    scheduler: str | None = None,
    threads: int = 1,
    deterministic: bool = False,
) -> None:
    """Prepare a cohort: crop, registration to the portal venous scan, quality record.

    A repeated run prepares only what is missing. A study that fails is named at the end and in failures.csv
    and does not stop the others; the exit status is then 1. A phase that does not lie on the portal venous
    scan is left out, and its study is kept. Review index.html before training: the thresholds
    of its verdicts were calibrated on phantoms.

    Args:
        manifest: CSV of the raw cohort; a phase is a NIfTI, NRRD or MetaImage file or a DICOM folder.
        output: Folder of the prepared cohort.
        steps: Registration steps, in this order: rigid, affine, and one of deformable-fast, deformable and
            deformable-accurate; or none.
        grid_mm: Voxel size of the registration grid in mm.
        interpolation: Interpolation of the phases that are registered to the portal venous scan.
        crop: Method that finds the abdomen; segmentation takes TotalSegmentator.
        margin_mm: Margin around the abdomen in mm.
        jobs: Number of studies at once, each in its own process.
        scheduler: Address of a Dask scheduler, such as tcp://node:8786, whose workers prepare the studies.
        threads: Threads of each process; with more than one the last digits differ between runs.
        deterministic: Refuse settings that do not give the same files in each run.
    """
    from mpfnl.data.manifest import read_manifest
    from mpfnl.prepare.cohort import prepare_cohort

    if deterministic and threads > 1:
        raise OptionError(f"--deterministic --threads {threads}: only --threads 1 gives the same files again")
    try:
        settings = PrepareSettings(tuple(steps), grid_mm, interpolation, crop, margin_mm)
    except OptionError as error:
        raise OptionError(f"--{str(error).replace('_', '-')}") from None
    raw = read_manifest(manifest, check_files=False)  # a missing file is the failure of one study
    cohort = prepare_cohort(
        raw, output, settings, jobs=jobs, scheduler=scheduler, threads=threads, progress=True
    )
    _print_summary(cohort, output)


def _print_summary(cohort: PreparedCohort, output: Path) -> None:
    from mpfnl.data.manifest import Quality
    from mpfnl.prepare.record import FAILURES, INDEX, MANIFEST

    studies = {quality: cohort.with_quality(quality) for quality in Quality}
    counts = ", ".join(f"{len(names)} {quality}" for quality, names in studies.items())
    if cohort.manifest is not None:
        print(f"{output / MANIFEST}: {len(cohort.manifest)} studies prepared: {counts}")
        print(f"review {output / INDEX}")
    for quality in (Quality.WARN, Quality.FAIL):
        if studies[quality]:
            print(f"{quality}: {', '.join(studies[quality])}")
    for study_id, phases in cohort.left_out.items():
        print(f"left out: {study_id}: {', '.join(f'{phase.label} phase' for phase in phases)}")
    for study_id, reason in cohort.failures.items():
        print(f"not prepared: {study_id}: {reason}")
    if cohort.failures:
        total = len(cohort.failures) + (len(cohort.manifest) if cohort.manifest else 0)
        raise IncompleteError(
            f"{len(cohort.failures)} of {total} studies could not be prepared; see {output / FAILURES}"
        )
