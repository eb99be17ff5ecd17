"""Pixels of slices: bits, signs, paddings, lengths and packings as archives have them."""

from __future__ import annotations

import base64
import hashlib
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import gdcm
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate, encapsulate_extended, generate_fragments
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset, write_file_meta_info
from pydicom.uid import (
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from mpfnl.errors import DamagedError, FormatError, InputError, IntensityError
from mpfnl.volumes.dicom.streams import describe_stream
from mpfnl.volumes.scan import open_values

MakeSeries: TypeAlias = Callable[..., list[Path]]
Refused: TypeAlias = Callable[..., str]

PIXEL_DATA = b"\xe0\x7f\x10\x00"


def read_hu(folder: Path) -> np.ndarray:
    """What the package reads, before it is checked to be HU."""
    values = open_values(folder, "scan")
    return values.read(values.grid.box)


def itk_hu(files: list[Path]) -> np.ndarray:
    """Slices (x, y, z) as SimpleITK reads them, at least -1024 HU."""
    planes = [sitk.GetArrayFromImage(sitk.ReadImage(str(file)))[0].T for file in files]
    return np.stack(planes, axis=-1).clip(-1024)


def change(file: Path, pixels: bytes | None = None, syntax: UID | None = None, **elements: Any) -> None:
    """Writes a file again with other elements, pixel data or transfer syntax."""
    data = pydicom.dcmread(file)
    for key, value in elements.items():
        setattr(data, key, value)
    if pixels is not None:
        data["PixelData"].value = pixels
    if syntax is not None:
        data.file_meta.TransferSyntaxUID = syntax
        data["PixelData"].is_undefined_length = syntax.is_encapsulated
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data.save_as(file)


def pack(file: Path, syntax: UID) -> None:
    """Packs a file's pixels by GDCM, which must not make up what else the file lacks."""
    whole = pydicom.dcmread(file)
    reader, packing, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(file))
    assert reader.Read()
    packing.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(str(syntax))))
    packing.SetInput(reader.GetImage())
    assert packing.Change()
    writer.SetFileName(str(file))
    writer.SetFile(reader.GetFile())
    writer.SetImage(packing.GetOutput())
    assert writer.Write()
    whole["PixelData"] = pydicom.dcmread(file)["PixelData"]
    whole.file_meta.TransferSyntaxUID = syntax
    whole.save_as(file)


def stream(file: Path) -> bytes:
    """The packed pixels of a file."""
    return b"".join(generate_fragments(pydicom.dcmread(file).PixelData[8:]))


@pytest.fixture
def smooth() -> np.ndarray:
    """Stored numbers of 12 bits (columns, rows, slices), smooth enough for lossy packing."""
    x, y, z = np.meshgrid(np.arange(40), np.arange(36), np.arange(3), indexing="ij")
    return (1200 + 600 * np.sin(x / 5) * np.cos(y / 7) + 50 * z).astype(np.uint16)


@pytest.mark.parametrize("extra", [b"\0\0", b"\0" * 18, b"\0" * 512, b"\1\2", b"\1\2\3\4"])
def test_bytes_after_the_pixels(
    tmp_path: Path, make_series: MakeSeries, stored: np.ndarray, extra: bytes
) -> None:
    """pydicom#796 and #801; PS3.5, 8.1.1, note: be prepared for excess padding."""
    for file in make_series(tmp_path, stored):
        change(file, pydicom.dcmread(file).PixelData + extra)
    assert np.array_equal(read_hu(tmp_path), stored.astype(int) - 1024)


@pytest.mark.parametrize(("rows", "columns"), [(6, 9), (8, 9), (7, 8), (7, 10), (14, 9), (3, 9)])
def test_pixels_of_another_size(
    tmp_path: Path, make_series: MakeSeries, stored: np.ndarray, refused: Refused, rows: int, columns: int
) -> None:
    """What is left over is no padding if it holds numbers of a row or a column."""
    for file in make_series(tmp_path, stored + 1):
        change(file, Rows=rows, Columns=columns)
    assert "000.dcm" in refused(tmp_path, DamagedError)


def test_zeros_that_are_columns(
    tmp_path: Path, make_series: MakeSeries, stored: np.ndarray, refused: Refused
) -> None:
    """The last rows of a slice may be 0: with a column too few the rest would be read awry."""
    stored[:, 5:] = 0
    for file in make_series(tmp_path, stored):
        change(file, Columns=8)
    assert "000.dcm" in refused(tmp_path, DamagedError)


@pytest.mark.parametrize("vr", [b"UN", b"OB"])
def test_pixels_of_another_representation(
    tmp_path: Path, make_series: MakeSeries, stored: np.ndarray, vr: bytes
) -> None:
    """Programs that do not know an element write UN (PS3.5, 6.2.2)."""
    for file in make_series(tmp_path, stored):
        file.write_bytes(file.read_bytes().replace(PIXEL_DATA + b"OW", PIXEL_DATA + vr))
    assert np.array_equal(read_hu(tmp_path), stored.astype(int) - 1024)


def test_unknown_representations_throughout(
    tmp_path: Path, make_series: MakeSeries, stored: np.ndarray
) -> None:
    """As above, for the numbers in the header: with UN they are as in implicit VR."""
    for file in make_series(tmp_path, stored, BitsStored=12, HighBit=11):
        content = file.read_bytes()
        for element in (0x0010, 0x0011, 0x0100, 0x0101, 0x0102, 0x0103):
            tag = b"\x28\0" + element.to_bytes(2, "little")
            content = content.replace(tag + b"US\2\0", tag + b"UN\0\0\2\0\0\0")
        file.write_bytes(content)
    assert np.array_equal(read_hu(tmp_path), stored.astype(int) - 1024)


PADDINGS: dict[str, tuple[str, int, int | None, np.dtype[Any]]] = {
    "unsigned, named as signed": ("SS", -2000, None, np.dtype(np.uint16)),
    "unsigned": ("US", 63536, None, np.dtype(np.uint16)),
    "signed, named as unsigned": ("US", 31000, None, np.dtype(np.int16)),
    "a range": ("US", 63530, 63540, np.dtype(np.uint16)),
    "a range from its end": ("US", 63540, 63530, np.dtype(np.uint16)),
    "a range of the other sign": ("SS", -2010, -1990, np.dtype(np.uint16)),
    "a range over zero": ("SS", -2010, 2, np.dtype(np.uint16)),
}


@pytest.mark.parametrize("case", list(PADDINGS))
def test_padding(tmp_path: Path, make_series: MakeSeries, case: str) -> None:
    """dicom-rs#460, dcm4che#1368: -2000 and 63536 are one word; PS3.3, C.7.5.1.1.2: of the pixels' sign."""
    vr, value, limit, dtype = PADDINGS[case]
    rng = np.random.default_rng(3)
    stored = rng.integers(3, 3000, (9, 7, 4)).astype(dtype)
    outside = rng.random(stored.shape) < 0.3
    word = 31000 if dtype == np.int16 else 63536
    for file in make_series(tmp_path, np.where(outside, word, stored).astype(dtype)):
        data = pydicom.dcmread(file)
        data.add_new("PixelPaddingValue", vr, value)
        if limit is not None:
            data.add_new("PixelPaddingRangeLimit", vr, limit)
        data.save_as(file)
    assert np.array_equal(read_hu(tmp_path), np.where(outside, -1024, stored.astype(int) - 1024))


def test_only_padding_beyond_the_scale_is_taken_for_it(tmp_path: Path, make_series: MakeSeries) -> None:
    """A range may reach into the HU of a patient, who is kept."""
    stored = np.random.default_rng(0).integers(0, 6000, (9, 7, 4)).astype(np.uint16)
    make_series(tmp_path, stored, PixelPaddingValue=2000, PixelPaddingRangeLimit=5000)
    hu = stored.astype(int) - 1024
    beyond = (stored >= 2000) & (stored <= 5000) & (hu > 3071)
    assert beyond.any()
    assert np.array_equal(read_hu(tmp_path), np.where(beyond, -1024, hu))


@pytest.mark.parametrize(
    ("bits", "dtype", "slope", "intercept", "padding"),
    [
        (16, np.uint16, 1, -1024, 4095),
        (12, np.uint16, 1, -1024, 4095),
        (12, np.int16, 1, 0, 2047),
        (12, np.uint16, -1, 3000, 0),
    ],
)
def test_padding_at_the_end_of_the_scale(
    tmp_path: Path,
    make_series: MakeSeries,
    bits: int,
    dtype: type,
    slope: int,
    intercept: int,
    padding: int,
) -> None:
    """Around the field of view it is padding; in the middle it could be metal, which ends there too."""
    rng = np.random.default_rng(5)
    stored = rng.integers(*sorted((padding, padding - slope * 2000)), (12, 11, 4), endpoint=False)
    stored[stored == padding] += slope * -1
    outside = np.hypot(*np.ogrid[-6:6, -5.5:5.5])[..., None] + np.zeros(4) > 6
    stored[outside] = padding
    stored[5:7, 5:7] = padding
    hu = (stored * slope + intercept).clip(-1024)
    elements = {"BitsStored": bits, "HighBit": bits - 1, "RescaleSlope": slope, "RescaleIntercept": intercept}
    files = make_series(tmp_path, stored.astype(dtype), **elements)
    assert np.array_equal(read_hu(tmp_path), hu)  # nothing is named
    for file in files:
        data = pydicom.dcmread(file)
        data.add_new("PixelPaddingValue", "SS" if dtype == np.int16 else "US", padding)
        data.save_as(file)
    assert np.array_equal(read_hu(tmp_path), np.where(outside, -1024, hu))


@pytest.mark.parametrize("vr", ["SS", "US"])
def test_padding_that_its_bits_do_not_hold(tmp_path: Path, make_series: MakeSeries, vr: str) -> None:
    """-2000 in pixels of 12 unsigned bits: cut to them it would be 1072 HU, in the middle of bone."""
    rng = np.random.default_rng(3)
    stored = rng.integers(0, 4096, (9, 7, 4)).astype(np.uint16)
    outside = rng.random(stored.shape) < 0.3
    for file in make_series(tmp_path, np.where(outside, 63536, stored).astype(np.uint16)):
        data = pydicom.dcmread(file)
        data.BitsStored, data.HighBit = 12, 11
        data.add_new("PixelPaddingValue", vr, -2000 if vr == "SS" else 63536)
        data.save_as(file)
    assert np.array_equal(read_hu(tmp_path), np.where(outside, -1024, stored.astype(int) - 1024))


def test_a_range_that_begins_within_the_bits(tmp_path: Path, make_series: MakeSeries) -> None:
    """As above, from 3000 on: numbers up to 3071 HU could be a patient, words beyond 12 bits could not."""
    rng = np.random.default_rng(3)
    stored = rng.integers(0, 4096, (9, 7, 4)).astype(np.uint16)
    outside = rng.random(stored.shape) < 0.3
    words = np.where(outside, 63536, stored).astype(np.uint16)
    padding = {"PixelPaddingValue": 3000, "PixelPaddingRangeLimit": 65000}
    make_series(tmp_path, words, BitsStored=12, HighBit=11, **padding)
    assert np.array_equal(read_hu(tmp_path), np.where(outside, -1024, stored.astype(int) - 1024))


def test_a_surround_that_nothing_names(tmp_path: Path, make_series: MakeSeries) -> None:
    """-2000 around the field of view, written as 63536 without a PixelPaddingValue; metal inside is kept."""
    stored = np.random.default_rng(3).integers(0, 3000, (12, 11, 4)).astype(np.uint16)
    outside = np.hypot(*np.ogrid[-6:6, -5.5:5.5])[..., None] + np.zeros(4) > 6
    make_series(tmp_path / "around", np.where(outside, 63536, stored).astype(np.uint16))
    hu = stored.astype(int) - 1024
    assert np.array_equal(read_hu(tmp_path / "around"), np.where(outside, -1024, hu))
    stored[5:7, 5:7] = 65535
    make_series(tmp_path / "inside", stored)
    assert np.array_equal(read_hu(tmp_path / "inside"), stored.astype(int) - 1024)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [10, 12, 13])
def test_what_lies_in_unused_bits_does_not_count(
    tmp_path: Path, make_series: MakeSeries, signed: bool, bits: int
) -> None:
    """PS3.5, 8.1.1: overlays once lay there; vtk-dicom#134, dicom2nifti#13."""
    rng = np.random.default_rng(bits)
    low = -(1 << bits - 1) if signed else 0
    numbers = rng.integers(low, low + (1 << bits), (9, 7, 4))
    words = (numbers & (1 << bits) - 1) | rng.integers(0, 1 << 16 - bits, numbers.shape) << bits
    words = words.astype(np.uint16).view(np.int16 if signed else np.uint16)
    files = make_series(tmp_path, words, BitsStored=bits, HighBit=bits - 1)
    assert np.array_equal(read_hu(tmp_path), (numbers - 1024).clip(-1024))
    planes = [pydicom.dcmread(file).pixel_array.T for file in files]
    assert np.array_equal(np.stack(planes, axis=-1), numbers)


def test_numbers_in_the_upper_bits(tmp_path: Path, make_series: MakeSeries, refused: Refused) -> None:
    """PS3.5, 8.1.1: HighBit tells where they lie. CT has BitsStored - 1 (PS3.3, C.8.2.1.1.4)."""
    rng = np.random.default_rng(0)
    numbers = rng.integers(-1000, 2000, (9, 7, 4))
    words = (numbers << 4).astype(np.int16)
    make_series(tmp_path / "upper", words, BitsStored=12, HighBit=15)
    assert np.array_equal(read_hu(tmp_path / "upper"), (numbers - 1024).clip(-1024))
    make_series(tmp_path / "lower", numbers.astype(np.int16), BitsStored=12, HighBit=15)
    assert "000.dcm" in refused(tmp_path / "lower", FormatError)


def test_a_high_bit_within_the_numbers(tmp_path: Path, make_series: MakeSeries, refused: Refused) -> None:
    numbers = np.random.default_rng(0).integers(0, 4096, (9, 7, 4)).astype(np.uint16)
    make_series(tmp_path / "same", numbers, BitsStored=16, HighBit=11)  # the same numbers, 12 or 16 bits
    assert np.array_equal(read_hu(tmp_path / "same"), numbers.astype(int) - 1024)
    numbers[3, 3, 2] = 5000
    make_series(tmp_path / "other", numbers, BitsStored=16, HighBit=11)
    assert "002.dcm" in refused(tmp_path / "other", FormatError)


@pytest.mark.parametrize(
    "elements",
    [{"BitsStored": 17}, {"BitsStored": 0, "HighBit": 20}, {"HighBit": 16}, {"BitsAllocated": 12}],
)
def test_impossible_bits(
    tmp_path: Path, make_series: MakeSeries, stored: np.ndarray, refused: Refused, elements: dict[str, int]
) -> None:
    for file in make_series(tmp_path, stored):
        change(file, **elements)
    assert "000.dcm" in refused(tmp_path, FormatError)


def test_a_sign_that_is_not_stated(
    tmp_path: Path, make_series: MakeSeries, stored: np.ndarray, refused: Refused
) -> None:
    """PixelRepresentation is missing: numbers that are the same either way are read."""
    make_series(tmp_path / "same", stored, PixelRepresentation=None)
    assert np.array_equal(read_hu(tmp_path / "same"), stored.astype(int) - 1024)
    stored[3, 3, 2] = 40000
    make_series(tmp_path / "other", stored, PixelRepresentation=None)
    assert "002.dcm" in refused(tmp_path / "other", FormatError)


def test_pixels_in_floating_point(
    tmp_path: Path, make_series: MakeSeries, stored: np.ndarray, refused: Refused
) -> None:
    for file in make_series(tmp_path, stored):
        data = pydicom.dcmread(file)
        del data.PixelData
        data.add_new("FloatPixelData", "OF", stored[:, :, 0].T.astype("<f4").tobytes())
        data.save_as(file)
    assert "floating" in refused(tmp_path, DamagedError)


@pytest.mark.parametrize("dtype", [np.int32, np.uint32])
def test_words_of_32_bits(tmp_path: Path, make_series: MakeSeries, dtype: type) -> None:
    """As SimpleITK writes int32."""
    low = -1024 if dtype == np.int32 else 0
    stored = np.random.default_rng(0).integers(low, 100000, (9, 7, 4)).astype(dtype)
    files = make_series(tmp_path, stored, RescaleIntercept=0)
    assert np.array_equal(read_hu(tmp_path), itk_hu(files))
    assert read_hu(tmp_path).dtype == np.int32


def test_the_type_widens_where_a_slice_needs_it(tmp_path: Path, make_series: MakeSeries) -> None:
    """Slopes differ from slice to slice, as in PET-CT; the slices before are kept."""
    stored = np.random.default_rng(0).integers(0, 4096, (9, 7, 4)).astype(np.uint16)
    stored[4, 4] = 4095
    for slopes, dtype in (
        ((1, 1, 1, 1), np.int16),
        ((1, 10, 1, 1), np.int32),
        ((1, 1, 0.5, 1), np.float32),
        ((1, "0.1", 1, 10), np.float64),
    ):
        folder = tmp_path / str(dtype.__name__) / str(slopes[0])
        make_series(folder, stored, each=[{"RescaleSlope": slope} for slope in slopes])
        hu = stored * np.array(slopes, float) - 1024
        read = read_hu(folder)
        assert read.dtype == dtype
        assert np.array_equal(read, hu.clip(-1024))


def test_no_scale_overflows(tmp_path: Path, make_series: MakeSeries) -> None:
    """dicom2nifti#150: an intercept of -1024 does not fit the type of unsigned pixels."""
    ends = {np.uint16: (0, 65535), np.int16: (-32768, 32767)}
    for dtype, (low, high) in ends.items():
        stored = np.random.default_rng(0).integers(low, high + 1, (9, 7, 4)).astype(dtype)
        stored[0, 0], stored[1, 1] = low, high
        for slope, intercept in ((1, -1024), (-1, 0), (7, 65535), (30000, -70000), (1, 2_000_000_000)):
            folder = tmp_path / dtype.__name__ / str(slope) / str(intercept)
            make_series(folder, stored, RescaleSlope=slope, RescaleIntercept=intercept)
            hu = stored.astype(np.int64) * slope + intercept
            assert np.array_equal(read_hu(folder), hu.clip(-1024))


def test_a_table_instead_of_a_slope(
    tmp_path: Path, make_series: MakeSeries, stored: np.ndarray, refused: Refused
) -> None:
    """PS3.3, C.11.1: a Modality LUT is a slope and an intercept, or a table."""
    table = pydicom.Dataset()
    table.LUTDescriptor, table.ModalityLUTType, table.LUTData = [4, 0, 16], "HU", bytes(8)
    for file in make_series(tmp_path, stored, RescaleSlope=None, RescaleIntercept=None):
        change(file, ModalityLUTSequence=[table])
    assert "ModalityLUTSequence" in refused(tmp_path, IntensityError)


@pytest.mark.parametrize(
    "syntax",
    [JPEGExtended12Bit, JPEGLSNearLossless, JPEG2000, JPEG2000Lossless, JPEGLSLossless, JPEGLosslessSV1],
)
def test_packed_with_and_without_a_loss(
    tmp_path: Path, make_series: MakeSeries, smooth: np.ndarray, syntax: UID
) -> None:
    """Against SimpleITK; of JPEG Extended with 12 bits, too, which pydicom itself leaves alone."""
    files = make_series(tmp_path, smooth, BitsStored=12, HighBit=11)
    for file in files:
        pack(file, syntax)
        assert pydicom.dcmread(file).file_meta.TransferSyntaxUID == syntax
    read = read_hu(tmp_path)
    assert np.array_equal(read, itk_hu(files))
    assert np.abs(read - (smooth.astype(int) - 1024)).max() <= 3


HTJ2K_STREAM = (
    "/0//UQApQAAAAAAgAAAAIAAAAAAAAAAAAAAAIAAAACAAAAAAAAAAAAABDwEB/1AACAACAAAACv9SAAwAAgABAAUEBEAB/1wA"
    "EyCIkJCQkJCQkJCQkJCQiIiI/2QAFwABT3BlbkpQSCBWZXIgMC4yNi4zLv+QAAoAAAAAALQAAf+TwAAm6/gFB3QAwAASwAAT"
    "AOwAh3QAtv0DB3QAwAATQAATgNb+AAJ0ANrW9gCjVADAABPAABVgqqqgp8J1AGqrVav2wEIB7LYAwAAVcAAFpCRJkufAp6en"
    "QngArl1dXV1dXV39jGB79jGB7LoAwAAtCAAF0QAAAAAA+f8p6enp6enp4nwAvj6fz+fz+Xw+n8/n8/n+/3hghAe/YhAe/YhA"
    "e/YhAeyzAf/Z"
)
"""The numbers 0, 3, 6, ... of 16 bits in 32 rows of 32, packed by OpenJPH."""


def test_high_throughput_jpeg_2000(tmp_path: Path, make_series: MakeSeries) -> None:
    expected = (np.arange(1024).reshape(32, 32) * 3).T
    content = encapsulate([base64.b64decode(HTJ2K_STREAM)])
    for file in make_series(tmp_path, np.zeros((32, 32, 3), np.uint16)):
        change(file, content, HTJ2KLossless)
    assert np.array_equal(read_hu(tmp_path), np.stack([expected - 1024] * 3, axis=-1))


@pytest.mark.parametrize(
    "how", ["several items", "no table", "extended table", "no end", "UN", "stated length"]
)
@pytest.mark.parametrize("syntax", [JPEG2000Lossless, RLELossless, JPEGLosslessSV1])
def test_items_of_packed_pixels(
    tmp_path: Path, make_series: MakeSeries, smooth: np.ndarray, how: str, syntax: UID
) -> None:
    """PS3.5, A.4: a frame lies in one or several items, after a table of offsets that may be empty."""
    for file in make_series(tmp_path, smooth):
        pack(file, syntax)
        frame = stream(file)
        if how == "extended table":
            content, offsets, lengths = encapsulate_extended([frame])
            change(file, content, ExtendedOffsetTable=offsets, ExtendedOffsetTableLengths=lengths)
            continue
        pieces = 3 if how == "several items" and syntax != RLELossless else 1
        change(file, encapsulate([frame], fragments_per_frame=pieces, has_bot=how != "no table"))
        content = file.read_bytes()
        if how == "no end":
            content = content[:-8]
        if how == "UN":
            content = content.replace(PIXEL_DATA + b"OB", PIXEL_DATA + b"UN")
        if how == "stated length":
            start = content.index(PIXEL_DATA + b"OB") + 12
            length = len(content) - start - 8
            content = content[: start - 4] + length.to_bytes(4, "little") + content[start:-8]
        file.write_bytes(content)
    assert np.array_equal(read_hu(tmp_path), smooth.astype(int) - 1024)


def test_a_sign_that_the_stream_does_not_have(tmp_path: Path) -> None:
    """pydicom's example of CT: signed by its header, unsigned by its JPEG 2000 stream, 13 bits each."""
    example = get_testdata_file("J2K_pixelrep_mismatch.dcm", download=False)
    for number in range(3):
        shutil.copy(example, tmp_path / f"{number}.dcm")
        change(
            tmp_path / f"{number}.dcm",
            ImagePositionPatient=[0, 0, number],
            ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
            PixelSpacing=[1, 1],
            SeriesInstanceUID="1.2",
            RescaleIntercept=0,
            RescaleSlope=1,
            Modality="CT",
        )
    expected = pydicom.dcmread(example).pixel_array.T
    assert expected.min() == -2000
    assert np.array_equal(read_hu(tmp_path)[:, :, 1], expected.clip(-1024))


def packed_by_gdcm(
    folder: Path, make_series: MakeSeries, numbers: np.ndarray, syntax: UID, bits: int
) -> list[Path]:
    files = make_series(folder, numbers, BitsStored=bits, HighBit=bits - 1)
    for file in files:
        pack(file, syntax)
    return files


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless, JPEGLosslessSV1])
def test_a_stream_of_another_size(
    tmp_path: Path, make_series: MakeSeries, smooth: np.ndarray, refused: Refused, syntax: UID
) -> None:
    for file in packed_by_gdcm(tmp_path, make_series, smooth, syntax, 12):
        change(file, Rows=40, Columns=36)
    message = refused(tmp_path, FormatError)
    assert "000.dcm" in message
    assert "40 by 36" in message
    assert "36 by 40" in message


def packed_in_12_bits(folder: Path, make_series: MakeSeries, numbers: np.ndarray, syntax: UID) -> list[Path]:
    files = make_series(folder, numbers, BitsStored=12, HighBit=11)
    for file in files:
        if syntax == JPEGExtended12Bit:
            pack(file, syntax)
        else:
            data = pydicom.dcmread(file)
            data.compress(syntax, generate_instance_uid=False)
            data.save_as(file)
    return files


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGExtended12Bit])
def test_a_stream_of_fewer_bits(
    tmp_path: Path, make_series: MakeSeries, smooth: np.ndarray, refused: Refused, syntax: UID
) -> None:
    """Numbers that are the same either way are read; where the sign hangs on it, nobody can tell."""
    files = packed_in_12_bits(tmp_path / "same", make_series, smooth, syntax)
    before = read_hu(tmp_path / "same")
    for file in files:
        change(file, BitsStored=16, HighBit=15, PixelRepresentation=1)
    assert np.array_equal(read_hu(tmp_path / "same"), before)
    smooth[3:9, 3:9] = 3000  # signed in 12 bits, it would be -1096
    for file in packed_in_12_bits(tmp_path / "sign", make_series, smooth, syntax):
        change(file, BitsStored=16, HighBit=15, PixelRepresentation=1)
    message = refused(tmp_path / "sign", FormatError)
    assert "000.dcm" in message
    assert "12" in message
    assert "16" in message


def test_a_stream_of_more_bits(tmp_path: Path, make_series: MakeSeries, smooth: np.ndarray) -> None:
    """Encoders may pack the whole word of 16 bits: the numbers of 12 are in it, with their sign."""
    signed = smooth.astype(np.int16) - 1500
    for file in packed_by_gdcm(tmp_path, make_series, signed, JPEG2000Lossless, 12):
        assert describe_stream(stream(file)).bits == 16
    assert np.array_equal(read_hu(tmp_path), (signed.astype(int) - 1024).clip(-1024))


@pytest.mark.parametrize(
    ("said", "implicit"), [(ImplicitVRLittleEndian, False), (ExplicitVRLittleEndian, True)]
)
@pytest.mark.parametrize("vr", ["OW", "OB"])
def test_a_representation_that_is_not_the_label_s(
    tmp_path: Path, make_series: MakeSeries, stored: np.ndarray, said: UID, implicit: bool, vr: str
) -> None:
    """Implicit and explicit VR are told by the elements; pydicom reads both ways, too."""
    for file in make_series(tmp_path, stored):
        data = pydicom.dcmread(file)
        data["PixelData"].VR = vr
        content = DicomBytesIO()
        content.is_little_endian, content.is_implicit_VR = True, implicit
        write_dataset(content, data)
        meta = DicomBytesIO()
        data.file_meta.TransferSyntaxUID = said
        write_file_meta_info(meta, data.file_meta)
        file.write_bytes(bytes(128) + b"DICM" + meta.getvalue() + content.getvalue())
    assert np.array_equal(read_hu(tmp_path), stored.astype(int) - 1024)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert np.array_equal(pydicom.dcmread(tmp_path / "000.dcm").pixel_array.T, stored[:, :, 0])


CONTRADICTIONS: dict[str, tuple[UID, type[InputError]]] = {
    "packed, says plain": (ExplicitVRLittleEndian, FormatError),
    "plain, says packed": (JPEG2000Lossless, FormatError),
    "packed otherwise": (JPEGLosslessSV1, DamagedError),
    "a packing of video": (UID("1.2.840.10008.1.2.4.100"), FormatError),
    "no packing that exists": (UID("1.2.3.4.5"), FormatError),
}


@pytest.mark.parametrize("case", list(CONTRADICTIONS))
def test_a_transfer_syntax_that_is_not_true(
    tmp_path: Path, make_series: MakeSeries, smooth: np.ndarray, refused: Refused, case: str
) -> None:
    syntax, kind = CONTRADICTIONS[case]
    packed = case != "plain, says packed"
    for file in make_series(tmp_path, smooth):
        if packed:
            pack(file, JPEG2000Lossless)
        said = str(JPEG2000Lossless if packed else ExplicitVRLittleEndian)
        content = file.read_bytes()
        assert content.count(element(said)) == 1
        file.write_bytes(content.replace(element(said), element(str(syntax))))
    assert "000.dcm" in refused(tmp_path, kind)


def element(syntax: str) -> bytes:
    """The element of the transfer syntax."""
    value = syntax.encode() + b"\0" * (len(syntax) % 2)
    return b"\2\0\x10\0UI" + len(value).to_bytes(2, "little") + value


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless, JPEGLosslessSV1])
def test_packed_pixels_that_end_early(
    tmp_path: Path, make_series: MakeSeries, smooth: np.ndarray, refused: Refused, syntax: UID
) -> None:
    """The items are whole, the stream in them is not."""
    files = packed_by_gdcm(tmp_path, make_series, smooth, syntax, 12)
    frame = stream(files[0])
    for kept in (2, 20, len(frame) // 10 // 2 * 2):
        change(files[1], encapsulate([frame[:kept]]))
        assert "001.dcm" in refused(tmp_path, DamagedError)


def test_a_deflated_file_cut_off(
    tmp_path: Path, make_series: MakeSeries, stored: np.ndarray, refused: Refused
) -> None:
    files = make_series(tmp_path, stored)
    for file in files:
        change(file, syntax=DeflatedExplicitVRLittleEndian)
    assert np.array_equal(read_hu(tmp_path), stored.astype(int) - 1024)
    whole = files[2].read_bytes()
    for lost in (1, 20, len(whole) // 4):
        files[2].write_bytes(whole[:-lost])
        assert "002.dcm" in refused(tmp_path, DamagedError)


DIGESTS = {
    "crlm_pv_1004/dicom_sub": "05acb9504e7f0c02",
    "ts_pv_dicom_scrubbed/dicom": "0d9f62d8433a424e",
    "dicom_venous_2slice": "b2cb45e4d0e6c325",
}
"""Beginnings of the SHA-256 of real voxels (int16, x fastest), as GDCM inside SimpleITK decoded them."""


@pytest.mark.realdata
@pytest.mark.parametrize("name", list(DIGESTS))
def test_real_pixels(real_data: Path, name: str) -> None:
    """Uncompressed and JPEG 2000, with -3024 HU around: bit by bit what another decoder gave."""
    read = read_hu(real_data / name)
    assert read.dtype == np.int16
    assert hashlib.sha256(read.tobytes("F")).hexdigest()[:16] == DIGESTS[name]


@pytest.mark.realdata
@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless, JPEGLosslessSV1])
def test_real_pixels_packed(real_data: Path, tmp_path: Path, syntax: UID) -> None:
    plain = real_data / "dicom_venous_2slice"
    for file in plain.iterdir():
        shutil.copy(file, tmp_path)
        pack(tmp_path / file.name, syntax)
    assert np.array_equal(read_hu(tmp_path), read_hu(plain))
