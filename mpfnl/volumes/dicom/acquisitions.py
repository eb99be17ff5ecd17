"""Several scans in one series, as the headers tell them apart, such as the phases of a dynamic study."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from mpfnl.volumes.dicom.slices import Slice, group_alike, same_orientation
from mpfnl.volumes.dicom.stack import is_regular, order

KINDS = ("SeriesNumber", "ConvolutionKernel")
"""Elements that never differ within a scan."""

COUNTERS = ("AcquisitionNumber", "TemporalPositionIdentifier")
"""Elements that count up within a scan (step and shoot), and from scan to scan."""

TIMES = ("AcquisitionTime",)

OTHERS = ("KVP", "ImageType", "SliceThickness")
"""Elements that tell scans apart where these have slices at the same positions."""

LAST = ("ContentTime", "InstanceNumber")
"""The same; but copies of one slice may differ in them."""

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

    A scan is one if its slices lie at equal distances and each acquisition has neighbouring ones (step and
    shoot). Slices at one position, and acquisitions that alternate or do not continue each other, are of
    several scans if an element tells them apart.

    Args:
        slices: The slices.
        copies: Whether to tell slices apart by elements in which copies of one slice may differ, too.

    Returns:
        The scans; one without a label where nothing tells them apart.
    """
    for element in KINDS:
        parts = _by_value(slices, element)
        if len(parts) > 1:
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
        named = [each for each in slices if label(each.header.text(element)) == name]
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
    plain = re.sub(r"^(\d+)\.0*$", r"\1", value)
    return re.sub(r"[^\w.]+", "-", plain, flags=re.ASCII).strip("-") or UNLABELLED


def _by_value(slices: Sequence[Slice], element: str) -> Parts:
    """The slices by the value of an element, in the order of the values."""
    parts: Parts = {}
    for each in slices:
        parts.setdefault(each.header.text(element), []).append(each)
    return dict(sorted(parts.items(), key=lambda part: (_number(part[0], element), part[0])))


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
    for element in (*COUNTERS, *TIMES):
        parts = _by_value(ranked, element)
        if len(parts) == 1:
            continue
        if whole:
            runs = 1 + sum(a.header.text(element) != b.header.text(element) for a, b in pairwise(ranked))
            if runs == len(parts):
                continue  # step and shoot
            if element in COUNTERS or all(len(part) > 1 and _is_scan(part) for part in parts.values()):
                return element, parts
        elif _are_stacks(parts) and not any(_is_scan([*a, *b]) for a, b in pairwise(parts.values())):
            return element, parts
    return None


def _are_stacks(parts: Parts) -> bool:
    return max(map(len, parts.values())) > 1 and all(map(_is_scan, parts.values()))


def _overlapping(
    slices: Sequence[Slice], groups: Sequence[Sequence[Slice]], copies: bool
) -> tuple[str, Parts] | None:
    """Scans that have slices at the same positions."""
    count = max(map(len, groups))
    for element in (*COUNTERS, *TIMES, *OTHERS, *(LAST if copies else ())):
        parts = _by_value(slices, element)
        if len(parts) == 1:
            continue
        if len(parts) > count and element not in OTHERS:
            for merge in (_equal_shares,) if element in COUNTERS else (_equal_shares, _widest_gaps, _sweeps):
                merged = merge(parts, element, count)
                if len(merged) == count and all(len(part) > 1 and _is_scan(part) for part in merged.values()):
                    return element, merged
        if max(map(len, parts.values())) > 1 and all(map(_at_own_places, parts.values())):
            return element, parts
    return None


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
    gaps = np.diff([_number(value, element) for value in parts])
    ranked = np.argsort(-gaps, kind="stable")
    if not np.isfinite(gaps).all() or gaps[ranked[count - 2]] <= gaps[ranked[count - 1]]:
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
