"""Selection of one series where several series carry a phase."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mpfnl.datasets.headers import SeriesHeader

MIN_COVERAGE_MM = 100.0
"""Shortest extent of a series that holds the pancreas and its surroundings."""

SAME_COVERAGE = 0.8
"""Fraction of the longest series' extent from which two extents count as equal."""


@dataclass(frozen=True)
class Candidate:
    """A series that carries a phase.

    Args:
        series: SeriesInstanceUID.
        folder: Folder of the files.
        header: Header of the series.
    """

    series: str
    folder: Path
    header: SeriesHeader


@dataclass(frozen=True)
class Selection:
    """The selected series of a phase.

    Args:
        candidate: The series.
        reason: Steps of the rule that decided.
    """

    candidate: Candidate
    reason: str


def exclusion_reason(header: SeriesHeader) -> str | None:
    """The reason why a series cannot represent a phase; None if it can."""
    if header.modality != "CT":
        return "not CT"
    if header.localizer:
        return "a localizer"
    if not header.axial:
        return "not axial"
    if header.spacing is None:
        return "without a slice spacing"
    if header.coverage < MIN_COVERAGE_MM:
        return f"shorter than {MIN_COVERAGE_MM:g} mm"
    return None


def select_series(candidates: Sequence[Candidate], reference: SeriesHeader | None = None) -> Selection | None:
    """Selects the series of a phase.

    Series with an `exclusion_reason` are set aside. The others are reduced step by step to those that are
    original rather than derived; that cover at least 80 % of the longest extent; whose kernel is not one for
    lung or bone; whose slice spacing is closest to the reference's, or the smallest without a reference; that
    have the most slices; and finally the first by SeriesInstanceUID.

    Args:
        candidates: Series that carry the phase, in any order.
        reference: Portal venous series of the study, to which the other phases are registered.

    Returns:
        The selection; None if every series is set aside.
    """
    reasons_against = {candidate.series: exclusion_reason(candidate.header) for candidate in candidates}
    remaining = [candidate for candidate in candidates if reasons_against[candidate.series] is None]
    if not remaining:
        return None
    reasons = [f"{len(candidates)} series" if len(candidates) > 1 else "the only series"]
    counts = Counter(reason for reason in reasons_against.values() if reason)
    reasons += [f"{count} {reason}" for reason, count in sorted(counts.items())]
    longest = max(candidate.header.coverage for candidate in remaining)
    for criterion, cost in _criteria(longest, reference):
        costs = [cost(candidate.header) for candidate in remaining]
        best = [c for c, value in zip(remaining, costs, strict=True) if value == min(costs)]
        if len(best) < len(remaining):
            reasons.append(criterion)
        remaining = best
    if len(remaining) > 1:
        reasons.append(f"{len(remaining)} alike, the first by UID")
    return Selection(min(remaining, key=lambda candidate: candidate.series), "; ".join(reasons))


_Criteria = list[tuple[str, Callable[[SeriesHeader], float]]]


def _criteria(longest: float, reference: SeriesHeader | None) -> _Criteria:
    """The criteria in their order, each with the cost of a series; the series of lowest cost remain."""
    near = 0.0 if reference is None or reference.spacing is None else reference.spacing
    return [
        ("original rather than derived", lambda header: not header.original),
        ("covers more of the body", lambda header: header.coverage < SAME_COVERAGE * longest),
        ("kernel not for lung or bone", lambda header: header.sharp),
        (
            "slice spacing closest to the portal venous phase's" if near else "smallest slice spacing",
            lambda header: round(abs((header.spacing or 0.0) - near), 2),
        ),
        ("most slices", lambda header: -header.slices),
    ]
