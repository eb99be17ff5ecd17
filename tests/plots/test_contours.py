"""Contours lie on the masks' borders."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import same_color
from matplotlib.contour import ContourSet
from skimage.measure import find_contours

from mpfnl.plots.contours import PREDICTION_COLOUR, REFERENCE_COLOUR, ContourSlice, Prediction, contour_figure
from mpfnl.plots.panels import Frame, Heading
from mpfnl.plots.planes import MARKS

SHAPE, PIXEL = (24, 30), (3.0, 1.5)
FRAME = Frame(3.0, 6.0, 36.0, 54.0)
HU = np.zeros(SHAPE)
PLANES = ("axial", "coronal", "sagittal")


def disc(row: float, column: float, radius: float) -> np.ndarray:
    rows, columns = np.indices(SHAPE)
    return np.hypot((rows - row) * 2, columns - column) < radius


REFERENCE, SHIFTED, EMPTY = disc(10, 14, 9), disc(11, 17, 8), np.zeros(SHAPE, dtype=bool)


def everywhere(picture: np.ndarray) -> dict[str, np.ndarray]:
    return dict.fromkeys(PLANES, picture)


def columns() -> list[Prediction]:
    return [
        Prediction(Heading("reference", "DSC 95.0 %"), everywhere(HU), everywhere(SHIFTED)),
        Prediction(Heading("degraded"), everywhere(HU), everywhere(EMPTY), "empty prediction"),
        Prediction(Heading("RCAN3D"), everywhere(HU), everywhere(SHIFTED) | {"coronal": EMPTY}),
        Prediction(Heading("PFNL3D"), None, None, "no scan"),
    ]


def panels() -> np.ndarray:
    cuts = {plane: ContourSlice(f"{plane} slice 3", PIXEL, FRAME, REFERENCE) for plane in PLANES}
    figure = contour_figure("study", cuts, columns(), foot="a notice")
    assert "a notice" in [text.get_text() for text in figure.texts]
    return np.array(figure.axes).reshape(3, 4)


def contours(axes: Axes) -> dict[str, ContourSet]:
    sets = [child for child in axes.get_children() if isinstance(child, ContourSet)]
    names = {"reference": REFERENCE_COLOUR, "prediction": PREDICTION_COLOUR}
    return {
        name: found
        for name, colour in names.items()
        for found in sets
        if same_color(found.get_edgecolor(), colour)
    }


@pytest.mark.parametrize("mask", [REFERENCE, disc(1, 1, 12), np.ones(SHAPE, dtype=bool)])
def test_lines_are_scikit_images(mask: np.ndarray) -> None:
    cuts = {"axial": ContourSlice("axial", PIXEL, FRAME, mask)}
    figure = contour_figure("t", cuts, [Prediction(Heading("m"), everywhere(HU), everywhere(EMPTY))])
    drawn = contours(figure.axes[0])["reference"].get_paths()[0].vertices
    (expected,) = find_contours(np.pad(mask, 1).astype(float), 0.5)
    points = (expected[:, ::-1] - 0.5) * PIXEL[::-1]  # mm; a pixel's middle lies half a pixel from its edge
    distance = np.linalg.norm(drawn[:, None] - points, axis=-1)
    assert distance.min(axis=1).max() < 1e-6
    assert distance.min(axis=0).max() < 1e-6


def test_every_panel_has_both_contours_or_says_why_not() -> None:
    said = {
        (row, column): [text.get_text() for text in axes.texts if len(text.get_text()) > 4]
        for (row, column), axes in np.ndenumerate(panels())
    }
    for (row, column), axes in np.ndenumerate(panels()):
        found = contours(axes)
        assert "reference" in found
        shown = column == 0 or (column == 2 and row != 1)
        assert ("prediction" in found) == shown
        words = [text for text in said[row, column] if text != "2 cm"]
        assert words == (
            []
            if shown
            else [["none in this slice"], ["empty prediction"], ["no scan"]][[2, 1, 3].index(column)]
        )


def test_panels_show_the_frame_with_the_patients_sides() -> None:
    for row, plane in zip(panels(), PLANES, strict=True):
        for axes in row:
            assert axes.get_xlim() == (3, 39)
            assert axes.get_ylim() == (60, 6)
            letters = [text.get_text() for text in axes.texts if len(text.get_text()) == 1]
            assert "".join(letters) == MARKS[plane]
            box = axes.get_position().width / axes.get_position().height
            width, height = axes.figure.get_size_inches()
            assert box * width / height == pytest.approx(36 / 54, rel=1e-6)


def test_the_key_names_both_lines_beside_the_title() -> None:
    cuts = {"axial": ContourSlice("axial", PIXEL, FRAME, REFERENCE)}
    figure = contour_figure("a study with a long name " * 4, cuts, columns()[:2], ("manual", "automatic"))
    figure.draw_without_rendering()
    (key,) = figure.legends
    assert [text.get_text() for text in key.get_texts()] == ["manual", "automatic"]
    box = key.get_window_extent()
    assert box.x1 <= figure.bbox.x1
    for text in figure.texts:
        other = text.get_window_extent()
        assert other.x1 <= box.x0 or other.y1 <= box.y0
