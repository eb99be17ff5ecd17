"""A phantom patient: the same for the same seed, and put together like a person."""

from __future__ import annotations

import json
from dataclasses import replace
from hashlib import sha256

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import binary_dilation, binary_erosion, label

from mpfnl.phantoms import PhantomConfig, generate_study
from mpfnl.phantoms.cohort import GENERATOR
from mpfnl.phantoms.config import SMALL
from mpfnl.phantoms.labels import LABELS
from mpfnl.phantoms.study import PhantomStudy
from mpfnl.phases import PHASES, Phase

TINY = PhantomConfig(
    in_plane_mm=(6.0, 6.0), slice_mm=(8.0, 9.0), coverage_mm=(130.0, 140.0), depth_fraction=0.8
)
WHOLE = PhantomConfig(
    in_plane_mm=(3.2, 3.2), slice_mm=(4.0, 4.0), coverage_mm=(240.0, 240.0), depth_fraction=0.8
)
SHARP = replace(
    SMALL, in_plane_mm=(2.0, 2.0), slice_mm=(2.5, 2.5), coverage_mm=(90.0, 90.0), misalignment=0.0
)
NUMBER = {name: number for number, name in LABELS.items()}
ORGANS = (
    "spleen", "kidney_right", "kidney_left", "gallbladder", "liver", "stomach", "pancreas", "duodenum",
    "small_bowel", "colon", "aorta", "inferior_vena_cava", "portal_vein_and_splenic_vein", "heart",
    "superior_mesenteric_artery", "coeliac_artery", "esophagus", "vertebrae_L1", "spinal_cord",
    "iliopsoas_left", "iliopsoas_right", "autochthon_left", "rib_left_10", "rib_right_10",
    "lung_lower_lobe_left", "lung_lower_lobe_right",
)  # fmt: skip


@pytest.fixture(scope="module", params=[(0, 0), (0, 1), (7, 2), (123, 40)], ids=str)
def patient(request: pytest.FixtureRequest) -> PhantomStudy:
    """A patient from the diaphragm to the pelvis, on coarse voxels."""
    return generate_study(*request.param, WHOLE)


@pytest.fixture(scope="module")
def sharp() -> PhantomStudy:
    """Fine voxels around the pancreas; all phases on top of each other."""
    return generate_study(5, 3, SHARP)


def centre(study: PhantomStudy, name: str) -> np.ndarray:
    """Centroid in RAS+ mm."""
    index = np.argwhere(study.labels == NUMBER[name]).mean(axis=0)
    return nibabel.affines.apply_affine(study.affine, index)


def millilitres(study: PhantomStudy, *names: str) -> float:
    voxel = abs(np.linalg.det(study.affine[:3, :3])) / 1000
    return sum(int((study.labels == NUMBER[name]).sum()) for name in names) * voxel


def test_same_seed_same_bytes_and_another_seed_another_patient() -> None:
    first, again, other, sibling = (generate_study(s, p, TINY) for s, p in ((3, 1), (3, 1), (4, 1), (3, 2)))
    for phase in PHASES:
        assert first.phases[phase].tobytes() == again.phases[phase].tobytes()
    assert first.labels.tobytes() == again.labels.tobytes()
    assert first.truth == again.truth
    for stranger in (other, sibling):
        assert stranger.truth["hu"] != first.truth["hu"]
        assert stranger.truth["half_width_mm"] != first.truth["half_width_mm"]


def test_voxels_of_a_seed_are_those_of_generator_1() -> None:
    """Other digests mean another generator: `mpfnl.phantoms.cohort.GENERATOR` must then be raised."""
    assert GENERATOR == 1
    study = generate_study(3, 1, TINY)
    digests = [sha256(study.phases[phase].tobytes()).hexdigest()[:16] for phase in PHASES]
    assert digests == ["14955870a058e203", "337d1e77f3b2aafd", "cc8c10117961826b"]
    assert [int((study.labels == NUMBER[name]).sum()) for name in ("liver", "spleen", "pancreas")] == [
        4038,
        468,
        189,
    ]


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_any_patient_is_a_valid_study(seed: int, number: int) -> None:
    study = generate_study(seed, number, TINY)
    shape = study.labels.shape
    assert set(study.phases) == set(PHASES)
    for scan in study.phases.values():
        assert scan.dtype == np.int16
        assert scan.shape == shape
        assert scan.min() >= -1024
        assert 300 < scan.max() <= 3071  # bone
    assert study.labels.dtype == np.uint8
    assert set(np.unique(study.labels)) <= {0, *LABELS}
    assert nibabel.aff2axcodes(study.affine) == ("R", "A", "S")
    np.testing.assert_allclose(np.diag(study.affine)[:3], study.spacing)
    assert json.loads(json.dumps(study.truth)) == study.truth


@pytest.mark.parametrize(("seed", "number"), [(-1, 0), (0, -1), (2**32, 0), (0, 2**32)])
def test_a_seed_that_would_share_random_streams_is_refused(seed: int, number: int) -> None:
    with pytest.raises(ValueError, match="2\\*\\*32"):
        generate_study(seed, number, TINY)


@pytest.mark.parametrize(
    "change",
    [{"in_plane_mm": (2.0, 1.0)}, {"slice_mm": (0.0, 3.0)}, {"misalignment": -1.0}, {"depth_fraction": 0.0},
     {"noise_hu": (-1.0, 3.0)}, {"liver_lesion_probability": 1.5}],
)  # fmt: skip
def test_impossible_settings_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        PhantomConfig(**change)  # type: ignore[arg-type]


def test_the_grid_keeps_to_the_settings() -> None:
    for number in range(3):
        study = generate_study(1, number, TINY)
        for size, limits in zip(
            study.spacing, (TINY.in_plane_mm, TINY.in_plane_mm, TINY.slice_mm), strict=True
        ):
            assert limits[0] - 1e-3 <= size <= limits[1] + 1e-3
        extent = np.array(study.labels.shape) * study.spacing
        assert TINY.field_of_view_mm[0] - 6 <= extent[0] <= TINY.field_of_view_mm[1] + 6
        assert TINY.coverage_mm[0] - 9 <= extent[2] <= TINY.coverage_mm[1] + 9


def test_small_preset_holds_the_whole_pancreas_on_about_128_by_100_by_48() -> None:
    study = generate_study(2, 0, SMALL)
    np.testing.assert_allclose(study.labels.shape, (128, 100, 48), rtol=0.1)
    heights = np.flatnonzero((study.labels == NUMBER["pancreas"]).any(axis=(0, 1)))
    assert heights[0] > 0
    assert heights[-1] < study.labels.shape[2] - 1


def test_all_organs_are_there_and_of_a_plausible_size(patient: PhantomStudy) -> None:
    assert [name for name in ORGANS if not (patient.labels == NUMBER[name]).any()] == []
    assert 40 <= millilitres(patient, "pancreas") <= 130
    assert 1000 <= millilitres(patient, "liver", "liver_lesion") <= 2200
    assert 70 <= millilitres(patient, "spleen") <= 400
    for kidney in ("kidney_right", "kidney_left"):
        assert 60 <= millilitres(patient, kidney) <= 230


def test_organs_lie_on_their_side(patient: PhantomStudy) -> None:
    spine, aorta = centre(patient, "vertebrae_L1"), centre(patient, "aorta")
    assert centre(patient, "liver")[0] > spine[0] + 20  # +x is the patient's right
    assert centre(patient, "spleen")[0] < spine[0] - 40
    assert centre(patient, "gallbladder")[0] > spine[0]
    assert centre(patient, "kidney_right")[0] > spine[0] > centre(patient, "kidney_left")[0]
    assert centre(patient, "inferior_vena_cava")[0] > aorta[0]
    assert spine[1] < aorta[1] < centre(patient, "pancreas")[1]  # +y is the front
    assert centre(patient, "spinal_cord")[1] < spine[1]
    assert centre(patient, "heart")[2] > centre(patient, "liver")[2] > centre(patient, "colon")[2]
    levels = [centre(patient, f"vertebrae_{v}")[2] for v in ("L3", "L2", "L1", "T12", "T11")]
    assert levels == sorted(levels)


def test_pancreas_is_one_piece_between_duodenum_and_spleen_along_the_splenic_vein(
    patient: PhantomStudy,
) -> None:
    pancreas = patient.labels == NUMBER["pancreas"]
    assert label(pancreas, np.ones((3, 3, 3)))[1] == 1
    vein = patient.labels == NUMBER["portal_vein_and_splenic_vein"]
    near = binary_dilation(pancreas, iterations=1) & vein
    assert np.ptp(np.argwhere(near)[:, 0]) * patient.spacing[0] > 40  # alongside, not at one spot
    duodenum = patient.labels == NUMBER["duodenum"]
    assert (binary_dilation(pancreas, iterations=2) & duodenum).any()
    across = np.argwhere(pancreas)
    head, tail = across[across[:, 0].argmax()], across[across[:, 0].argmin()]
    assert head[2] < tail[2]  # the tail rises towards the spleen


def test_vessels_measure_what_was_drawn(sharp: PhantomStudy) -> None:
    for name in ("aorta", "portal_vein_and_splenic_vein"):
        inside = binary_erosion(sharp.labels == NUMBER[name])
        assert inside.sum() > 30
        for phase in PHASES:
            drawn = sharp.truth["hu"][name][phase.value]
            assert float(np.median(sharp.phases[phase][inside])) == pytest.approx(drawn, abs=6), (name, phase)


def test_enhancement_follows_the_phases(sharp: PhantomStudy) -> None:
    def hu(name: str, phase: Phase) -> float:
        inside = binary_erosion(sharp.labels == NUMBER[name])
        return float(np.median(sharp.phases[phase][inside]))

    nc, art, pv = PHASES
    assert hu("aorta", art) > hu("aorta", pv) > hu("aorta", nc)
    assert hu("liver", pv) > hu("liver", art) > hu("liver", nc) - 2
    assert hu("pancreas", art) > hu("pancreas", nc) + 20
    assert hu("kidney_left", art) > hu("kidney_left", nc) + 40
    kidney = binary_erosion(sharp.labels == NUMBER["kidney_left"])
    spread = {phase: float(np.std(sharp.phases[phase][kidney])) for phase in PHASES}
    assert spread[art] > 1.5 * spread[nc]  # cortex against medulla


def test_organs_have_texture_and_soft_edges() -> None:
    clean = generate_study(5, 3, replace(SHARP, noise_hu=(0.0, 0.0)))
    liver = binary_erosion(clean.labels == NUMBER["liver"], iterations=2)
    scan = clean.phases[Phase.NONCONTRAST]
    assert 1 < float(np.std(scan[liver])) < 15
    body = scan > -300
    rim = body & ~binary_erosion(body)
    assert np.unique(scan[rim]).size > 50  # partial volume, not one value


def test_no_misalignment_leaves_the_reference_alone_and_the_others_on_it() -> None:
    quiet = replace(SMALL, noise_hu=(0.0, 0.0))
    moved, still = generate_study(8, 0, quiet), generate_study(8, 0, replace(quiet, misalignment=0.0))
    reference = Phase.PORTAL_VENOUS
    difference = moved.phases[reference].astype(int) - still.phases[reference]
    assert np.abs(difference).max() <= 1  # rounding only: the painted grid is longer where phases move
    for phase in (Phase.NONCONTRAST, Phase.ARTERIAL):
        record = still.truth["misalignment"][phase.value]
        assert not np.any(record["shift_mm"] + record["breath_mm"] + [record["local_sd_mm"]])
        assert (moved.phases[phase] != still.phases[phase]).mean() > 0.2
        bone = (still.phases[phase] > 350) != (still.phases[reference] > 350)
        assert bone.mean() < 2e-3
