"""Options that several commands share, and the objects that they stand for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from mpfnl.errors import NotFoundError, OptionError

if TYPE_CHECKING:
    import torch

    from mpfnl.evaluation.methods import EvaluatedModel
    from mpfnl.inference.tiling import Tiling
    from mpfnl.phases import Phase
    from mpfnl.segmentation import TotalSegmentatorSegmenter

Precision: TypeAlias = Literal["auto", "bf16", "fp32"]
Split: TypeAlias = Literal["train", "val", "test"]
Sharing: TypeAlias = Literal["nothing", "acquisition"]
Segment: TypeAlias = Literal["no", "fast", "full"]
TruthName: TypeAlias = Literal["mask", "reference-scan"]


def torch_device(name: str) -> torch.device:
    """The device of `--device`; auto is the GPU where there is one.

    Raises:
        OptionError: This machine has no such device.
    """
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        raise OptionError(f"--device {name}: this machine has no such device; choose cpu or auto") from None
    return device


def torch_precision(precision: Precision) -> torch.dtype | None:
    """The number type of `--precision`; None for auto, which depends on the device."""
    import torch

    return {"bf16": torch.bfloat16, "fp32": torch.float32}.get(precision)


def common_tiling(tile: int | None, overlap: int | None) -> Tiling | None:
    """The tiling of `--tile` and `--overlap` for all models; None if it is chosen for each model.

    Raises:
        OptionError: Tile and overlap contradict each other.
    """
    from mpfnl.inference.tiling import Tiling

    if tile is None:
        if overlap is not None:
            raise OptionError(f"--overlap {overlap}: give --tile too")
        return None
    overlap = tile // 4 if overlap is None else overlap
    try:
        return Tiling(tile, overlap)
    except ValueError as error:
        raise OptionError(f"--tile {tile} --overlap {overlap}: {error}") from None


def load_models(models: Sequence[str], device: str) -> dict[str, EvaluatedModel]:
    """The models of `--models NAME=WEIGHTS[@PHASE+...] ...`, loaded.

    Raises:
        OptionError: A model is not NAME=WEIGHTS, or a name occurs twice.
        InputError: The weights cannot be used.
    """
    from mpfnl.evaluation.methods import PhaseSubset
    from mpfnl.models.loading import load_model

    place = torch_device(device)
    loaded: dict[str, EvaluatedModel] = {}
    for name, weights in _pairs("--models", "NAME=WEIGHTS", models):
        path, phases = _split_phases(weights)
        model = load_model(path).to(place)
        loaded[name] = PhaseSubset(model, phases) if phases else model
    return loaded


def _split_phases(weights: str) -> tuple[str, list[Phase]]:
    """The path and the phases of WEIGHTS@PHASE+...; an @ before anything but phases belongs to the path."""
    from mpfnl.phases import Phase

    path, _, listed = weights.rpartition("@")
    phases = listed.split("+")
    if not path or not all(phase in list(Phase) for phase in phases):
        return weights, []
    return path, [Phase(phase) for phase in phases]


def method_folders(folders: Sequence[str]) -> dict[str, Path]:
    """The folders of `--enhanced NAME=FOLDER ...`.

    Raises:
        OptionError: A folder is not NAME=FOLDER, or a name occurs twice.
        NotFoundError: A folder does not exist.
    """
    paths = {name: Path(path) for name, path in _pairs("--enhanced", "NAME=FOLDER", folders)}
    for name, folder in paths.items():
        if not folder.is_dir():
            raise NotFoundError(f"--enhanced {name}={folder}: there is no such folder")
    return paths


def _pairs(option: str, form: str, values: Sequence[str]) -> Iterator[tuple[str, str]]:
    names = set()
    for value in values:
        name, equals, path = value.partition("=")
        if not equals or not name or not path or name in names:
            raise OptionError(f"{option} {value}: give {form}, each name once")
        names.add(name)
        yield name, path


def make_segmenter(
    segment: Segment, structure: str, phantom_weights: bool, isolated: bool, device: str
) -> TotalSegmentatorSegmenter | None:
    """The segmenter of `--segment`, `--structure`, `--phantom-weights` and `--isolated`; None for `no`.

    Raises:
        InputError: The segmenter does not know the structure, or weights are missing.
        MissingExtraError: TotalSegmentator is not installed.
    """
    from mpfnl.segmentation import TotalSegmentatorSegmenter

    if segment == "no":
        if phantom_weights:
            raise OptionError("--phantom-weights: needs --segment fast or --segment full")
        return None
    fast = segment == "fast"
    if phantom_weights:
        return TotalSegmentatorSegmenter.with_phantom_weights([structure], fast=fast, isolated=isolated)
    return TotalSegmentatorSegmenter([structure], fast=fast, device=device, isolated=isolated)
