"""One prepared study: grids, HU outside the scan, masks, turned scans."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from raw_studies import AFFINE, SHAPE, body, raw_study, write_scan
from scipy import ndimage

from mpfnl.data.manifest import Quality, Split, Study
from mpfnl.errors import InputError, InputWarning, IntensityError
from mpfnl.phases import PHASES, Phase
from mpfnl.prepare import PrepareSettings
from mpfnl.prepare.review import Entry
from mpfnl.prepare.study import prepare_study
from mpfnl.volumes import Volume, read_volume
from mpfnl.volumes.grid import check_same_grid
from mpfnl.window import AIR_HU, UNCOVERED_HU

UNREGISTERED = PrepareSettings(steps=(), crop="none")


def prepared(study: Study, folder: Path, settings: PrepareSettings = UNREGISTERED) -> dict[Phase, Volume]:
    folder.mkdir()
    prepare_study(study, settings, "key", folder)
    files = {phase: folder / f"{phase}.nii" for phase in study.phases}
    return {phase: read_volume(file, phase) for phase, file in files.items() if file.is_file()}


def test_without_registration_scans_on_one_grid_stay_as_they_are(tmp_path: Path) -> None:
    study = raw_study(tmp_path, 0)
    found = prepared(study, tmp_path / "out")
    for phase, volume in found.items():
        np.testing.assert_array_equal(volume.data, read_volume(study.file(phase)).data)
        np.testing.assert_allclose(volume.affine, AFFINE)


def test_another_grid_is_looked_up_in_the_scanners_coordinates(tmp_path: Path) -> None:
    """Against SciPy's linear interpolation, on a grid that is shifted, finer and shorter."""
    study = raw_study(tmp_path, 0)
    affine = np.diag([2.0, 2.5, 3.0, 1.0])
    affine[:3, 3] = (-50.0, -45.0, 112.0)
    where = np.stack(np.meshgrid(*(np.arange(n) for n in (50, 36, 20)), indexing="ij"), axis=-1)
    to_source = np.linalg.inv(AFFINE) @ affine
    index = where @ to_source[:3, :3].T + to_source[:3, 3]
    hu = ndimage.map_coordinates(body(0, Phase.ARTERIAL).astype(float), index.transpose(3, 0, 1, 2), order=1)
    scan = write_scan(tmp_path / "arterial.nii.gz", np.rint(hu).astype(np.int16), affine)
    study = replace(
        study, scans={**study.scans, Phase.ARTERIAL: scan}, masks={"pancreas": study.masks["pancreas"]}
    )
    found = prepared(study, tmp_path / "out")[Phase.ARTERIAL].data

    grid = np.stack(np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij"), axis=-1)
    back = np.linalg.inv(affine) @ AFFINE
    place = (grid @ back[:3, :3].T + back[:3, 3]).transpose(3, 0, 1, 2)
    expected = ndimage.map_coordinates(np.rint(hu), place, order=1, cval=np.nan)
    inside = np.isfinite(expected)
    assert 0.3 < inside.mean() < 0.95
    assert np.abs(found[inside] - expected[inside]).max() <= 0.51
    beyond = ((place < -0.51) | (place > np.array(hu.shape)[:, None, None, None] - 0.49)).any(axis=0)
    assert (found[beyond] == UNCOVERED_HU).all()
    assert (found[inside] != UNCOVERED_HU).all()


@pytest.mark.parametrize("turn", [(1, 1, 1), (-1, -1, 1), (1, -1, -1)])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_the_way_a_scan_is_stored_does_not_matter(
    tmp_path: Path, turn: tuple[int, int, int], order: tuple[int, int, int]
) -> None:
    study = raw_study(tmp_path, 1)
    plain = prepared(study, tmp_path / "plain")
    files = {}
    for phase in PHASES:
        hu = read_volume(study.file(phase)).data[tuple(slice(None, None, step) for step in turn)]
        affine = AFFINE @ np.diag([*turn, 1.0])
        affine[:3, 3] = [
            AFFINE[a, 3] + (AFFINE[a, a] * (SHAPE[a] - 1) if turn[a] < 0 else 0) for a in range(3)
        ]
        columns = np.column_stack([affine[:, list(order)], affine[:, 3]])
        files[phase] = write_scan(tmp_path / "turned" / f"{phase}.nii.gz", hu.transpose(order), columns)
    turned = Study("t", "p", study.split, files)
    found = prepared(turned, tmp_path / "out")
    for phase in PHASES:
        np.testing.assert_array_equal(found[phase].data, plain[phase].data)
        np.testing.assert_allclose(found[phase].affine, plain[phase].affine, atol=1e-4)


def test_darker_than_air_is_not_covered_and_air_in_the_portal_venous_scan(tmp_path: Path) -> None:
    study = raw_study(tmp_path, 0)
    for phase in PHASES:
        hu = body(0, phase)
        hu[:3] = -3024
        write_scan(study.file(phase), hu)
    for phase, volume in prepared(study, tmp_path / "out").items():
        expected = AIR_HU if phase is Phase.PORTAL_VENOUS else UNCOVERED_HU
        assert volume.data.min() == expected
        assert (volume.data[:3] == expected).all()


def test_the_crop_keeps_the_body_and_its_place(tmp_path: Path) -> None:
    study = raw_study(tmp_path, 2)
    found = prepared(study, tmp_path / "out", replace(UNREGISTERED, crop="body", margin_mm=3.0))
    target = read_volume(study.file(Phase.PORTAL_VENOUS))
    cropped = found[Phase.PORTAL_VENOUS]
    assert cropped.data.size < target.data.size
    start = np.rint(np.linalg.inv(AFFINE) @ cropped.affine)[:3, 3].astype(int)
    box = tuple(slice(s, s + n) for s, n in zip(start, cropped.shape, strict=True))
    np.testing.assert_array_equal(cropped.data, target.data[box])
    assert (target.data > -300).sum() == (cropped.data > -300).sum()
    check_same_grid(cropped, list(found.values()))


def test_masks_come_along(tmp_path: Path) -> None:
    from mpfnl.volumes.masks import read_label_volume

    study = raw_study(tmp_path, 0)
    out = tmp_path / "out"
    reference = prepared(study, out)[Phase.PORTAL_VENOUS]
    for column, values in (("pancreas", {0, 1}), ("arterial_labels", {0, 7})):
        mask = read_label_volume(out / f"{column}.nii.gz")
        check_same_grid(reference, [mask])
        assert set(np.unique(mask.data)) == values
        np.testing.assert_array_equal(mask.data, read_label_volume(study.masks[column]).data)


def test_registration_brings_a_shifted_phase_back(tmp_path: Path) -> None:
    """A rigid shift of 9 and 8 mm, which the mask shows and the registration must find."""
    study = raw_study(tmp_path, 3)
    moved = AFFINE.copy()
    moved[:3, 3] += (9.0, -8.0, 0.0)
    write_scan(study.file(Phase.ARTERIAL), body(3, Phase.ARTERIAL), moved)
    mask = np.zeros(SHAPE, np.uint8)
    mask[15:22, 12:18, 9:14] = 7
    write_scan(study.masks["arterial_labels"], mask, moved)
    from mpfnl.volumes.masks import read_label_volume

    def dice(folder: str, settings: PrepareSettings) -> float:
        prepared(study, tmp_path / folder, settings)
        found = read_label_volume(tmp_path / folder / "arterial_labels.nii.gz").data > 0
        return float(2 * (found & (mask > 0)).sum() / (found.sum() + (mask > 0).sum()))

    before = dice("before", UNREGISTERED)
    after = dice("after", replace(UNREGISTERED, steps=("rigid",), grid_mm=4.0))
    assert before < 0.5 < 0.85 < after


@pytest.mark.parametrize(
    "change", [lambda hu: hu.clip(0, None), lambda hu: np.full_like(hu, -1000)], ids=["no air", "no body"]
)
def test_what_is_no_body_in_hu_is_refused(tmp_path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    study = raw_study(tmp_path, 0)
    write_scan(study.file(Phase.ARTERIAL), change(body(0, Phase.ARTERIAL)))
    with pytest.raises(IntensityError, match=r"arterial\.nii\.gz \(arterial phase\): "):
        prepared(study, tmp_path / "out")


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase is not Phase.PORTAL_VENOUS])
def test_any_phase_is_registered_to_the_portal_venous_scan(tmp_path: Path, phase: Phase) -> None:
    scans = {
        each: write_scan(tmp_path / "raw" / f"{each}.nii.gz", body(0, each))
        for each in (phase, Phase.PORTAL_VENOUS)
    }
    mask = write_scan(tmp_path / "raw" / "mask.nii.gz", np.ones(SHAPE, np.uint8))
    study = Study("s", "p", Split.TEST, scans, {f"{phase}_pancreas": mask})
    found = prepared(study, tmp_path / "out", replace(UNREGISTERED, steps=("rigid",), grid_mm=4.0))
    assert set(found) == set(scans)
    check_same_grid(found[Phase.PORTAL_VENOUS], list(found.values()))
    record = json.loads((tmp_path / "out" / "record.json").read_text())
    assert set(record["phases"]) == {phase}
    assert {f"{phase}.nii", "portal_venous.nii", f"{phase}_pancreas.nii.gz"} < set(record["files"])


def test_a_portal_venous_scan_alone_is_prepared(tmp_path: Path) -> None:
    study = raw_study(tmp_path, 0)
    alone = Study("s", "p", Split.TEST, {Phase.PORTAL_VENOUS: study.file(Phase.PORTAL_VENOUS)})
    assert set(prepared(alone, tmp_path / "out")) == {Phase.PORTAL_VENOUS}
    record = json.loads((tmp_path / "out" / "record.json").read_text())
    assert (record["quality"], record["phases"]) == (Quality.PASS, {})
    assert set(record["files"]) == {"portal_venous.nii"}
    assert Entry.of(record).sheet is None


def test_a_study_without_portal_venous_scan_is_refused(tmp_path: Path) -> None:
    study = raw_study(tmp_path, 0)
    other = Study("s", "p", Split.TEST, {Phase.ARTERIAL: study.file(Phase.ARTERIAL)})
    with pytest.raises(InputError, match="portal venous"):
        prepared(other, tmp_path / "out")


@pytest.mark.parametrize("steps", [(), ("rigid",)])
def test_a_phase_that_does_not_meet_the_portal_venous_scan_is_left_out(
    tmp_path: Path, steps: tuple[str, ...]
) -> None:
    study = raw_study(tmp_path, 0)
    away = AFFINE.copy()
    away[2, 3] += 500
    write_scan(study.file(Phase.NONCONTRAST), body(0, Phase.NONCONTRAST), away)
    found = prepared(study, tmp_path / "out", replace(UNREGISTERED, steps=steps))
    assert set(found) == {Phase.ARTERIAL, Phase.PORTAL_VENOUS}
    record = json.loads((tmp_path / "out" / "record.json").read_text())
    assert record["quality"] == Quality.WARN
    assert set(record["left_out"]) == {Phase.NONCONTRAST}
    assert record["reasons"][0].startswith(
        "non-contrast phase left out: <noncontrast> (non-contrast phase): "
    )


def test_a_phase_of_another_patient_is_left_out_and_kept_for_review(tmp_path: Path) -> None:
    study = raw_study(tmp_path, 0)
    write_scan(study.file(Phase.ARTERIAL), body(5, Phase.ARTERIAL)[:, ::-1])
    found = prepared(study, tmp_path / "out")
    assert set(found) == set(PHASES)
    record = json.loads((tmp_path / "out" / "record.json").read_text())
    assert record["quality"] == Quality.WARN
    assert set(record["left_out"]) == {Phase.ARTERIAL}
    assert record["phases"]["arterial"]["verdict"] == Quality.FAIL
    assert record["phases"]["noncontrast"]["verdict"] != Quality.FAIL
    assert {"arterial.nii", "sheet.png"} < set(record["files"])


def test_the_record_states_what_is_covered_by_thirds(tmp_path: Path) -> None:
    study = raw_study(tmp_path, 0)
    hu = body(0, Phase.NONCONTRAST)
    hu[:, :, 16:] = -1024  # blank slices at the upper end, as software appends them
    write_scan(study.file(Phase.NONCONTRAST), hu)
    write_scan(study.file(Phase.ARTERIAL), body(0, Phase.ARTERIAL)[:, :, :8])
    found = prepared(replace(study, masks={}), tmp_path / "out")
    assert (found[Phase.NONCONTRAST].data[:, :, 16:] == UNCOVERED_HU).all()
    record = json.loads((tmp_path / "out" / "record.json").read_text())
    thirds = ("coverage_lower", "coverage_middle", "coverage_upper")
    shares = {name: [each[third] for third in thirds] for name, each in record["phases"].items()}
    assert shares == {"noncontrast": [1, 1, 0], "arterial": [1, 0, 0]}
    coverage = {name: each["coverage"] for name, each in record["phases"].items()}
    assert coverage == {
        "noncontrast": pytest.approx(2 / 3, abs=0.01),
        "arterial": pytest.approx(1 / 3, abs=0.01),
    }
    assert (record["left_out"], record["quality"]) == ({}, Quality.WARN)  # used where they cover the body


def test_a_scan_that_was_changed_on_reading_is_to_be_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = raw_study(tmp_path / "Jane Doe", 0)

    def read_tilted(path: Path, phase: Phase) -> Volume:
        if phase is Phase.ARTERIAL:
            warnings.warn(f"{path} (arterial phase): tilted by 12 degrees", InputWarning, stacklevel=1)
        return read_volume(path, phase)

    monkeypatch.setattr("mpfnl.prepare.study.read_volume", read_tilted)
    (tmp_path / "out").mkdir()
    record = prepare_study(study, UNREGISTERED, "key", tmp_path / "out")
    assert record["quality"] != Quality.PASS
    assert record["reasons"][0] == "<arterial> (arterial phase): tilted by 12 degrees"
    assert json.loads((tmp_path / "out" / "record.json").read_text()) == record
