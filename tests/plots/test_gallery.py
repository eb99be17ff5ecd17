"""The gallery: where things lie in its pictures, and the script that draws the documents' one."""

from __future__ import annotations

import importlib.util
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

from mpfnl.phantoms.config import SMALL
from mpfnl.plots.gallery import DETAIL_MM, ENLARGED, DetailedSlice, Panel, Section, detailed_slice, gallery
from mpfnl.plots.page import small_png
from mpfnl.plots.planes import ACROSS, PlaneName
from mpfnl.transforms.degradation import newest_presets
from mpfnl.window import ABDOMEN

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "docs" / "figures" / "make_degradation_gallery.py"
SHAPE = (120, 100, 40)
SPACING = (0.9, 0.9, 4.0)
PLANES: list[PlaneName] = ["axial", "coronal", "sagittal"]


def hu() -> np.ndarray:
    """Fat, with one bright block of voxels to the right, in front and above of the middle."""
    scan = np.full(SHAPE, -100.0, np.float32)
    scan[80:84, 70:74, 25:27] = 275
    return scan


def bright(picture: np.ndarray) -> tuple[float, float]:
    """The middle of what is bright, in shares of the picture from the upper left corner."""
    rows, columns = np.nonzero(picture > 0.9)
    return (rows.mean() + 0.5) / picture.shape[0], (columns.mean() + 0.5) / picture.shape[1]


@pytest.mark.parametrize("plane", PLANES)
def test_a_cut_has_the_bodys_proportions_and_its_right_and_front_on_the_left(plane: PlaneName) -> None:
    shown = detailed_slice(hu(), SPACING, plane, (81, 71, 25))
    rows, columns = ACROSS[plane]
    size = [count * step for count, step in zip(SHAPE, SPACING, strict=True)]
    assert np.array(shown.whole.shape) * shown.pixel_mm == pytest.approx([size[rows], size[columns]], abs=1)
    middle = [82 / 120, 72 / 100, 26 / 40]
    assert bright(shown.whole) == pytest.approx((1 - middle[rows], 1 - middle[columns]), abs=0.01)


@pytest.mark.parametrize("plane", PLANES)
def test_the_detail_is_what_the_frame_holds(plane: PlaneName) -> None:
    noisy = hu() + np.random.default_rng(0).normal(0, 30, SHAPE).astype(np.float32)
    shown = detailed_slice(noisy, SPACING, plane, (81, 71, 25))
    left, top = (round(edge) for edge in shown.corner)
    tall, wide = (side // ENLARGED for side in shown.detail.shape)
    framed = shown.whole[top : top + tall, left : left + wide]
    # The middle pixel of each 3 x 3 lies where the whole's pixel does:
    np.testing.assert_allclose(shown.detail[1::ENLARGED, 1::ENLARGED][:tall, :wide], framed, atol=1e-9)
    mm = np.array(shown.detail.shape[::-1]) / ENLARGED * shown.pixel_mm
    sides = (SHAPE[ACROSS[plane][1]], SHAPE[ACROSS[plane][0]])
    steps = (SPACING[ACROSS[plane][1]], SPACING[ACROSS[plane][0]])
    asked = [min(m, n * step) for m, n, step in zip(DETAIL_MM, sides, steps, strict=True)]
    assert mm == pytest.approx(asked, abs=1)


def test_the_voxel_is_in_the_middle_of_the_detail_unless_the_border_is_near() -> None:
    tall = np.full((120, 200, 60), -100.0, np.float32)
    tall[80:84, 120:124, 25:27] = 275
    for plane in PLANES:
        shown = detailed_slice(tall, SPACING, plane, (81, 121, 25))
        assert bright(shown.detail) == pytest.approx((0.5, 0.5), abs=0.06)
    tall[0, 0, 0] = 3000
    shown = detailed_slice(tall, SPACING, "axial", (0, 0, 0))
    assert shown.detail[-1, -1] == 1
    assert shown.detail.shape == detailed_slice(tall, SPACING, "axial", (81, 121, 25)).detail.shape


def test_pixels_are_voxels_under_the_window() -> None:
    noisy = np.random.default_rng(1).normal(40, 150, SHAPE).astype(np.float32)
    shown = detailed_slice(noisy, SPACING, "axial", (5, 5, 7))
    assert shown.pixel_mm == SPACING[0]
    expected = ABDOMEN.normalize(noisy[::-1, ::-1, 7].T.astype(np.float64))
    np.testing.assert_allclose(shown.whole, expected, atol=1e-9)
    assert (shown.whole.min(), shown.whole.max()) == (0, 1)
    assert detailed_slice(noisy, (2.7, 2.7, 3.0), "axial", (5, 5, 7)).pixel_mm == pytest.approx(0.9)


def test_pictures_and_words_do_not_overlap() -> None:
    shown = detailed_slice(hu(), SPACING, "axial", (81, 71, 25))
    words = ", ".join(["blur of 1.25 x 2.25 x 3.25 mm, Poisson noise 25.5 HU"] * 4)
    panels = [Panel(f"Operation {n}", words if n == 1 else "short", "PSNR 20.0 dB", shown) for n in range(5)]
    figure = gallery("All of it", [Section("One", panels), Section("", panels[:1])], "Caption. " * 60)
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in figure.texts]
    boxes += [axes.get_window_extent() for axes in figure.axes]
    assert len(figure.axes) == 12
    page = figure.bbox
    for number, box in enumerate(boxes):
        assert page.x0 <= box.x0 < box.x1 <= page.x1
        assert page.y0 <= box.y0 < box.y1 <= page.y1
        for other in boxes[:number]:
            assert not (
                box.x0 < other.x1 - 0.5
                and other.x0 < box.x1 - 0.5
                and box.y0 < other.y1 - 0.5
                and other.y0 < box.y1 - 0.5
            )
    assert small_png(figure) == small_png(figure)


def test_a_pixel_of_the_scan_is_a_pixel_of_the_png() -> None:
    ramp = np.linspace(0, 1, 90)[None].repeat(120, axis=0)
    figure = gallery(
        "", [Section("", [Panel("", "", "", DetailedSlice("axial", ramp, ramp[:30], (0, 0), 1.0))])], ""
    )
    drawn = np.asarray(Image.open(io.BytesIO(small_png(figure))).convert("L"), float) / 255
    windows = np.lib.stride_tricks.sliding_window_view(drawn, 90, axis=1)
    same = np.abs(windows - ramp[0]).max(axis=-1) < 0.02
    # Below the frame of the detail and above the bar, the whole slice stands there row by row.
    assert same.sum(axis=0).max() >= 120 - 30 - 10


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("make_degradation_gallery", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, spec.name, module)  # dataclasses look there
        spec.loader.exec_module(module)
        yield module


def test_the_script_draws_a_small_phantom(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MPFNL_REAL_DATA", raising=False)
    script.main(["--small", "--output", str(tmp_path)])
    assert [path.name for path in tmp_path.iterdir()] == ["degradation_phantom.png"]
    written, left_out = capsys.readouterr().out.splitlines()
    assert written.startswith(str(tmp_path / "degradation_phantom.png"))
    assert "--real" in left_out
    with Image.open(tmp_path / "degradation_phantom.png") as picture:
        assert picture.mode == "P"


def test_everything_is_shown_and_does_something(script: ModuleType) -> None:
    case = script.phantom_case(SMALL)
    sections = script.sections(case)
    panels = [panel for section in sections for panel in section.panels]
    originals = {panel.image.plane: panel.image for panel in panels if panel.title == "Original"}
    assert set(originals) == {"axial", "coronal"}
    titles = " ".join(panel.title for panel in panels).lower()
    shown = ["isotropic", "anisotropic", "resize", "gaussian", "poisson", "correlated", "quarter", "tenth"]
    shown += ["rectangle", "bell", "motion", "double exposure", "metal"]
    shown += [f"preset {name}, seed" for name in ("mild", "paper", "severe") if name in newest_presets()]
    assert all(word in titles for word in shown)
    for panel in panels:
        if panel.title != "Original":
            assert np.abs(panel.image.whole - originals[panel.image.plane].whole).max() > 0.02, panel.title
            assert 10 < float(panel.note.split()[1]) < 60
    assert torch.equal(case.hu, script.phantom_case(SMALL).hu)  # no operation changed it in place


@pytest.mark.realdata
def test_screws_stand_in_the_slice_that_is_shown(script: ModuleType, real_data: Path) -> None:
    case = script.real_case(real_data / script.REAL_SCAN)
    assert "CC BY 4.0" in case.source
    assert "10.7937/QXK2-QG03" in case.source
    (panel,) = (panel for panel in script._scanner(case) if panel.title == "Metal streaks")
    clean = case.panel("axial", "", "", case.hu).image.whole
    new = (panel.image.whole == 1) & (clean < 1)
    assert new.sum() > 2 * 6 * 44 * 0.2  # much of the screws lies outside of bone
    assert clean.shape == pytest.approx(np.array([282, 368]), abs=1)


def test_the_pictures_of_the_documents_are_small_enough() -> None:
    for name in ("degradation_phantom.png", "degradation_real.png"):
        path = ROOT / "docs" / "figures" / name
        assert path.stat().st_size < 1.6e6
        with Image.open(path) as picture:
            assert picture.size[0] < 1800
