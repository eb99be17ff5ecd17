"""Frames in mm, and panels with the body's proportions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpfnl.plots.panels import Frame, Heading, draw_picture, panel_grid

MM = st.floats(0.4, 6)


@settings(deadline=None, max_examples=60)
@given(st.data(), MM, MM, st.floats(0, 30), st.floats(0, 90))
def test_a_frame_holds_the_mask_with_its_margin(
    data: st.DataObject, tall: float, wide: float, margin: float, least: float
) -> None:
    shape = data.draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
    mask = np.zeros(shape, dtype=bool)
    row, column = (data.draw(st.integers(0, size - 1)) for size in shape)
    mask[row : row + data.draw(st.integers(1, 9)), column : column + data.draw(st.integers(1, 9))] = True
    pixel = (tall, wide)
    frame = Frame.around(mask, pixel, margin, least)
    rows, columns = np.nonzero(mask)
    assert frame.top <= rows.min() * tall - margin + 1e-9
    assert frame.left <= columns.min() * wide - margin + 1e-9
    assert frame.top + frame.height >= (rows.max() + 1) * tall + margin - 1e-9
    assert frame.left + frame.width >= (columns.max() + 1) * wide + margin - 1e-9
    assert min(frame.width, frame.height) >= least
    square, whole = frame.squared(), Frame.whole(shape, pixel)
    assert square.width == square.height == max(frame.width, frame.height)
    for kept in (frame.inside(whole), square.inside(whole)):
        assert kept.left >= -1e-9
        assert kept.top >= -1e-9
        assert kept.left + kept.width <= whole.width + 1e-9
        assert kept.top + kept.height <= whole.height + 1e-9
    fitted = square.inside(whole)
    assert fitted.width == fitted.height == min(square.width, whole.width, whole.height)


def test_an_empty_mask_has_no_frame() -> None:
    with pytest.raises(ValueError, match="empty"):
        Frame.around(np.zeros((4, 4), dtype=bool), (1, 1), 5, 10)


@pytest.mark.parametrize("columns", [1, 2, 4, 7])
def test_a_millimetre_is_as_wide_as_tall_and_nothing_overlaps(columns: int) -> None:
    headings = [Heading("RCAN3D-long-name-of-it", "PSNR 25.00 dB") for _ in range(columns)]
    frame = Frame(10.0, 5.0, 90.0, 40.0)
    rows = [("axial slice 34 (S 12.5 mm)", 40 / 90), ("whole", 1.0)]
    figure, panels = panel_grid("A title " * 12, headings, rows, "small print " * 20)
    for axes in panels[0]:
        draw_picture(axes, np.zeros((30, 50)), (2.0, 3.0), frame)
    figure.draw_without_rendering()
    for axes in panels[0]:
        box = axes.get_window_extent()
        assert box.width / frame.width == pytest.approx(box.height / frame.height, rel=0.01)
        extent = axes.images[0].get_extent()
        assert extent == [0, 150, 60, 0]
        assert axes.get_ylim() == (45, 5)  # downwards
    boxes = [axes.get_window_extent() for row in panels for axes in row]
    boxes += [text.get_window_extent() for text in figure.texts]
    page = figure.bbox
    for box, other in itertools.combinations(boxes, 2):
        apart = box.x1 <= other.x0 + 1 or other.x1 <= box.x0 + 1
        assert apart or box.y1 <= other.y0 + 1 or other.y1 <= box.y0 + 1
    for box in boxes:
        assert page.x0 <= box.x0 < box.x1 <= page.x1
        assert page.y0 <= box.y0 < box.y1 <= page.y1
    assert figure.get_size_inches()[0] * figure.dpi <= 1700
    assert min(text.get_fontsize() for text in figure.texts) >= 8
