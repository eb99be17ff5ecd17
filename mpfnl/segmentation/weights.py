"""Which of TotalSegmentator's weights a call needs, and whether they are there.

TotalSegmentator looks only whether a folder exists, and fetches what is missing without a time limit. So it
is asked nothing before everything is known to be there.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpfnl.errors import InputError, MissingExtraError
from mpfnl.files import file_digest

CHECKPOINT = "checkpoint_final.pth"
_REFINING = {"vertebrae_pp_refined": (305,)}  # what its Python API adds to the table of tasks
ROUGH_CT, ROUGH_CT_ROBUST, ROUGH_MR, ROUGH_BODY = 298, 297, 852, 300


@dataclass(frozen=True)
class Job:
    """What TotalSegmentator is asked to do.

    Args:
        task: One of its tasks, such as `total`.
        fast: Its 3 mm model instead of the full resolution.
        structures: The structures that are wanted.
        roi_subset: Whether it first finds roughly where they are, and computes only there.

    Raises:
        InputError: It has no such task, or the task no such structure.
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
            what = f"no structure {unknown[0]!r}" if unknown else "to be asked for a structure"
            raise InputError(f"TotalSegmentator's task {self.task} has {what}; its are {', '.join(known)}")
        if self.roi_subset and not self.task.startswith("total"):
            raise InputError(f"TotalSegmentator's task {self.task} knows no roi_subset; leave it out")

    @property
    def config(self) -> dict[str, Any]:
        """TotalSegmentator's settings of the task: datasets, resampling, trainer."""
        from totalsegmentator.python_api import get_task_config

        try:
            with redirect_stdout(io.StringIO()):
                found: dict[str, Any] = get_task_config(self.task, fast=self.fast, quiet=True)
        except SystemExit:
            raise InputError(
                f"TotalSegmentator's task {self.task} needs a licence; set yours with"
                "  totalseg_set_license -l NUMBER"
            ) from None
        except ValueError as error:
            raise InputError(f"TotalSegmentator's task {self.task} cannot be run: {error}") from None
        return found

    def datasets(self) -> dict[int, bool]:
        """The datasets whose folders it looks for, and whether it computes with their weights."""
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
            inner = Job(config["crop_model"], False, tuple(class_numbers(config["crop_model"])), False)
            return inner.datasets()
        if self.task.endswith("_mr") or config["modality"] == "mr":
            return [ROUGH_MR]
        if any(str(name).startswith("body_") for name in config["crop"] or ()):
            return [ROUGH_BODY]
        return [ROUGH_CT_ROBUST if config["robust_crop"] else ROUGH_CT]


def class_numbers(task: str) -> dict[str, int]:
    """The structures of a task and their numbers in its label map.

    Raises:
        InputError: There is no such task.
        MissingExtraError: TotalSegmentator is not installed.
    """
    try:
        from totalsegmentator.map_tasks_config import TASK_CONFIGS
        from totalsegmentator.map_to_binary import class_map
    except ImportError as error:
        raise MissingExtraError("TotalSegmentator", "segment") from error
    if task not in TASK_CONFIGS or task not in class_map:
        raise InputError(f"TotalSegmentator has no task {task!r}; its are {', '.join(TASK_CONFIGS)}")
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


def check_weights(root: Path, job: Job) -> dict[str, str]:
    """Checks that all weights of a job are there.

    Args:
        root: The weights folder.
        job: What is asked for.

    Returns:
        The datasets that compute: their folders' names and the first 16 hexadecimal digits of the SHA-256 of
        their checkpoints.

    Raises:
        InputError: Some are missing; the message says how to fetch them.
    """
    digests, missing = {}, []
    for number, computes in job.datasets().items():
        folder = root / _folder(number)
        checkpoints = sorted(folder.glob(f"*/fold_*/{CHECKPOINT}"))
        if not folder.is_dir() or (computes and not checkpoints):
            missing.append(number)
        elif computes:
            digests[folder.name] = "+".join(file_digest(file)[:16] for file in checkpoints)
    if missing:
        raise InputError(
            f"{root}: TotalSegmentator's weights {', '.join(_folder(n).name for n in missing)} are not there"
            " (or are not whole: then delete that folder first); fetch them with"
            f"  {_fetch(root, job, missing)}"
        )
    return digests


def _folder(dataset: int) -> Path:
    from totalsegmentator.map_tasks_config import TASK_ID_WEIGHTS_CONFIGS

    entry = TASK_ID_WEIGHTS_CONFIGS[dataset]
    return Path(entry.get("rel_path") or "") / entry["foldername"]


def _fetch(root: Path, job: Job, missing: Sequence[int]) -> str:
    """TotalSegmentator's command that fetches the missing datasets: its tasks' one where there is such."""
    from totalsegmentator.bin.totalseg_download_weights import TASK_TO_ID

    own = f"{job.task}_fast" if job.fast else job.task
    tasks = sorted(TASK_TO_ID, key=lambda name: (name != own, len(TASK_TO_ID[name])))
    whole = [name for name in tasks if set(missing) <= set(TASK_TO_ID[name])]
    names = whole[:1] or [
        next((name for name in tasks if number in TASK_TO_ID[name]), "all") for number in missing
    ]
    place = "" if root == default_root() else f"TOTALSEG_WEIGHTS_PATH={root} "
    return " && ".join(f"{place}totalseg_download_weights -t {name}" for name in dict.fromkeys(names))
