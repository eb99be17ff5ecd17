"""The command that compares methods on a cohort: tables, figures, report."""

from __future__ import annotations

from pathlib import Path

from mpfnl.cli.options import (
    Precision,
    Segment,
    Sharing,
    Split,
    TruthName,
    common_tiling,
    load_models,
    make_segmenter,
    method_folders,
    torch_precision,
)
from mpfnl.errors import IncompleteError, OptionError


def evaluate(
    manifest: Path,
    *,
    output: Path,
    models: list[str] | None = None,
    enhanced: list[str] | None = None,
    segment: Segment = "no",
    structure: str = "pancreas",
    label: list[int] | None = None,
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
    skip_probes: bool = False,
) -> None:
    """Compare methods on a cohort: the paper's Tables I and II, its Figures 2 to 4, and a report.

    Each phase of a clean study is degraded by its own draw; each model gets the degraded phases; PSNR and
    SSIM compare with the clean scan in the models' HU window. With --segment, TotalSegmentator segments the
    clean scan, the degraded one and each method's, and DSC and NSD compare with the reference mask. The same
    command, repeated, computes only what is missing and repeats what failed; models, folders and the
    segmentation may be added. With neither --models nor --enhanced it makes the degraded scans, for other
    software to enhance. The exit status is 1 where a scan could not be made, scored or segmented.

    Args:
        manifest: CSV of the cohort, with clean scans.
        output: Evaluation folder: cases.csv, summary.csv, summary.json, report.html, figures/, volumes/.
        models: Models, each NAME=WEIGHTS: a weights folder, a checkpoint, shipped weights, or owner/name on
            the Hugging Face Hub. NAME=WEIGHTS@PHASE+PHASE restricts the model to these phases, as if the
            others were missing.
        enhanced: Folders, each NAME=FOLDER, with scans that other software made of the degraded ones in
            volumes/STUDY/: STUDY.nii.gz each, in HU, on their grid.
        segment: Segmentation: no, fast (TotalSegmentator's 3 mm model) or full (1.5 mm); needs the extra
            segment.
        structure: Structure to segment, by TotalSegmentator's name.
        label: Labels of the structure in the reference masks, such as 1 2 for pancreas and tumour together;
            the manifest may name them for each file instead (pancreas.nii.gz#1+2).
        nsd_tolerance: Tolerance of the normalized surface distance in mm.
        truth: Masks to compare with: mask (those of the manifest) or reference-scan (the segmentation of the
            clean scan; for cohorts without masks).
        phantom_weights: Segment with the weights that ship with mpfnl; for phantoms only, and labelled so.
        isolated: Segment each scan in a process of its own.
        split: Split to evaluate: train, val or test.
        degradation: Degradation preset: {presets}.
        sharing: Parameters that a study's phases share: nothing, or acquisition (one scanner and protocol).
        seed: Seed of the degradation.
        tile: Edge of the tiles in voxels; that of each model's training patches if not given.
        overlap: Overlap of neighbouring tiles in voxels; a quarter of --tile, or chosen for each model, if
            not given.
        device: Device: auto, cpu, cuda or cuda:N.
        precision: Number type: auto, bf16 or fp32; auto takes bf16 where the device computes in it.
        skip_probes: Omit the enhancement of undegraded scans and of lesions inserted in the liver, about half
            of the work.
    """
    from contextlib import nullcontext

    from mpfnl.data.manifest import Split as CohortSplit
    from mpfnl.data.manifest import read_manifest
    from mpfnl.evaluation import EvaluateOptions
    from mpfnl.evaluation import evaluate as evaluate_cohort
    from mpfnl.evaluation.overlap import OverlapOptions, Truth, name_labels
    from mpfnl.transforms import find_preset
    from mpfnl.transforms.seeds import Sharing as PhaseSharing

    if not nsd_tolerance >= 0:
        raise OptionError(f"--nsd-tolerance {nsd_tolerance}: give 0 mm or more")
    cohort = name_labels(read_manifest(manifest), structure, label or [])
    loaded, folders = load_models(models or [], device), method_folders(enhanced or [])
    options = EvaluateOptions(
        CohortSplit(split),
        degradation=find_preset(degradation),
        sharing=PhaseSharing(sharing),
        seed=seed,
        tiling=common_tiling(tile, overlap),
        precision=torch_precision(precision),
        overlap=OverlapOptions(structure, nsd_tolerance, Truth(truth)),
        progress=True,
        probes=not skip_probes,
    )
    segmenter = make_segmenter(segment, structure, phantom_weights, isolated, device)
    with segmenter or nullcontext():
        evaluation = evaluate_cohort(cohort, loaded, output, options, segmenter=segmenter, enhanced=folders)
    if evaluation.missing:
        raise IncompleteError(
            f"{len(evaluation.missing)} of {len(evaluation.cases)} scans lack a value, see above and the"
            " report; the same command repeats them"
        )
