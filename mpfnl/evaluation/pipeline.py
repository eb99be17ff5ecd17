"""An evaluation from end to end: scores, tables, figures, the phase-leak check, the report."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from mpfnl.data.manifest import Manifest, Split, holds_phantoms, read_manifest
from mpfnl.evaluation.cases import Case, methods_of, studies_of
from mpfnl.evaluation.figures.examples import draw_figures
from mpfnl.evaluation.figures.ranking import rank_studies
from mpfnl.evaluation.folder import PROVENANCE, REFERENCE
from mpfnl.evaluation.leaks.check import check_phase_leak
from mpfnl.evaluation.leaks.swap import mean_over_studies, swap_studies
from mpfnl.evaluation.leaks.table import leak_warnings, summarize_leaks, unchecked
from mpfnl.evaluation.methods import EvaluatedModel
from mpfnl.evaluation.provenance import FAILED, LEFT_OUT
from mpfnl.evaluation.report.contents import (
    LeakSection,
    ReportContents,
    leak_table,
    method_lines,
    swap_table,
)
from mpfnl.evaluation.report.page import write_report
from mpfnl.evaluation.scoring import EvaluateOptions, Evaluation, enhance_options, score_cohort
from mpfnl.evaluation.tables.metrics import window_range
from mpfnl.evaluation.tables.printing import rich_table, table_console
from mpfnl.models.loading import load_model
from mpfnl.segmentation.segmenter import Segmenter

PHANTOMS = "Phantoms, not patients"


def evaluate(
    manifest: str | Path | Manifest,
    models: Mapping[str, EvaluatedModel | str | Path],
    output: str | Path,
    options: EvaluateOptions | None = None,
    *,
    segmenter: Segmenter | None = None,
    enhanced: Mapping[str, str | Path] | None = None,
    notice: str = "",
) -> Evaluation:
    """Compares methods on a cohort: scores, Tables I and II, figures, the phase-leak check, a report.

    Each phase of a clean study is degraded by its own draw; each model receives the degraded phases; PSNR and
    SSIM compare its scan with the clean one, in the models' HU window. With a segmenter, DSC and NSD compare
    the segmentations. The output folder then holds `report.html`, `cases.csv`, `summary.csv`, `figures/`,
    `volumes/` and `provenance.json`; the tables are printed as well. A second call with the same arguments
    computes only what is missing and repeats what failed; methods or the segmentation may be added.

    Args:
        manifest: Manifest of a cohort of clean scans, or the path of its CSV.
        models: Models by name, each a model, a weights folder, a checkpoint, or the name of weights that ship
            with the package or lie on the Hugging Face Hub. All restore one phase under one HU window.
            Weights are loaded onto the GPU where there is one.
        output: Evaluation folder; created.
        options: Settings; the defaults of `EvaluateOptions` if None.
        segmenter: Segmenter of the structure; None leaves the segmentation out.
        enhanced: Folders by name, with scans that other software made of the degraded ones:
            STUDY.nii.gz each, in HU, on the grid of the study's clean scan.
        notice: Warning for readers, printed and put at the top of the report.

    Returns:
        Scores and tables.

    Raises:
        InputError: The manifest or weights cannot be used, two models differ in target phase or window, no
            study has a reference mask, or the folder holds another evaluation. A scan that cannot be used is
            a failure in its rows instead.

    >>> from mpfnl.errors import NotFoundError
    >>> try:
    ...     evaluate("missing/cohort.csv", {"mine": "weights/"}, "evaluation", EvaluateOptions(seed=1))
    ... except NotFoundError:
    ...     print("there is no such manifest")
    there is no such manifest
    """
    options, folder = options or EvaluateOptions(), Path(output)
    cohort = manifest if isinstance(manifest, Manifest) else read_manifest(manifest)
    loaded = {name: _load(model) for name, model in models.items()}
    folders = {name: Path(path) for name, path in (enhanced or {}).items()}
    notice = _with_phantoms(notice, cohort, options.split)
    evaluation = score_cohort(cohort, loaded, folder, options, segmenter=segmenter, enhanced=folders)
    segmentation_notice = segmenter.notice if segmenter else ""
    figures = draw_figures(
        cohort,
        evaluation.cases,
        evaluation.target,
        folder,
        evaluation.window,
        structure=options.overlap.structure if segmenter else None,
        notice=segmentation_notice,
        truth=options.overlap.truth,
    )
    record = json.loads((folder / PROVENANCE).read_text(encoding="utf-8"))
    contents = ReportContents(
        target=evaluation.target,
        window=evaluation.window,
        split=str(options.split),
        degradation=options.degradation.name,
        cases=evaluation.cases,
        image_tables=evaluation.image_tables,
        methods=method_lines(record),
        overlap_tables=evaluation.overlap_tables,
        structure_tables=evaluation.structure_tables,
        structure=options.overlap.structure,
        truth=options.overlap.truth.noun,
        tolerance_mm=options.overlap.tolerance_mm,
        figures=figures,
        leaks=_leaks(cohort, loaded, evaluation, options),
        left_out=_left_out(record, evaluation, options, segmented=segmenter is not None),
        notice=notice,
        segmentation_notice=segmentation_notice,
        provenance=record,
    )
    report = write_report(folder, contents)
    _print(contents, cohort, options)
    Console().print(f"report: {report}", soft_wrap=True, markup=False)
    return evaluation


def _load(model: EvaluatedModel | str | Path) -> EvaluatedModel:
    if not isinstance(model, str | Path):
        return model
    return load_model(model).to("cuda" if torch.cuda.is_available() else "cpu")


def _leaks(
    manifest: Manifest,
    models: Mapping[str, EvaluatedModel],
    evaluation: Evaluation,
    options: EvaluateOptions,
) -> LeakSection:
    """The phase-leak check of every scan, and the swap test of the studies in the figures."""
    cases, folder, target = evaluation.cases, evaluation.folder, evaluation.target
    evaluated = set(studies_of(cases))
    studies = [study for study in manifest if study.study_id in evaluated]
    methods = methods_of(cases)
    rows = check_phase_leak(studies, methods, folder, target, evaluation.window)
    ranking = rank_studies(cases, methods[-1], segmented=bool(evaluation.overlap_tables))
    examples = [ranked.study_id for ranked in ranking.selection()]
    swapped = swap_studies(
        [study for study in studies if study.study_id in examples],
        models,
        folder,
        enhance_options(models, options),
    )
    swap_remark = f"Swap test: mean over {', '.join(examples)}, the studies of Figure 2." if swapped else ""
    return LeakSection(
        table=leak_table(summarize_leaks(rows)),
        warnings=leak_warnings(rows, target),
        swap=swap_table(mean_over_studies(swapped)),
        remarks=list(filter(None, [unchecked(rows), swap_remark])),
    )


def _with_phantoms(notice: str, manifest: Manifest, split: Split) -> str:
    """The notice, preceded by one about phantoms where the studies are phantoms."""
    if PHANTOMS in notice or not holds_phantoms(manifest, list(manifest.split(split))):
        return notice
    return f"{PHANTOMS}: these figures say nothing about patients. {notice}".rstrip()


def _print(contents: ReportContents, manifest: Manifest, options: EvaluateOptions) -> None:
    console = table_console(row.method for row in contents.cases)
    quality = (
        f"Table I: {contents.target_name} phase, n = {contents.studies} studies, "
        f"window {window_range(contents.window)}, whole volume"
    )
    console.print(rich_table(contents.image_tables, quality))
    if contents.structure_tables:
        console.print(rich_table(contents.structure_tables, "Contrast and structure"))
    if contents.overlap_tables:
        overlap = f"Table II: {contents.structure_name}, n = {contents.studies} studies"
        console.print(rich_table(contents.overlap_tables, overlap, contents.segmentation_notice))
    for line in [
        *_failures(contents.cases),
        *(contents.leaks.warnings if contents.leaks else ()),
        manifest.split(options.split).left_out(),
        contents.notice,
    ]:
        if line:
            console.print(line, soft_wrap=True, markup=False)


def _left_out(
    record: Mapping[str, Any], evaluation: Evaluation, options: EvaluateOptions, segmented: bool
) -> dict[str, list[str]]:
    """The studies that are not in the tables, by reason."""
    failed = [name for name, reason in record[LEFT_OUT].items() if reason == FAILED]
    compared = {case.study_id for case in evaluation.cases if case.failure or not math.isnan(case.dsc)}
    compared |= {case.study_id for case in evaluation.cases if case.method == REFERENCE}
    unmasked = [name for name in studies_of(evaluation.cases) if segmented and name not in compared]
    structure = options.overlap.structure.replace("_", " ")
    reasons = {
        "since their preparation failed": failed,
        f"of the segmentation only, since the manifest names no mask of the {structure}": unmasked,
    }
    return {reason: names for reason, names in reasons.items() if names}


def _failures(cases: Sequence[Case]) -> list[str]:
    return [f"study {case.study_id}: {case.method}: {case.failure}" for case in cases if case.failure]
