"""The answer in plain sentences, each derived from the numbers of the tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from mpfnl.evaluation.folder import BASELINE, REFERENCE
from mpfnl.evaluation.report.contents import LeakSection, ReportContents
from mpfnl.evaluation.tables.metric_table import MetricTable
from mpfnl.evaluation.tables.metrics import p_text
from mpfnl.metrics.statistics import Comparison, Summary

SIGNIFICANT = 0.05
"""The level of the paper (arXiv 2501.14013, section II.G); here after Holm's correction."""

HARD_SPACE = "\N{NO-BREAK SPACE}"

FEW = 30
"""Number of studies below which the report warns of rough intervals."""


class Conclusion(StrEnum):
    """The conclusion about a change from its interval and its test together."""

    HIGHER = "higher"
    LOWER = "lower"
    OPEN = "no change shown"
    UNSETTLED = "not settled"
    TOO_FEW = "too few studies to tell"


@dataclass(frozen=True)
class Finding:
    """One method in one metric, against the degraded scans.

    Args:
        method: The method.
        conclusion: Conclusion in two or three words.
        text: Numbers, and their interpretation.
    """

    method: str
    conclusion: Conclusion
    text: str


@dataclass(frozen=True)
class AnswerSection:
    """The answer to one question.

    Args:
        heading: Subject.
        lead: Levels of the clean and the degraded scans.
        findings: Findings, one for each method.
        closing: Comparison of the methods among each other.
        of_masks: Whether the answer rests on segmentations.
    """

    heading: str
    lead: str
    findings: Sequence[Finding]
    closing: str
    of_masks: bool


@dataclass(frozen=True)
class Answer:
    """The whole answer.

    Args:
        opening: Design of the evaluation in two sentences.
        sections: Answers, one for each question.
        remarks: Limitations and failures.
    """

    opening: str
    sections: Sequence[AnswerSection]
    remarks: Sequence[str]


def answer(contents: ReportContents) -> Answer:
    """Makes the answer: DSC first where there is one, then PSNR."""
    opening = (
        f"{count(contents.studies, 'study', 'studies')} ({contents.split} split): each phase was degraded by"
        f" simulation ({contents.degradation}). {_compared(len(contents.methods), contents.target_name)}"
    )
    headings = {True: f"Segmentation of the {contents.structure_name}", False: "Image quality"}
    tables = [*contents.overlap_tables[:1], *contents.image_tables[:1]]
    sections = [_section(table, headings[table.metric.of_masks]) for table in tables]
    return Answer(opening, sections, [*_remarks(contents, tables)])


def _compared(methods: int, target: str) -> str:
    if not methods:
        return f"No method enhanced the {target} scans."
    verb = "is" if methods == 1 else "are"
    return f"{count(methods, 'method')} {verb} compared with the degraded {target} scans."


def conclusion_of(gain: Summary, test: Comparison | None, tests: int) -> Conclusion:
    """The conclusion from the interval of the mean change and the corrected test.

    Both must agree for a change to be reported. Where even the smallest p-value of so many studies stays
    above the level after the correction, there is no conclusion.

    Args:
        gain: Paired differences to the degraded scans.
        test: Test of these differences.
        tests: Number of tests in the family.
    """
    if gain.mean is None or gain.interval is None or test is None or test.p_holm is None:
        return Conclusion.TOO_FEW
    if least_p(test.n, tests) >= SIGNIFICANT:
        return Conclusion.TOO_FEW
    low, high = gain.interval.low, gain.interval.high
    apart, significant = low > 0 or high < 0, test.p_holm < SIGNIFICANT
    if not apart and not significant:
        return Conclusion.OPEN
    up = gain.mean > 0
    if apart and significant and up == ((test.effect or 0) > 0):
        return Conclusion.HIGHER if up else Conclusion.LOWER
    return Conclusion.UNSETTLED


def least_p(n: int, tests: int) -> float:
    """The smallest Holm-corrected p that a two-sided signed-rank test of n pairs can give."""
    return min(1.0, tests * 2.0 ** (1 - n))


def _section(table: MetricTable, heading: str) -> AnswerSection:
    methods = [name for name in table.gains if name != REFERENCE]
    findings = [_finding(table, method) for method in methods]
    return AnswerSection(heading, _lead(table), findings, _closing(table), table.metric.of_masks)


def _lead(table: MetricTable) -> str:
    name = table.metric.name
    means = {
        method: f"{_number(table, summary.mean)} on the {words} scans"
        for method, words in ((REFERENCE, "clean"), (BASELINE, "degraded"))
        if (summary := table.summaries.get(method)) is not None and summary.mean is not None
    }
    if not means:
        return f"{name} has no value to compare."
    return f"Mean {name} was {' and '.join(means.values())}. Mean change from the degraded scan:"


def _number(table: MetricTable, value: float) -> str:
    return f"{table.metric.notation.value(value)} {table.metric.unit}".rstrip()


def _finding(table: MetricTable, method: str) -> Finding:
    gain, test = table.gains[method], table.against_baseline(method)
    conclusion = conclusion_of(gain, test, len(table.comparisons))
    if gain.mean is None:
        return Finding(method, conclusion, f"{table.metric.name} is missing in every study.")
    change = f"{table.metric.notation.change(gain.mean)} {table.metric.change_unit}".rstrip()
    text = f"{change} ({_evidence(table, gain, test)}). {_interpretation(conclusion, gain)}".rstrip()
    return Finding(method, conclusion, text)


def _evidence(table: MetricTable, gain: Summary, test: Comparison | None) -> str:
    parts = []
    if gain.interval is not None:
        parts.append(
            f"95{HARD_SPACE}%{HARD_SPACE}CI {{}} to {{}}".format(
                *table.metric.notation.change_ends(gain.interval)
            )
        )
    if test is not None and test.p_holm is not None:
        parts.append(p_equals(test.p_holm))
    parts.append(count(gain.n, "pair"))
    return ", ".join(parts)


def _interpretation(conclusion: Conclusion, gain: Summary) -> str:
    """The interpretation of an open or unsettled conclusion."""
    if conclusion is Conclusion.OPEN:
        return "The interval includes 0 and the test finds no difference; none is ruled out."
    if conclusion is not Conclusion.UNSETTLED:
        return ""
    interval = gain.interval
    if interval is not None and (interval.low > 0 or interval.high < 0):
        return "The interval excludes 0, but the corrected test does not confirm it."
    return "The corrected test finds a difference, but the interval of the mean does not confirm it."


def _closing(table: MetricTable) -> str:
    pairs = [c for c in table.comparisons if c.against != BASELINE]
    if not pairs:
        return ""
    lines = [
        f"{_first(c)} above {_second(c)} ({p_equals(c.p_holm)})"
        for c in pairs
        if c.p_holm is not None and c.p_holm < SIGNIFICANT and c.effect
    ]
    rest = len(pairs) - len(lines)
    if not lines:
        return "Between the methods: no difference shown, which does not show that they are equal."
    others = f"; {count(rest, 'other pair')}: no difference shown" if rest else ""
    return f"Between the methods: {', '.join(lines)}{others}."


def _first(comparison: Comparison) -> str:
    return comparison.method if (comparison.effect or 0) > 0 else comparison.against


def _second(comparison: Comparison) -> str:
    return comparison.against if (comparison.effect or 0) > 0 else comparison.method


def _remarks(contents: ReportContents, tables: Sequence[MetricTable]) -> Iterator[str]:
    yield from _missing(contents)
    tests = max((len(table.comparisons) for table in tables), default=0)
    if tests and (least := least_p(contents.studies, tests)) >= SIGNIFICANT:
        yield (
            f"With {count(contents.studies, 'study', 'studies')} and {count(tests, 'test')} a metric no"
            f" corrected p can fall below {p_text(least)}."
        )
    if contents.studies < FEW:
        yield (
            "A cohort of this size shows large effects only: its intervals are approximate and tend to be too"
            " narrow, and a difference that is not shown may exist."
        )
    if contents.leaks is not None:
        yield _leaks(contents.leaks)


def _leaks(leaks: LeakSection) -> str:
    if leaks.table is None:
        return "The phase-leak check measured no organ."
    warnings = len(leaks.warnings)
    return f"The phase-leak check gave {count(warnings, 'warning') if warnings else 'no warning'}."


def _missing(contents: ReportContents) -> Iterator[str]:
    lines = [
        line
        for tables, noun in ((contents.image_tables, "scan"), (contents.overlap_tables, "segmentation"))
        for table in tables[:1]
        for line in _missing_in(table, noun)
    ]
    yield from lines or ["No failure: every study has every value."]


def _missing_in(table: MetricTable, noun: str) -> Iterator[str]:
    failed = {name: summary.n_failed for name, summary in table.summaries.items()}
    empty = {name: table.n_empty.get(name, 0) for name in table.summaries}
    for counts, heading in (
        (failed, "Failed, and left out of means and tests"),
        (empty, f"No voxel found, so that {table.metric.name} counts as 0"),
    ):
        names = ", ".join(f"{name} {number}" for name, number in counts.items() if number)
        if names:
            yield f"{heading}: {count(sum(counts.values()), noun)} ({names})."


def p_equals(p: float | None) -> str:
    """A p-value in a sentence: `p = .034`, `p < .001`; no line breaks within."""
    text = p_text(p)
    return (f"p {text}" if text.startswith("<") else f"p = {text}").replace(" ", HARD_SPACE)


def count(number: int, one: str, many: str = "") -> str:
    """A number and its noun: `1 study`, `2 studies`."""
    return f"{number} {one if number == 1 else many or one + 's'}"
