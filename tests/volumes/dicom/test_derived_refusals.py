"""What cannot be written back one to one is refused in one line, and nothing is left half written."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pydicom
import pytest

from mpfnl.errors import (
    ConflictError,
    DamagedError,
    FormatError,
    GridError,
    InputError,
    InputWarning,
    IntensityError,
    NotFoundError,
    OutputError,
)
from mpfnl.phases import Phase
from mpfnl.volumes import Volume, read_volume, write_volume
from mpfnl.volumes.dicom import derived as derived_module
from mpfnl.volumes.dicom.derived import check_derived_output, derived_series_writer, write_derived_series
from mpfnl.volumes.dicom.provenance import Derivation

Source: TypeAlias = Callable[..., Path]
Refused: TypeAlias = Callable[..., str]

ABOUT_NOTHING = Derivation("m", "0", "0", ())


@pytest.fixture
def hu(stored: np.ndarray) -> np.ndarray:
    return stored.astype(np.int16) - 1024


@pytest.fixture
def refuses(tmp_path: Path, hu: np.ndarray, about: Derivation, leaks: Callable[[str], list[str]]) -> Refused:
    """Refused before the work and at its end alike; returns the one line. Nothing is written."""

    def refuse(source: Path, kind: type[InputError], out: Path | None = None) -> str:
        out = tmp_path / "out" if out is None else out
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(kind) as caught:
            write_derived_series(out, hu, source, about)
        with pytest.raises(kind) as again:
            check_derived_output(out, source)
        assert str(again.value) == str(caught.value)
        message = str(caught.value)
        assert "\n" not in message
        assert ";" in message
        assert not leaks(message.replace(str(tmp_path), ""))
        assert sorted(tmp_path.rglob("*")) == before
        return message

    return refuse


def change(file: Path, **elements: Any) -> None:
    data = pydicom.dcmread(file)
    for keyword, value in elements.items():
        setattr(data, keyword, value)
    pydicom.dcmwrite(file, data)


def test_a_tilted_gantry(tmp_path: Path, source: Source, refuses: Refused) -> None:
    folder = source(step=(0, 0.8, 3.0))
    with pytest.warns(InputWarning, match=r"14\.9 degrees"):
        read_volume(folder)
    message = refuses(folder, GridError)
    assert message.startswith(f"{folder}: ")
    assert "14.9 degrees" in message
    assert "NIfTI" in message


def test_no_dicom(tmp_path: Path, hu: np.ndarray, refuses: Refused) -> None:
    path = tmp_path / "scan.nii.gz"
    write_volume(path, hu, like=Volume.from_array(hu, np.diag([1.0, 1, 2, 1]), path, Phase.PORTAL_VENOUS))
    refuses(path, FormatError)
    refuses(tmp_path / "nothing here", FormatError)
    (tmp_path / "empty").mkdir()
    refuses(tmp_path / "empty", NotFoundError)


def test_missing_slices_and_several_series(source: Source, stored: np.ndarray, refuses: Refused) -> None:
    folder = source()
    (folder / "002.dcm").unlink()
    assert "1 slice " in refuses(folder, GridError)
    several = source("several")
    source("several", stored[:, :, :3], SeriesInstanceUID="1.2.3.4.5.6.7.8", names=["a", "b", "c"])
    assert "2 series" in refuses(several, ConflictError)


def test_multi_frame(source: Source, refuses: Refused) -> None:
    assert "NumberOfFrames 2" in refuses(source(NumberOfFrames=2), FormatError)


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SOPInstanceUID", "SOPClassUID"])
def test_slices_that_do_not_say_what_they_are(source: Source, refuses: Refused, keyword: str) -> None:
    folder = source()
    change(folder / "004.dcm", **{keyword: ""})
    if keyword.startswith("SOP"):  # the meta header says the same
        data = pydicom.dcmread(folder / "004.dcm")
        delattr(data.file_meta, f"MediaStorage{keyword}")
        pydicom.dcmwrite(folder / "004.dcm", data)
    kind = FormatError if keyword.startswith("SOP") else ConflictError  # the others are of a study
    assert re.search(rf"004\.dcm .*{keyword}", refuses(folder, kind))


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "PatientID", "FrameOfReferenceUID"])
def test_slices_that_do_not_belong_together(source: Source, refuses: Refused, keyword: str) -> None:
    folder = source()
    change(folder / "004.dcm", **{keyword: "1.2.3"})
    assert re.search(rf"004\.dcm .*\({keyword}\)", refuses(folder, ConflictError))


def test_one_identifier_for_two_slices(source: Source, refuses: Refused) -> None:
    folder = source()
    change(folder / "004.dcm", SOPInstanceUID=pydicom.dcmread(folder / "001.dcm").SOPInstanceUID)
    assert "SOPInstanceUID" in refuses(folder, ConflictError)


def test_places_that_are_taken(tmp_path: Path, source: Source, refuses: Refused) -> None:
    folder = source()
    refuses(folder, OutputError, folder)
    refuses(folder, OutputError, folder / "below" / "it")
    (tmp_path / "link").symlink_to(folder)
    refuses(folder, OutputError, tmp_path / "link" / "out")
    (tmp_path / "file").write_text("something")
    refuses(folder, OutputError, tmp_path / "file")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    refuses(folder, OutputError, tmp_path / "full")
    (tmp_path / "hanging").symlink_to(tmp_path / "nowhere")
    refuses(folder, OutputError, tmp_path / "hanging")
    refuses(folder, OutputError, tmp_path / "missing" / "out")


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_place_that_may_not_be_written(tmp_path: Path, source: Source, refuses: Refused) -> None:
    folder = source()
    (tmp_path / "closed").mkdir(mode=0o500)
    refuses(folder, OutputError, tmp_path / "closed" / "out")


def test_an_empty_folder_is_taken(tmp_path: Path, source: Source, hu: np.ndarray, about: Derivation) -> None:
    (tmp_path / "out").mkdir()
    files = write_derived_series(tmp_path / "out", hu, source(), about)
    assert sorted((tmp_path / "out").iterdir()) == files


def test_a_result_is_not_written_over(source: Source, hu: np.ndarray, about: Derivation) -> None:
    folder = source()
    out = folder.parent / "out"
    before = [file.read_bytes() for file in write_derived_series(out, hu, folder, about)]
    with pytest.raises(OutputError, match="out: "):
        write_derived_series(out, hu + 1, folder, about)
    assert [file.read_bytes() for file in sorted(out.iterdir())] == before


def test_voxels_that_16_bits_do_not_hold(source: Source, hu: np.ndarray) -> None:
    folder = source()
    high = hu.astype(np.int32)
    high[3, 2, 5] = 64512
    with pytest.raises(IntensityError, match=r"64512 HU.* 64511"):
        write_derived_series(folder.parent / "out", high, folder, ABOUT_NOTHING)
    assert not (folder.parent / "out").exists()


def test_voxels_that_are_not_the_sources(tmp_path: Path, source: Source, hu: np.ndarray) -> None:
    folder = source()
    with pytest.raises(ValueError, match=r"the shape \(9, 7, 5\)"):
        write_derived_series(tmp_path / "out", hu[:, :, :5], folder, ABOUT_NOTHING)
    bad = hu.astype(np.float32)
    bad[1, 1, 4] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        write_derived_series(tmp_path / "out", bad, folder, ABOUT_NOTHING)
    assert not (tmp_path / "out").exists()


def test_slabs_that_do_not_make_up_the_series(tmp_path: Path, source: Source, hu: np.ndarray) -> None:
    folder = source()
    before = sorted(tmp_path.rglob("*"))

    def write(*slabs: np.ndarray) -> None:
        with derived_series_writer(tmp_path / "out", folder, ABOUT_NOTHING) as writer:
            for slab in slabs:
                writer.write(slab)

    with pytest.raises(ValueError, match="5 of 6 slices"):
        write(hu[:, :, :2], hu[:, :, :3])
    with pytest.raises(ValueError, match="does not fit"):
        write(hu, hu[:, :, :1])
    with pytest.raises(ValueError, match="does not fit"):
        write(hu[:, :6])
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_in_the_middle_leaves_nothing(
    tmp_path: Path,
    source: Source,
    hu: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
) -> None:
    folder = source()
    before = sorted(tmp_path.rglob("*"))
    for failing in range(6):
        numbers: Iterator[int] = count()
        save = derived_module.save_slice

        def save_or_fail(
            path: Path, data: Any, numbers: Iterator[int] = numbers, last: int = failing, save: Any = save
        ) -> None:
            if next(numbers) == last:
                raise error
            save(path, data)

        with monkeypatch.context() as patched:
            patched.setattr(derived_module, "save_slice", save_or_fail)
            with pytest.raises((InputError, KeyboardInterrupt)) as caught:
                write_derived_series(tmp_path / "out", hu, folder, ABOUT_NOTHING)
        if isinstance(error, OSError):
            assert "cannot be written" in str(caught.value)
            assert "No space left" in str(caught.value)
        assert sorted(tmp_path.rglob("*")) == before


def test_a_source_that_goes_away_meanwhile(
    tmp_path: Path, source: Source, hu: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = source()
    find = derived_module.find_source

    def find_and_lose(path: Path) -> Any:
        origin = find(path)
        (folder / "003.dcm").unlink()
        return origin

    monkeypatch.setattr(derived_module, "find_source", find_and_lose)
    with pytest.raises(DamagedError, match=r"003\.dcm"):
        write_derived_series(tmp_path / "out", hu, folder, ABOUT_NOTHING)
    shutil.rmtree(folder)
    assert not list(tmp_path.iterdir())
