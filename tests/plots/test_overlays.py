"""Contact sheets: which way up, where the edges are, the same bytes each time."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage
from skimage.feature import canny

from mpfnl.plots.overlays import (
    EDGE_COLOUR,
    EDGE_HIGH_HU,
    EDGE_LOW_HU,
    EDGE_SIGMA_MM,
    RED,
    UNSEEN_COLOUR,
    Overlay,
    contact_sheet,
    edges,
    pixel_mm,
    squares,
)
from mpfnl.plots.page import small_png
from mpfnl.plots.planes import MARKS, tissue_middle, view
from mpfnl.window import ABDOMEN

SHAPE, SPACING = (40, 32, 24), (8.0, 8.0, 8.0)


def body(seed: int = 0) -> np.ndarray:
    """An ellipsoid of fat with organs in it, in air; HU."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, side) for side in SHAPE), indexing="ij"))
    hu = np.full(SHAPE, -1000.0)
    hu[grid[0] ** 2 + grid[1] ** 2 < 0.8] = -90
    for _ in range(6):
        centre = rng.uniform(-0.5, 0.5, 3)
        hu[((grid - centre[:, None, None, None]) ** 2).sum(0) < 0.1] = rng.uniform(30, 200)
    return (hu + rng.normal(0, 8, SHAPE)).astype(np.float32)


def overlay(seed: int = 0) -> Overlay:
    everywhere = np.ones(SHAPE, dtype=bool)
    return Overlay("arterial: fail", ("why",), body(seed), body(), everywhere, everywhere, RED)


@pytest.mark.parametrize(
    ("plane", "axis", "edge"),  # a bright end of an axis, and the side of the picture on which it must lie
    [
        ("axial", 0, "left"),  # the patient's right
        ("axial", 1, "top"),  # the front
        ("coronal", 0, "left"),
        ("coronal", 2, "top"),  # the head
        ("sagittal", 1, "left"),
        ("sagittal", 2, "top"),
    ],
)
def test_view_is_turned_as_the_marks_say(plane: str, axis: int, edge: str) -> None:
    scan = np.zeros((5, 6, 7))
    scan[tuple(slice(-1, None) if a == axis else slice(None) for a in range(3))] = 1
    picture = view(scan, plane, (2, 3, 4))
    bright = picture[:, 0] if edge == "left" else picture[0]
    assert bright.all()
    assert picture.sum() == bright.size
    letters = dict(zip(("top", "right", "bottom", "left"), MARKS[plane], strict=True))
    assert letters[edge] == ("R", "A", "S")[axis]
    assert {letters["left"] + letters["right"], letters["top"] + letters["bottom"]} <= {"RL", "AP", "SI"}


@given(rows=st.integers(1, 40), columns=st.integers(1, 40), side=st.integers(1, 12))
@settings(max_examples=30, deadline=None)
def test_squares_alternate(rows: int, columns: int, side: int) -> None:
    tiles = squares((rows, columns), side)
    assert not tiles[:side, :side].any()
    assert (tiles[side:] != tiles[:-side]).all()
    assert (tiles[:, side:] != tiles[:, :-side]).all()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_edges_lie_where_scikit_image_finds_them(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, columns = np.indices((140, 160))
    picture = np.full((140, 160), 0.2)
    for _ in range(4):
        away = np.hypot(rows - rng.uniform(40, 100), columns - rng.uniform(40, 120))
        picture[away < rng.uniform(15, 35)] = rng.uniform(0.4, 0.9)
    picture = ndimage.gaussian_filter(picture, 1.0)
    found = edges(picture, 1.0, ABDOMEN)
    # its slopes are Sobel's: weights of four on each side, two pixels apart, make eight times the slope
    low, high = (slope / ABDOMEN.width * 8 for slope in (EDGE_LOW_HU, EDGE_HIGH_HU))
    expected = canny(picture, EDGE_SIGMA_MM, low, high, mode="nearest")
    inner = np.zeros_like(found)
    inner[4:-4, 4:-4] = True  # scikit-image finds none along the border
    for one, other in ((found, expected), (expected, found)):
        assert (one & inner).sum() > 100
        away = ndimage.distance_transform_edt(~other)
        assert np.mean(away[one & inner] <= 1.5) > 0.93


def test_edges_of_a_step_and_of_nothing() -> None:
    step = np.zeros((50, 60))
    step[:, 30:] = 1
    found = edges(step, 1.0, ABDOMEN)
    assert found.sum(axis=1).tolist() == [1] * 50
    assert set(np.nonzero(found)[1]) <= {29, 30}
    assert not edges(np.full((50, 60), 0.3), 1.0, ABDOMEN).any()
    assert not edges(step * 0.01, 1.0, ABDOMEN).any()  # 4.5 HU: less than noise


def test_sheet_has_the_bodys_proportions() -> None:
    spacing = (3.0, 4.0, 9.0)
    figure = contact_sheet("study: fail", body(), [overlay(1)], spacing)
    width, height = figure.get_size_inches()
    x, y, z = (side * step for side, step in zip(SHAPE, spacing, strict=True))
    expected = [y / x] * 3 + [z / x] * 3 + [z / y] * 3
    boxes = [axes.get_position() for axes in figure.axes]
    ratios = [box.height * height / (box.width * width) for box in boxes]
    np.testing.assert_allclose(ratios, expected, rtol=0.02)
    assert all(0 <= box.x0 < box.x1 <= 1 and 0 <= box.y0 < box.y1 <= 1 for box in boxes)


def test_sheet_shows_both_scans_and_what_is_not_covered() -> None:
    reference, phase = np.full(SHAPE, 50.0), np.full(SHAPE, 162.5)
    cut = np.ones(SHAPE, dtype=bool)
    cut[..., : SHAPE[2] // 2] = False  # the lower half
    seen = replace(overlay(), before=phase, after=phase, covered_after=cut)
    figure = contact_sheet("study", reference, [seen], SPACING)
    before, after, traced = (np.asarray(axes.images[0].get_array()) for axes in figure.axes[3:6])  # coronal
    assert {round(value, 2) for value in np.unique(before)} == {0.5, 0.75}
    assert np.isclose(before[..., 0], 0.75).mean() == pytest.approx(0.5, abs=0.1)
    blue = (after == UNSEEN_COLOUR).all(axis=-1)
    assert not blue[: len(blue) // 2 - 1].any()
    np.testing.assert_array_equal(
        blue[len(blue) // 2 + 1 :], np.isclose(before[len(blue) // 2 + 1 :, :, 0], 0.75)
    )
    assert not (traced == EDGE_COLOUR).all(axis=-1).any()  # the border of the field of view is no edge
    assert np.isclose(traced[-1], (0.32, 0.34, 0.46)).all()


def test_edges_are_drawn_on_the_reference() -> None:
    reference = np.full(SHAPE, 50.0)
    phase = reference.copy()
    phase[:20] = 200
    figure = contact_sheet("study", reference, [replace(overlay(), after=phase)], SPACING)
    traced = np.asarray(figure.axes[2].images[0].get_array())
    drawn = (traced == EDGE_COLOUR).all(axis=-1)
    columns = np.nonzero(drawn)[1]
    assert set(columns) <= set(range(traced.shape[1] // 2 - 2, traced.shape[1] // 2 + 2))
    assert len(columns) >= traced.shape[0] - 2
    np.testing.assert_allclose(traced[~drawn], 0.5)


def test_png_is_the_same_each_time_and_small() -> None:
    spacing = (9.0, 9.0, 9.0)
    pictures = [
        small_png(contact_sheet("s: fail", body(), [overlay(1), overlay(2)], spacing)) for _ in range(2)
    ]
    assert pictures[0] == pictures[1]
    assert len(pictures[0]) < 400_000
    image = Image.open(io.BytesIO(pictures[0]))
    assert image.format == "PNG"
    assert set(image.info) <= {"dpi"}  # no date, no version
    assert "Software" not in image.info


def test_a_larger_body_gets_coarser_pixels_not_a_larger_sheet() -> None:
    small, large = (
        contact_sheet("s", body(), [overlay()], [step] * 3).get_size_inches() for step in (8.0, 16.0)
    )
    assert pixel_mm(SHAPE, (16.0,) * 3) > pixel_mm(SHAPE, (8.0,) * 3)
    assert np.prod(large) < 1.2 * np.prod(small) or np.prod(large) * 100**2 < 900_000


def test_tissue_middle() -> None:
    scan = np.full((20, 30, 40), -1000.0)
    scan[4:9, 10:21, 30:33] = 40
    assert tissue_middle(scan) == (6, 15, 31)
    assert tissue_middle(np.full((20, 30, 40), -1000.0)) == (10, 15, 20)


def test_another_grid_is_refused() -> None:
    with pytest.raises(ValueError, match="arterial: fail"):
        contact_sheet("study", body(), [replace(overlay(), after=np.zeros((4, 4, 4)))], SPACING)


def test_text_is_not_taken_for_formulas() -> None:
    assert small_png(contact_sheet("st$udy_1$: <fail>", body(), [replace(overlay(), title="$x^{$")], SPACING))
