"""Slices, enlarged, and their differences."""

from __future__ import annotations

import numpy as np
import pytest

from mpfnl.plots.panels import Frame, Heading
from mpfnl.plots.zoom import DIFFERENCE_HU, Version, zoom_figure

RNG = np.random.default_rng(0)
CLEAN = RNG.normal(40, 200, (30, 40))
NOISY = CLEAN + RNG.normal(0, 60, CLEAN.shape)
PIXEL = (2.0, 1.5)
FRAME = Frame(12.0, 6.0, 30.0, 30.0)


def versions() -> list[Version]:
    return [Version(Heading("degraded"), NOISY), Version(Heading("RCAN3D"), None)]


def test_rows_are_the_slice_the_frame_and_the_difference() -> None:
    figure = zoom_figure("t", versions(), Version(Heading("reference"), CLEAN), PIXEL, FRAME, "a notice")
    panels = np.array(figure.axes[:9]).reshape(3, 3)
    for row in (0, 1):
        for column, expected in ((0, NOISY), (2, CLEAN)):
            (image,) = panels[row, column].images
            np.testing.assert_array_equal(image.get_array(), expected)
            assert image.get_clim() == (-175, 275)
            assert image.get_extent() == [0, 60, 60, 0]
    assert panels[1, 0].get_xlim() == (12, 42)
    assert panels[1, 0].get_ylim() == (36, 6)
    (rectangle,) = panels[0, 0].patches
    assert rectangle.get_bbox().bounds == (12, 6, 30, 30)
    (difference,) = panels[2, 0].images
    expected = np.clip(NOISY, -175, 275) - np.clip(CLEAN, -175, 275)
    np.testing.assert_allclose(difference.get_array(), expected)
    assert difference.get_clim() == (-DIFFERENCE_HU, DIFFERENCE_HU)
    assert not panels[2, 2].images  # the colour bar stands there
    assert "a notice" in [text.get_text() for text in figure.texts]


def test_a_missing_scan_says_so() -> None:
    figure = zoom_figure("t", versions(), Version(Heading("reference"), CLEAN), PIXEL, FRAME)
    for axes in np.array(figure.axes[:9]).reshape(3, 3)[:, 1]:
        assert [text.get_text() for text in axes.texts] == ["no scan"]
        assert not axes.images


def test_the_colour_bar_has_the_colours_of_the_maps() -> None:
    figure = zoom_figure("t", versions(), Version(Heading("reference"), CLEAN), PIXEL, FRAME)
    figure.draw_without_rendering()
    difference = figure.axes[6].images[0]
    (bar,) = (child for child in figure.axes[8].child_axes if child.images)
    (scale,) = bar.images
    for hu in (-DIFFERENCE_HU, -30.0, 0.0, 75.0):
        rows = scale.get_array().shape[0]
        _, _, low, high = scale.get_extent()
        row = round((high - hu) / (high - low) * (rows - 1))  # the first row is on top
        drawn = scale.cmap(scale.norm(scale.get_array()[row, 0]))
        assert drawn == pytest.approx(difference.cmap(difference.norm(hu)), abs=0.02)
    assert bar.get_ylim()[0] < bar.get_ylim()[1]


def test_other_shapes_and_no_reference_are_refused() -> None:
    with pytest.raises(ValueError, match="degraded"):
        zoom_figure("t", versions(), Version(Heading("reference"), CLEAN[1:]), PIXEL, FRAME)
    with pytest.raises(ValueError, match="reference"):
        zoom_figure("t", versions(), Version(Heading("reference"), None), PIXEL, FRAME)
