"""The rule that picks one series where several carry a phase."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mpfnl.datasets.headers import SeriesHeader

MIN_COVERAGE_MM = 100.0
"""A shorter series cannot hold the pancreas and its surroundings."""

SAME_COVERAGE = 0.8
"""A series that covers this share of the longest one's extent covers as much."""


@dataclass(frozen=True)
class Candidate:
    """A series that carries a phase.

    Args:
        series: Its SeriesInstanceUID.
        folder: Its folder.
        header: What it says of itself.
    """

    series: str
    folder: Path
    header: SeriesHeader


@dataclass(frozen=True)
class Choice:
    """The series that the rule picked.

    Args:
        candidate: It.
        reason: Why, in words.
    """

    candidate: Candidate
    reason: str


def unusable(header: SeriesHeader) -> str | None:
    """Why a series cannot be a phase of the study; None if it can."""
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


def pick_series(candidates: Sequence[Candidate], reference: SeriesHeader | None = None) -> Choice | None:
    """Picks a phase's series.

    What `unusable` names is set aside. Of the others stay, step by step, those that are original rather than
    derived; that cover at least 80 % of the longest one's extent; whose kernel is not one for lung or bone;
    whose slice spacing is closest to the reference's, or the smallest where there is no reference; that have
    the most slices; at last the first by SeriesInstanceUID.

    Args:
        candidates: The series that carry the phase, in any order.
        reference: The portal venous series of the study, to which the other phases are registered.

    Returns:
        The choice; None where no series is usable.
    """
    faults = {candidate.series: unusable(candidate.header) for candidate in candidates}
    left = [candidate for candidate in candidates if faults[candidate.series] is None]
    if not left:
        return None
    reasons = [f"{len(candidates)} series" if len(candidates) > 1 else "the only series"]
    counted = Counter(fault for fault in faults.values() if fault)
    reasons += [f"{count} {fault}" for fault, count in sorted(counted.items())]
    longest = max(candidate.header.coverage for candidate in left)
    for text, cost in _steps(longest, reference):
        costs = [cost(candidate.header) for candidate in left]
        kept = [c for c, value in zip(left, costs, strict=True) if value == min(costs)]
        if len(kept) < len(left):
            reasons.append(text)
        left = kept
    if len(left) > 1:
        reasons.append(f"{len(left)} alike, the first by UID")
    return Choice(min(left, key=lambda candidate: candidate.series), "; ".join(reasons))


_Steps = list[tuple[str, Callable[[SeriesHeader], float]]]


def _steps(longest: float, reference: SeriesHeader | None) -> _Steps:
    """What is asked in turn, and the cost of a series; the cheapest stay."""
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
