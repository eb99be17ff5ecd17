"""Lines are as wide as they may be."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure

from mpfnl.plots.page import text_width, wrap

TEXT = st.text("abcW i-_.$^", max_size=60)


@settings(deadline=None, max_examples=60)
@given(TEXT, st.floats(0.5, 4))
def test_nothing_is_lost_and_nothing_is_too_wide(text: str, width: float) -> None:
    lines = wrap(text, width, 9)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert all(text_width(line, 9) <= width for line in lines)
    for line, following in itertools.pairwise(lines):  # no line could have taken the next word
        assert text_width(f"{line} {following.split(' ')[0]}", 9) > width or line[-1] in "-_."


@pytest.mark.parametrize("weight", ["normal", "bold"])
@pytest.mark.parametrize("text", ["PFNL3D-1ph-a", "phantom weights: not $patients^2$", "WWWiii"])
def test_the_width_is_the_drawn_one(text: str, weight: str) -> None:
    figure = Figure(figsize=(8, 1), dpi=400)
    drawn = figure.text(0, 0.5, text, fontsize=9, weight=weight, parse_math=False)
    figure.draw_without_rendering()
    assert text_width(text, 9, weight) == pytest.approx(drawn.get_window_extent().width / 400, rel=0.04)


def test_long_words_break_at_joints() -> None:
    assert wrap("PFNL3D-three-phases_long", 1.0, 9)[0][-1] in "-_"
    assert len(wrap("W" * 40, 1.0, 9)) > 3
    assert wrap("", 1.0, 9) == []
    together = "(S 12.5 mm)".replace(" ", "\N{NO-BREAK SPACE}")
    assert wrap(f"34 {together}", 0.8, 8) == ["34", together]
