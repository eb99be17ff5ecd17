"""The command of the ablation of architecture and number of phases."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mpfnl.cli.options import (
    Precision,
    Segment,
    TruthName,
    make_segmenter,
    torch_device,
    torch_precision,
)
from mpfnl.errors import OptionError

if TYPE_CHECKING:
    from mpfnl.experiments.budget import TrainingBudget


def ablate(
    manifest: Path,
    *,
    output: Path,
    small: bool = False,
    epochs: int | None = None,
    patches_per_study: int | None = None,
    batch_size: int | None = None,
    patch_size: int | None = None,
    degradation: str = "paper",
    seed: int = 0,
    segment: Segment = "no",
    truth: TruthName = "mask",
    phantom_weights: bool = False,
    device: str = "auto",
    precision: Precision = "auto",
) -> None:
    """Train RCAN3D and PFNL3D, each with one phase and with three, on one budget, and compare them.

    The output is the report of mpfnl evaluate and a 2 x 2 table of the effects of the architecture and of the
    phases, and their interaction. The default is the paper's networks and training: days on a GPU; try
    --small first. A repeated run with the same arguments resumes after the last epoch.

    Args:
        manifest: CSV of a cohort of clean scans with the splits train, val and test.
        output: Output folder of ablation.csv, weights/, training/ and evaluation/.
        small: Train small networks on a small budget: minutes to an hour on a CPU. The results do not apply
            to networks of the paper's sizes.
        epochs: Epochs of each training; 1000 by default, 8 with --small.
        patches_per_study: Training patches of each study in an epoch; 16 by default, 10 with --small.
        batch_size: Patches of each training step; 8 by default, 2 with --small.
        patch_size: Edge of a patch in voxels; 32 by default.
        degradation: Degradation preset of training and evaluation: {presets}.
        seed: Seed of the initial weights, the patches and the degradation.
        segment: Segmentation of the pancreas, as for mpfnl evaluate: no, fast or full.
        truth: Reference of the segmentations: mask or reference-scan.
        phantom_weights: Segment with the weights that ship with mpfnl; for phantoms only, and labelled so.
        device: Device: auto, cpu, cuda or cuda:N; auto takes a GPU where there is one.
        precision: Precision: auto, bf16 or fp32; auto takes bf16 where the device computes in it.
    """
    from contextlib import nullcontext

    from mpfnl.data.manifest import read_manifest
    from mpfnl.evaluation.overlap import OverlapOptions, Truth
    from mpfnl.experiments.ablation import AblationSettings, run_ablation
    from mpfnl.experiments.budget import SMALL_TILING, Machine
    from mpfnl.transforms.degradation import find_preset

    budget = _budget(
        small,
        epochs=epochs,
        patches_per_study=patches_per_study,
        batch_size=batch_size,
        patch_size=patch_size,
        seed=seed,
    )
    settings = AblationSettings(
        budget,
        Machine(torch_device(device), torch_precision(precision)),
        small,
        SMALL_TILING if small else None,
        OverlapOptions(truth=Truth(truth)),
        find_preset(degradation),
    )
    cohort = read_manifest(manifest)
    segmenter = make_segmenter(
        segment, settings.overlap.structure, phantom_weights, isolated=False, device=device
    )
    with segmenter or nullcontext():
        run_ablation(cohort, output, settings, segmenter)


def _budget(small: bool, **options: int | None) -> TrainingBudget:
    """The default budget with the options that were given."""
    from dataclasses import replace

    from mpfnl.experiments.budget import SMALL_BUDGET, TrainingBudget

    changes = {name: value for name, value in options.items() if value is not None}
    try:
        return replace(SMALL_BUDGET if small else TrainingBudget(), **changes)
    except OptionError as error:
        raise OptionError(f"--{str(error).replace('_', '-')}") from None
