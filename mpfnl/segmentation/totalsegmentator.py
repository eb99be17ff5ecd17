"""TotalSegmentator behind the `Segmenter` protocol: its real Python API, in a process of its own."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self

import numpy as np

from mpfnl.errors import InputError, SegmentationError
from mpfnl.segmentation.checks import check_scan
from mpfnl.segmentation.home import environment, make_home
from mpfnl.segmentation.process import Worker
from mpfnl.segmentation.protocol import Masks
from mpfnl.segmentation.weights import Job, check_weights, class_numbers, default_root
from mpfnl.volumes import Volume, write_volume

OWN_WEIGHTS = "TotalSegmentator's own"
TIMEOUT_S = 3600.0
PACKAGES = ("TotalSegmentator", "nnunetv2")


class TotalSegmentatorSegmenter:
    """Segments with TotalSegmentator (Wasserthal et al. 2023, doi 10.1148/ryai.230024).

    It runs in a process of its own, which lives until `close` or, with `isolated`, for one scan: so a main
    program needs no `__main__` guard, and what TotalSegmentator does to the environment, or a call of
    `sys.exit`, stays outside. It never fetches weights and sends no statistics. One scan at a time; use it as
    a context manager.

    Args:
        structures: What to find, by TotalSegmentator's names; all of the task's if empty.
        task: One of TotalSegmentator's tasks.
        fast: Take its 3 mm model instead of the full resolution of 1.5 mm.
        roi_subset: First find roughly, at 6 mm, where the structures are, and compute only there: as
            TotalSegmentator's option of the same name. By default so at full resolution in the task `total`,
            where fewer than all structures are asked for.
        device: `cpu`, `cuda` or `cuda:N`, or TotalSegmentator's `gpu`, `gpu:N` and `mps`; by default a GPU
            where there is one.
        weights: Its weights folder; by default its own ($TOTALSEG_WEIGHTS_PATH, or `nnunet/results` in its
            home folder).
        isolated: Take a fresh process for each scan.
        timeout_s: The longest time that a scan may take, in seconds.

    Raises:
        InputError: There is no such task or structure, or weights are missing: the message says how to fetch
            them.
        MissingExtraError: TotalSegmentator is not installed.
    """

    def __init__(
        self,
        structures: Sequence[str] = ("pancreas",),
        *,
        task: str = "total",
        fast: bool = False,
        roi_subset: bool | None = None,
        device: str | None = None,
        weights: str | Path | None = None,
        isolated: bool = False,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._numbers = class_numbers(task)
        named = tuple(structures) or tuple(self._numbers)
        if roi_subset is None:
            roi_subset = task == "total" and not fast and set(named) != set(self._numbers)
        self.job = Job(task, fast, named, roi_subset)
        self.notice = ""
        self._device = device
        self._isolated = isolated
        self._timeout_s = timeout_s
        self._weights = default_root() if weights is None else Path(weights)
        self._weights_name = OWN_WEIGHTS
        self._digests = check_weights(self._weights, self.job)
        self._folder: TemporaryDirectory[str] | None = None
        self._phantom_folder: TemporaryDirectory[str] | None = None
        self._worker: Worker | None = None

    @classmethod
    def with_phantom_weights(
        cls,
        structures: Sequence[str] = ("pancreas",),
        *,
        fast: bool = True,
        roi_subset: bool | None = None,
        isolated: bool = False,
        timeout_s: float = TIMEOUT_S,
    ) -> Self:
        """The same real API on the small weights that ship with mpfnl, made for phantoms only.

        They show that everything works, without a network; on scans of patients they find nothing of use.
        Every result made with them carries `notice`.

        Args:
            structures: Of the seven in `mpfnl.segmentation.phantom_weights.STRUCTURES`; all if empty.
            fast: As above.
            roi_subset: As above.
            isolated: As above.
            timeout_s: As above.

        Raises:
            InputError: They do not know a structure.
            MissingExtraError: TotalSegmentator is not installed.
        """
        from mpfnl.segmentation.phantom_weights import NOTICE, STRUCTURES, digest, materialise

        unknown = [name for name in structures if name not in STRUCTURES]
        if unknown:
            raise InputError(f"the phantom weights know no {unknown[0]!r}, only {', '.join(STRUCTURES)}")
        structures = structures or STRUCTURES
        folder = TemporaryDirectory(prefix="mpfnl-phantom-weights-", ignore_cleanup_errors=True)
        try:
            root = materialise(Path(folder.name) / "weights")
            made = cls(
                structures,
                fast=fast,
                roi_subset=roi_subset,
                device="cpu",
                weights=root,
                isolated=isolated,
                timeout_s=timeout_s,
            )
        except BaseException:
            folder.cleanup()
            raise
        made._phantom_folder = folder
        made._weights_name = f"phantom weights {digest()}"
        made._digests = {}
        made.notice = NOTICE
        return made

    @property
    def structures(self) -> tuple[str, ...]:
        """The structures that it finds."""
        return self.job.structures

    def describe(self) -> dict[str, Any]:
        """What defines its results: versions, task, resampling, weights."""
        config = self.job.config
        return {
            "software": {package: version(package) for package in PACKAGES},
            "task": self.job.task,
            "fast": self.job.fast,
            "structures": list(self.job.structures),
            "roi_subset": self.job.roi_subset,
            "resampling": {"spacing_mm": config["resample"], "order": 1, "labels_order": 0},
            "weights": self._weights_name,
            "weights_sha256": self._digests,
            "notice": self.notice,
        }

    def segment(self, scan: Volume) -> Masks:
        """Segments one scan.

        Args:
            scan: The scan in HU.

        Returns:
            A mask (x, y, z) for each structure; without a voxel where it was not found.

        Raises:
            SegmentationError: The scan is not in HU, not finite, sheared or without spacing; TotalSegmentator
                broke off, died or took too long.
        """
        check_scan(scan)
        try:
            labels = self._labels(scan)
        except SegmentationError as error:
            raise SegmentationError(f"{scan.name}: {error}") from None
        finally:
            if self._isolated:
                self._stop_worker()
        return {name: labels == self._numbers[name] for name in self.structures}

    def _labels(self, scan: Volume) -> np.ndarray[Any, np.dtype[np.uint8]]:
        with TemporaryDirectory(prefix="mpfnl-segment-", ignore_cleanup_errors=True) as folder:
            source, result = Path(folder) / "scan.nii", Path(folder) / "labels.npz"
            write_volume(source, scan.data, like=scan, dtype=np.dtype(np.int16))  # it computes in whole HU
            self._running_worker().ask(self._request(source, result), self._timeout_s)
            with np.load(result) as found:
                labels, affine = found["labels"], found["affine"]
        if labels.shape != scan.shape or not np.allclose(affine, scan.affine, atol=1e-3):
            raise SegmentationError("TotalSegmentator's labels do not lie on the scan's grid")
        return np.asarray(labels, dtype=np.uint8)

    def _request(self, scan: Path, labels: Path) -> dict[str, Any]:
        return {
            "scan": str(scan),
            "labels": str(labels),
            "task": self.job.task,
            "fast": self.job.fast,
            "roi_subset": list(self.job.structures) if self.job.roi_subset else None,
            "device": _device(self._device),
        }

    def _running_worker(self) -> Worker:
        if self._worker is None or not self._worker.alive:
            self.close(phantom_weights=False)
            self._folder = TemporaryDirectory(prefix="mpfnl-totalsegmentator-", ignore_cleanup_errors=True)
            folder = Path(self._folder.name)
            make_home(folder / "home")
            self._worker = Worker(environment(folder / "home", self._weights), folder / "log.txt")
        return self._worker

    def _stop_worker(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.stop()

    def close(self, *, phantom_weights: bool = True) -> None:
        """Ends the process and removes its folders; the next scan starts another.

        Args:
            phantom_weights: Remove the phantom weights' folder, too, after which there is no next scan.
        """
        self._stop_worker()
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None
        if phantom_weights and self._phantom_folder is not None:
            self._phantom_folder.cleanup()
            self._phantom_folder = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _device(name: str | None) -> str:
    """TotalSegmentator's word for a device."""
    if name is None or name == "auto":
        import torch

        return "gpu" if torch.cuda.is_available() else "cpu"
    return name.replace("cuda", "gpu")
