"""TotalSegmentator behind the `Segmenter` protocol: its Python API in a process of its own."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self

import numpy as np

from mpfnl.errors import OptionError, SegmentationError
from mpfnl.segmentation.process import Worker, environment, make_home
from mpfnl.segmentation.segmenter import StructureMasks, check_scan
from mpfnl.segmentation.weights import Request, check_weights, class_numbers, default_root
from mpfnl.volumes import Grid, Volume, write_volume
from mpfnl.volumes.grid import same_grid

OWN_WEIGHTS = "TotalSegmentator's own"
TIMEOUT_S = 3600.0
PACKAGES = ("TotalSegmentator", "nnunetv2")


class TotalSegmentatorSegmenter:
    """Segmenter that runs TotalSegmentator (Wasserthal et al. 2023, doi 10.1148/ryai.230024).

    TotalSegmentator runs in a process of its own, which lives until `close` or, with `isolated`, for one
    scan. The main program thus needs no `__main__` guard and is safe from TotalSegmentator's changes of the
    environment and its calls of `sys.exit`. No weights are downloaded and no statistics are sent. Scans are
    segmented one at a time; the segmenter is a context manager.

    Args:
        structures: Names of the structures, as in TotalSegmentator; all of the task if empty.
        task: TotalSegmentator task.
        fast: Whether to take the 3 mm model instead of the full resolution of 1.5 mm.
        roi_subset: Whether to locate the structures at 6 mm first and segment only there, as
            TotalSegmentator's option of the same name. The default does so at full resolution in the task
            `total`, unless all structures are requested.
        device: `cpu`, `cuda` or `cuda:N`, or TotalSegmentator's `gpu`, `gpu:N` and `mps`; a GPU, if there is
            one, by default.
        weights: Weights folder; TotalSegmentator's own by default ($TOTALSEG_WEIGHTS_PATH, or
            `nnunet/results` in its home folder).
        isolated: Whether to start a new process for each scan.
        timeout_s: Timeout of a scan in seconds.

    Raises:
        OptionError: There is no such task or structure.
        NotFoundError: Weights are missing; the message holds the command that downloads them.
        MissingExtraError: TotalSegmentator is not installed.

    Example:
        >>> with TotalSegmentatorSegmenter(("pancreas", "liver")) as segmenter:  # doctest: +SKIP
        ...     masks = segmenter.segment(scan)
        >>> try:
        ...     TotalSegmentatorSegmenter(("gut",))
        ... except OptionError as error:
        ...     print("'gut'" in str(error))
        True
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
        self.request = Request(task, fast, named, roi_subset)
        self.notice = ""
        self._device = device
        self._isolated = isolated
        self._timeout_s = timeout_s
        self._weights = default_root() if weights is None else Path(weights)
        self._weights_name = OWN_WEIGHTS
        self._digests = check_weights(self._weights, self.request)
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
        """TotalSegmentator on the small weights that ship with mpfnl, trained on phantoms only.

        They run the complete pipeline offline and are useless on scans of patients. Every result made with
        them carries `notice`.

        Args:
            structures: Structures among `mpfnl.segmentation.phantom_weights.STRUCTURES`; all if empty.
            fast: Whether to take the 3 mm model instead of the full resolution.
            roi_subset: Whether to locate the structures first and segment only there.
            isolated: Whether to start a new process for each scan.
            timeout_s: Timeout of a scan in seconds.

        Raises:
            OptionError: The weights have no such structure.
            MissingExtraError: TotalSegmentator is not installed.
        """
        from mpfnl.segmentation.phantom_weights import NOTICE, STRUCTURES, digest, materialise

        unknown = [name for name in structures if name not in STRUCTURES]
        if unknown:
            raise OptionError(f"the phantom weights have no {unknown[0]!r}, only {', '.join(STRUCTURES)}")
        structures = structures or STRUCTURES
        folder = TemporaryDirectory(prefix="mpfnl-phantom-weights-", ignore_cleanup_errors=True)
        try:
            root = materialise(Path(folder.name) / "weights")
            segmenter = cls(
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
        segmenter._phantom_folder = folder
        segmenter._weights_name = f"phantom weights {digest()}"
        segmenter._digests = {}
        segmenter.notice = NOTICE
        return segmenter

    @property
    def structures(self) -> tuple[str, ...]:
        """Names of the structures."""
        return self.request.structures

    def describe(self) -> dict[str, Any]:
        """Versions, task, resampling and weights that define the results."""
        config = self.request.config
        return {
            "software": {package: version(package) for package in PACKAGES},
            "task": self.request.task,
            "fast": self.request.fast,
            "structures": list(self.request.structures),
            "roi_subset": self.request.roi_subset,
            "resampling": {"spacing_mm": config["resample"], "order": 1, "labels_order": 0},
            "weights": self._weights_name,
            "weights_sha256": self._digests,
            "notice": self.notice,
        }

    def segment(self, scan: Volume) -> StructureMasks:
        """Segments one scan.

        Args:
            scan: Scan in HU.

        Returns:
            Mask (x, y, z) of each structure; empty where the structure was not found.

        Raises:
            SegmentationError: The scan is not in HU, not finite, sheared or without spacing; or
                TotalSegmentator failed, died or exceeded the timeout.
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
            # TotalSegmentator takes whole HU, and ITK under it right angles without the rounding of cosines.
            upright = Volume(scan.data, scan.grid.detached().right_angled(), scan.path, scan.phase)
            write_volume(source, scan.data, like=upright, dtype=np.dtype(np.int16))
            self._running_worker().ask(self._arguments(source, result), self._timeout_s)
            with np.load(result) as arrays:
                labels, affine = arrays["labels"], arrays["affine"]
        if labels.ndim != 3 or not same_grid(Grid(labels.shape, affine), upright.grid):
            raise SegmentationError("TotalSegmentator's labels do not lie on the scan's grid")
        return np.asarray(labels, dtype=np.uint8)

    def _arguments(self, scan: Path, labels: Path) -> dict[str, Any]:
        return {
            "scan": str(scan),
            "labels": str(labels),
            "task": self.request.task,
            "fast": self.request.fast,
            "roi_subset": list(self.request.structures) if self.request.roi_subset else None,
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
        """Ends the process and removes its folders; the next scan starts a new process.

        Args:
            phantom_weights: Whether to remove the folder of the phantom weights, too; no scan can follow.
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
    """TotalSegmentator's name of a device."""
    if name is None or name == "auto":
        import torch

        return "gpu" if torch.cuda.is_available() else "cpu"
    return name.replace("cuda", "gpu")
