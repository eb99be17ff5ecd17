"""Masks and label maps: labels by name, whatever number type and rounding a tool wrote them with.

Masks of 0 and 255 (MIC-DKFZ/nnUNet issue 1247), of several labels (its issue 1777; Medical Segmentation
Decathlon, Task07: 1 is pancreas and 2 tumour; DIAGNijmegen/panorama_labels issue 1), and of float32 values
or slopes that make 1 of 255 up to rounding.
"""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mpfnl.cli import main
from mpfnl.data.manifest import Split, Study, read_manifest, write_manifest
from mpfnl.errors import FormatError, IntensityError, NotFoundError, OptionError
from mpfnl.evaluation.cases import Case
from mpfnl.evaluation.overlap import OverlapOptions, Segmentations, name_labels, reference_mask
from mpfnl.phases import PHASES, Phase
from mpfnl.prepare.record import study_key
from mpfnl.prepare.settings import PrepareSettings
from mpfnl.segmentation.segmenter import Segmenter, StructureMasks
from mpfnl.volumes import Volume, open_scan, read_mask, read_volume, write_volume
from mpfnl.volumes.masks import join_labels, mask_exists, read_label_volume, split_labels

AFFINE = np.diag([0.8, 0.8, 2.5, 1.0])
SHAPE = (6, 5, 4)
SCL_SLOPE, SCL_INTER = 112, 116  # byte offsets in a NIfTI-1 header


def labels(top: int = 2) -> np.ndarray:
    return np.random.default_rng(0).integers(0, top + 1, SHAPE)


def saved(path: Path, data: np.ndarray, slope: float = 1, intercept: float = 0) -> Path:
    content = bytearray(nib.Nifti1Image(data, AFFINE).to_bytes())
    struct.pack_into("<f", content, SCL_SLOPE, slope)
    struct.pack_into("<f", content, SCL_INTER, intercept)
    path.write_bytes(gzip.compress(bytes(content)) if path.suffix == ".gz" else bytes(content))
    return path


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])
@pytest.mark.parametrize("top", [1, 255])
def test_masks_of_every_number_type(tmp_path: Path, dtype: type, top: int) -> None:
    mask = labels(1).astype(bool)
    path = saved(tmp_path / "mask.nii.gz", (mask * top).astype(dtype))
    np.testing.assert_array_equal(read_mask(path), mask)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    stored=st.sampled_from([(np.uint8, 255), (np.uint8, 7), (np.int16, 32767), (np.uint16, 65535)]),
    intercept=st.sampled_from([0.0, 1e-8, -1e-7]),
    seed=st.integers(0, 99),
)
def test_masks_that_a_slope_made(
    tmp_path: Path, stored: tuple[type, int], intercept: float, seed: int
) -> None:
    """nibabel's own reading, rounded, is the oracle: its values are 1 up to float32."""
    dtype, top = stored
    mask = np.random.default_rng(seed).random(SHAPE) < 0.5
    path = saved(tmp_path / "mask.nii", (mask * top).astype(dtype), 1 / top, intercept)
    np.testing.assert_array_equal(read_mask(path), np.rint(nib.load(path).get_fdata()) == 1)
    np.testing.assert_array_equal(read_mask(path), mask)


@pytest.mark.parametrize("one", [0.99999994, 1.0000001, 1 - 2**-11, 0.999])
def test_masks_that_rounding_made(tmp_path: Path, one: float) -> None:
    mask = labels(1).astype(bool)
    path = saved(tmp_path / "mask.nii", np.where(mask, one, 1e-8).astype(np.float32))
    np.testing.assert_array_equal(read_mask(path), mask)
    np.testing.assert_array_equal(read_label_volume(path).data, mask)


def test_probabilities_are_no_mask(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random(SHAPE).astype(np.float32)
    path = saved(tmp_path / "soft.nii.gz", values)
    for read in (read_mask, read_label_volume, lambda path: read_mask(path, label=1)):
        with pytest.raises(IntensityError, match=r"soft\.nii\.gz: .*nearest"):
            read(path)


def test_labels_are_named_in_code_and_in_the_path(tmp_path: Path) -> None:
    data = labels(4)
    path = saved(tmp_path / "pancreas.nii.gz", data.astype(np.uint8))
    for named in ((2,), (1, 2), (4, 1, 3)):
        expected = np.isin(data, named)
        np.testing.assert_array_equal(read_mask(path, label=named), expected)
        np.testing.assert_array_equal(read_mask(path, label=list(named)), expected)
        np.testing.assert_array_equal(read_mask(join_labels(path, named)), expected)
        np.testing.assert_array_equal(read_label_volume(join_labels(path, named)).data, expected)
    np.testing.assert_array_equal(read_mask(path, label=np.int64(3)), data == 3)
    np.testing.assert_array_equal(read_mask(f"{path}#3"), data == 3)
    assert not read_mask(path, label=9).any()
    assert split_labels(join_labels(path, (1, 2))) == (path, (1, 2))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_the_label_1_of_a_mask_of_0_and_255(tmp_path: Path, dtype: type) -> None:
    mask = labels(1).astype(bool)
    path = saved(tmp_path / "mask.nii.gz", (mask * 255).astype(dtype))
    for named in ((1,), (1, 2), (255,)):
        np.testing.assert_array_equal(read_mask(path, label=named), mask)
        np.testing.assert_array_equal(read_mask(join_labels(path, named)), mask)
        np.testing.assert_array_equal(read_label_volume(join_labels(path, named)).data, mask)
    assert not read_mask(path, label=2).any()
    several = np.where(labels() == 2, 255, labels())
    path = saved(tmp_path / "map.nii.gz", several.astype(np.uint8))
    np.testing.assert_array_equal(read_mask(path, label=1), several == 1)


@pytest.mark.parametrize("low", [-1, -1024])
def test_negative_values_are_no_labels(tmp_path: Path, low: int) -> None:
    """255 in int8 is -1, but -1 may be the background, too; a CT scan is no mask, whatever label is named."""
    values = np.where(labels(1), low, 0).astype(np.int16)
    values[0, 0, 0] = min(0, low + 1)
    path = saved(tmp_path / "mask.nii.gz", values)
    for read in (read_mask, read_label_volume, lambda path: read_mask(path, label=1)):
        with pytest.raises(IntensityError, match=rf"mask\.nii\.gz: .*from {low} to 0") as caught:
            read(path)
        assert "#" not in str(caught.value)


def test_the_remedy_of_the_message_works(tmp_path: Path) -> None:
    data = labels() + 1 - (labels() == 0)  # 0, 2 and 3
    path = saved(tmp_path / "pancreas.nii.gz", data.astype(np.uint8))
    with pytest.raises(IntensityError) as caught:
        read_mask(path)
    advised = str(caught.value).rsplit(" ", 1)[1]
    assert advised == "pancreas.nii.gz#2"
    np.testing.assert_array_equal(read_mask(tmp_path / advised), data == 2)


def test_a_file_whose_name_ends_so_names_itself(tmp_path: Path) -> None:
    mask = labels(1).astype(np.uint8)
    saved(tmp_path / "mask.nii", mask).rename(tmp_path / "mask.nii#2")
    saved(tmp_path / "mask.nii", 2 - mask)
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.nii#2"), mask == 1)
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.nii#1"), mask == 1)
    assert mask_exists(tmp_path / "mask.nii#1")
    assert not mask_exists(tmp_path / "other.nii#1")
    with pytest.raises(NotFoundError, match=r"other\.nii: "):
        read_mask(tmp_path / "other.nii#1")


def test_a_dicom_series_is_no_mask(tmp_path: Path) -> None:
    assert split_labels(tmp_path / "x#1.2.3") == (tmp_path / "x#1.2.3", ())
    assert split_labels(f"{tmp_path}#12345678")[1] == ()  # the series of a folder
    with pytest.raises(FormatError, match="folder"):
        read_mask(tmp_path)


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    """Two studies with pancreas (1) and tumour (2) in one file, as in Task07 of the Decathlon."""
    hu = np.random.default_rng(0).integers(-1000, 300, SHAPE).astype(np.int16)
    studies = []
    for number in (1, 2):
        folder = tmp_path / f"s{number}"
        folder.mkdir()
        scans = {phase: saved(folder / f"{phase}.nii", hu) for phase in PHASES}
        mask = saved(folder / "pancreas.nii.gz", labels().astype(np.uint8))
        masks = {"pancreas": join_labels(mask, (2,) if number == 2 else ()), "labels": mask}
        studies.append(Study(f"s{number}", f"p{number}", Split.TEST, scans, masks))
    write_manifest(tmp_path / "cohort.csv", studies)
    return tmp_path / "cohort.csv"


def test_the_manifest_names_labels(cohort: Path) -> None:
    first, second = read_manifest(cohort)
    like = Volume.from_array(np.zeros(SHAPE, np.int16), AFFINE)
    with pytest.raises(IntensityError, match=r"s1.pancreas\.nii\.gz: .*#1"):
        reference_mask(first, "pancreas", like, Phase.PORTAL_VENOUS)
    mask = reference_mask(second, "pancreas", like, Phase.PORTAL_VENOUS)
    np.testing.assert_array_equal(mask, labels() == 2)
    assert "s2/pancreas.nii.gz#2" in cohort.read_text()


@pytest.mark.parametrize("structure", ["pancreas", "liver"])
def test_labels_for_the_whole_cohort(cohort: Path, structure: str) -> None:
    """A label that the manifest names goes before; any structure may be in a label map of one's own."""
    named = name_labels(read_manifest(cohort), structure, (1, 2))
    like = Volume.from_array(np.zeros(SHAPE, np.int16), AFFINE)
    first, second = (reference_mask(study, structure, like, Phase.PORTAL_VENOUS) for study in named)
    np.testing.assert_array_equal(first, labels() > 0)
    np.testing.assert_array_equal(second, labels() == 2 if structure == "pancreas" else labels() > 0)
    with pytest.raises(OptionError, match="0"):
        name_labels(read_manifest(cohort), structure, (0,))


def test_a_column_of_label_maps_names_no_label(cohort: Path) -> None:
    text = cohort.read_text().splitlines()
    row = text[1].replace("s1/pancreas.nii.gz", "s1/pancreas.nii.gz#1")  # in both columns
    cohort.write_text("\n".join([text[0], row, text[2]]))
    with pytest.raises(FormatError, match=r"row 2, study 's1': its labels 'pancreas\.nii\.gz#1'"):
        read_manifest(cohort)


@pytest.mark.parametrize(("structure", "column"), [("liver", "labels"), ("pancreas", "pancreas")])
def test_a_label_that_does_not_occur_is_named(
    cohort: Path, tmp_path: Path, structure: str, column: str
) -> None:
    class Bright(Segmenter):
        structures = (structure,)

        def segment(self, scan: Volume) -> StructureMasks:
            return {structure: scan.data > 0}

    study = next(iter(name_labels(read_manifest(cohort), structure, (7, 9))))
    options = OverlapOptions(structure)
    case = Segmentations(Bright(), options, Phase.PORTAL_VENOUS, None).score(
        study, Case("s1", "p1", "reference"), None, tmp_path
    )
    assert case.failure.startswith(f"{split_labels(study.masks[column])[0]} (portal venous phase): ")
    for found in (structure, "7 and 9", "(0, 1, 2)"):
        assert found in case.failure


def test_prepared_studies_keep_the_whole_map(cohort: Path) -> None:
    _, study = read_manifest(cohort)
    plain = study.located(lambda _, path: split_labels(path)[0])
    assert study_key(study, PrepareSettings()) == study_key(plain, PrepareSettings())


def test_the_command_line_offers_labels(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["evaluate", "--help"])
    assert "--label" in capsys.readouterr().out


def test_a_written_mask_is_read_again(tmp_path: Path) -> None:
    mask = labels(1).astype(np.uint8)
    like = Volume.from_array(mask, AFFINE)
    write_volume(tmp_path / "mask.nii.gz", mask, like=like, dtype=np.dtype(np.uint8))
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.nii.gz", like=like), mask == 1)


def test_a_label_behind_a_scan(tmp_path: Path) -> None:
    path = saved(tmp_path / "scan.nii.gz", np.random.default_rng(0).normal(40, 20, SHAPE).astype(np.int16))
    for read in (read_volume, open_scan):
        with pytest.raises(FormatError, match=r"^\S*scan\.nii\.gz#1: .*mask.* \S*scan\.nii\.gz$"):
            read(f"{path}#1")
