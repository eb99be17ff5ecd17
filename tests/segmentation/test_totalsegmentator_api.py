"""The real TotalSegmentator API, offline, on the phantom weights."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

from mpfnl.errors import NotFoundError, OptionError, SegmentationError
from mpfnl.metrics import dice
from mpfnl.phantoms import generate_study
from mpfnl.phantoms.config import THREE_MM
from mpfnl.phases import Phase
from mpfnl.segmentation import TotalSegmentatorSegmenter, process
from mpfnl.volumes import Volume
from mpfnl.window import ABDOMEN

SUPPORT = Path(__file__).parents[1] / "support"
SEED = 8_118  # not that of the weights
QUICK = (sys.executable, str(SUPPORT / "quick_worker.py"))


@pytest.fixture(scope="module")
def phantom() -> tuple[Volume, np.ndarray]:
    study = generate_study(SEED, 0, THREE_MM)
    scan = Volume.from_array(
        study.phases[Phase.PORTAL_VENOUS], study.affine, Path("p/pv.nii.gz"), Phase.PORTAL_VENOUS
    )
    return scan, study.labels == 7


@pytest.fixture(scope="module")
def segmenter() -> Iterator[TotalSegmentatorSegmenter]:
    with (
        pytest.MonkeyPatch.context() as patch,
        TotalSegmentatorSegmenter.with_phantom_weights(("pancreas", "liver")) as made,
    ):
        patch.setattr(process, "COMMAND", QUICK)
        yield made


@pytest.mark.slow
def test_the_stock_api_runs_offline_and_leaves_nothing_behind(
    phantom: tuple[Volume, np.ndarray], tmp_path: Path
) -> None:
    """As a user's script runs it: no main guard, a home folder of one's own, nnU-Net with its helpers."""
    scan, truth = phantom
    np.savez(tmp_path / "phantom.npz", data=scan.data, affine=scan.affine)
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, numpy as np\n"
        "from pathlib import Path\n"
        "from mpfnl.segmentation import TotalSegmentatorSegmenter\n"
        "from mpfnl.volumes import Volume\n"
        "found = np.load('phantom.npz')\n"
        "with TotalSegmentatorSegmenter.with_phantom_weights(isolated=True) as segmenter:\n"
        "    masks = segmenter.segment(Volume.from_array(found['data'], found['affine'], 'pv.nii.gz'))\n"
        "np.save('mask.npy', masks['pancreas'])\n"
    )
    home = tmp_path / "home"
    home.mkdir()
    with TemporaryDirectory(prefix="t") as temporary:  # short: nnU-Net's helpers make sockets in it
        environment = os.environ | {"HOME": str(home), "TMPDIR": temporary}
        environment |= {"https_proxy": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}
        subprocess.run([sys.executable, str(script)], cwd=tmp_path, env=environment, check=True)
        assert not list(Path(temporary).glob("mpfnl*"))
    assert dice(np.load(tmp_path / "mask.npy"), truth) > 0.8
    assert not (home / ".totalsegmentator").exists()


@pytest.mark.slow
def test_masks_lie_on_the_scan_however_it_is_stored(
    phantom: tuple[Volume, np.ndarray], segmenter: TotalSegmentatorSegmenter
) -> None:
    scan, truth = phantom
    before = dict(os.environ)
    masks = segmenter.segment(scan)
    assert dict(os.environ) == before
    assert set(masks) == {"pancreas", "liver"}
    assert masks["pancreas"].dtype == np.bool_
    assert dice(masks["pancreas"], truth) > 0.8
    # Stored from head to foot, with the axes in another order.
    turned = np.transpose(scan.data, (2, 0, 1))[::-1]
    last = scan.shape[2] - 1
    affine = scan.affine @ [[0, 1, 0, 0], [0, 0, 1, 0], [-1, 0, 0, last], [0, 0, 0, 1]]
    assert np.allclose((affine @ [0, 0, 0, 1])[:3], (scan.affine @ [0, 0, scan.shape[2] - 1, 1])[:3])
    again = segmenter.segment(Volume.from_array(turned, affine, Path("turned.nii.gz")))["pancreas"]
    back = np.transpose(again[::-1], (1, 2, 0))
    assert dice(back, masks["pancreas"]) > 0.99


@pytest.mark.slow
def test_a_windowed_scan_and_the_full_resolution_model_work(
    phantom: tuple[Volume, np.ndarray], segmenter: TotalSegmentatorSegmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan, truth = phantom
    monkeypatch.setattr(process, "COMMAND", QUICK)
    clipped = replace(scan, data=scan.data.clip(ABDOMEN.lower, ABDOMEN.upper))
    assert dice(segmenter.segment(clipped)["pancreas"], truth) > 0.8
    with TotalSegmentatorSegmenter.with_phantom_weights(fast=False) as full:
        assert full.request.roi_subset
        corners = np.argwhere(truth)
        low, high = np.maximum(corners.min(0) - 10, 0), corners.max(0) + 11
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        affine = scan.affine.copy()
        affine[:3, 3] = (scan.affine @ [*low, 1])[:3]
        part = Volume.from_array(scan.data[box], affine, scan.path)  # 1.5 mm take a while
        assert dice(full.segment(part)["pancreas"], truth[box]) > 0.7


@pytest.mark.slow
def test_nothing_to_find_gives_an_empty_mask(
    phantom: tuple[Volume, np.ndarray], segmenter: TotalSegmentatorSegmenter
) -> None:
    scan, _ = phantom
    fat = np.full_like(scan.data, -100)
    fat[:2, :2, :2] = 40  # so that it counts as HU
    assert not segmenter.segment(replace(scan, data=fat))["pancreas"].any()


@pytest.mark.slow
def test_a_worker_killed_in_mid_call_is_one_line_and_the_next_scan_works(
    phantom: tuple[Volume, np.ndarray], segmenter: TotalSegmentatorSegmenter
) -> None:
    scan, truth = phantom
    segmenter.segment(scan)
    worker = segmenter._worker
    assert worker is not None
    pid = worker._process.pid

    def kill() -> None:
        time.sleep(0.2)
        os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(SegmentationError) as caught:
        segmenter.segment(scan)
    killer.join()
    message = str(caught.value)
    assert message.startswith("p/pv.nii.gz (portal venous phase)")
    assert "killed" in message
    assert "\n" not in message
    assert dice(segmenter.segment(scan)["pancreas"], truth) > 0.8


def test_what_cannot_be_segmented_is_refused_before_a_process_starts(
    phantom: tuple[Volume, np.ndarray],
) -> None:
    scan, _ = phantom
    with TotalSegmentatorSegmenter.with_phantom_weights() as made:
        for bad in (
            replace(scan, data=ABDOMEN.normalize(scan.data.astype(np.float32))),
            replace(scan, grid=replace(scan.grid, affine=np.eye(4))),
        ):
            with pytest.raises(SegmentationError, match=r"^p/pv\.nii\.gz"):
                made.segment(bad)
        assert made._worker is None


def test_missing_weights_are_told_before_anything_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOTALSEG_HOME_DIR", str(tmp_path / "none"))
    monkeypatch.delenv("TOTALSEG_WEIGHTS_PATH", raising=False)
    with pytest.raises(NotFoundError, match=r"totalseg_download_weights -t total$"):
        TotalSegmentatorSegmenter()
    assert not (tmp_path / "none").exists()


def test_it_describes_what_defines_its_results() -> None:
    with TotalSegmentatorSegmenter.with_phantom_weights() as made:
        record = made.describe()
        assert record["weights"].startswith("phantom weights ")
        assert "phantom" in made.notice
        assert record["resampling"]["spacing_mm"] == 3.0
        assert record["software"]["TotalSegmentator"]
        assert json.loads(json.dumps(record)) == record
    with pytest.raises(OptionError, match="'aorta'"):
        TotalSegmentatorSegmenter.with_phantom_weights(("aorta",))


@pytest.mark.slow
def test_what_totalsegmentator_says_on_leaving_is_told(
    phantom: tuple[Volume, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    scan, _ = phantom
    monkeypatch.setattr(process, "COMMAND", QUICK)
    with TotalSegmentatorSegmenter.with_phantom_weights() as made:
        weights = made._weights
        for plans in weights.rglob("plans.json"):
            plans.write_text("{}")
        with pytest.raises(SegmentationError, match=r"p/pv\.nii\.gz.*KeyError"):
            made.segment(scan)
