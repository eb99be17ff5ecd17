"""TotalSegmentator's weights: the datasets that a request needs, and the check that they are installed.

TotalSegmentator checks only that a folder exists, and downloads missing weights without a timeout. The check
here comes before any call of it.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpfnl.errors import MissingExtraError, NotFoundError, OptionError
from mpfnl.files import file_digest

CHECKPOINT = "checkpoint_final.pth"
_REFINING = {"vertebrae_pp_refined": (305,)}  # its Python API adds these to the table of tasks
ROUGH_CT, ROUGH_CT_ROBUST, ROUGH_MR, ROUGH_BODY = 298, 297, 852, 300


@dataclass(frozen=True)
class Request:
    """Request to TotalSegmentator.

    Args:
        task: TotalSegmentator task, such as `total`.
        fast: Whether to take the 3 mm model instead of the full resolution.
        structures: Structures to segment.
        roi_subset: Whether to locate the structures at 6 mm first and segment only there.

    Raises:
        OptionError: TotalSegmentator has no such task, or the task no such structure.
        MissingExtraError: TotalSegmentator is not installed.
    """

    task: str
    fast: bool
    structures: tuple[str, ...]
    roi_subset: bool

    def __post_init__(self) -> None:
        known = class_numbers(self.task)
        unknown = [name for name in self.structures if name not in known]
        if unknown or not self.structures:
            fault = f"there is no structure {unknown[0]!r}" if unknown else "no structure is given"
            raise OptionError(f"TotalSegmentator's task {self.task}: {fault}; choose from {', '.join(known)}")
        if self.roi_subset and not self.task.startswith("total"):
            raise OptionError(f"TotalSegmentator's task {self.task} has no roi_subset; leave it out")

    @property
    def config(self) -> dict[str, Any]:
        """TotalSegmentator's configuration of the task: datasets, resampling, trainer."""
        from totalsegmentator.python_api import get_task_config

        try:
            with redirect_stdout(io.StringIO()):
                config: dict[str, Any] = get_task_config(self.task, fast=self.fast, quiet=True)
        except SystemExit:
            raise OptionError(
                f"TotalSegmentator's task {self.task} needs a licence; set yours with"
                "  totalseg_set_license -l NUMBER"
            ) from None
        except ValueError as error:
            raise OptionError(f"TotalSegmentator's task {self.task} cannot be run: {error}") from None
        return config

    def datasets(self) -> dict[int, bool]:
        """The datasets whose folders must exist, and whether their weights are used."""
        config = self.config
        ids = config["task_id"] if isinstance(config["task_id"], list) else [config["task_id"]]
        needed = {number: self._computes(number) for number in [*ids, *_REFINING.get(self.task, ())]}
        if self.roi_subset or config["crop"] is not None:
            needed |= dict.fromkeys(self._crop_datasets(config), True)
        return needed

    def _computes(self, dataset: int) -> bool:
        from totalsegmentator.map_to_binary import class_map_5_parts, map_taskid_to_partname_ct

        part = map_taskid_to_partname_ct.get(dataset)
        if self.task != "total" or not self.roi_subset or part is None:
            return True
        return any(name in self.structures for name in class_map_5_parts[part].values())

    def _crop_datasets(self, config: dict[str, Any]) -> Iterable[int]:
        if config["crop_model"] is not None:
            inner = Request(config["crop_model"], False, tuple(class_numbers(config["crop_model"])), False)
            return inner.datasets()
        if self.task.endswith("_mr") or config["modality"] == "mr":
            return [ROUGH_MR]
        if any(str(name).startswith("body_") for name in config["crop"] or ()):
            return [ROUGH_BODY]
        return [ROUGH_CT_ROBUST if config["robust_crop"] else ROUGH_CT]


def class_numbers(task: str) -> dict[str, int]:
    """The structures of a task and their numbers in its label map.

    Raises:
        OptionError: There is no such task.
        MissingExtraError: TotalSegmentator is not installed.
    """
    try:
        from totalsegmentator.map_tasks_config import TASK_CONFIGS
        from totalsegmentator.map_to_binary import class_map
    except ImportError as error:
        raise MissingExtraError("TotalSegmentator", "segment") from error
    if task not in TASK_CONFIGS or task not in class_map:
        raise OptionError(f"TotalSegmentator has no task {task!r}; choose from {', '.join(TASK_CONFIGS)}")
    return {name: number for number, name in class_map[task].items()}


def default_root() -> Path:
    """TotalSegmentator's own weights folder.

    Raises:
        MissingExtraError: TotalSegmentator is not installed.
    """
    try:
        from totalsegmentator.config import get_weights_dir
    except ImportError as error:
        raise MissingExtraError("TotalSegmentator", "segment") from error
    return Path(get_weights_dir())


def check_weights(root: Path, request: Request) -> dict[str, str]:
    """Checks that all weights of a request are installed.

    Args:
        root: Weights folder.
        request: Request to TotalSegmentator.

    Returns:
        Folder names of the datasets that are used, and the first 16 hexadecimal digits of the SHA-256 of
        their checkpoints.

    Raises:
        NotFoundError: Weights are missing; the message holds the command that downloads them.
    """
    digests, missing = {}, []
    for number, computes in request.datasets().items():
        folder = root / _folder(number)
        checkpoints = sorted(folder.glob(f"*/fold_*/{CHECKPOINT}"))
        if not folder.is_dir() or (computes and not checkpoints):
            missing.append(number)
        elif computes:
            digests[folder.name] = "+".join(file_digest(file)[:16] for file in checkpoints)
    if missing:
        raise NotFoundError(
            f"{root}: TotalSegmentator's weights {', '.join(_folder(n).name for n in missing)} are missing"
            " (or incomplete: then delete that folder first); fetch them with"
            f"  {_download_command(root, request, missing)}"
        )
    return digests


def _folder(dataset: int) -> Path:
    from totalsegmentator.map_tasks_config import TASK_ID_WEIGHTS_CONFIGS

    entry = TASK_ID_WEIGHTS_CONFIGS[dataset]
    return Path(entry.get("rel_path") or "") / entry["foldername"]


def _download_command(root: Path, request: Request, missing: Sequence[int]) -> str:
    """TotalSegmentator's command that downloads the missing datasets, preferably that of the task."""
    from totalsegmentator.bin.totalseg_download_weights import TASK_TO_ID

    own = f"{request.task}_fast" if request.fast else request.task
    tasks = sorted(TASK_TO_ID, key=lambda name: (name != own, len(TASK_TO_ID[name])))
    whole = [name for name in tasks if set(missing) <= set(TASK_TO_ID[name])]
    names = whole[:1] or [
        next((name for name in tasks if number in TASK_TO_ID[name]), "all") for number in missing
    ]
    prefix = "" if root == default_root() else f"TOTALSEG_WEIGHTS_PATH={root} "
    return " && ".join(f"{prefix}totalseg_download_weights -t {name}" for name in dict.fromkeys(names))
