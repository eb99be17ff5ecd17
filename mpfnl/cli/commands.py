"""The commands as plain functions. Heavy packages load when a command runs, so that help is quick."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeAlias

from mpfnl.cli.options import Precision, chosen_device, chosen_precision, chosen_tiling
from mpfnl.errors import InputError

Dataset: TypeAlias = Literal["vindr", "waw-tace"]


def enhance(
    *,
    weights: Path,
    output: Path,
    portal_venous: Path | None = None,
    arterial: Path | None = None,
    noncontrast: Path | None = None,
    tile: int = 64,
    overlap: int = 16,
    device: str = "auto",
    precision: Precision = "auto",
) -> None:
    """Enhance one patient's scan.

    The result has the portal venous scan's grid and number type, in HU, and opens on top of it. Bone, gas and
    whatever else truly lies outside of the window [-175, 275] HU keep the input's values.

    Args:
        weights: The model: a weights folder or a Lightning checkpoint.
        output: The enhanced scan to write, .nii.gz or .nii.
        portal_venous: The portal venous scan in HU: NIfTI, NRRD, MetaImage or a DICOM folder.
        arterial: The arterial scan on the same grid, where the model takes it.
        noncontrast: The non-contrast scan on the same grid, where the model takes it.
        tile: Edge of the tiles in voxels that the volume is cut into; smaller takes less memory.
        overlap: Voxels shared by neighbouring tiles.
        device: auto, cpu, cuda or cuda:N; auto takes a GPU where there is one.
        precision: auto, bf16 or fp32; auto takes bf16 where the device computes in it.
    """
    from mpfnl.models.loading import load_model
    from mpfnl.phases import Phase
    from mpfnl.volumes import check_output

    given = {
        Phase.NONCONTRAST: noncontrast,
        Phase.ARTERIAL: arterial,
        Phase.PORTAL_VENOUS: portal_venous,
    }
    files = {phase: file for phase, file in given.items() if file is not None}
    check_output(output, files.values())
    model = load_model(weights).to(chosen_device(device))
    unused = [phase for phase in files if phase not in model.phases]
    if unused:
        print(f"this {type(model).__name__} does not take: {', '.join(unused)}")
    scan = model.enhance(
        {phase: file for phase, file in files.items() if phase not in unused},
        output,
        tiling=chosen_tiling(tile, overlap),
        precision=chosen_precision(precision),
        progress=True,
    )
    print(f"{output}: {model.target.replace('_', ' ')} phase, {'x'.join(map(str, scan.shape))} voxels")


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

    from mpfnl.data.phantom import SMALL, PhantomConfig, write_cohort, write_vindr_cohort

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
    from mpfnl.data.adapters import check_table, find_vindr, find_waw_tace, write_found

    find = {"vindr": find_vindr, "waw-tace": find_waw_tace}[dataset]
    check_table(output)
    print(write_found(output, find(root, seed, masks)))


def demo(*, output: Path = Path("demo"), seed: int = 0) -> None:
    """Try everything without data: phantoms, training, enhancement, the report; minutes on a CPU.

    Started again it goes on from what is finished.

    Args:
        output: The folder for everything that it makes.
        seed: Of the phantoms, the degradation and the training.
    """
    from mpfnl.study.demo import run_demo

    run_demo(output, seed)
