"""What an evaluation was made from: enough to repeat it, and to tell another one apart."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mpfnl.data.manifest import Manifest, Study
from mpfnl.data.recipe import Recipe
from mpfnl.errors import InputError
from mpfnl.files import file_digest, write_text
from mpfnl.inference.enhance import EnhanceOptions
from mpfnl.models.enhancement import EnhancementModule
from mpfnl.phases import Phase
from mpfnl.volumes import content_files

FILE = "provenance.json"
LEFT_OUT = "left_out"
FAILED = "its preparation failed"
PACKAGES = ("mpfnl", "torch", "lightning", "torchio", "torchmetrics", "nibabel", "numpy", "scipy")


def provenance(
    manifest: Manifest,
    studies: Sequence[Study],
    models: Mapping[str, EnhancementModule],
    recipe: Recipe,
    options: EnhanceOptions,
) -> dict[str, Any]:
    """The record of an evaluation, as JSON values.

    `settings` and the digests of the studies define the results; the rest is told beside them.

    Args:
        manifest: The cohort.
        studies: Those that are evaluated.
        models: By name.
        recipe: How studies are degraded.
        options: How they are enhanced.
    """
    settings = {
        "target": str(recipe.target),
        "window_hu": asdict(recipe.window),
        "data_range": 1.0,
        "region": "whole volume",
        "ssim": {"sigma_voxels": 1.5, "window_voxels": 11, "weights": "gaussian"},
        "degradation": None if recipe.degradation is None else asdict(recipe.degradation),
        "sharing": str(recipe.sharing),
        "seed": recipe.seed,
        "tiling": asdict(options.tiling),
        "precision": str(options.precision).removeprefix("torch."),
        "models": {name: _describe(model) for name, model in models.items()},
    }
    devices = sorted({str(model.device) for model in models.values()})
    return {
        "settings": settings,
        "manifest": manifest.path.name,
        "studies": {study.study_id: _digests(study) for study in studies},
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


def check_same_run(folder: Path, record: dict[str, Any], finished: Collection[str]) -> None:
    """Checks a record against the one in the folder, and writes it.

    Args:
        folder: The evaluation folder.
        record: What `provenance` returned.
        finished: The studies that the folder has rows of.

    Raises:
        InputError: If the folder holds an evaluation with other settings, or a finished study has changed.
    """
    path = folder / FILE
    record = json.loads(json.dumps(record))
    if path.exists():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            settings, studies = found["settings"], found["studies"]
        except (json.JSONDecodeError, KeyError, TypeError):
            raise InputError(f"{path}: not the record of an evaluation; give another output folder") from None
        differing = [name for name, value in record["settings"].items() if settings.get(name) != value]
        if differing and finished:
            raise InputError(
                f"{folder}: holds an evaluation with other settings ({', '.join(differing)}); "
                "give another output folder"
            )
        changed = [name for name in sorted(finished) if studies.get(name) != record["studies"].get(name)]
        if changed:
            raise InputError(
                f"{folder}: the scans of study {changed[0]} are others than when it was evaluated "
                f"({len(changed)} such); give another output folder"
            )
    write_text(path, json.dumps(record, indent=2) + "\n")


def _reason(study: Study, studies: Sequence[Study]) -> str:
    """Why a study is not among those that are evaluated."""
    return FAILED if study.split in {other.split for other in studies} else f"split {study.split}"


def _digests(study: Study) -> dict[str, str]:
    return {str(phase): scan_digest(study.file(phase)) for phase in Phase}


def scan_digest(path: Path) -> str:
    """The first 16 hexadecimal digits of a scan's SHA-256; of all its files' where it has several."""
    first, *others = [file_digest(file) for file in content_files(path)]
    whole = hashlib.sha256("".join([first, *others]).encode()).hexdigest() if others else first
    return whole[:16]


def _describe(model: EnhancementModule) -> dict[str, Any]:
    digest = hashlib.sha256()
    for name, tensor in model.network.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    arguments = {"model": type(model).__name__, "arguments": model.config}
    return arguments | {"weights_sha256": digest.hexdigest()[:16]}
