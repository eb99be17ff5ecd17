"""Pixels of random series equal what pydicom and SimpleITK read: signs, bits, scales, packings, paddings."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import gdcm
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)
from scipy import ndimage

from mpfnl.volumes.scan import open_values

MakeSeries: TypeAlias = Callable[..., list[Path]]

PLAIN = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
)
PACKED = (RLELossless, JPEGLossless, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless)
SCALES: list[tuple[Any, Any]] = [
    (1, -1024),
    (1, 0),
    ("1.0", "-1024.0"),
    (2, -8192),
    (-1, 1000),
    (0.5, -1000.25),
    ("0.1", 0),
    ("2.44140625e-2", -3),
    (10, -10240),
]
IDENTITY = {"StudyInstanceUID": "1.2.3", "FrameOfReferenceUID": "1.2.4"}  # GDCM makes up what is missing
GROUPS = 12
IN_GROUP = 10


def saved_as(file: Path, syntax: str) -> None:
    """Writes a plain file again in another transfer syntax, packed by pydicom or by GDCM."""
    if syntax in PLAIN:
        data = pydicom.dcmread(file)
        little = syntax != ExplicitVRBigEndian
        if not little:
            data["PixelData"].value = np.frombuffer(data.PixelData, "<u2").astype(">u2").tobytes()
        plain = pydicom.Dataset()
        for element in data:
            plain.add(element)
        plain.file_meta = data.file_meta
        plain.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
        pydicom.dcmwrite(
            file,
            plain,
            implicit_vr=syntax == ImplicitVRLittleEndian,
            little_endian=little,
            enforce_file_format=True,
        )
    elif syntax in (RLELossless, JPEG2000Lossless):
        data = pydicom.dcmread(file)
        data.compress(syntax, generate_instance_uid=False)
        data.save_as(file)
    else:
        reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
        reader.SetFileName(str(file))
        assert reader.Read()
        change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(str(syntax))))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer.SetFileName(str(file))
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()


def random_stored(rng: np.random.Generator, bits: int, signed: bool) -> np.ndarray:
    """Stored numbers (columns, rows, slices) over the whole range; OpenJPEG packs no smaller slices."""
    shape = (
        int(rng.integers(32, 40)),
        int(rng.integers(32, 40)),
        int(rng.integers(2, 4)),
    )  # OpenJPEG packs no less
    low = -(1 << bits - 1) if signed else 0
    return rng.integers(low, low + (1 << bits), shape).astype(np.int16 if signed else np.uint16)


def read_hu(folder: Path) -> np.ndarray:
    """What the package reads, before it is checked to be HU."""
    values = open_values(folder, "scan")
    assert (values.slope, values.intercept) == (1.0, 0.0)
    return values.read(values.grid.box)


def expected_hu(file: Path) -> np.ndarray:
    """A slice in HU (columns, rows) as pydicom reads it, at least -1024 and with its padding as air."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = pydicom.dcmread(file)
        stored = data.pixel_array.astype(np.int64)
        hu = pydicom.pixels.apply_rescale(stored, data).astype(np.float64)
    if "PixelPaddingValue" in data:
        ends = sorted((data.PixelPaddingValue, data.get("PixelPaddingRangeLimit", data.PixelPaddingValue)))
        named = (stored >= ends[0]) & (stored <= ends[1])
        low = -(1 << data.BitsStored - 1) if data.PixelRepresentation else 0
        last = max(low, low + (1 << data.BitsStored) - 1, key=lambda number: number * data.RescaleSlope)
        border = np.pad(np.zeros(np.subtract(hu.shape, 2), bool), 1, constant_values=True)
        at_end = named & ((hu == 3071) | (stored == last))
        outside = ndimage.binary_propagation(border & at_end, mask=at_end)
        hu[named & (hu > 3071) | outside] = -1024
    return hu.clip(-1024).T


@pytest.mark.parametrize("group", range(GROUPS))
def test_as_pydicom_and_simpleitk(tmp_path: Path, make_series: MakeSeries, group: int) -> None:
    """Acceptance of issue 19: random series against two readers that others wrote."""
    for number in range(IN_GROUP):
        rng = np.random.default_rng([19, group, number])
        bits = int(rng.choice([12, 13, 14, 15, 16]))
        signed = bool(rng.integers(2))
        stored = random_stored(rng, bits, signed)
        scales = [SCALES[rng.integers(len(SCALES))]] * stored.shape[2]
        if rng.random() < 0.3:
            scales = [SCALES[rng.integers(len(SCALES))] for _ in scales]
        elements: dict[str, Any] = {**IDENTITY, "BitsStored": bits, "HighBit": bits - 1}
        if rng.random() < 0.4:
            elements["PixelPaddingValue"] = int(stored.max())
            stored[rng.random(stored.shape) < 0.2] = stored.max()
            if rng.random() < 0.5:
                elements["PixelPaddingRangeLimit"] = int(stored.max()) - int(rng.integers(1, 500))
        each = [{"RescaleSlope": slope, "RescaleIntercept": intercept} for slope, intercept in scales]
        folder = tmp_path / str(number)
        files = make_series(folder, stored, each=each, **elements)
        syntax = str(rng.choice([*PLAIN, *PACKED]))
        for file in files:
            saved_as(file, syntax)
        read = read_hu(folder)
        label = f"{group}.{number}: {bits} bits, signed {signed}, {scales}, {syntax}, {elements}"
        hu = np.stack([expected_hu(file) for file in files], axis=-1)
        np.testing.assert_allclose(read, hu, rtol=1e-6, atol=1e-9, err_msg=label)
        if "PixelPaddingValue" not in elements and syntax != DeflatedExplicitVRLittleEndian:
            planes = [sitk.GetArrayFromImage(sitk.ReadImage(str(file)))[0].T for file in files]
            itk = np.stack(planes, axis=-1).clip(-1024)
            np.testing.assert_allclose(read, itk, rtol=1e-6, atol=1e-9, err_msg=label)
