"""The commands as plain functions. Heavy packages load when a command runs, so that help is quick."""

from __future__ import annotations

from pathlib import Path

from mpfnl.errors import OptionError


def phantom(
    *,
    output: Path,
    patients: int = 24,
    seed: int = 0,
    misalignment: float = 1.0,
    small: bool = False,
    dicom: bool = False,
) -> None:
    """Write a cohort of phantoms: several phases, organ labels, a pancreas mask and the manifest.

    Phantoms resemble abdominal CT but are synthetic: results on them are not clinical evidence.

    Args:
        output: Folder of the cohort.
        patients: Number of patients.
        seed: Seed of the cohort; a patient depends on the seed and the patient's number alone.
        misalignment: Scale of the motion between the phases: 1 as measured before registration, 0 none.
        small: Small volumes with voxels of about 3 mm, for tests and trials.
        dicom: DICOM in the layout of VinDr-Multiphase: the phases differ in their number of slices, some
            series exist twice, and one additional patient lacks the arterial phase; mpfnl manifest vindr
            writes the manifest.
    """
    from dataclasses import replace

    from mpfnl.phantoms import PhantomConfig, write_cohort
    from mpfnl.phantoms.config import SMALL
    from mpfnl.phantoms.vindr import write_vindr_cohort

    if not misalignment >= 0:
        raise OptionError(f"--misalignment {misalignment}: give 0 or more")
    config = replace(SMALL if small else PhantomConfig(), misalignment=misalignment)
    if dicom:
        print(write_vindr_cohort(output, patients, seed, config, lacking=1, progress=True))
        return
    print(write_cohort(output, patients=patients, seed=seed, config=config, progress=True))


def manifest(
    dataset: str,
    root: Path,
    *,
    output: Path,
    seed: int = 0,
    masks: Path | None = None,
) -> None:
    """Write the manifest of a public data set, with its patients split 80/10/10.

    NAME.excluded.csv beside it lists the studies left out with their reasons, and NAME.series.csv the DICOM
    series selected for each phase.

    Args:
        dataset: Name of the data set.
        root: Folder of the data set.
        output: Path of the manifest, NAME.csv.
        seed: Seed of the splits.
        masks: Folder of your masks, one folder for each scan: SERIES/pancreas.nii.gz and labels.nii.gz.
    """
    from mpfnl.datasets.cohort import check_output, write_cohort_tables
    from mpfnl.datasets.registry import find_dataset

    check_output(output)
    print(write_cohort_tables(output, find_dataset(dataset).read(root, seed, masks)))


def demo(*, output: Path = Path("demo"), seed: int = 0, fine_tune: bool = False) -> None:
    """Demonstrate the whole workflow on phantoms: training, enhancement, report; minutes on a CPU.

    The same command continues an interrupted demonstration.

    Args:
        output: Folder of the results.
        seed: Seed of the phantoms, the degradation and the training.
        fine_tune: Fine-tune the shipped weights for half as many epochs instead of training from scratch.
    """
    from mpfnl.experiments.demo import DemoSettings, run_demo

    run_demo(output, seed, DemoSettings(fine_tune=fine_tune))
