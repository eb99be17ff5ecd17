"""The command that compares methods on a cohort: tables, figures, report."""

from __future__ import annotations

from pathlib import Path

from mpfnl.cli.options import (
    Precision,
    Segment,
    Sharing,
    Split,
    TruthName,
    chosen_precision,
    chosen_segmenter,
    chosen_tiling,
    named_folders,
    named_models,
)
from mpfnl.errors import IncompleteError, InputError


def evaluate(
    manifest: Path,
    *,
    output: Path,
    models: list[str] | None = None,
    enhanced: list[str] | None = None,
    segment: Segment = "no",
    structure: str = "pancreas",
    nsd_tolerance: float = 3.0,
    truth: TruthName = "mask",
    phantom_weights: bool = False,
    isolated: bool = False,
    split: Split = "test",
    degradation: str = "paper",
    sharing: Sharing = "nothing",
    seed: int = 0,
    tile: int | None = None,
    overlap: int | None = None,
    device: str = "auto",
    precision: Precision = "auto",
) -> None:
    """Compare methods on a cohort: the paper's Tables I and II, its Figures 2 to 4, and a report.

    Each phase of a clean study is degraded by its own draw; each model gets the degraded phases; PSNR and
    SSIM compare with the clean scan. With --segment, TotalSegmentator segments the clean scan, the degraded
    one and each method's, and DSC and NSD compare with the reference mask. Started again with the same
    arguments, it does only what is missing and tries again what failed; models, folders and the segmentation
    may be added. With neither --models nor --enhanced it makes the degraded scans, for others to enhance. The
    exit status is 1 where a scan could not be made, scored or segmented.

    Args:
        manifest: The cohort's CSV, with clean scans.
        output: The evaluation folder: cases.csv, summary.csv, summary.json, report.html, figures/, volumes/.
        models: Each NAME=WEIGHTS: a weights folder, a checkpoint, shipped weights, or owner/name on the
            Hugging Face Hub. NAME=WEIGHTS@PHASE+PHASE gives the model these phases only, as if the others
            were missing.
        enhanced: Each NAME=FOLDER, with scans that something else made of the degraded ones in
            volumes/STUDY/: STUDY.nii.gz each, in HU, on their grid.
        segment: no, fast (TotalSegmentator's 3 mm model) or full (1.5 mm); takes the extra segment.
        structure: What is segmented, by TotalSegmentator's name.
        nsd_tolerance: Of the normalized surface distance, in mm.
        truth: What segmentations are compared with: mask (the manifest's masks) or reference-scan (what is
            found in the clean scan; for cohorts without masks).
        phantom_weights: Segment with the weights that ship with mpfnl; for phantoms only, and labelled so.
        isolated: Segment each scan in a process of its own.
        split: Which studies: train, val or test.
        degradation: What the scans are degraded with: paper, mild, severe, low-dose, thick-slices, motion or
            metal.
        sharing: What a study's phases have in common: nothing, or acquisition (one scanner and protocol).
        seed: Of the degradation.
        tile: Edge of the tiles in voxels; each model's training patches' if not given.
        overlap: Voxels shared by neighbouring tiles; a quarter of --tile, or what suits each model, if not
            given.
        device: auto, cpu, cuda or cuda:N.
        precision: auto, bf16 or fp32; auto takes bf16 where the device computes in it.
    """
    from contextlib import nullcontext

    from mpfnl.data.manifest import Split as CohortSplit
    from mpfnl.data.manifest import read_manifest
    from mpfnl.evaluation.evaluate import EvaluateOptions
    from mpfnl.evaluation.overlap import OverlapOptions, Truth
    from mpfnl.evaluation.run import run_evaluation
    from mpfnl.transforms import Sharing as PhaseSharing
    from mpfnl.transforms import find_preset

    if not nsd_tolerance >= 0:
        raise InputError(f"--nsd-tolerance {nsd_tolerance}: give 0 mm or more")
    cohort = read_manifest(manifest)
    loaded, folders = named_models(models or [], device), named_folders(enhanced or [])
    options = EvaluateOptions(
        CohortSplit(split),
        degradation=find_preset(degradation),
        sharing=PhaseSharing(sharing),
        seed=seed,
        tiling=chosen_tiling(tile, overlap),
        precision=chosen_precision(precision),
        overlap=OverlapOptions(structure, nsd_tolerance, Truth(truth)),
        progress=True,
    )
    segmenter = chosen_segmenter(segment, structure, phantom_weights, isolated, device)
    with segmenter or nullcontext():
        evaluation = run_evaluation(cohort, loaded, output, options, segmenter=segmenter, enhanced=folders)
    if evaluation.missing:
        raise IncompleteError(
            f"{len(evaluation.missing)} of {len(evaluation.cases)} scans lack a value, see above and the"
            " report; the same command tries them again"
        )
