"""Evaluates a cohort: degrades each study, enhances and segments it, scores it against the clean scan."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from mpfnl.data.manifest import Manifest, Split, Study
from mpfnl.data.recipe import Recipe
from mpfnl.errors import InputError
from mpfnl.evaluation.cases import BASELINE, REFERENCE, Case, read_cases, write_cases
from mpfnl.evaluation.files import volume_files
from mpfnl.evaluation.given import EvaluatedModel
from mpfnl.evaluation.overlap import OverlapOptions, Segmentations
from mpfnl.evaluation.provenance import check_same_run, provenance
from mpfnl.evaluation.quality import Methods, score_images
from mpfnl.evaluation.tables import MetricTable, tabulate_image_quality, tabulate_overlap, write_summary
from mpfnl.inference.enhancement import EnhanceOptions
from mpfnl.inference.runner import preferred_precision
from mpfnl.inference.tiling import Tiling
from mpfnl.networks.upscale import output_scale
from mpfnl.phases import PHASES, Phase
from mpfnl.progress import track
from mpfnl.segmentation.phantom_weights import TRAINING_SEED
from mpfnl.segmentation.protocol import Segmenter
from mpfnl.transforms import Sharing
from mpfnl.transforms.degradation import SECOND_ORDER_V1, Preset

CASES = "cases.csv"
LONGEST_NAME = 100  # a method's: it names files


@dataclass(frozen=True)
class EvaluateOptions:
    """How a cohort is evaluated.

    Args:
        split: Which studies.
        degradation: What each phase is degraded with.
        sharing: What the degraded phases of a study have in common.
        seed: Of the degradation.
        tiling: Tile, overlap and halo in voxels; those that suit each model if None.
        precision: Of the convolutions; chosen by the device if None.
        overlap: How segmentations are compared, where there is a segmenter.
        progress: Show a progress bar.
    """

    split: Split = Split.TEST
    degradation: Preset = SECOND_ORDER_V1
    sharing: Sharing = Sharing.NOTHING
    seed: int = 0
    tiling: Tiling | None = None
    precision: torch.dtype | None = None
    overlap: OverlapOptions = field(default_factory=OverlapOptions)
    progress: bool = False


@dataclass(frozen=True)
class Evaluation:
    """What came out.

    Args:
        folder: The evaluation folder.
        target: The phase that was restored.
        cases: One row a study and method.
        image_tables: PSNR and SSIM over the methods: Table I.
        overlap_tables: DSC and NSD over the methods: Table II; empty where nothing was segmented.
    """

    folder: Path
    target: Phase
    cases: list[Case]
    image_tables: list[MetricTable]
    overlap_tables: list[MetricTable]

    @property
    def missing(self) -> list[Case]:
        """The rows without a value that was asked for; an empty segmentation has one."""
        return [case for case in self.cases if case.failure and math.isnan(case.dsc)]


def evaluate(
    manifest: Manifest,
    models: Mapping[str, EvaluatedModel],
    folder: Path,
    options: EvaluateOptions | None = None,
    *,
    segmenter: Segmenter | None = None,
    enhanced: Mapping[str, Path] | None = None,
) -> Evaluation:
    """Scores methods on the studies of one split, against the clean scan and the degraded one.

    Each phase of a study is degraded by its own draw; the models get the degraded phases; PSNR and SSIM
    compare the target phase with the clean scan over the whole volume, windowed to [0, 1]. With a segmenter,
    the clean scan, the degraded one and each method's are segmented, and DSC and NSD compare with the
    reference mask. Scans and masks are written to `volumes/STUDY/`, rows to `cases.csv` as they come. Started
    again in the same folder with the same cohort, weights and settings, it does only what is missing and
    tries again what failed; models, folders or a segmenter may be added. A study without a reference mask is
    not segmented. With neither model nor folder the degraded scans alone are made and scored.

    Args:
        manifest: The cohort, clean; studies whose preparation failed are left out.
        models: Names and models, all of one target phase.
        folder: The evaluation folder; created.
        options: How.
        segmenter: Finds the structure; None leaves the segmentation out.
        enhanced: Names and folders with scans that something else made of the degraded ones (of the same
            seed): STUDY.nii.gz each, in HU, on the grid of the study's clean scan.

    Raises:
        InputError: If no study of the split is usable, a name or a target does not fit, no study has a
            reference mask, or the folder holds the results of another cohort, model or setting. A file that
            cannot be used is a failure in its rows instead.
    """
    options = options or EvaluateOptions()
    studies = manifest.needed(options.split)
    methods = Methods(models, enhanced or {})
    target = _common_target(models)
    _check_names(methods)
    _check_scales(models)
    enhancing = enhance_options(models, options)
    phases = _degraded_phases(models)
    recipe = Recipe(phases, target, options.degradation, seed=options.seed, sharing=options.sharing)
    segmentations = plan_segmentations(manifest, target, options, segmenter)
    folder.mkdir(parents=True, exist_ok=True)
    rows = _Rows(folder, studies, methods)
    record = provenance(manifest, studies, methods, recipe, enhancing, segmentations)
    check_same_run(folder, record, rows.all)
    for study in _track(studies, "enhancing", options.progress):
        files = volume_files(folder, study.study_id, methods.names, target)
        lost = [] if segmentations is None else [name for name in methods.names if not files[name].is_file()]
        wanted = [name for name in methods.names if name in lost or not rows.scored(study, name)]
        if wanted:
            try:
                rows.put(score_images(study, methods, wanted, folder, recipe, enhancing))
            except InputError as error:  # a file of the study cannot be used: all its rows say so
                rows.put(replace(rows.new(study, name), failure=str(error)) for name in wanted)
    if segmentations is not None:
        asked = [study for study in studies if segmentations.asked(study)]
        for study in _track(asked, "segmenting", options.progress):
            _segment(study, methods, segmentations, rows, folder)
    images = tabulate_image_quality(rows.all)
    overlaps = [] if segmentations is None else tabulate_overlap(rows.all, options.overlap.tolerance_mm)
    write_summary(folder, [*images, *overlaps], segmenter.notice if segmenter else "")
    return Evaluation(folder, target, rows.all, images, overlaps)


def _degraded_phases(models: Mapping[str, EvaluatedModel]) -> tuple[Phase, ...]:
    """The paper's three, and the delayed one where a model takes it."""
    taken = {phase for model in models.values() for phase in model.phases}
    return tuple(phase for phase in Phase if phase in PHASES or phase in taken)


def enhance_options(models: Mapping[str, EvaluatedModel], options: EvaluateOptions) -> EnhanceOptions:
    """How the models enhance: in the precision that is asked for, or in that which suits their device."""
    device = next((model.device for model in models.values()), torch.device("cpu"))
    return EnhanceOptions(options.tiling, options.precision or preferred_precision(device))


def _segment(study: Study, methods: Methods, segmentations: Segmentations, rows: _Rows, folder: Path) -> None:
    """Segments a study's scans that are not segmented yet, and writes each row at once."""
    files = volume_files(folder, study.study_id, methods.names, segmentations.target)
    for name in (REFERENCE, *methods.names):
        case = rows.get(study, name)
        there = name == REFERENCE or rows.scored(study, name)
        if there and (segmentations.needed(case, folder) or not rows.has(study, name)):
            rows.put([segmentations.score(study, case, files.get(name), folder)])


class _Rows:
    """The rows of an evaluation, in memory and on disk."""

    def __init__(self, folder: Path, studies: Sequence[Study], methods: Methods) -> None:
        self._path = folder / CASES
        self._rows = {(case.study_id, case.method): case for case in read_cases(self._path)}
        self._order = [(study.study_id, name) for study in studies for name in (REFERENCE, *methods.names)]
        unknown = [key for key in self._rows if key not in self._order]
        if unknown:
            study, method = unknown[0]
            raise InputError(
                f"{self._path}: has results of {method} on study {study}, which are not asked for now; ask"
                " for them too, or give another output folder"
            )

    def get(self, study: Study, method: str) -> Case:
        """The row of a study and method; a new one if there is none."""
        return self._rows.get((study.study_id, method), self.new(study, method))

    def has(self, study: Study, method: str) -> bool:
        """Whether a study and method have a row."""
        return (study.study_id, method) in self._rows

    @staticmethod
    def new(study: Study, method: str) -> Case:
        """A row without a value."""
        return Case(study.study_id, study.patient_id, method)

    @property
    def all(self) -> list[Case]:
        """Every row, by study and method."""
        return [self._rows[key] for key in self._order if key in self._rows]

    def scored(self, study: Study, method: str) -> bool:
        """Whether a method has a scan of the study, and its image quality is known."""
        return not math.isnan(self.get(study, method).psnr_db)

    def put(self, cases: Iterable[Case]) -> None:
        """Adds or replaces rows, and writes all."""
        self._rows |= {(case.study_id, case.method): case for case in cases}
        write_cases(self._path, self.all)


def _track(studies: Sequence[Study], what: str, progress: bool) -> Iterable[Study]:
    return track(studies, len(studies), what) if progress else studies


def _common_target(models: Mapping[str, EvaluatedModel]) -> Phase:
    targets = {model.target for model in models.values()} or {Phase.PORTAL_VENOUS}
    if len(targets) != 1:
        raise InputError(
            f"the models restore different phases ({', '.join(sorted(targets))}); evaluate them apart"
        )
    return targets.pop()


def _check_scales(models: Mapping[str, EvaluatedModel]) -> None:
    finer = {name: output_scale(model.network) for name, model in models.items()}
    for name, scale in finer.items():
        if scale > 1:
            raise InputError(
                f"{name} has scale {scale}: methods are compared on the grid of the scans that they get;"
                " score this one with mpfnl test"
            )


def _check_names(methods: Methods) -> None:
    names = [*methods.models, *methods.folders]
    for name in names:
        if len(name) > LONGEST_NAME:
            raise InputError(f"a method's name is {len(name)} letters long; take at most {LONGEST_NAME}")
        if not re.fullmatch(r"[\w.+-]+", name) or name.startswith((BASELINE, ".")) or name == REFERENCE:
            raise InputError(
                f"a method cannot be named {name!r}, since it names a file: take letters, digits, '+', '-',"
                f" '.' and '_', do not begin with {BASELINE!r}, and do not take {REFERENCE!r}"
            )
        if names.count(name) > 1:
            raise InputError(f"both a model and a folder are named {name!r}; give them two names")


def plan_segmentations(
    manifest: Manifest, target: Phase, options: EvaluateOptions, segmenter: Segmenter | None
) -> Segmentations | None:
    """How a cohort is going to be segmented; checked before any work is done.

    Args:
        manifest: The cohort.
        target: The phase that is restored.
        options: How it is evaluated.
        segmenter: None for no segmentation; then the answer is None, too.

    Raises:
        InputError: The segmenter does not find the structure, no study has a reference mask, or the phantom
            weights were trained on these phantoms.
    """
    if segmenter is None:
        return None
    studies = manifest.needed(options.split)
    trained_on = [s.study_id for s in studies if s.study_id.startswith(f"phantom-{TRAINING_SEED}-")]
    if segmenter.notice and trained_on:
        raise InputError(
            f"{manifest.path}: the phantom weights were trained on {trained_on[0]}; take another seed"
        )
    planned = Segmentations(segmenter, options.overlap, target, options.degradation.clip_window())
    if not any(planned.asked(study) for study in studies):
        raise InputError(
            f"{manifest.path}: no study of split {options.split} has a reference mask of the"
            f" {options.overlap.structure}; name them in the manifest, or compare with what is found in the"
            " clean scan (reference-scan)"
        )
    return planned
