"""The provenance of an evaluation: what repeats it, and what tells it from another one."""

from __future__ import annotations

import hashlib
import json
import math
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mpfnl.data.degradation import SampleSettings
from mpfnl.data.manifest import Manifest, Study
from mpfnl.errors import ConflictError, FormatError, NotFoundError
from mpfnl.evaluation.cases import Case
from mpfnl.evaluation.folder import PROVENANCE, SWAP_TABLE
from mpfnl.evaluation.image_quality import SSIM_WINDOW
from mpfnl.evaluation.methods import EvaluatedModel, Methods
from mpfnl.evaluation.overlap import Segmentations
from mpfnl.files import file_digest, write_text
from mpfnl.inference.enhancement import EnhanceOptions
from mpfnl.volumes.masks import join_labels, split_labels
from mpfnl.volumes.scan import content_files

LEFT_OUT = "left_out"
FAILED = "its preparation failed"
PACKAGES = ("mpfnl", "torch", "lightning", "torchio", "torchmetrics", "nibabel", "numpy", "scipy")


def provenance(
    manifest: Manifest,
    studies: Sequence[Study],
    methods: Methods,
    sampling: SampleSettings,
    options: EnhanceOptions,
    segmentations: Segmentations | None,
) -> dict[str, Any]:
    """The record of an evaluation, as JSON values.

    `settings`, `models`, `folders`, `segmentation` and the digests of the studies define the results; the
    rest describes them.

    Args:
        manifest: The cohort.
        studies: The evaluated studies.
        methods: Models and folders by name.
        sampling: Degradation, target and window.
        options: Settings of the enhancement.
        segmentations: Settings of the segmentation; None if there is none.
    """
    settings = {
        "target": str(sampling.target),
        "window_hu": asdict(sampling.window),
        "data_range": 1.0,
        "region": "whole volume",
        "ssim": {"sigma_voxels": 1.5, "window_voxels": SSIM_WINDOW, "weights": "gaussian"},
        "degradation": None if sampling.degradation is None else asdict(sampling.degradation),
        "sharing": str(sampling.sharing),
        "seed": sampling.seed,
        "tiling": None if options.tiling is None else asdict(options.tiling),
        "precision": str(options.precision).removeprefix("torch."),
    }
    devices = sorted({str(model.device) for model in methods.models.values()})
    return {
        "settings": settings,
        "models": {name: _describe(model) for name, model in methods.models.items()},
        "folders": {name: _scans(folder, studies) for name, folder in methods.folders.items()},
        "segmentation": None if segmentations is None else segmentations.describe(),
        "manifest": manifest.path.name,
        "studies": {study.study_id: _digests(study) for study in studies},
        "masks": {study.study_id: _mask_digests(study) for study in studies},
        LEFT_OUT: {study.study_id: _reason(study, studies) for study in manifest if study not in studies},
        "statistics": {
            "test": "Wilcoxon signed-rank, two-sided",
            "correction": "Holm",
            "interval": "BCa 95 %",
        },
        "devices": devices,
        "versions": {package: version(package) for package in PACKAGES}
        | {"python": platform.python_version()},
    }


def check_same_run(folder: Path, record: dict[str, Any], cases: Sequence[Case]) -> None:
    """Checks a record against the one in the folder, and writes it.

    Args:
        folder: The evaluation folder.
        record: The result of `provenance`.
        cases: The rows of the folder.

    Raises:
        ConflictError: The folder holds results of other settings, of another model or folder of a name, or of
            another segmenter, or a finished study has changed.
        FormatError: The record in the folder is damaged.
        NotFoundError: The folder has rows and no record.
    """
    path = folder / PROVENANCE
    record = json.loads(json.dumps(record))
    if cases:
        if not path.exists():
            raise NotFoundError(f"{folder}: has results but no {PROVENANCE}; choose another output folder")
        try:
            recorded = json.loads(path.read_text(encoding="utf-8"))
            differing = _differing(recorded, record, cases)
            studies, masks = recorded["studies"], recorded["masks"]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise FormatError(
                f"{path}: is not the record of an evaluation; choose another output folder"
            ) from None
        if differing:
            raise ConflictError(
                f"{folder}: holds an evaluation with other settings ({', '.join(differing)}); "
                "choose another output folder"
            )
        finished = sorted({case.study_id for case in cases if _has_value(case)})
        changed = [name for name in finished if studies.get(name) != record["studies"].get(name)]
        if changed:
            raise ConflictError(
                f"{folder}: the scans of study {changed[0]} have changed since it was evaluated "
                f"({len(changed)} such studies); choose another output folder"
            )
        compared = sorted({case.study_id for case in cases if _was_segmented(case)})
        changed = [name for name in compared if masks.get(name) != record["masks"].get(name)]
        if changed:
            raise ConflictError(
                f"{folder}: the reference masks of study {changed[0]} have changed since it was segmented "
                f"({len(changed)} such studies); choose another output folder"
            )
        if masks != record["masks"]:
            (folder / SWAP_TABLE).unlink(missing_ok=True)  # it was measured in the old masks
    write_text(path, json.dumps(record, indent=2) + "\n")


def _differing(recorded: dict[str, Any], record: dict[str, Any], cases: Sequence[Case]) -> list[str]:
    """Settings, models, folders and segmentation of the rows that differ from today's."""
    before, now = recorded["settings"], record["settings"]
    differing = [name for name in now if before.get(name) != now[name]]
    used = {case.method for case in cases if not math.isnan(case.psnr_db)}
    models = recorded["models"].items()
    differing += [
        f"model {name}" for name, model in models if name in used and record["models"].get(name) != model
    ]
    folders = {name for which in (recorded, record) for name in which["folders"]}
    for name in sorted(used & folders):
        scored = [case.study_id for case in cases if case.method == name and not math.isnan(case.psnr_db)]
        old, new = (which["folders"].get(name, {}) for which in (recorded, record))
        if any(old.get(study) != new.get(study) for study in scored):
            differing.append(f"folder {name}")
    if any(map(_was_segmented, cases)) and recorded["segmentation"] != record["segmentation"]:
        differing.append("segmentation")
    return differing


def _has_value(case: Case) -> bool:
    return not (math.isnan(case.psnr_db) and math.isnan(case.dsc))


def _was_segmented(case: Case) -> bool:
    """Whether a row holds the result or the failure of a segmentation."""
    return not math.isnan(case.dsc) or (bool(case.failure) and not math.isnan(case.psnr_db))


def _scans(folder: Path, studies: Sequence[Study]) -> dict[str, str]:
    files = {study.study_id: folder / f"{study.study_id}.nii.gz" for study in studies}
    return {name: scan_digest(file) for name, file in files.items() if file.is_file()}


def _reason(study: Study, studies: Sequence[Study]) -> str:
    """The reason why a study is not evaluated."""
    return FAILED if study.split in {other.split for other in studies} else f"split {study.split}"


def _mask_digests(study: Study) -> dict[str, str]:
    named = {column: split_labels(path) for column, path in study.masks.items()}
    return {column: str(join_labels(scan_digest(file), labels)) for column, (file, labels) in named.items()}


def _digests(study: Study) -> dict[str, str]:
    return {str(phase): scan_digest(study.file(phase)) for phase in study.phases}


def scan_digest(path: Path) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of a scan's file, or of all its files together."""
    first, *others = [file_digest(file) for file in content_files(path)]
    whole = hashlib.sha256("".join([first, *others]).encode()).hexdigest() if others else first
    return whole[:16]


def _describe(model: EvaluatedModel) -> dict[str, Any]:
    digest = hashlib.sha256()
    for name, tensor in model.network.state_dict().items():
        digest.update(name.removeprefix("network.").encode())  # equal for a model and its phase subsets
        digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return model.description | {"weights_sha256": digest.hexdigest()[:16]}
