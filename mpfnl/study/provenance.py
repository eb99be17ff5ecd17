"""What an evaluation was made from: enough to repeat it, and to tell another one apart."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mpfnl.data.manifest import Manifest, Study
from mpfnl.data.patches import Recipe
from mpfnl.errors import InputError
from mpfnl.files import write_text
from mpfnl.inference.tiling import Tiling
from mpfnl.models.enhancement import EnhancementModule
from mpfnl.phases import Phase

FILE = "provenance.json"
PACKAGES = ("mpfnl", "torch", "lightning", "torchio", "torchmetrics", "nibabel", "numpy", "scipy")


def provenance(
    manifest: Manifest,
    studies: Sequence[Study],
    models: Mapping[str, EnhancementModule],
    recipe: Recipe,
    tiling: Tiling,
) -> dict[str, Any]:
    """The record of an evaluation, as JSON values.

    `settings` defines the results: an evaluation with other settings is another evaluation. `versions`
    is told beside it.
    """
    others = [study.study_id for study in manifest if study not in studies]
    settings = {
        "manifest": manifest.path.name,
        "studies": {
            study.study_id: {str(phase): file_digest(study.file(phase)) for phase in Phase}
            for study in studies
        },
        "not_in_this_split": others,
        "target": str(recipe.target),
        "window_hu": {"level": recipe.window.level, "width": recipe.window.width},
        "data_range": 1.0,
        "region": "whole volume",
        "ssim": {"sigma_voxels": 1.5, "window_voxels": 11, "weights": "gaussian"},
        "degradation": None if recipe.degradation is None else asdict(recipe.degradation),
        "seed": recipe.seed,
        "tiling": asdict(tiling),
        "models": {name: _describe(model) for name, model in models.items()},
        "statistics": {
            "test": "Wilcoxon signed-rank, two-sided",
            "correction": "Holm",
            "interval": "BCa 95 %",
        },
    }
    versions = {package: version(package) for package in PACKAGES}
    return {"settings": settings, "versions": versions | {"python": platform.python_version()}}


def check_same_run(folder: Path, record: dict[str, Any]) -> None:
    """Writes the record, or checks it against the one in the folder.

    Raises:
        InputError: If the folder holds an evaluation with other settings.
    """
    path = folder / FILE
    record = json.loads(json.dumps(record))
    if path.exists():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))["settings"]
        except (json.JSONDecodeError, KeyError, TypeError):
            raise InputError(f"{path}: not the record of an evaluation; give another output folder") from None
        differing = [name for name, value in record["settings"].items() if found.get(name) != value]
        if differing:
            raise InputError(
                f"{folder}: holds an evaluation with other settings ({', '.join(differing)}); "
                "give another output folder"
            )
    write_text(path, json.dumps(record, indent=2) + "\n")


def file_digest(path: Path) -> str:
    """The first 16 hexadecimal digits of a file's SHA-256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _describe(model: EnhancementModule) -> dict[str, Any]:
    digest = hashlib.sha256()
    for name, tensor in model.network.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    arguments = {"model": type(model).__name__, "arguments": model.config}
    return arguments | {"weights_sha256": digest.hexdigest()[:16]}
