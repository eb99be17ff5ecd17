"""Several scans in one series, as the headers tell them apart, such as the phases of a dynamic study."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

import numpy as np

from mpfnl.volumes.dicom.slices import Slice, group_alike, same_orientation
from mpfnl.volumes.dicom.stack import is_regular, order

KINDS = ("SeriesNumber", "ConvolutionKernel", "KVP", "AcquisitionDate")
"""Elements that never differ within a scan, but for the date of one that crosses midnight."""

COUNTERS = ("AcquisitionNumber", "TemporalPositionIdentifier")
"""Elements that count up within a scan (step and shoot), and from scan to scan."""

TIMES = ("AcquisitionTime", "AcquisitionDateTime")

TIME_POINTS = ("TemporalPositionIdentifier", "TemporalPositionIndex")
"""Elements that number the time points of a dynamic study (PS3.3, C.7.6.16.2.2)."""

OTHERS = (
    "TemporalPositionIndex",
    "NominalPercentageOfCardiacPhase",
    "TriggerTime",
    "ImageType",
    "SliceThickness",
    "FilterType",
)
"""Elements that tell scans apart where these lie at the same positions or alternate."""

LAST = ("SeriesDescription", "ContentTime", "InstanceNumber")
"""The same; but copies of one slice may differ in them."""

COUNTED = (*COUNTERS, *TIMES, "TriggerTime", "ContentTime", "InstanceNumber")
"""Elements of which each slice of a scan may have its own value."""

CHANGES = (*TIME_POINTS, "ImageType", "SliceThickness")
"""Elements that differ between two scans even if one continues the other."""

UNLABELLED = "none"
"""The label of the scan whose slices lack the element that the others have."""

Parts = dict[str, list[Slice]]


@dataclass(frozen=True)
class Split:
    """The scans of one series.

    Args:
        elements: Keywords of the elements that tell them apart.
        scans: The slices of each scan by its label.
    """

    elements: tuple[str, ...]
    scans: Parts


def split_scans(slices: Sequence[Slice], *, copies: bool = False) -> Split:
    """The scans in the slices of one series.

    A scan is one if its slices lie at equal distances and each acquisition has neighbouring ones, numbered
    along the stack (step and shoot). Slices at one position, and acquisitions that alternate or do not
    continue each other, are of several scans if an element tells them apart. A slice without an element that
    the others share belongs to them.

    Args:
        slices: The slices.
        copies: Whether to tell slices apart by elements in which copies of one slice may differ, too.

    Returns:
        The scans; one without a label where nothing tells them apart.
    """
    for element in KINDS:
        parts = _by_value(slices, element)
        if len(parts) - ("" in parts) > 1 and not (element == "AcquisitionDate" and _is_midnight(parts)):
            return _split_each(element, parts, copies)
    groups = by_place(slices)
    if all(len(group) == 1 for group in groups):
        found = _apart(slices)
    else:
        found = _overlapping(slices, groups, copies)
    return Split((), {"": list(slices)}) if found is None else _split_each(*found, copies)


def numbered_scan(slices: Sequence[Slice], name: str) -> list[Slice]:
    """The slices of one acquisition of a scan that several make up; none where there is none of this name.

    Args:
        slices: The slices of a series.
        name: AcquisitionNumber or TemporalPositionIdentifier, as `label` writes it.
    """
    for element in COUNTERS:
        named = [each for each in slices if label(_value(each, element)) == name]
        if named:
            return named
    return []


def _split_each(element: str, parts: Parts, copies: bool) -> Split:
    """The scans of each part, which may hold several themselves."""
    elements = {element: None}
    scans: Parts = {}
    for value, part in parts.items():
        inner = split_scans(part, copies=copies)
        elements |= dict.fromkeys(inner.elements)
        for own, scan in inner.scans.items():
            whole = "+".join(filter(None, [label(value), own]))
            scans[whole if whole not in scans else f"{whole}-{len(scans) + 1}"] = scan
    return Split(tuple(elements), scans)


def label(value: str) -> str:
    """An element's value as it is typed after an @."""
    return re.sub(r"[^\w.]+", "-", value, flags=re.ASCII).strip("-") or UNLABELLED


def _value(each: Slice, element: str) -> str:
    """The value of an element; numbers that are the same, such as 1 and 01, are written in one way."""
    text = each.header.text(element)
    if element in (*TIMES, "ContentTime", "AcquisitionDate"):
        return re.sub(r"^(\d+)(?:\.0*|(\.\d*[1-9])0*)$", r"\1\2", text)
    number = each.header.number(element)
    return text if number is None or element == "ConvolutionKernel" else f"{number:.12g}"


def _by_value(slices: Sequence[Slice], element: str) -> Parts:
    """The slices by the value of an element, in the order of the values."""
    parts: Parts = {}
    for each in slices:
        parts.setdefault(_value(each, element), []).append(each)
    return dict(sorted(parts.items(), key=lambda part: (_number(part[0], element), part[0])))


def _is_midnight(dates: Parts) -> bool:
    """Whether slices of two dates are of one scan that crosses midnight: of the last hour and the first."""
    try:
        days = [datetime.strptime(date, "%Y%m%d") for date in dates]
    except ValueError:
        return False
    before, *after = ({each.header.text("AcquisitionTime")[:2] for each in part} for part in dates.values())
    near = days[-1] - days[0] == timedelta(days=1) and before == {"23"} and after == [{"00"}]
    return near and _is_scan([each for part in dates.values() for each in part])


def _number(value: str, element: str) -> float:
    """A value as a number, a time (HHMMSS.F) in seconds; infinite where it is none."""
    try:
        number = float(value)
    except ValueError:
        return np.inf
    if not element.endswith("Time"):
        return number
    return number // 10000 * 3600 + number // 100 % 100 * 60 + number % 100


def by_place(slices: Sequence[Slice]) -> list[list[Slice]]:
    """The slices of each orientation and depth together."""
    return [group for kind in group_alike(slices, same_orientation) for group in order(kind)]


def _is_scan(slices: Sequence[Slice]) -> bool:
    """Whether slices lie one by one at equal distances; one slice does."""
    if len(slices) == 1:
        return True
    groups = by_place(slices)
    alike = len(group_alike(slices, same_orientation)) == 1
    return alike and len(groups) == len(slices) and is_regular([each for group in groups for each in group])


def _apart(slices: Sequence[Slice]) -> tuple[str, Parts] | None:
    """Scans whose slices lie at different positions: they alternate, or do not continue each other."""
    ranked = [each for group in by_place(slices) for each in group]
    whole = _is_scan(ranked)
    for element in (*COUNTERS, *TIMES, *KINDS, *OTHERS, *LAST[:-1]):
        parts = _by_value(ranked, element)
        if len(parts) == 1:
            continue
        if element in (*COUNTERS, *TIMES) and (swept := _alternating_sweeps(ranked, parts)):
            return element, swept
        if _are_apart(ranked, parts, element) if whole else _do_not_continue(parts, element):
            return element, parts
    return None


def _are_apart(ranked: Sequence[Slice], parts: Parts, element: str) -> bool:
    """Whether parts are several scans although all slices lie at equal distances."""
    scans = _outnumbered(parts) and all(map(_is_scan, parts.values()))
    in_turn = _runs(ranked, parts) == len(parts)
    if "" in parts or element not in COUNTERS:
        return scans and (not in_turn or (element in CHANGES and "" not in parts))
    return (scans and element in TIME_POINTS) if in_turn else True


def _do_not_continue(parts: Parts, element: str) -> bool:
    """Whether parts are stacks of which none continues another, where all slices together are no stack."""
    if not (element in (*COUNTERS, *TIMES) or _outnumbered(parts)):
        return False
    return _are_stacks(parts) and not any(_is_scan([*a, *b]) for a, b in pairwise(parts.values()))


def _outnumbered(parts: Parts) -> bool:
    """Whether there are fewer parts than slices in each; those of a table that moves on are many, short."""
    return min(map(len, parts.values())) > len(parts)


def _runs(ranked: Sequence[Slice], parts: Parts) -> int:
    """The number of stretches of neighbouring slices of one part."""
    owner = {id(each): value for value, part in parts.items() for each in part}
    return 1 + sum(owner[id(a)] != owner[id(b)] for a, b in pairwise(ranked))


def _alternating_sweeps(ranked: Sequence[Slice], parts: Parts) -> Parts:
    """Scans whose slices alternate, each slice with a value of its own; none where that is not so."""
    swept = _sweeps(parts, "", 0)
    if len(swept) < 2 or not _outnumbered(swept) or not all(map(_is_scan, swept.values())):
        return {}
    return swept if _runs(ranked, swept) > len(swept) else {}


def _are_stacks(parts: Parts) -> bool:
    return max(map(len, parts.values())) > 1 and all(map(_is_scan, parts.values()))


def _overlapping(
    slices: Sequence[Slice], groups: Sequence[Sequence[Slice]], copies: bool
) -> tuple[str, Parts] | None:
    """Scans that have slices at the same positions."""
    count = max(map(len, groups))
    for element in (*COUNTERS, *TIMES, *KINDS, *OTHERS, *(LAST if copies else ())):
        parts = _by_value(slices, element)
        if len(parts) == 1:
            continue
        if len(parts) > count and element in COUNTED:
            merges = (_equal_shares,) if element in COUNTERS else (_equal_shares, _widest_gaps, _sweeps)
            for merged in (*(merge(parts, element, count) for merge in merges), _in_turn(groups, element)):
                if len(merged) == count and all(len(part) > 1 and _is_scan(part) for part in merged.values()):
                    return element, merged
            if _are_fragments(parts):
                continue
        if max(map(len, parts.values())) > 1 and all(map(_at_own_places, parts.values())):
            return element, parts
    return None


def _are_fragments(parts: Parts) -> bool:
    """Whether each part is continued by another: the table was at several places, each several times."""
    several = max(map(len, parts.values())) > 1
    return several and all(
        any(a is not b and _is_scan([*a, *b]) for b in parts.values()) for a in parts.values()
    )


def _in_turn(groups: Sequence[Sequence[Slice]], element: str) -> Parts:
    """The first value of each position, the second, and so on: scans whose slices were taken in turn.

    None unless the values of each scan rise or fall along the stack.
    """
    if len({len(group) for group in groups}) > 1:
        return {}
    ranked = [sorted(group, key=lambda each: _number(_value(each, element), element)) for group in groups]
    scans: Parts = {}
    for scan in zip(*ranked, strict=True):
        values = [_number(_value(each, element), element) for each in scan]
        steps = np.diff(values) if np.isfinite(values).all() else np.array([1, -1])
        if not ((steps >= 0).all() or (steps <= 0).all()):
            return {}
        scans[_value(scan[int(np.argmin(values))], element)] = list(scan)
    return scans


def _at_own_places(slices: Sequence[Slice]) -> bool:
    return all(len(group) == 1 for group in by_place(slices))


def _merged(parts: Parts, starts: Sequence[int]) -> Parts:
    """Parts that follow each other put together; each begins at one of the given indices."""
    values = list(parts)
    ends = [*starts[1:], len(values)]
    return {
        values[start]: [each for value in values[start:end] for each in parts[value]]
        for start, end in zip(starts, ends, strict=True)
    }


def _equal_shares(parts: Parts, element: str, count: int) -> Parts:
    """As many values for each scan: step and shoot, once for each phase."""
    share, rest = divmod(len(parts), count)
    return {} if rest else _merged(parts, range(0, len(parts), share))


def _widest_gaps(parts: Parts, element: str, count: int) -> Parts:
    """Values with the widest gaps between scans."""
    values = [_number(value, element) for value in parts]
    gaps = np.diff(values) if np.isfinite(values).all() else np.zeros(count)
    ranked = np.argsort(-gaps, kind="stable")
    if gaps[ranked[count - 2]] <= gaps[ranked[count - 1]]:
        return {}
    widest = np.sort(ranked[: count - 1])
    return _merged(parts, [0, *(int(index) + 1 for index in widest)])


def _sweeps(parts: Parts, element: str, count: int) -> Parts:
    """Each value has one slice; a scan ends where the next slice is no neighbour of the one before."""
    if any(len(part) > 1 for part in parts.values()):
        return {}
    slices = [part[0] for part in parts.values()]
    normal = slices[0].normal
    steps = np.diff([each.position @ normal for each in slices])
    usual = float(np.median(np.abs(steps)))
    starts = [0]
    for index, step in enumerate(steps):
        if abs(abs(step) - usual) > usual / 2:
            starts.append(index + 1)
    return _merged(parts, starts)
