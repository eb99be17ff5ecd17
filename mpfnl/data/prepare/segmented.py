"""The abdomen from TotalSegmentator's organs, with the extra `segment`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from mpfnl.data.prepare.images import Box
from mpfnl.errors import InputError, MissingExtraError
from mpfnl.volumes import Volume

ORGANS = ("liver", "spleen", "pancreas", "kidney_left", "kidney_right", "stomach", "gallbladder", "duodenum")
"""What the kept box must hold."""

WEIGHTS = "Dataset297_TotalSegmentator_total_3mm_1559subj"


def organ_box(volume: Volume, margin_mm: float) -> Box:
    """The box around the upper abdominal organs as TotalSegmentator's 3 mm model finds them.

    Args:
        volume: The portal venous scan in HU.
        margin_mm: Kept around them.

    Raises:
        InputError: Its weights are not there, it broke off, or it found none of the organs.
        MissingExtraError: TotalSegmentator is not installed.
    """
    try:
        from totalsegmentator.config import get_weights_dir
        from totalsegmentator.map_to_binary import class_map
    except ImportError as error:
        raise MissingExtraError("TotalSegmentator", "segment") from error
    weights = Path(get_weights_dir())
    if not (weights / WEIGHTS).is_dir():
        raise InputError(
            f"{weights}: TotalSegmentator's weights are not there; fetch them with"
            "  totalseg_download_weights -t total_fast"
        )
    numbers = [number for number, name in class_map["total"].items() if name in ORGANS]
    labels = _segment(volume, weights)
    return box_around(np.isin(labels, numbers), volume, margin_mm)


def box_around(mask: NDArray[np.bool_], volume: Volume, margin_mm: float) -> Box:
    """The box of voxels around a mask, with a margin, within the scan.

    Raises:
        InputError: The mask is empty.
    """
    if not mask.any():
        raise InputError(f"{volume.name}: none of {', '.join(ORGANS)} was found; use --crop body")
    box = []
    for axis in range(3):
        filled = np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis})))
        extra = int(np.ceil(margin_mm / volume.spacing[axis]))
        box.append(slice(max(0, int(filled[0]) - extra), min(mask.shape[axis], int(filled[-1]) + 1 + extra)))
    return box[0], box[1], box[2]


def _segment(volume: Volume, weights: Path) -> NDArray[Any]:
    from totalsegmentator.python_api import totalsegmentator

    make_image: Any = nib.Nifti1Image  # untyped
    before = dict(os.environ)
    with TemporaryDirectory() as home:
        # A home of its own: it rewrites its settings at each call, and sends statistics unless they say no.
        settings = {
            "totalseg_id": "none",
            "send_usage_stats": False,
            "prediction_counter": 0,
            "statistics_disclaimer_shown": True,
        }
        (Path(home) / "config.json").write_text(json.dumps(settings), encoding="utf-8")
        os.environ |= {"TOTALSEG_HOME_DIR": home, "TOTALSEG_WEIGHTS_PATH": str(weights)}
        try:
            image = make_image(np.asarray(volume.data, np.int32), volume.affine)
            labels = totalsegmentator(image, fast=True, quiet=True)
        except (SystemExit, Exception) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise InputError(f"{volume.name}: TotalSegmentator broke off ({reason})") from error
        finally:
            os.environ.clear()
            os.environ |= before
    return np.asarray(labels.dataobj)
