"""The figures of an evaluation folder: what they show, of whom, and that they say so."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from mpfnl.data.manifest import Manifest, Split, Study
from mpfnl.errors import InputError
from mpfnl.evaluation.cases import Case
from mpfnl.evaluation.figures import FigureFile
from mpfnl.evaluation.figures.box_plots import overlap_figure, quality_figure
from mpfnl.evaluation.figures.examples import draw_figures
from mpfnl.evaluation.figures.ranking import rank_studies
from mpfnl.evaluation.figures.slices import PLANES, CaseSlices, read_case
from mpfnl.evaluation.folder import mask_file, volume_files
from mpfnl.evaluation.overlap import Truth
from mpfnl.evaluation.tables.metrics import DSC, PSNR
from mpfnl.phases import PHASES, Phase
from mpfnl.plots.contours import ContourSlice, Prediction, contour_figure
from mpfnl.plots.page import small_png
from mpfnl.plots.panels import Heading
from mpfnl.window import ABDOMEN

TARGET = Phase.PORTAL_VENOUS
METHODS = ["reference", "degraded", "RCAN3D", "PFNL3D"]
SHAPE, SPACING = (36, 30, 16), (4.0, 4.5, 8.0)
NOTICE = "phantom weights: not for patients"
CODES = ["RAS", "LPS", "SRA", "IPL", "ARI"]


def scan(seed: int) -> np.ndarray:
    """A lopsided body in HU, RAS."""
    rng = np.random.default_rng(seed)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, side) for side in SHAPE), indexing="ij")
    hu = np.where(x**2 + 1.2 * y**2 < 0.9, 50.0, -1000.0)
    hu[(x - 0.3) ** 2 + (y - 0.2) ** 2 + z**2 < 0.1] = 160
    return np.rint(hu + rng.normal(0, 12, SHAPE)).astype(np.int16)


def mask(shift: int = 0) -> np.ndarray:
    """A lopsided structure, RAS."""
    inside = np.zeros(SHAPE, dtype=np.uint8)
    inside[10 + shift : 20 + shift, 12:17, 5:9] = 1
    inside[14 + shift : 27 + shift, 14:20, 9:11] = 1
    return inside


def save(path: Path, voxels: np.ndarray, codes: str = "LPS") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(voxels, nib.affines.from_matvec(np.diag(SPACING), (-70.0, -60.0, -33.0)))
    turn = nib.orientations.ornt_transform(
        nib.orientations.io_orientation(image.affine), nib.orientations.axcodes2ornt(tuple(codes))
    )
    stored = image.as_reoriented(turn)
    for space in (stored.set_sform, stored.set_qform):
        space(stored.affine, 1)
    stored.header.set_xyzt_units("mm")
    nib.save(stored, path)


def make_study(folder: Path, name: str, codes: str = "LPS", *, masked: bool = True) -> Study:
    """A study with its scans and masks in `folder / "evaluation"`."""
    file, truth = folder / name / "pv.nii.gz", folder / name / "pancreas.nii.gz"
    clean, evaluation = scan(len(name)), folder / "evaluation"
    save(file, clean, codes)
    save(truth, mask(), codes)
    for place, (method, path) in enumerate(volume_files(evaluation, name, METHODS, TARGET).items()):
        noise = np.random.default_rng(place).normal(0, 60 / (place + 1), SHAPE)
        blurred = ndimage.gaussian_filter(clean.astype(float), 1.5 / (place + 1))
        save(path, np.rint(blurred + noise).astype(np.int16), codes)
        save(mask_file(evaluation, name, method, "pancreas"), mask(3 - place), codes)
    save(mask_file(evaluation, name, "reference", "pancreas"), mask(), codes)
    masks = {"pancreas": truth} if masked else {}
    return Study(name, name, Split.TEST, dict.fromkeys(PHASES, file), masks)


def make_cases(studies: list[Study], gains: list[float]) -> list[Case]:
    return [
        Case(
            study.study_id,
            study.patient_id,
            method,
            math.nan if method == "reference" else 24.0 + number * gain,
            math.nan if method == "reference" else 0.5 + 0.01 * number,
            0.5 + 0.1 * number * gain,
            0.3,
        )
        for study, gain in zip(studies, gains, strict=True)
        for number, method in enumerate(METHODS)
    ]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> tuple[Manifest, list[Case], Path]:
    folder = tmp_path_factory.mktemp("figures")
    studies = [make_study(folder, name) for name in ("s0", "s-1", "s--2", "s---3")]
    cases = make_cases(studies, [0.3, 0.1, 0.2, 1.0])
    return Manifest(folder / "cohort.csv", tuple(studies)), cases, folder / "evaluation"


@pytest.fixture(scope="module")
def pictures(cohort: tuple[Manifest, list[Case], Path]) -> list[FigureFile]:
    manifest, cases, folder = cohort
    return draw_figures(manifest, cases, TARGET, folder, ABDOMEN, structure="pancreas", notice=NOTICE)


def test_all_figures_are_there_small_and_named(pictures: list[FigureFile]) -> None:
    numbers = [picture.title.split(".")[0] for picture in pictures]
    assert numbers == ["Figure 1", *["Figure 2"] * 3, "Figure 3", *["Figure 4"] * 3]
    for picture in pictures:
        with Image.open(picture.path) as image:
            assert image.format == "PNG"
            assert image.width <= 1600
        assert picture.path.stat().st_size < 600_000
        assert len(picture.alt) > 40
    assert len({picture.path for picture in pictures}) == len(pictures)


def test_captions_say_who_where_why_and_the_notice(pictures: list[FigureFile]) -> None:
    for picture in pictures[1:]:
        assert NOTICE in picture.caption
    shown = {"worst": "s-1", "median": "s0", "best": "s---3"}  # gains 0.1, 0.2, 0.3, 1.0: the upper middle
    for rule, name in shown.items():
        slices, contours = (p for p in pictures if rule in p.path.name)
        for picture in (slices, contours):
            assert f"Study {name} ({rule}: rank" in picture.caption
            assert "of 4 by gain in DSC" in picture.caption
            assert "DSC of PFNL3D" in picture.caption
            assert name in picture.title
            assert name in picture.alt
        place = "axial slice 9 (S\N{NO-BREAK SPACE}39.0\N{NO-BREAK SPACE}mm)"  # -33 + 9 * 8
        assert place in slices.caption
        assert place in contours.caption
        assert "sagittal slice" in contours.caption


def test_without_segmentation_only_image_quality_is_shown(
    cohort: tuple[Manifest, list[Case], Path], tmp_path: Path
) -> None:
    manifest, cases, folder = cohort
    cases = [case for case in cases if case.study_id in ("s0", "s-1")]
    (tmp_path / "volumes").symlink_to(folder / "volumes")
    (tmp_path / "figures").mkdir()
    stale = [tmp_path / "figures" / name for name in ("case_first.png", "contours_best.png")]
    for path in stale:
        path.write_bytes(b"")
    drawn = draw_figures(manifest, cases, TARGET, tmp_path, ABDOMEN, notice=NOTICE)
    assert [p.title.split(".")[0] for p in drawn] == ["Figure 1", "Figure 2", "Figure 2"]
    assert not any(NOTICE in p.caption for p in drawn)
    assert "by gain in PSNR" in drawn[1].caption
    assert not any(path.exists() for path in stale)
    assert draw_figures(manifest, [], TARGET, tmp_path, ABDOMEN) == []


def test_a_study_without_a_mask_is_shown_without_contours(tmp_path: Path) -> None:
    study = make_study(tmp_path, "s", masked=False)
    manifest, folder = Manifest(tmp_path / "c.csv", (study,)), tmp_path / "evaluation"
    cases = [Case("s", "s", method, 20.0 + n) for n, method in enumerate(METHODS[1:])]
    drawn = draw_figures(manifest, cases, TARGET, folder, ABDOMEN, structure="pancreas", notice=NOTICE)
    assert [p.title.split(".")[0] for p in drawn] == ["Figure 1", "Figure 2", "Figure 3"]
    assert "no reference mask" in drawn[1].caption
    assert "only: rank 1 of 1 by gain in PSNR" in drawn[1].caption


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    study = make_study(tmp_path, "s")
    folder = tmp_path / "evaluation"
    (folder / "volumes" / "s" / "RCAN3D.nii.gz").unlink()
    mask_file(folder, "s", "RCAN3D", "pancreas").unlink()
    save(mask_file(folder, "s", "PFNL3D", "pancreas"), np.zeros(SHAPE, np.uint8))
    cases = [Case("s", "s", "reference", dsc=0.9, nsd=0.5), Case("s", "s", "degraded", 20, 0.5, 0.4, 0.2)]
    cases += [Case("s", "s", "RCAN3D", failure="the scan is missing")]
    cases += [Case("s", "s", "PFNL3D", 25, 0.7, 0, 0, failure="no voxel was found")]
    manifest = Manifest(tmp_path / "c.csv", (study,))
    drawn = draw_figures(manifest, cases, TARGET, folder, ABDOMEN, structure="pancreas")
    contours = next(p for p in drawn if "contours" in p.path.name)
    assert "RCAN3D: no scan" in contours.alt
    assert "PFNL3D: empty prediction" in contours.alt
    assert "RCAN3D: the scan is missing." in contours.caption
    assert "PFNL3D: no voxel was found." in contours.caption
    overlap = next(p for p in drawn if "Figure 3" in p.title)
    assert "PFNL3D 1" in overlap.caption
    labels = [label.get_text() for label in overlap_figure(cases).axes[0].get_xticklabels()]
    assert labels[2] == "RCAN3D\nn = 0\n1 missing"
    assert labels[3] == "PFNL3D\nn = 1"


def test_a_scan_on_another_grid_is_refused(tmp_path: Path) -> None:
    study = make_study(tmp_path, "s")
    save(tmp_path / "evaluation" / "volumes" / "s" / "PFNL3D.nii.gz", scan(1)[1:])
    with pytest.raises(InputError, match=r"PFNL3D\.nii\.gz"):
        read_case(study, METHODS, TARGET, tmp_path / "evaluation", "pancreas")


def displayed(cuts: CaseSlices) -> bytes:
    """A picture of everything that was read of a case, without the slices' numbers."""
    assert cuts.reference_mask is not None
    rows = {
        plane: ContourSlice(
            plane, cuts.position.pixel_mm(plane), cuts.position.frames[plane], cuts.reference_mask[plane]
        )
        for plane in PLANES
    }
    columns = [Prediction(Heading(name), shown.hu, shown.mask) for name, shown in cuts.methods.items()]
    return small_png(contour_figure("", rows, columns))


@pytest.fixture(scope="module")
def upright_picture(upright: CaseSlices) -> bytes:
    return displayed(upright)


@pytest.fixture(scope="module")
def upright(tmp_path_factory: pytest.TempPathFactory) -> CaseSlices:
    folder = tmp_path_factory.mktemp("upright")
    return read_case(make_study(folder, "s", "RAS"), METHODS, TARGET, folder / "evaluation", "pancreas")


@pytest.mark.parametrize("codes", CODES[1:])
def test_a_flipped_or_permuted_copy_looks_the_same(
    codes: str, upright: CaseSlices, upright_picture: bytes, tmp_path: Path
) -> None:
    study = make_study(tmp_path, "s", codes)
    cuts = read_case(study, METHODS, TARGET, tmp_path / "evaluation", "pancreas")
    assert displayed(cuts) == upright_picture
    assert cuts.position.square == upright.position.square
    sizes = {plane: cuts.reference[plane].shape for plane in PLANES}
    assert sizes == {"axial": (30, 36), "coronal": (16, 36), "sagittal": (16, 30)}
    for plane in PLANES:
        np.testing.assert_array_equal(cuts.reference[plane], upright.reference[plane])
        mm = [c.position.label(plane).split("(")[1] for c in (cuts, upright)]
        assert mm[0] == mm[1]
    without = read_case(study, METHODS, TARGET, tmp_path / "evaluation", None)
    assert without.methods["PFNL3D"].mask is None


def test_cuts_pass_where_the_mask_is_largest_and_are_what_a_viewer_shows(upright: CaseSlices) -> None:
    truth, clean = mask().astype(bool), scan(1)
    areas = {plane: [truth.take(i, axis).sum() for i in range(SHAPE[axis])] for plane, axis in PLANES.items()}
    for plane, axis in PLANES.items():
        index = upright.position.voxels[plane][axis]
        assert areas[plane][index] == max(areas[plane])
        expected = np.rot90(clean.take(index, axis))  # the front, or the head, up
        np.testing.assert_array_equal(upright.reference[plane], np.fliplr(expected))  # right, or front, left
    assert upright.reference_mask is not None
    frame = upright.position.square
    _, columns = np.nonzero(upright.reference_mask["axial"])
    assert frame.width == frame.height >= 60
    assert frame.left <= columns.min() * SPACING[0] - 15 + 1e-9
    assert frame.left + frame.width >= (columns.max() + 1) * SPACING[0] + 15 - 1e-9


VALUES = st.floats(-1, 1) | st.just(math.nan) | st.sampled_from([0.0, 0.5])


@settings(deadline=None, max_examples=80)
@given(st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=9), st.booleans())
def test_cases_are_picked_by_the_written_rule(pairs: list[tuple[float, float]], segmented: bool) -> None:
    cases = [
        Case(f"s{n}", f"p{n}", method, *((math.nan, 0.5, v) if segmented else (v, 0.5, math.nan)))
        for n, pair in enumerate(pairs)
        for method, v in zip(("degraded", "PFNL3D"), pair, strict=True)
    ]
    ranking = rank_studies(cases, "PFNL3D", segmented)
    gains = {f"s{n}": new - old for n, (old, new) in enumerate(pairs) if math.isfinite(new - old)}
    order = [study for _, _, study in sorted((gain, int(s[1:]), s) for s, gain in gains.items())]
    picks = {pick.rule: pick.study_id for pick in ranking.selection()}
    assert len(set(picks.values())) == len(picks) == min(max(len(order), 1), 3)
    if not order:
        assert picks == {"first": "s0"}
        assert "first" in ranking.rule()
    elif len(order) == 1:
        assert picks == {"only": order[0]}
    else:
        assert (picks["worst"], picks["best"]) == (order[0], order[-1])
        assert picks.get("median", order[len(order) // 2]) == order[len(order) // 2]
        missing = len(pairs) - len(order)
        assert (f"({missing} of {len(pairs)} studies)" in ranking.rule()) == bool(missing)


def test_dsc_ranks_where_there_is_segmentation_and_psnr_where_it_failed() -> None:
    cases = [Case("a", "a", "degraded", 20, 0.5, 0.5), Case("a", "a", "PFNL3D", 25, 0.5, math.nan)]
    assert rank_studies(cases, "PFNL3D", segmented=True).metric is PSNR
    cases += [Case("b", "b", "degraded", 20, 0.5, 0.5), Case("b", "b", "PFNL3D", 19, 0.5, 0.6)]
    ranking = rank_studies(cases, "PFNL3D", segmented=True)
    assert (ranking.metric, list(ranking.gains)) == (DSC, ["b"])
    assert rank_studies(cases, "PFNL3D", segmented=False).metric is PSNR


def test_box_plots_show_every_value_in_percent(cohort: tuple[Manifest, list[Case], Path]) -> None:
    _, cases, _ = cohort
    cases = [*cases, *(Case("unmasked", "u", method, 20.0, 0.4) for method in METHODS[1:])]
    dsc, nsd = overlap_figure(cases, NOTICE).axes
    shown = np.concatenate([np.asarray(points.get_offsets())[:, 1] for points in dsc.collections])
    expected = [100 * case.dsc for case in cases if math.isfinite(case.dsc)]
    assert sorted(shown) == pytest.approx(sorted(expected))
    assert [t.get_text() for t in dsc.get_xticklabels()] == [f"{m}\nn = 4" for m in METHODS]  # not asked for
    assert "%" in nsd.get_ylabel()
    psnr, _ = quality_figure(cases).axes
    assert [t.get_text() for t in psnr.get_xticklabels()] == [f"{m}\nn = 5" for m in METHODS[1:]]
    foot = " ".join(text.get_text() for text in overlap_figure(cases, NOTICE).texts)
    assert foot == NOTICE
    edges = [axes.patches[-1].get_edgecolor() for axes in (dsc, psnr)]
    assert edges[0] == edges[1]  # a method keeps its colour


def test_files_lie_where_the_evaluation_puts_them() -> None:
    files = volume_files(Path("e"), "s", METHODS, TARGET)
    assert list(files) == METHODS[1:]
    assert files["degraded"] == Path("e/volumes/s/degraded_portal_venous.nii.gz")
    assert files["PFNL3D"] == Path("e/volumes/s/PFNL3D.nii.gz")
    assert mask_file(Path("e"), "s", "reference", "liver") == Path("e/volumes/s/masks/reference_liver.nii.gz")


@pytest.mark.realdata
def test_a_real_scan_has_its_spine_at_the_back_and_its_liver_on_the_left(
    real_data: Path, tmp_path: Path
) -> None:
    path = real_data / "ts_noncontrast" / "example_ct.nii.gz"
    labels = nib.load(real_data / "ts_noncontrast" / "example_seg_fast_force_split.nii.gz")
    found = np.asarray(labels.dataobj)
    pancreas = tmp_path / "pancreas.nii.gz"
    nib.save(nib.Nifti1Image((found == 7).astype(np.uint8), labels.affine), pancreas)
    study = Study("s", "s", Split.TEST, dict.fromkeys(PHASES, path), {"pancreas": pancreas})
    cuts = read_case(study, ["reference"], TARGET, tmp_path, None)
    liver, spleen = (cuts.position.slices(found == label) for label in (5, 1))
    spine = cuts.position.slices((found >= 26) & (found <= 50))
    middle = {name: np.argwhere(m["axial"]).mean(axis=0) for name, m in (("liver", liver), ("spine", spine))}
    middle["spleen"] = np.argwhere(spleen["axial"]).mean(axis=0)
    assert middle["liver"][1] < middle["spine"][1] < middle["spleen"][1]
    assert middle["spine"][0] > middle["liver"][0]
    assert np.argwhere(spine["sagittal"]).mean(axis=0)[1] > np.argwhere(liver["sagittal"]).mean(axis=0)[1]
    bone = cuts.reference["axial"][spine["axial"]].mean()
    assert bone > ABDOMEN.level


def test_every_plane_is_at_one_scale(upright: CaseSlices) -> None:
    frames = upright.position.frames
    for a, b in itertools.combinations(PLANES, 2):
        assert frames[a].width == pytest.approx(frames[b].width, abs=1e-9)


def test_without_masks_the_reference_scans_segmentation_is_the_truth(tmp_path: Path) -> None:
    study = make_study(tmp_path, "s", masked=False)
    manifest, folder = Manifest(tmp_path / "c.csv", (study,)), tmp_path / "evaluation"
    cases = [Case("s", "s", "reference"), Case("s", "s", "degraded", 20, 0.5, 0.4, 0.2)]
    cases += [Case("s", "s", "PFNL3D", 25, 0.7, 0.6, 0.4)]
    truth = Truth.REFERENCE_SCAN
    drawn = draw_figures(manifest, cases, TARGET, folder, ABDOMEN, structure="pancreas", truth=truth)
    assert len(drawn) == 4
    for picture in drawn[1:]:
        assert "segmentation of the reference scan" in picture.caption
        assert "reference mask" not in picture.caption
    labels = [label.get_text() for label in overlap_figure(cases).axes[0].get_xticklabels()]
    assert labels == ["degraded\nn = 1", "PFNL3D\nn = 1"]
    failed = [Case("s", "s", "reference", failure="the worker died"), *cases[1:]]
    labels = [label.get_text() for label in overlap_figure(failed).axes[0].get_xticklabels()]
    assert labels[0] == "reference\nn = 0\n1 missing"
    assert len(quality_figure(failed).axes[0].get_xticklabels()) == 2
