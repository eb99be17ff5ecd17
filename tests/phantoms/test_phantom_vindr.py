"""Phantoms as DICOM: what ITK reads is what was made, and the adapter finds the way through."""

from __future__ import annotations

import csv
import json
import re
import shutil
import warnings
from collections import defaultdict
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom import config

from mpfnl.cli.main import main
from mpfnl.data.manifest import read_manifest
from mpfnl.errors import ConflictError, OptionError
from mpfnl.phantoms import PhantomConfig, generate_study, vindr
from mpfnl.phantoms.labels import NUMBERS
from mpfnl.phantoms.study import PhantomStudy
from mpfnl.phantoms.vindr import write_vindr_cohort
from mpfnl.phases import PHASES, Phase

TINY = PhantomConfig(
    in_plane_mm=(6.0, 7.0), slice_mm=(6.0, 7.0), coverage_mm=(150.0, 160.0), depth_fraction=0.8
)
SEED, PATIENTS, LACKING = 9, 3, 1
PHASE_OF = {"Non-contrast": Phase.NONCONTRAST, "Aterial": Phase.ARTERIAL, "Venous": Phase.PORTAL_VENOUS}
FLIP = np.diag([-1.0, -1.0, 1.0])  # RAS+ to LPS+


# Elements of a CT image that must be present (PS3.3, A.3), and those that must have a value.
TYPE_1 = (
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID",
    "Modality", "ImageType", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit",
    "PixelRepresentation", "SamplesPerPixel", "PhotometricInterpretation", "PixelSpacing",
    "ImagePositionPatient", "ImageOrientationPatient", "RescaleIntercept", "RescaleSlope", "PixelData",
)  # fmt: skip
TYPE_1_AND_2 = (
    *TYPE_1, "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime",
    "StudyID", "AccessionNumber", "ReferringPhysicianName", "SeriesNumber", "InstanceNumber", "Manufacturer",
    "KVP", "AcquisitionNumber", "SliceThickness", "PositionReferenceIndicator", "PatientPosition",
)  # fmt: skip


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dicom") / "phantoms"
    return write_vindr_cohort(folder, PATIENTS, SEED, TINY, LACKING)


@pytest.fixture(scope="module")
def phantoms() -> list[PhantomStudy]:
    return [generate_study(SEED, patient, TINY) for patient in range(PATIENTS + LACKING)]


def labels(folder: Path) -> list[dict[str, str]]:
    with (folder / "abdomen_phases" / "labels.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def by_study(folder: Path) -> dict[str, list[dict[str, str]]]:
    studies: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in labels(folder):
        studies[row["StudyInstanceUID"]].append(row)
    return dict(studies)


def series_folder(folder: Path, row: dict[str, str]) -> Path:
    return folder / "abdomen_phases" / "batch_1" / row["StudyInstanceUID"] / row["SeriesInstanceUID"]


def read_series(folder: Path) -> sitk.Image:
    (uid,) = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    assert uid == folder.name
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), uid))
    return reader.Execute()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_every_series_has_the_phantoms_hu_at_the_same_place(
    written: Path, phantoms: list[PhantomStudy]
) -> None:
    counts = defaultdict(set)
    for phantom, (study, rows) in zip(phantoms, by_study(written).items(), strict=True):
        for row in rows:
            scan = read_series(series_folder(written, row))
            phase = PHASE_OF.get(row["Label"], Phase.PORTAL_VENOUS)
            hu = sitk.GetArrayFromImage(scan).transpose(2, 1, 0)
            np.testing.assert_allclose(np.reshape(scan.GetDirection(), (3, 3)), np.eye(3))
            np.testing.assert_allclose(scan.GetSpacing()[:2], phantom.spacing[:2])
            corners = [(0, 0, 0), tuple(n - 1 for n in hu.shape), (3, 7, 5), (20, 4, hu.shape[2] // 2)]
            for index in corners:
                world = FLIP @ scan.TransformIndexToPhysicalPoint(tuple(map(int, index)))
                where = nibabel.affines.apply_affine(np.linalg.inv(phantom.affine), world)
                there = np.rint(where).astype(int)
                np.testing.assert_allclose(where, there, atol=1e-4)
                assert hu[index] == phantom.phases[phase][tuple(there)]
            first = nibabel.affines.apply_affine(
                np.linalg.inv(phantom.affine), FLIP @ np.array(scan.GetOrigin())
            )
            step = round(scan.GetSpacing()[2] / phantom.spacing[2])
            z = int(np.rint(first[2]))
            kept = phantom.phases[phase][::-1, ::-1, z : z + step * hu.shape[2] : step]
            np.testing.assert_array_equal(hu, kept)
            if row["Label"] != "Other":
                counts[study].add(hu.shape[2])
    assert any(len(numbers) > 1 for numbers in counts.values())


def test_headers_say_what_a_scanner_says(written: Path) -> None:
    instances = set()
    for row in labels(written):
        for path in series_folder(written, row).iterdir():
            reader = sitk.ImageFileReader()
            reader.SetFileName(str(path))
            reader.ReadImageInformation()
            tags = {key: reader.GetMetaData(key).strip("\0 ") for key in reader.GetMetaDataKeys()}
            assert tags["0008|0018"] == path.stem
            assert tags["0020|000d"] == row["StudyInstanceUID"]
            assert tags["0020|000e"] == row["SeriesInstanceUID"]
            assert tags["0008|0060"] == "CT"
            assert tags["0010|0010"] == tags["0010|0020"]
            assert tags["0010|0020"].startswith("phantom-9-")
            assert (tags["0028|1052"], tags["0028|1053"]) == ("-1024", "1")
            assert (tags["0028|0100"], tags["0028|0103"]) == ("16", "1")
            instances.add(path.stem)
            assert len(path.stem) <= 64
            assert path.read_bytes()[128:132] == b"DICM"
            assert b"1.2.840.10008.1.2.1\0" in path.read_bytes()[:400]  # explicit little endian
    assert len(instances) == len(list(written.rglob("*.dcm")))


def test_every_uid_is_valid_and_every_element_keeps_its_value_representation(written: Path) -> None:
    """PS3.5, section 9.1: digits and dots, no leading zero in a component, at most 64 characters."""
    component = r"(0|[1-9][0-9]*)"
    for row in labels(written):
        for path in series_folder(written, row).iterdir():
            with warnings.catch_warnings(), config.strict_reading():
                warnings.simplefilter("error")
                data = pydicom.dcmread(path)
                assert {element.tag for element in data.iterall()}  # reads each value
            uids = [str(element.value) for element in data.iterall() if element.VR == "UI"]
            uids += [str(element.value) for element in data.file_meta if element.VR == "UI"]
            assert len(uids) >= 5
            for uid in uids:
                assert re.fullmatch(rf"{component}(\.{component})+", uid), uid
                assert len(uid) <= 64
            assert data.file_meta.MediaStorageSOPInstanceUID == data.SOPInstanceUID
            missing = [name for name in TYPE_1_AND_2 if name not in data]
            assert not missing
            assert all(data[name].value not in (None, "") for name in TYPE_1)


def test_the_cohort_is_as_awkward_as_promised(written: Path) -> None:
    studies = list(by_study(written).values())
    named = [[row["Label"] for row in rows] for rows in studies]
    complete = [names for names in named if set(PHASE_OF) <= set(names)]
    assert len(complete) == PATIENTS
    assert [set(PHASE_OF) - set(names) for names in named[PATIENTS:]] == [{"Aterial"}] * LACKING
    assert any(len(names) > len(set(names)) for names in complete)
    assert any("Other" in names for names in complete)


def test_masks_lie_on_the_series_and_hold_the_whole_pancreas(
    written: Path, phantoms: list[PhantomStudy]
) -> None:
    for phantom, rows in zip(phantoms, by_study(written).values(), strict=True):
        scanned = set()
        for row in rows:
            folder = written / "masks" / row["SeriesInstanceUID"]
            if row["Label"] == "Other":
                assert not folder.exists()
                continue
            phase = PHASE_OF[row["Label"]]
            scan = read_series(series_folder(written, row))
            organs = sitk.ReadImage(str(folder / "labels.nii.gz"))
            pancreas = sitk.ReadImage(str(folder / "pancreas.nii.gz"))
            for mask in (organs, pancreas):
                assert mask.GetPixelIDValue() == sitk.sitkUInt8
                assert mask.GetSize() == scan.GetSize()
                np.testing.assert_allclose(mask.GetOrigin(), scan.GetOrigin(), atol=1e-3)
                np.testing.assert_allclose(mask.GetSpacing(), scan.GetSpacing(), rtol=1e-5)
                np.testing.assert_allclose(mask.GetDirection(), scan.GetDirection(), atol=1e-6)
            found = sitk.GetArrayFromImage(pancreas)
            np.testing.assert_array_equal(found == 1, sitk.GetArrayFromImage(organs) == NUMBERS["pancreas"])
            expected = int((phantom.phase_labels[phase] == NUMBERS["pancreas"]).sum())
            if scan.GetSpacing()[2] < 1.5 * phantom.spacing[2]:
                assert int(found.sum()) == expected
                scanned.add(phase)
        assert len(scanned) == len({row["Label"] for row in rows} & set(PHASE_OF))


def test_record_says_what_it_is(written: Path) -> None:
    record = json.loads((written / "phantom.json").read_text())
    assert "phantom" in record["notice"]
    assert (record["layout"], record["seed"], record["patients"], record["lacking"]) == ("vindr", 9, 3, 1)


def test_a_second_run_goes_on_and_gives_the_same_bytes(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "broken"

    def stops_at_the_second(seed: int, patient: int, config: PhantomConfig) -> PhantomStudy:
        if patient == 1:
            raise KeyboardInterrupt
        return generate_study(seed, patient, config)

    with monkeypatch.context() as patch:
        patch.setattr(vindr, "generate_study", stops_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            write_vindr_cohort(folder, PATIENTS, SEED, TINY, LACKING)
    assert not (folder / "abdomen_phases" / "labels.csv").exists()
    half = folder / "abdomen_phases" / "batch_1" / f".{list(by_study(written))[1]}.partial"
    half.mkdir()
    (half / "half.dcm").write_bytes(b"half")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.dcm") if path.parent != half}
    write_vindr_cohort(folder, PATIENTS, SEED, TINY, LACKING)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert contents(folder) == contents(written)


def test_a_study_without_its_masks_is_made_again(written: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(written, folder)
    shutil.rmtree(folder / "masks" / labels(written)[0]["SeriesInstanceUID"])
    write_vindr_cohort(folder, PATIENTS, SEED, TINY, LACKING)
    assert contents(folder) == contents(written)


def test_other_settings_and_the_other_layout_are_refused(written: Path) -> None:
    with pytest.raises(ConflictError, match="lacking"):
        write_vindr_cohort(written, PATIENTS, SEED, TINY, lacking=0)
    assert main(["phantom", "-o", str(written), "--patients", "3", "--seed", "9"]) == 2
    with pytest.raises(OptionError, match="-1"):
        write_vindr_cohort(written, PATIENTS, SEED, TINY, lacking=-1)


def test_the_adapter_makes_a_manifest_of_it(
    written: Path, phantoms: list[PhantomStudy], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "cohort.csv"
    words = ["manifest", "vindr", str(written), "-o", str(output), "--masks", str(written / "masks")]
    assert main(words) == 0
    assert f"{PATIENTS} studies, {LACKING} excluded" in capsys.readouterr().out
    cohort = {study.study_id: study for study in read_manifest(output)}
    uids = list(by_study(written))
    assert set(cohort) == set(uids[:PATIENTS])
    for uid, phantom in zip(uids, phantoms, strict=False):
        if uid not in cohort:
            continue
        assert len(cohort[uid].masks) == 6
        for phase in PHASES:
            scan = read_series(cohort[uid].file(phase))
            assert scan.GetSpacing()[2] == pytest.approx(phantom.spacing[2])  # never the thick one
            shown = sitk.GetArrayFromImage(scan).transpose(2, 1, 0)[:, :, -1]
            top = phantom.phases[phase][::-1, ::-1]
            assert any(np.array_equal(shown, top[:, :, z]) for z in range(top.shape[2]))
    assert "phantom-9" not in output.read_text()
