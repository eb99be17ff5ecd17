"""`mpfnl degrade` as a person uses it: draws, records, replays, and what it refuses."""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch

from mpfnl import __version__
from mpfnl.cli import main
from mpfnl.cli.main import COMMANDS
from mpfnl.data.degradation import SampleSettings, degrade_study
from mpfnl.data.manifest import read_manifest
from mpfnl.data.studies import load_study
from mpfnl.phases import PHASES, Phase
from mpfnl.transforms.degradation import (
    Degradation,
    apply_parameters,
    find_preset,
    newest_presets,
    registered_degradations,
)
from mpfnl.transforms.degradation.blur import Blur
from mpfnl.transforms.degradation.clip import Clip
from mpfnl.transforms.degradation.low_dose import LowDose
from mpfnl.transforms.degradation.metal import Implant, MetalStreaks
from mpfnl.transforms.degradation.motion import MotionBlur
from mpfnl.transforms.degradation.noise import GaussianNoise, PoissonNoise
from mpfnl.transforms.degradation.records import Record, Step
from mpfnl.transforms.degradation.resize import Resize
from mpfnl.transforms.degradation.thick_slices import SliceProfile, ThickSlices
from mpfnl.transforms.seeds import Sharing
from mpfnl.volumes import read_volume, write_volume
from mpfnl.volumes.intensity import Voxels
from mpfnl.volumes.writing import VolumeWriter

AFFINE = np.array([[-1.5, 0, 0, 12], [0, -1.5, 0, -30], [0, 0, 2.5, 400], [0, 0, 0, 1.0]])
SHAPE = (20, 18, 16)


def save(path: Path, dtype: type[np.generic] = np.int16, affine: np.ndarray = AFFINE, code: int = 1) -> Path:
    hu = np.random.default_rng(3).normal(40, 30, SHAPE)
    hu[:, :4] = -1000
    values = np.rint(hu).astype(dtype) if np.issubdtype(dtype, np.integer) else hu.astype(dtype)
    image = nib.Nifti1Image(values, affine)
    image.set_sform(affine, code)
    nib.save(image, path)
    return path


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    return save(tmp_path / "scan.nii.gz")


def degrade(scan: Path, output: Path, *words: object) -> int:
    return main(["degrade", str(scan), "-o", str(output), *map(str, words)])


def refused(capsys: pytest.CaptureFixture[str], scan: Path, output: Path, *words: object) -> str:
    """The one line of a refusal, which changes no file."""
    folder = scan.parent
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert degrade(scan, output, *words) == 2
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


@pytest.mark.parametrize("preset", list(newest_presets()))
@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_a_record_replays_byte_by_byte(tmp_path: Path, preset: str, dtype: type[np.generic]) -> None:
    scan, record = save(tmp_path / "in.nii.gz", dtype), tmp_path / "params.json"
    first, second = tmp_path / "first.nii.gz", tmp_path / "second.nii.gz"
    assert degrade(scan, first, "--preset", preset, "--seed", 4, "--record", record) == 0
    assert degrade(scan, second, "--replay", record) == 0
    assert first.read_bytes() == second.read_bytes()
    # Through another reader and writer of JSON's text, and by the function that the record is for:
    parameters = json.loads(json.dumps(json.loads(record.read_text())))
    clean = torch.from_numpy(read_volume(scan).canonical().data.astype(np.float32))
    expected = apply_parameters(clean, (1.5, 1.5, 2.5), parameters).numpy()
    if dtype is np.int16:
        expected = np.rint(expected).clip(-32768, 32767)
    written = nib.as_closest_canonical(nib.load(first)).get_fdata(dtype=np.float32)
    np.testing.assert_array_equal(written, expected)
    assert not np.array_equal(expected, clean.numpy())


def test_seeds_phases_and_studies_draw_apart_and_always_alike(tmp_path: Path, scan: Path) -> None:
    def voxels(*words: object) -> bytes:
        assert degrade(scan, tmp_path / "out.nii.gz", *words) == 0
        return (tmp_path / "out.nii.gz").read_bytes()

    plain = voxels()
    defaults = ["--preset", "paper", "--seed", 0, "--phase", "portal_venous", "--sharing", "nothing"]
    assert voxels() == voxels(*defaults, "--study", "") == plain
    assert voxels("--preset", "second-order-v1") == plain
    others = [
        voxels("--seed", 1),
        voxels("--phase", "arterial"),
        voxels("--study", "0012"),
        voxels("--study", "12"),
        voxels("--preset", "low-dose"),
        voxels("--sharing", "acquisition"),
    ]
    assert len({plain, *others}) == 7


@pytest.mark.parametrize("sharing", list(Sharing))
@pytest.mark.parametrize("preset", ["paper", "low-dose"])
def test_it_is_the_scan_of_an_evaluation(cohort: Path, tmp_path: Path, preset: str, sharing: Sharing) -> None:
    study = read_manifest(cohort).split("test").studies[1]
    settings = SampleSettings(PHASES, Phase.PORTAL_VENOUS, find_preset(preset), seed=6, sharing=sharing)
    expected = degrade_study(load_study(study, settings.loaded), settings)
    for phase in PHASES:
        source = Path(study.file(phase))
        words = ["--seed", 6, "--study", study.study_id, "--phase", phase, "--sharing", sharing]
        assert degrade(source, tmp_path / "out.nii.gz", "--preset", preset, *words) == 0
        write_volume(tmp_path / "evaluated.nii.gz", expected[phase], like=read_volume(source).canonical())
        assert (tmp_path / "out.nii.gz").read_bytes() == (tmp_path / "evaluated.nii.gz").read_bytes()


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.float32, np.float64])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_grid_and_number_type_are_kept(tmp_path: Path, dtype: type[np.generic], suffix: str) -> None:
    turned = np.array([[0, -1.5, 0, 12], [1.5, 0, 0, -30], [0, 0, -2.5, 400], [0, 0, 0, 1.0]])
    scan = save(tmp_path / "in.nii.gz", dtype, turned, code=2)
    assert degrade(scan, tmp_path / f"out{suffix}") == 0
    image = nib.load(tmp_path / f"out{suffix}")
    assert image.shape == SHAPE
    assert image.get_data_dtype() == dtype
    np.testing.assert_array_equal(image.affine, turned)
    assert image.header["sform_code"] == 2


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_other_formats_come_out_as_nifti_of_the_same_voxels(tmp_path: Path, scan: Path, suffix: str) -> None:
    sitk.WriteImage(sitk.ReadImage(str(scan)), str(tmp_path / f"scan{suffix}"))
    for source in (scan, tmp_path / f"scan{suffix}"):
        assert degrade(source, tmp_path / f"from{source.suffix}.nii.gz", "--seed", 2) == 0
    one, other = nib.load(tmp_path / "from.gz.nii.gz"), nib.load(tmp_path / f"from{suffix}.nii.gz")
    np.testing.assert_array_equal(np.asanyarray(one.dataobj), np.asanyarray(other.dataobj))
    np.testing.assert_allclose(one.affine, other.affine, atol=1e-6)


@pytest.mark.realdata
def test_a_dicom_folder(real_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = real_data / "crlm_pv_1004" / "dicom_sub"
    record = tmp_path / "params.json"
    assert degrade(folder, tmp_path / "out.nii.gz", "--preset", "low-dose", "--record", record) == 0
    image, clean = nib.load(tmp_path / "out.nii.gz"), read_volume(folder)
    np.testing.assert_allclose(image.affine, clean.affine, atol=1e-4)
    assert image.get_data_dtype() == np.int16
    body = clean.data > -300
    noise = np.asanyarray(image.dataobj)[body] - clean.data[body].astype(float)
    dose = json.loads(record.read_text())["operations"][0]["dose_fraction"]
    asked = 66 / np.sqrt(3) * np.sqrt(1 / dose - 1)
    assert noise.std() == pytest.approx(asked, rel=0.05)
    assert f"{100 * dose:.3g} % of the dose" in capsys.readouterr().out


def test_the_record_says_what_was_done(
    tmp_path: Path, scan: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = tmp_path / "params.json"
    words = ["--seed", 8, "--study", "s 1", "--phase", "arterial", "--sharing", "acquisition"]
    assert degrade(scan, tmp_path / "out.nii.gz", *words, "--record", record) == 0
    parameters = json.loads(record.read_text())
    operations = parameters.pop("operations")
    assert parameters == {
        "preset": "second-order-v1",
        "version": find_preset("paper").version,
        "seed": 8,
        "study": "s 1",
        "phase": "arterial",
        "sharing": "acquisition",
        "mpfnl": __version__,
        "spacing_mm": [1.5, 1.5, 2.5],
    }
    assert operations[0]["kind"] == "clip"
    assert len(record.read_text().splitlines()) >= len(parameters) + len(operations)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{tmp_path / 'out.nii.gz'}: second-order-v1, {len(operations)} operations: clip")
    assert str(record) in line


def test_another_spacing_is_told_and_done(
    tmp_path: Path, scan: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = tmp_path / "params.json"
    assert degrade(scan, tmp_path / "out.nii.gz", "--record", record) == 0
    coarse = save(tmp_path / "coarse.nii.gz", affine=np.diag([-3.0, -3.0, 5.0, 1.0]))
    capsys.readouterr()
    assert degrade(scan, tmp_path / "same.nii.gz", "--replay", record) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert degrade(coarse, tmp_path / "other.nii.gz", "--replay", record) == 0
    told, done = capsys.readouterr().out.splitlines()
    assert "1.5 x 1.5 x 2.5 mm" in told
    assert "3 x 3 x 5 mm" in told
    assert done.startswith(str(tmp_path / "other.nii.gz"))


def test_a_record_made_in_python_is_enough(
    tmp_path: Path, scan: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = tmp_path / "own.json"
    record.write_text(json.dumps({"operations": [{"kind": "gaussian_noise", "sd_hu": 20} | NOISE]}))
    assert degrade(scan, tmp_path / "out.nii.gz", "--replay", record) == 0
    assert "no preset, 1 operation: noise 20 HU" in capsys.readouterr().out
    record.write_text(json.dumps({"operations": []}))
    assert degrade(scan, tmp_path / "kept.nii.gz", "--replay", record) == 0
    np.testing.assert_array_equal(read_volume(tmp_path / "kept.nii.gz").data, read_volume(scan).data)
    assert "0 operations: nothing" in capsys.readouterr().out


NOISE = {"correlation_mm": 0, "seed": 1}


def package_kinds() -> set[str]:
    """Kinds of the package; other tests register their own."""
    return {
        kind
        for kind, cls in registered_degradations().items()
        if cls.__module__.startswith("mpfnl.transforms")
    }


def operations(*each: dict[str, Any]) -> str:
    return json.dumps({"operations": list(each)})


RECORDS: dict[str, tuple[str | bytes | None, str]] = {
    "missing": (None, "--record"),
    "empty": ("", "JSON"),
    "no text": (b"\xff\xfe\x00\x80", "JSON"),
    "cut off": ('{"operations": [{"kind": "bl', "JSON"),
    "a list": ("[1, 2]", "record"),
    "a number": ("3", "record"),
    "foreign": ('{"name": "Anna"}', "'operations'"),
    "operations no list": ('{"operations": {"kind": "blur"}}', "'operations'"),
    "operations no objects": ('{"operations": ["blur"]}', "'operations'"),
    "unknown kind": (operations({"kind": "sharpen"}), "'sharpen'.*blur"),
    "foreign number": (operations({"kind": "blur", "sigma": 3}), "blur.*fwhm_mm"),
    "number missing": (operations({"kind": "gaussian_noise", "sd_hu": 3}), "gaussian_noise.*seed"),
    "negative": (operations({"kind": "blur", "fwhm_mm": [-1, 1, 1]}), "fwhm_mm"),
    "word for number": (operations({"kind": "gaussian_noise", "sd_hu": "strong"} | NOISE), "gaussian_noise"),
    "NaN": (operations({"kind": "gaussian_noise", "sd_hu": float("nan")} | NOISE), "NaN"),
    "infinite": (
        operations({"kind": "gaussian_noise", "sd_hu": 1} | NOISE).replace('"sd_hu": 1', '"sd_hu": 1e999'),
        "gaussian_noise.*sd_hu",
    ),
    "too far": (
        operations({"kind": "motion_blur", "amplitude_mm": [500, 0, 0]}),
        "motion_blur.*100",
    ),
}


@pytest.mark.parametrize("kind", list(RECORDS))
def test_bad_records(tmp_path: Path, scan: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    content, words = RECORDS[kind]
    record = tmp_path / "params.json"
    if content is not None:
        record.write_bytes(content if isinstance(content, bytes) else content.encode())
    line = refused(capsys, scan, tmp_path / "out.nii.gz", "--replay", record)
    assert str(record) in line
    assert re.search(words, line), line


@pytest.mark.parametrize(
    "words",
    [
        ["--preset", "paper"],
        ["--seed", "0"],
        ["--phase", "portal_venous"],
        ["--study", ""],
        ["--sharing", "nothing"],
        ["--record", "other.json"],
    ],
)
def test_nothing_else_goes_with_a_replay(
    tmp_path: Path, scan: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert degrade(scan, tmp_path / "first.nii.gz", "--record", tmp_path / "params.json") == 0
    line = refused(capsys, scan, tmp_path / "out.nii.gz", "--replay", tmp_path / "params.json", *words)
    assert words[0] in line
    assert "params.json" in line


def test_unknown_presets_are_told_the_known(
    tmp_path: Path, scan: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(capsys, scan, tmp_path / "out.nii.gz", "--preset", "papers")
    assert "'papers'" in line
    assert all(name in line for name in newest_presets())
    help_text = " ".join(COMMANDS["degrade"].parser().format_help().split())
    assert all(re.search(rf"\b{name}\b", help_text) for name in newest_presets())


def test_negative_seed(tmp_path: Path, scan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--seed -1" in refused(capsys, scan, tmp_path / "out.nii.gz", "--seed", -1)


PLACES: dict[str, tuple[Callable[[Path], list[Path]], str]] = {
    "output is the scan": (lambda folder: [folder / "scan.nii.gz"], "input"),
    "output is the scan's alias": (lambda folder: [folder / "alias.nii.gz"], "input"),
    "output is no NIfTI": (lambda folder: [folder / "out.mha"], r"\.nii"),
    "output is a folder": (lambda folder: [folder / "sub.nii.gz"], "folder"),
    "no such folder": (lambda folder: [folder / "nowhere" / "out.nii.gz"], "nowhere"),
    "record is a scan": (lambda folder: [folder / "out.nii.gz", folder / "scan.nii.gz"], r"\.json"),
    "record is the output": (lambda folder: [folder / "out.nii.gz"] * 2, r"\.json"),
    "record is the scan's alias": (lambda f: [f / "out.nii.gz", f / "alias.json"], "input"),
    "record is a folder": (lambda f: [f / "out.nii.gz", f / "sub.json"], "folder"),
    "no such folder for the record": (lambda f: [f / "out.nii.gz", f / "nowhere" / "p.json"], "nowhere"),
}


@pytest.mark.parametrize("kind", list(PLACES))
def test_bad_places(tmp_path: Path, scan: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("alias.nii.gz", "alias.json"):
        (tmp_path / name).symlink_to(scan)
    for name in ("sub.nii.gz", "sub.json"):
        (tmp_path / name).mkdir()
    places, words = PLACES[kind]
    output, *record = places(tmp_path)
    line = refused(capsys, scan, output, *(["--record", record[0]] if record else []))
    assert line.startswith(f"mpfnl: error: {(record or [output])[0]}: ")
    assert re.search(words, line), line


def test_the_output_is_not_the_record(tmp_path: Path, scan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = tmp_path / "record.nii.gz"
    record.write_text(json.dumps({"operations": []}))
    assert "is an input" in refused(capsys, scan, record, "--replay", record)


@pytest.mark.parametrize("place", ["out", "records"])
def test_a_folder_without_permission(
    tmp_path: Path,
    scan: Path,
    place: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("out", "records"):
        (tmp_path / name).mkdir()
    # Asked of the system, since to the superuser of a container every folder is open.
    monkeypatch.setattr("os.access", lambda path, mode: Path(path).name != place)
    words = ["--record", tmp_path / "records" / "params.json"]
    line = refused(capsys, scan, tmp_path / "out" / "out.nii.gz", *words)
    assert str(tmp_path / place) in line


def windowed(path: Path) -> None:
    nib.save(nib.Nifti1Image(np.random.default_rng(0).random(SHAPE, np.float32), AFFINE), path)


def labels(path: Path) -> None:
    nib.save(nib.Nifti1Image(np.ones(SHAPE, np.uint8), AFFINE), path)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (Path.unlink, "no such file|does not exist|there is no"),
        (lambda path: path.write_text("a letter"), "NIfTI"),
        (lambda path: path.write_bytes(path.read_bytes()[:-400]), "truncated|incomplete|ends|cut"),
        (windowed, "windowed already; give HU"),
        (labels, "give HU"),
    ],
    ids=["missing", "no image", "cut off", "windowed", "labels"],
)
def test_bad_scans(
    tmp_path: Path,
    scan: Path,
    spoil: Callable[[Path], object],
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    spoil(scan)
    line = refused(capsys, scan, tmp_path / "out.nii.gz", "--record", tmp_path / "params.json")
    assert str(scan) in line
    assert re.search(words, line), line


@pytest.mark.parametrize("before", [False, True], ids=["new", "replacing"])
def test_a_full_disk_leaves_neither_scan_nor_record(
    tmp_path: Path,
    scan: Path,
    before: bool,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output, record = tmp_path / "out.nii.gz", tmp_path / "params.json"
    if before:
        assert degrade(scan, output, "--record", record) == 0
        capsys.readouterr()

    write = VolumeWriter.write

    def full(writer: VolumeWriter, slab: Voxels) -> None:
        write(writer, slab[:, :, :1])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(VolumeWriter, "write", full)
    line = refused(capsys, scan, output, "--seed", 9, "--record", record)
    assert str(output) in line
    assert "No space left on device" in line
    assert output.exists() is record.exists() is before


def test_every_kind_has_a_description() -> None:
    each: dict[Degradation, str] = {
        Clip(-175, 275): "clip to [-175, 275] HU",
        Blur((1.4, 1.4, 1.4)): "blur 1.4 mm",
        Blur((1, 2, 3.25)): "blur 1 x 2 x 3.25 mm",
        Resize((2, 2, 5), "area", "linear"): "voxels of 2 x 2 x 5 mm and back",  # type: ignore[arg-type]
        GaussianNoise(25, 0, 1): "noise 25 HU",
        PoissonNoise(12.34, 0, 1): "Poisson noise 12.3 HU",
        LowDose(0.25, 1): "25 % of the dose",
        ThickSlices(5, 2.5, SliceProfile.BELL): "bell slices of 5 mm every 2.5 mm",
        MotionBlur((0, 2, -8)): "motion 0 x 2 x -8 mm",
        MotionBlur((0, 2, 8), 0.5): "motion 0 x 2 x 8 mm with 50 % double exposure",
        MetalStreaks((Implant((0.5, 0.5, 0.5), (2, 2), 9),), 50, 1): "1 implant with streaks of 50 HU",
    }
    for degradation, text in each.items():
        assert degradation.describe() == text
    assert {degradation.kind for degradation in each} == package_kinds()
    record = Record(tuple(Step(degradation) for degradation in each))
    assert record.describe() == ", ".join(each.values())
