"""gzip files as other programs wrote them: several members, bytes after the last; damage is still found.

RFC 1952, section 2.2: a gzip file is a series of members. gunzip: "decompression OK, trailing garbage
ignored".
"""

from __future__ import annotations

import gzip
import io
import itertools
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpfnl.errors import DamagedError, FormatError
from mpfnl.volumes import open_scan, read_volume
from mpfnl.volumes.fileio import Unpacked

Refused: TypeAlias = Callable[..., str]

SHAPE = (20, 19, 18)


def hu() -> np.ndarray:
    return np.random.default_rng(0).integers(-1000, 1500, SHAPE).astype(np.int16)


def nifti() -> bytes:
    return nib.Nifti1Image(hu(), np.diag([0.8, 0.8, 2.5, 1.0])).to_bytes()


def nrrd(data: bytes) -> bytes:
    return (
        b"NRRD0005\ntype: short\ndimension: 3\nsizes: 20 19 18\nendian: little\nencoding: gzip\n"
        b"space: left-posterior-superior\nspace directions: (0.8,0,0) (0,0.8,0) (0,0,2.5)\n"
        b"space origin: (1,2,3)\n\n"
    ) + data


def members(raw: bytes, size: int) -> bytes:
    return b"".join(gzip.compress(raw[start : start + size]) for start in range(0, len(raw), size))


def write(path: Path, packed: Callable[[bytes], bytes]) -> Path:
    """A scan whose bytes are packed by a function."""
    raw = nifti() if ".nii" in path.name else hu().tobytes(order="F")
    path.write_bytes(packed(raw) if ".nii" in path.name else nrrd(packed(raw)))
    return path


WHOLE: dict[str, Callable[[bytes], bytes]] = {
    "a form boundary": lambda raw: gzip.compress(raw) + b"\r\n--boundary--\r\n",
    "one byte": lambda raw: gzip.compress(raw) + b"\n",
    "zeros": lambda raw: gzip.compress(raw) + bytes(700),
    "zeros and text": lambda raw: gzip.compress(raw) + bytes(700) + b"text",
    "many zeros": lambda raw: gzip.compress(raw) + bytes(1 << 19),
    "half a magic": lambda raw: gzip.compress(raw) + b"\x1f\x8b",
    "members": lambda raw: members(raw, 2000),
    "members of 3 bytes": lambda raw: members(raw[:300], 3) + gzip.compress(raw[300:]),
    "an empty last member": lambda raw: gzip.compress(raw) + gzip.compress(b""),
    "zeros between members": lambda raw: gzip.compress(raw[:999]) + bytes(9) + gzip.compress(raw[999:]),
}


@pytest.mark.parametrize("name", ["scan.nii.gz", "scan.nii", "scan.nrrd"])
@pytest.mark.parametrize("case", WHOLE)
def test_whole(tmp_path: Path, name: str, case: str) -> None:
    """nipy/nibabel#772, mhe/pynrrd#66, mhe/pynrrd#21."""
    path = write(tmp_path / name, WHOLE[case])
    assert np.array_equal(read_volume(path).data, hu())
    scan = open_scan(path)
    assert np.array_equal(scan.read(scan.grid.slab(7, 9)), hu()[:, :, 7:9])
    scan.close()


def flipped(packed: bytes, place: int) -> bytes:
    content = bytearray(packed)
    content[place] ^= 0x55
    return bytes(content)


DAMAGED: dict[str, Callable[[bytes], bytes]] = {
    "checksum": lambda raw: flipped(gzip.compress(raw), -8),
    "length": lambda raw: flipped(gzip.compress(raw), -2),
    "checksum before text": lambda raw: flipped(gzip.compress(raw), -8) + b"text",
    "cut": lambda raw: gzip.compress(raw)[:-1],
    "cut by a member": lambda raw: members(raw, 5000)[: -len(members(raw, 5000)) // 9],
    "the first member's checksum": lambda raw: (
        flipped(gzip.compress(raw[:999]), -8) + gzip.compress(raw[999:])
    ),
    "a last member cut off": lambda raw: gzip.compress(raw) + gzip.compress(b"more")[:-4],
    "only the first member": lambda raw: gzip.compress(raw[:9000]),
    "text between members": lambda raw: gzip.compress(raw[:999]) + b"text" + gzip.compress(raw[999:]),
}


@pytest.mark.parametrize("name", ["scan.nii.gz", "scan.nrrd"])
@pytest.mark.parametrize("case", DAMAGED)
def test_damaged(tmp_path: Path, refused: Refused, name: str, case: str) -> None:
    refused(write(tmp_path / name, DAMAGED[case]), DamagedError)


@pytest.mark.parametrize("name", ["scan.nii.gz", "scan.nii", "scan.nrrd", "scan.mha"])
@pytest.mark.parametrize(
    ("content", "remedy"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "git lfs pull"),
        (b"\n<!DOCTYPE html><html><body>404 Not Found</body></html>", "download"),
        (b"PK\x03\x04" + bytes(600), "unpack"),
    ],
)
def test_what_came_instead(tmp_path: Path, refused: Refused, name: str, content: bytes, remedy: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert remedy in refused(tmp_path / name, FormatError)


def test_packed_twice(tmp_path: Path, refused: Refused) -> None:
    path = write(tmp_path / "scan.nii.gz", lambda raw: gzip.compress(gzip.compress(raw)))
    assert "twice" in refused(path, FormatError)


def test_not_packed_in_spite_of_its_name(tmp_path: Path) -> None:
    path = write(tmp_path / "scan.nii.gz", bytes)
    assert np.array_equal(read_volume(path).data, hu())


@settings(max_examples=60, deadline=None)
@given(
    raw=st.binary(max_size=3000),
    cuts=st.lists(st.integers(0, 3000), max_size=4),
    sizes=st.lists(st.integers(1, 900), min_size=1, max_size=9),
    zeros=st.integers(0, 20),
)
def test_any_pieces_as_gzip(raw: bytes, cuts: list[int], sizes: list[int], zeros: int) -> None:
    ends = sorted({0, *(min(cut, len(raw)) for cut in cuts), len(raw)})
    parts = [raw[a:b] for a, b in itertools.pairwise(ends)] or [b""]
    packed = b"".join(gzip.compress(part) for part in parts) + bytes(zeros)
    assert gzip.decompress(packed) == raw
    stream, got = Unpacked(io.BytesIO(packed)), []
    for size in sizes:
        buffer = bytearray(size)
        count = stream.readinto(memoryview(buffer))
        got += [bytes(buffer[:count]), stream.read(size)]
    while piece := stream.read(sizes[0]):
        got.append(piece)
    assert b"".join(got) == raw
    alone = Unpacked(io.BytesIO(zlib.compress(raw) + b"text"))
    assert alone.read(len(raw) + 1) == raw
