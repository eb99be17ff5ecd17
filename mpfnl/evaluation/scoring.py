"""Scoring of a cohort: each study is degraded, enhanced and segmented, and compared with the clean scan."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from mpfnl.data.degradation import SampleSettings
from mpfnl.data.manifest import Manifest, Split, Study
from mpfnl.errors import ConflictError, InputError, NotFoundError
from mpfnl.evaluation.cases import Case, CaseTable
from mpfnl.evaluation.folder import REFERENCE, volume_files
from mpfnl.evaluation.image_quality import score_images
from mpfnl.evaluation.methods import EvaluatedModel, Methods
from mpfnl.evaluation.overlap import OverlapOptions, Segmentations
from mpfnl.evaluation.probes import Probes, of_probes
from mpfnl.evaluation.provenance import check_same_run, provenance
from mpfnl.evaluation.structure import measure_scans, read_clean, write_structures
from mpfnl.evaluation.tables.metric_table import (
    MetricTable,
    tabulate_image_quality,
    tabulate_overlap,
    tabulate_structure,
    write_summary,
)
from mpfnl.inference.enhancement import EnhanceOptions
from mpfnl.inference.runner import preferred_precision
from mpfnl.inference.tiling import Tiling
from mpfnl.phases import Phase
from mpfnl.progress import track
from mpfnl.segmentation.phantom_weights import TRAINING_SEED
from mpfnl.segmentation.segmenter import Segmenter
from mpfnl.transforms.degradation import SECOND_ORDER_V1, Preset
from mpfnl.transforms.seeds import Sharing
from mpfnl.window import ABDOMEN, Window


@dataclass(frozen=True)
class EvaluateOptions:
    """Settings of an evaluation.

    Args:
        split: Split whose studies are evaluated.
        degradation: Degradation of each phase.
        sharing: Parameters of the degradation that the phases of a study share.
        seed: Seed of the degradation.
        tiling: Tile, overlap and halo in voxels; chosen for each model if None.
        precision: Number type of the convolutions; chosen for the device if None.
        overlap: Comparison of segmentations, where a segmenter is used.
        progress: Whether to show progress bars.
        target: Phase that is compared where only folders of scans are evaluated; models bring their own.
        window: HU window of the comparison where only folders are evaluated; models bring their own.
        probes: Whether each model also enhances the undegraded phases, and a part of the liver with lesions
            inserted before the degradation; more than twice the work.

    >>> EvaluateOptions(seed=1).overlap.tolerance_mm
    3.0
    """

    split: Split = Split.TEST
    degradation: Preset = SECOND_ORDER_V1
    sharing: Sharing = Sharing.NOTHING
    seed: int = 0
    tiling: Tiling | None = None
    precision: torch.dtype | None = None
    overlap: OverlapOptions = field(default_factory=OverlapOptions)
    progress: bool = False
    target: Phase = Phase.PORTAL_VENOUS
    window: Window = ABDOMEN
    probes: bool = True


@dataclass(frozen=True)
class Evaluation:
    """Results of an evaluation.

    Args:
        folder: The evaluation folder.
        target: The phase that was restored.
        window: The HU window of the comparison.
        cases: One row for each study and method.
        image_tables: PSNR, SSIM and registered image metrics of the methods: Table I.
        overlap_tables: DSC and NSD of the methods: Table II; empty where nothing was segmented.
        structure_tables: Contrast and structure of the methods.
    """

    folder: Path
    target: Phase
    window: Window
    cases: list[Case]
    image_tables: list[MetricTable]
    overlap_tables: list[MetricTable]
    structure_tables: list[MetricTable] = field(default_factory=list)

    @property
    def missing(self) -> list[Case]:
        """The rows that lack a requested value; an empty segmentation has one."""
        return [case for case in self.cases if case.failure and math.isnan(case.dsc)]


def score_cohort(
    manifest: Manifest,
    models: Mapping[str, EvaluatedModel],
    folder: Path,
    options: EvaluateOptions | None = None,
    *,
    segmenter: Segmenter | None = None,
    enhanced: Mapping[str, Path] | None = None,
) -> Evaluation:
    """Scores methods on the studies of one split, against the clean scan and the degraded one.

    Each phase of a study is degraded by its own draw; the models receive the degraded phases; PSNR and SSIM
    compare the target phase with the clean scan over the whole volume, windowed to [0, 1]. With a segmenter,
    the clean scan, the degraded one and each method's are segmented, and DSC and NSD compare with the
    reference mask. Scans and masks are written to `volumes/STUDY/`, rows to `cases.csv` as they come. A run
    in a folder with the same cohort, weights and settings computes only what is missing and repeats what
    failed; models, folders or a segmenter may be added. A study without a reference mask is not segmented.
    With neither model nor folder, the degraded scans alone are made and scored.

    Args:
        manifest: Cohort of clean scans; studies whose preparation failed are left out.
        models: Models by name, all of one target phase and window.
        folder: The evaluation folder; created.
        options: Settings.
        segmenter: Segmenter of the structure; None leaves the segmentation out.
        enhanced: Folders by name, with scans that other software made of the degraded ones (of the same
            seed): STUDY.nii.gz each, in HU, on the grid of the study's clean scan.

    Raises:
        InputError: No study of the split is usable, a name is not usable, two models differ in target or
            window, no study has a reference mask, or the folder holds the results of another cohort, model
            or setting. A file that cannot be used is a failure in its rows instead.
    """
    options = options or EvaluateOptions()
    studies = manifest.needed(options.split)
    methods = Methods(models, enhanced or {})
    target, window = methods.target(options.target), methods.window(options.window)
    enhancing = enhance_options(models, options)
    settings = SampleSettings(
        methods.phases, target, options.degradation, window, seed=options.seed, sharing=options.sharing
    )
    segmentations = plan_segmentations(manifest, target, options, segmenter, window)
    folder.mkdir(parents=True, exist_ok=True)
    table = CaseTable(folder, studies, methods.names)
    record = provenance(manifest, studies, methods, settings, enhancing, segmentations)
    check_same_run(folder, record, table.cases)
    for study in _track(studies, "enhancing", options.progress):
        files = volume_files(folder, study.study_id, methods.names, target)
        lost = [] if segmentations is None else [name for name in methods.names if not files[name].is_file()]
        wanted = [name for name in methods.names if name in lost or not table.scored(study, name)]
        if wanted:
            try:
                table.put(score_images(study, methods, wanted, folder, settings, enhancing))
            except InputError as error:  # a file of the study cannot be used: all its rows say so
                table.put(replace(table.new(study, name), failure=str(error)) for name in wanted)
    if segmentations is not None:
        comparable = [study for study in studies if segmentations.comparable(study)]
        for study in _track(comparable, "segmenting", options.progress):
            _segment(study, methods, segmentations, table, folder)
    probes = Probes(models, folder, settings, enhancing) if options.probes else None
    _measure(_track(studies, "measuring", options.progress), methods, table, folder, settings, probes)
    images, structures = tabulate_image_quality(table.cases), tabulate_structure(table.cases)
    overlaps = [] if segmentations is None else tabulate_overlap(table.cases, options.overlap.tolerance_mm)
    write_summary(folder, [*images, *structures, *overlaps], segmenter.notice if segmenter else "")
    return Evaluation(folder, target, window, table.cases, images, overlaps, structures)


def enhance_options(models: Mapping[str, EvaluatedModel], options: EvaluateOptions) -> EnhanceOptions:
    """Settings of the enhancement, in the requested precision or the one that suits the models' device."""
    device = next((model.device for model in models.values()), torch.device("cpu"))
    return EnhanceOptions(options.tiling, options.precision or preferred_precision(device))


def _segment(
    study: Study, methods: Methods, segmentations: Segmentations, table: CaseTable, folder: Path
) -> None:
    """Segments a study's scans that are not segmented yet, and writes each row at once."""
    files = volume_files(folder, study.study_id, methods.names, segmentations.target)
    for name in (REFERENCE, *methods.names):
        case = table.get(study, name)
        exists = name == REFERENCE or table.scored(study, name)
        if exists and (segmentations.needed(case, folder) or not table.has(study, name)):
            table.put([segmentations.score(study, case, files.get(name), folder)])


def _measure(
    studies: Iterable[Study],
    methods: Methods,
    table: CaseTable,
    folder: Path,
    settings: SampleSettings,
    probes: Probes | None,
) -> None:
    """Measures contrast and structure in every written scan, also of earlier runs: label maps may change."""
    rows: list[dict[str, object]] = []
    for study in studies:
        files = volume_files(folder, study.study_id, methods.names, settings.target)
        scored = {name: table.get(study, name) for name in methods.names if table.scored(study, name)}
        clean = read_clean(study, settings.target, settings.window) if scored else None
        if clean is None:
            continue
        values, structures = measure_scans(
            study, clean, {name: files[name] for name in scored}, settings.window
        )
        known = {name: case.structure for name, case in scored.items()}
        if probes is None:
            probed = {name: of_probes(each) for name, each in known.items()}
        else:
            probed = probes.run(study, clean, known)
        table.put(
            replace(scored[name], structure=each | probed.get(name, {})) for name, each in values.items()
        )
        rows += structures
    write_structures(folder, rows)


def _track(studies: Sequence[Study], label: str, progress: bool) -> Iterable[Study]:
    return track(studies, len(studies), label) if progress else studies


def plan_segmentations(
    manifest: Manifest,
    target: Phase,
    options: EvaluateOptions,
    segmenter: Segmenter | None,
    window: Window = ABDOMEN,
) -> Segmentations | None:
    """Segmentations of a cohort, checked before any work is done.

    Args:
        manifest: The cohort.
        target: The phase that is restored.
        options: Settings of the evaluation.
        segmenter: The segmenter; None for no segmentation, which returns None.
        window: HU window of the models, which the degradation clips scans to.

    Raises:
        OptionError: The segmenter does not find the structure.
        ConflictError: The phantom weights were trained on these phantoms.
        NotFoundError: No study has a reference mask.
    """
    if segmenter is None:
        return None
    studies = manifest.needed(options.split)
    trained_on = [s.study_id for s in studies if s.study_id.startswith(f"phantom-{TRAINING_SEED}-")]
    if segmenter.notice and trained_on:
        raise ConflictError(
            f"{manifest.path}: the phantom weights were trained on {trained_on[0]}; take another seed"
        )
    planned = Segmentations(segmenter, options.overlap, target, options.degradation.clip_window(window))
    if not any(planned.comparable(study) for study in studies):
        raise NotFoundError(
            f"{manifest.path}: no study of split {options.split} has a reference mask of the"
            f" {options.overlap.structure}; name the masks in the manifest, or compare with the segmentation"
            " of the clean scan (reference-scan)"
        )
    return planned
