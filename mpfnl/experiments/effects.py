"""Effects of architecture and number of phases on the metrics: five paired differences of a 2 x 2 table."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from mpfnl.evaluation.cases import Case, values_by_method
from mpfnl.evaluation.tables.metrics import IMAGE_METRICS, SEGMENTATION_METRICS, Metric, p_text
from mpfnl.files import write_text
from mpfnl.metrics.statistics import PairedTest, Summary, holm, paired_wilcoxon, summarize

COLUMNS = (
    *("metric", "effect", "formula", "n", "n_failed", "mean", "sd", "median", "ci_low", "ci_high"),
    *("p", "p_holm", "rank_biserial", "notice"),
)
NOTE = (
    "cells: means; margins: mean paired difference [BCa 95 % CI], p of a two-sided paired Wilcoxon test, "
    "Holm-corrected over the five effects of a metric; corner: the interaction, the effect of the phases "
    "on PFNL3D minus that on RCAN3D"
)
PERCENT_NOTE = "DSC and NSD in %, their differences in percentage points"
_DECIMALS = 12  # smaller differences are rounding errors, which the test would rank


class Factor(StrEnum):
    """An effect of the 2 x 2 table."""

    ARCHITECTURE_ONE = "architecture, one phase"
    ARCHITECTURE_THREE = "architecture, three phases"
    PHASES_RCAN3D = "phases, RCAN3D"
    PHASES_PFNL3D = "phases, PFNL3D"
    INTERACTION = "interaction"


@dataclass(frozen=True)
class Square:
    """Names of the four methods in the cases.

    Args:
        rcan3d: RCAN3D with one phase and with three.
        pfnl3d: PFNL3D with one phase and with three.
    """

    rcan3d: tuple[str, str] = ("RCAN3D-1", "RCAN3D-3")
    pfnl3d: tuple[str, str] = ("PFNL3D-1", "PFNL3D-3")

    @property
    def differences(self) -> dict[Factor, tuple[tuple[str, str], ...]]:
        """Methods whose difference each effect is; for the interaction the two differences."""
        one, three = zip(self.pfnl3d, self.rcan3d, strict=True)
        return {
            Factor.ARCHITECTURE_ONE: (one,),
            Factor.ARCHITECTURE_THREE: (three,),
            Factor.PHASES_RCAN3D: (self.rcan3d[::-1],),
            Factor.PHASES_PFNL3D: (self.pfnl3d[::-1],),
            Factor.INTERACTION: (three, one),
        }


@dataclass(frozen=True)
class Effect:
    """Effect of a factor on a metric, paired by study.

    Args:
        metric: Metric, in the units of `cases.csv`.
        factor: Factor.
        formula: Difference of methods, in words.
        summary: Summary over the studies; those that lack a value are its `n_failed`.
        test: Two-sided Wilcoxon test of a zero effect; None without a study.
        p_holm: p-value, Holm-corrected over the effects of the metric.
    """

    metric: Metric
    factor: Factor
    formula: str
    summary: Summary
    test: PairedTest | None
    p_holm: float | None


def measure_effects(cases: Sequence[Case], square: Square | None = None) -> list[Effect]:
    """The five effects on each metric that has a value.

    Architecture is PFNL3D minus RCAN3D, with one phase and with three; phases is three minus one, for each
    architecture; the interaction is the difference of either two. Each effect is paired by study, over the
    studies that have all of its values.

    Args:
        cases: Rows of an evaluation of the four methods; others are ignored.
        square: Names of the methods.

    Raises:
        ValueError: A method has no row.
    """
    square = square or Square()
    return [
        effect
        for metric in (*IMAGE_METRICS, *SEGMENTATION_METRICS)
        for effect in _effects(metric, _values(cases, metric, square), square)
    ]


def _values(cases: Sequence[Case], metric: Metric, square: Square) -> dict[str, NDArray[np.float64]]:
    values = values_by_method(cases, metric.column)
    missing = [name for name in (*square.rcan3d, *square.pfnl3d) if name not in values]
    if missing:
        raise ValueError(f"there is no case of {', '.join(missing)}")
    return {name: np.array(values[name]) for name in (*square.rcan3d, *square.pfnl3d)}


def _effects(metric: Metric, values: dict[str, NDArray[np.float64]], square: Square) -> list[Effect]:
    if not any(np.isfinite(each).any() for each in values.values()):
        return []
    changes = {factor: _change(values, pairs) for factor, pairs in square.differences.items()}
    tests = {factor: _test(change) for factor, change in changes.items()}
    tested = [factor for factor, test in tests.items() if test]
    corrected = holm([test.p for test in tests.values() if test])
    p_holm = dict(zip(tested, corrected.tolist(), strict=True))
    return [
        Effect(metric, factor, _formula(pairs), summarize(changes[factor]), tests[factor], p_holm.get(factor))
        for factor, pairs in square.differences.items()
    ]


def _change(
    values: dict[str, NDArray[np.float64]], pairs: tuple[tuple[str, str], ...]
) -> NDArray[np.float64]:
    """The difference, or difference of the differences, of each study; NaN where a value is missing."""
    changes = [values[new] - values[old] for new, old in pairs]
    change = changes[0] if len(changes) == 1 else changes[0] - changes[1]
    rounded: NDArray[np.float64] = np.round(np.where(np.isfinite(change), change, np.nan), _DECIMALS)
    return rounded


def _test(change: NDArray[np.float64]) -> PairedTest | None:
    finite = change[np.isfinite(change)]
    return paired_wilcoxon(finite, np.zeros_like(finite)) if finite.size else None


def _formula(pairs: tuple[tuple[str, str], ...]) -> str:
    differences = [f"{new} − {old}" for new, old in pairs]
    return differences[0] if len(differences) == 1 else " − ".join(f"({each})" for each in differences)


def write_effects(path: Path, effects: Sequence[Effect], notice: str = "") -> None:
    """Writes a row for each effect, in the units of `cases.csv`, not rounded.

    Args:
        path: CSV to write.
        effects: Effects.
        notice: Caution of the segmenter, for the rows of DSC and NSD.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(_row(effect, notice if effect.metric.of_masks else "") for effect in effects)
    write_text(path, text.getvalue())


def _row(effect: Effect, notice: str) -> list[object]:
    summary, test = effect.summary, effect.test
    ends = (summary.interval.low, summary.interval.high) if summary.interval else (None, None)
    tested = (test.p, effect.p_holm, test.effect) if test else (None, None, None)
    names = (effect.metric.column, str(effect.factor), effect.formula)
    return [
        *names,
        summary.n,
        summary.n_failed,
        summary.mean,
        summary.sd,
        summary.median,
        *ends,
        *tested,
        notice,
    ]


def effects_table(
    cases: Sequence[Case], effects: Sequence[Effect], square: Square | None = None, notice: str = ""
) -> Table:
    """The 2 x 2 table for the terminal: means inside, effects in the margins, interaction in the corner.

    The table is 100 columns wide.

    Args:
        cases: Rows of the evaluation.
        effects: Effects of `measure_effects`.
        square: Names of the methods.
        notice: Caution of the segmenter.
    """
    square = square or Square()
    percent = [PERCENT_NOTE] if any(effect.metric.of_masks for effect in effects) else []
    caption = "\n".join([*([notice] if notice else []), NOTE, *percent])
    table = Table(
        *("", "one phase", "three phases", "three − one"),
        title="Architecture and number of phases",
        title_justify="left",
        caption=escape(caption),
        caption_justify="left",
        box=SIMPLE_HEAD,
        show_edge=False,
        padding=0,
    )
    for column in table.columns:
        column.no_wrap = True
    for metric in dict.fromkeys(effect.metric for effect in effects):
        cells = {effect.factor: _cell(effect) for effect in effects if effect.metric == metric}
        values = _values(cases, metric, square)
        means = {name: _mean(metric, each) for name, each in values.items()}
        architecture = (cells[Factor.ARCHITECTURE_ONE], cells[Factor.ARCHITECTURE_THREE])
        table.add_row(metric.title, style="bold")
        table.add_row("  RCAN3D", *(means[name] for name in square.rcan3d), cells[Factor.PHASES_RCAN3D])
        table.add_row("  PFNL3D", *(means[name] for name in square.pfnl3d), cells[Factor.PHASES_PFNL3D])
        table.add_row("  PFNL3D − RCAN3D", *architecture, cells[Factor.INTERACTION])
        table.add_section()
    return table


def _mean(metric: Metric, values: NDArray[np.float64]) -> str:
    finite = values[np.isfinite(values)]
    return metric.notation.value(float(finite.mean())) if finite.size else "–"


def _cell(effect: Effect) -> str:
    mean, interval, notation = effect.summary.mean, effect.summary.interval, effect.metric.notation
    if mean is None:
        return "–"
    low, high = notation.change_ends(interval) if interval else ("–", "–")
    failed = f", {effect.summary.n_failed} failed" if effect.summary.n_failed else ""
    return f"{notation.change(mean)} {escape(f'[{low}, {high}]')}\np {p_text(effect.p_holm)}{failed}"
