"""The rule that picks a series, step by step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpfnl.datasets.headers import SeriesHeader, sharp_kernel
from mpfnl.datasets.selection import Candidate, exclusion_reason, select_series

GOOD = SeriesHeader(60, "CT", ("ORIGINAL", "PRIMARY", "AXIAL"), True, 5.0, "B30f")
THIN = replace(GOOD, slices=240, spacing=1.25)


def named(**headers: SeriesHeader) -> list[Candidate]:
    return [Candidate(uid, Path(uid), header) for uid, header in headers.items()]


def picked(candidates: list[Candidate], reference: SeriesHeader | None = None) -> tuple[str, str]:
    choice = select_series(candidates, reference)
    assert choice is not None
    return choice.candidate.series, choice.reason


def test_a_single_series_is_taken() -> None:
    assert picked(named(a=GOOD)) == ("a", "the only series")


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (replace(THIN, modality="MR"), "1 not CT"),
        (replace(THIN, image_type=("ORIGINAL", "PRIMARY", "LOCALIZER")), "1 a localizer"),
        (replace(THIN, axial=False), "1 not axial"),
        (replace(THIN, spacing=None), "1 without a slice spacing"),
        (replace(THIN, slices=20), "1 shorter than 100 mm"),
        (replace(THIN, image_type=("DERIVED", "SECONDARY")), "original rather than derived"),
        (replace(THIN, slices=100), "covers more of the body"),
        (replace(THIN, kernel="B70f"), "kernel not for lung or bone"),
        (replace(GOOD, spacing=6.0), "smallest slice spacing"),
        (replace(GOOD, slices=55), "most slices"),
    ],
)
def test_each_step_decides_and_says_so(other: SeriesHeader, reason: str) -> None:
    assert picked(named(a=other, b=GOOD)) == ("b", f"2 series; {reason}")


def test_the_portal_venous_phase_is_the_finest_and_the_others_go_with_it() -> None:
    candidates = named(a=GOOD, b=THIN)
    assert picked(candidates)[0] == "b"
    assert picked(candidates, reference=GOOD)[0] == "a"
    assert picked(candidates, reference=replace(GOOD, spacing=2.0))[0] == "b"
    assert "closest to the portal venous" in picked(candidates, reference=GOOD)[1]


def test_copies_are_settled_by_their_uid() -> None:
    assert picked(named(c=GOOD, b=GOOD, d=GOOD)) == ("b", "3 series; 3 alike, the first by UID")


def test_no_usable_series_is_no_choice() -> None:
    assert select_series([]) is None
    assert select_series(named(a=replace(GOOD, axial=False))) is None


HEADERS = st.builds(
    SeriesHeader,
    slices=st.integers(1, 300),
    modality=st.sampled_from(["CT", "CT", "CT", "MR"]),
    image_type=st.sampled_from([("ORIGINAL", "PRIMARY"), ("DERIVED", "PRIMARY"), ("ORIGINAL", "LOCALIZER")]),
    axial=st.sampled_from([True, True, True, False]),
    spacing=st.none() | st.sampled_from([0.7, 1.25, 2.5, 5.0]),
    kernel=st.sampled_from(["B30f", "B60f", "STANDARD", "LUNG", ""]),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(HEADERS, min_size=1, max_size=6), st.none() | HEADERS, st.randoms(use_true_random=False))
def test_the_choice_is_usable_and_does_not_depend_on_the_order(
    headers: list[SeriesHeader], reference: SeriesHeader | None, random: object
) -> None:
    candidates = [Candidate(f"s{n}", Path(f"s{n}"), header) for n, header in enumerate(headers)]
    choice = select_series(candidates, reference)
    usable = [header for header in headers if exclusion_reason(header) is None]
    assert (choice is None) == (not usable)
    shuffled = list(candidates)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert select_series(shuffled, reference) == choice
    if choice is not None:
        header = choice.candidate.header
        assert header in usable
        assert header.original or not any(other.original for other in usable)
        twin = Candidate("z", Path("z"), header)  # a copy that comes later changes nothing
        again = select_series([*candidates, twin], reference)
        assert again is not None
        assert again.candidate == choice.candidate


@pytest.mark.parametrize(
    "kernel", ["B60f", "B70s", "Br59d", "Bl57f\\3", "LUNG", "BONEPLUS", "EDGE", "FC30", "FC51"]
)
def test_kernels_for_lung_and_bone(kernel: str) -> None:
    assert sharp_kernel(kernel)


@pytest.mark.parametrize(
    "kernel", ["B30f", "B31s", "Br38f\\3", "I30f", "STANDARD", "SOFT", "FC03", "FC18", "B", ""]
)
def test_kernels_for_soft_tissue(kernel: str) -> None:
    assert not sharp_kernel(kernel)
