"""A scan whose axes rounding took off right angles is segmented (wasserth/TotalSegmentator#461)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from mpfnl.errors import SegmentationError
from mpfnl.segmentation import TotalSegmentatorSegmenter
from mpfnl.volumes import Volume


class StandIn:
    """What TotalSegmentator does to the geometry: its images have no qform code when ITK reads them."""

    def __init__(self, shift_mm: float) -> None:
        self.shift_mm = shift_mm

    def ask(self, arguments: dict[str, Any], timeout_s: float) -> None:
        scan = nib.load(arguments["scan"])
        again = Path(arguments["scan"]).with_name("again.nii")
        nib.save(nib.Nifti1Image(np.asarray(scan.dataobj), scan.affine), again)
        labels = sitk.GetArrayFromImage(sitk.ReadImage(str(again))).T > 500
        affine = scan.affine.copy()
        affine[0, 3] += self.shift_mm
        np.savez(arguments["labels"], labels=labels.astype(np.uint8), affine=affine)


@pytest.mark.parametrize("sign", [1, -1])
def test_axes_off_right_angles(monkeypatch: pytest.MonkeyPatch, sign: int) -> None:
    pytest.importorskip("totalsegmentator")
    affine = np.diag([0.8 * sign, 0.8 * sign, 2.5, 1.0])
    affine[1, 0] = 0.8 * 1.5e-3  # 0.09 degrees
    hu = np.random.default_rng(0).integers(-1000, 1500, (9, 8, 7)).astype(np.int16)
    scan = Volume.from_array(hu, affine, "pv.nii.gz").canonical()
    shift = 0.0
    with TotalSegmentatorSegmenter.with_phantom_weights(("pancreas",)) as segmenter:
        monkeypatch.setattr(segmenter, "_running_worker", lambda: StandIn(shift))
        monkeypatch.setitem(segmenter._numbers, "pancreas", 1)
        assert np.array_equal(segmenter.segment(scan)["pancreas"], scan.data > 500)
        shift = 0.4  # half a voxel
        with pytest.raises(SegmentationError, match=r"^pv\.nii\.gz"):
            segmenter.segment(scan)
