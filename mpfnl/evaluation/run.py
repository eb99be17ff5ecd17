"""An evaluation from end to end: scores, tables, figures, the phase-leak check, the report."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from mpfnl.data.manifest import Manifest, Split
from mpfnl.data.recognise import holds_phantoms
from mpfnl.evaluation.cases import REFERENCE, Case, methods_of, studies_of
from mpfnl.evaluation.evaluate import EvaluateOptions, Evaluation, enhance_options, evaluate
from mpfnl.evaluation.figures import draw_figures, rank_studies
from mpfnl.evaluation.given import EvaluatedModel
from mpfnl.evaluation.leaks.check import check_phase_leak
from mpfnl.evaluation.leaks.swap_table import mean_over_studies, swap_studies
from mpfnl.evaluation.leaks.table import leak_warnings, summarize_leaks, unchecked
from mpfnl.evaluation.overlap import Truth
from mpfnl.evaluation.provenance import FAILED, FILE, LEFT_OUT
from mpfnl.evaluation.report import (
    LeakSection,
    ReportContents,
    leak_table,
    method_lines,
    swap_table,
    write_report,
)
from mpfnl.evaluation.tables import rich_table, table_console
from mpfnl.segmentation.protocol import Segmenter
from mpfnl.window import ABDOMEN

PHANTOMS = "Phantoms, not patients"
TRUTHS = {
    Truth.MASK: "the reference mask",
    Truth.REFERENCE_SCAN: "what the same segmenter found in the clean scan",
}


def run_evaluation(
    manifest: Manifest,
    models: Mapping[str, EvaluatedModel],
    folder: Path,
    options: EvaluateOptions,
    notice: str = "",
    *,
    segmenter: Segmenter | None = None,
    enhanced: Mapping[str, Path] | None = None,
) -> Evaluation:
    """Evaluates, prints Tables I and II, and writes the figures, the phase-leak check and the report.

    Args:
        manifest: The cohort, clean.
        models: Names and models.
        folder: The evaluation folder.
        options: How.
        notice: What a reader must know first; printed and put on top of the report.
        segmenter: Finds the structure; None leaves the segmentation out.
        enhanced: Names and folders with scans that something else enhanced.
    """
    notice = _with_phantoms(notice, manifest, options.split)
    evaluation = evaluate(manifest, models, folder, options, segmenter=segmenter, enhanced=enhanced)
    said = segmenter.notice if segmenter else ""
    pictures = draw_figures(
        manifest,
        evaluation.cases,
        evaluation.target,
        folder,
        structure=options.overlap.structure if segmenter else None,
        notice=said,
        truth=options.overlap.truth,
    )
    record = json.loads((folder / FILE).read_text(encoding="utf-8"))
    contents = ReportContents(
        target=evaluation.target,
        split=str(options.split),
        degradation=options.degradation.name,
        cases=evaluation.cases,
        image_tables=evaluation.image_tables,
        methods=method_lines(record),
        overlap_tables=evaluation.overlap_tables,
        structure=options.overlap.structure,
        truth=TRUTHS[options.overlap.truth],
        tolerance_mm=options.overlap.tolerance_mm,
        pictures=pictures,
        leaks=_leaks(manifest, models, evaluation, options),
        left_out=_left_out(record, evaluation, options, segmented=segmenter is not None),
        notice=notice,
        segmentation_notice=said,
        provenance=record,
    )
    report = write_report(folder, contents)
    _print(contents, manifest, options)
    Console().print(f"report: {report}", soft_wrap=True, markup=False)
    return evaluation


def _leaks(
    manifest: Manifest,
    models: Mapping[str, EvaluatedModel],
    evaluation: Evaluation,
    options: EvaluateOptions,
) -> LeakSection:
    """The phase-leak check of every scan, and the swap test of the studies that the figures show."""
    cases, folder, target = evaluation.cases, evaluation.folder, evaluation.target
    names = set(studies_of(cases))
    studies = [study for study in manifest if study.study_id in names]
    methods = methods_of(cases)
    rows = check_phase_leak(studies, methods, folder, target)
    picked = [
        pick.study_id for pick in rank_studies(cases, methods[-1], bool(evaluation.overlap_tables)).picks()
    ]
    swapped = swap_studies(
        [study for study in studies if study.study_id in picked],
        models,
        folder,
        enhance_options(models, options),
    )
    summaries = summarize_leaks(rows)
    return LeakSection(
        table=leak_table(summaries, target) if summaries else None,
        warnings=leak_warnings(rows, target),
        swap=swap_table(mean_over_studies(swapped)) if swapped else None,
        remarks=list(filter(None, [unchecked(rows), _swap_remark(picked) if swapped else ""])),
    )


def _swap_remark(studies: Sequence[str]) -> str:
    return f"Swap test: mean over {', '.join(studies)}, the studies of Figure 2."


def _with_phantoms(notice: str, manifest: Manifest, split: Split) -> str:
    """The notice, with a word on top that these are phantoms, where they are and it does not say so."""
    if PHANTOMS in notice or not holds_phantoms(manifest, list(manifest.split(split))):
        return notice
    return f"{PHANTOMS}: these figures say nothing about patients. {notice}".rstrip()


def _print(contents: ReportContents, manifest: Manifest, options: EvaluateOptions) -> None:
    console = table_console(row.method for row in contents.cases)
    quality = (
        f"Table I: {contents.target_name} phase, n = {contents.studies} studies, "
        f"window [{ABDOMEN.lower:g}, {ABDOMEN.upper:g}] HU, whole volume"
    )
    console.print(rich_table(contents.image_tables, quality))
    if contents.overlap_tables:
        overlap = f"Table II: {contents.structure_name}, n = {contents.studies} studies"
        console.print(rich_table(contents.overlap_tables, overlap, contents.segmentation_notice))
    warnings = contents.leaks.warnings if contents.leaks else ()
    for line in [
        *_failures(contents.cases),
        *warnings,
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
    asked = {case.study_id for case in evaluation.cases if case.failure or not math.isnan(case.dsc)}
    asked |= {case.study_id for case in evaluation.cases if case.method == REFERENCE}
    unmasked = [name for name in studies_of(evaluation.cases) if segmented and name not in asked]
    structure = options.overlap.structure.replace("_", " ")
    reasons = {
        "since their preparation failed": failed,
        f"of the segmentation only, since the manifest names no mask of the {structure}": unmasked,
    }
    return {reason: names for reason, names in reasons.items() if names}


def _failures(cases: Sequence[Case]) -> list[str]:
    return [f"study {case.study_id}: {case.method}: {case.failure}" for case in cases if case.failure]
