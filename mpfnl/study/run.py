"""An evaluation from end to end: scores, tables, figures, the report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from mpfnl.data.manifest import Manifest
from mpfnl.models.enhancement import EnhancementModule
from mpfnl.phases import ABDOMEN
from mpfnl.study.evaluate import EvaluateOptions, Evaluation, evaluate
from mpfnl.study.figures import draw_figures
from mpfnl.study.report import write_report
from mpfnl.study.tables import rich_table

TABLE_WIDTH = 92  # characters that Table I takes


def run_evaluation(
    manifest: Manifest,
    models: Mapping[str, EnhancementModule],
    folder: Path,
    options: EvaluateOptions,
    notice: str = "",
) -> Evaluation:
    """Evaluates, prints Table I, and writes the figures and the report.

    Args:
        manifest: The cohort, clean.
        models: Names and models.
        folder: The evaluation folder.
        options: How.
        notice: What a reader must know first; printed and put on top of the report.
    """
    evaluation = evaluate(manifest, models, folder, options)
    target = next(iter(models.values())).target
    pictures = draw_figures(manifest, evaluation.cases, target, folder)
    report = write_report(evaluation, pictures, str(options.split), notice)
    studies = len({case.study_id for case in evaluation.cases})
    console = Console(width=max(TABLE_WIDTH, Console().width))
    title = (
        f"Table I: {target.replace('_', ' ')} phase, n = {studies} studies, "
        f"window [{ABDOMEN.lower:g}, {ABDOMEN.upper:g}] HU, whole volume"
    )
    console.print(rich_table(evaluation.tables, title))
    left_out = manifest.split(options.split).left_out()
    if left_out:
        console.print(left_out, soft_wrap=True, markup=False)
    if notice:
        console.print(notice)
    console.print(f"report: {report}", soft_wrap=True)
    return evaluation
