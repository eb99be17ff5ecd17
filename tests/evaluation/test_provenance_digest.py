"""A scan's digest: a file's own, or that of all slices of a DICOM folder."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from mpfnl.evaluation.provenance import scan_digest


def test_a_file(cohort: Path) -> None:
    scan = next(cohort.parent.glob("*/arterial.nii.gz"))
    assert scan_digest(scan) == hashlib.sha256(scan.read_bytes()).hexdigest()[:16]


@pytest.mark.realdata
def test_a_dicom_folder(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "dicom_venous_2slice"
    for name, change in (("same", b""), ("other", b"\0\0")):
        (tmp_path / name).mkdir()
        for number, file in enumerate(sorted(folder.iterdir())):
            (tmp_path / name / f"{9 - number}.dcm").write_bytes(file.read_bytes() + change * number)
    assert scan_digest(tmp_path / "same") == scan_digest(folder)
    assert scan_digest(tmp_path / "other") != scan_digest(folder)
