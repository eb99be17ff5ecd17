"""The commands as plain functions. Heavy packages load when a command runs, so that help is quick."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeAlias

from mpfnl.errors import InputError

Dataset: TypeAlias = Literal["vindr", "waw-tace"]


def phantom(
    *,
    output: Path,
    patients: int = 24,
    seed: int = 0,
    misalignment: float = 1.0,
    small: bool = False,
    dicom: bool = False,
) -> None:
    """Write a cohort of phantoms: three phases, organ labels and a pancreas mask each, and the manifest.

    They look like abdominal CT and are not: nothing that is shown on them is clinical evidence.

    Args:
        output: The cohort's folder.
        patients: How many.
        seed: A patient depends on the seed and its number alone.
        misalignment: How far the phases lie apart: 1 as measured before registration, 0 not at all.
        small: Small volumes of about 3 mm, for tests and tries.
        dicom: DICOM in the layout of VinDr-Multiphase, as scanners leave it: the number of slices differs
            between the phases, some series are there twice, and one patient more lacks the arterial phase;
            mpfnl manifest vindr makes the manifest.
    """
    from dataclasses import replace

    from mpfnl.phantoms import SMALL, PhantomConfig, write_cohort, write_vindr_cohort

    if not misalignment >= 0:
        raise InputError(f"--misalignment {misalignment}: give 0 or more")
    config = replace(SMALL if small else PhantomConfig(), misalignment=misalignment)
    if dicom:
        print(write_vindr_cohort(output, patients, seed, config, lacking=1, progress=True))
        return
    print(write_cohort(output, patients=patients, seed=seed, config=config, progress=True))


def manifest(
    dataset: Dataset,
    root: Path,
    *,
    output: Path,
    seed: int = 0,
    masks: Path | None = None,
) -> None:
    """Write the manifest of a public dataset, with its patients split 80/10/10.

    Beside it stand NAME.excluded.csv, the studies left out and why, and for VinDr NAME.series.csv, the series
    picked for each phase and why.

    Args:
        dataset: vindr (VinDr-Multiphase) or waw-tace (WAW-TACE).
        root: The dataset's folder.
        output: The manifest to write, NAME.csv.
        seed: Of the splits.
        masks: A folder with masks that you have, one folder a scan: SERIES/pancreas.nii.gz and labels.nii.gz.
    """
    from mpfnl.datasets import check_table, find_vindr, find_waw_tace, write_found

    find = {"vindr": find_vindr, "waw-tace": find_waw_tace}[dataset]
    check_table(output)
    print(write_found(output, find(root, seed, masks)))


def demo(*, output: Path = Path("demo"), seed: int = 0, fine_tune: bool = False) -> None:
    """Try everything without data: phantoms, training, enhancement, the report; minutes on a CPU.

    Started again it goes on from what is finished.

    Args:
        output: The folder for everything that it makes.
        seed: Of the phantoms, the degradation and the training.
        fine_tune: Begin with the weights that ship, not from nothing, and train for half as many epochs.
    """
    from mpfnl.experiments.demo import DemoSettings, run_demo

    run_demo(output, seed, DemoSettings(fine_tune=fine_tune))
