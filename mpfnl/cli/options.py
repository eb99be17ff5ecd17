"""Options that several commands have, from words to what they mean."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from mpfnl.errors import InputError

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


def chosen_device(name: str) -> torch.device:
    """The device of `--device`; auto is a GPU where there is one.

    Raises:
        InputError: This machine has no such device.
    """
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        raise InputError(f"--device {name}: this machine has no such device; give cpu or auto") from None
    return device


def chosen_precision(precision: Precision) -> torch.dtype | None:
    """The number type of `--precision`; None leaves it to the device."""
    import torch

    chosen = {"bf16": torch.bfloat16, "fp32": torch.float32}
    return chosen.get(precision)


def chosen_tiling(tile: int | None, overlap: int | None) -> Tiling | None:
    """The tiling of `--tile` and `--overlap`, for models of any kind; None leaves it to each.

    Raises:
        InputError: They do not fit.
    """
    from mpfnl.inference.tiling import Tiling

    if tile is None:
        if overlap is not None:
            raise InputError(f"--overlap {overlap}: give --tile too")
        return None
    overlap = tile // 4 if overlap is None else overlap
    try:
        return Tiling(tile, overlap)
    except ValueError as error:
        raise InputError(f"--tile {tile} --overlap {overlap}: {error}") from None


def named_models(models: Sequence[str], device: str) -> dict[str, EvaluatedModel]:
    """The models of `--models NAME=WEIGHTS[@PHASE+...] ...`, loaded.

    Raises:
        InputError: A word is none, a name is there twice, or the weights cannot be used.
    """
    from mpfnl.evaluation.methods import PhaseSubset
    from mpfnl.models.loading import load_model

    place = chosen_device(device)
    named: dict[str, EvaluatedModel] = {}
    for name, word in _pairs("--models", "NAME=WEIGHTS", models):
        path, phases = _given_phases(word)
        model = load_model(path).to(place)
        named[name] = PhaseSubset(model, phases) if phases else model
    return named


def _given_phases(word: str) -> tuple[str, list[Phase]]:
    """The path of WEIGHTS@PHASE+..., and the phases; what follows the @ in another path stays in it."""
    from mpfnl.phases import Phase

    path, _, listed = word.rpartition("@")
    phases = listed.split("+")
    if not path or not all(phase in list(Phase) for phase in phases):
        return word, []
    return path, [Phase(phase) for phase in phases]


def named_folders(folders: Sequence[str]) -> dict[str, Path]:
    """The folders of `--enhanced NAME=FOLDER ...`.

    Raises:
        InputError: A word is none, a name is there twice, or there is no such folder.
    """
    named = {name: Path(path) for name, path in _pairs("--enhanced", "NAME=FOLDER", folders)}
    for name, folder in named.items():
        if not folder.is_dir():
            raise InputError(f"--enhanced {name}={folder}: there is no such folder")
    return named


def _pairs(option: str, form: str, words: Sequence[str]) -> Iterator[tuple[str, str]]:
    seen = set()
    for word in words:
        name, equals, path = word.partition("=")
        if not equals or not name or not path or name in seen:
            raise InputError(f"{option} {word}: give {form}, each name once")
        seen.add(name)
        yield name, path


def chosen_segmenter(
    segment: Segment, structure: str, phantom_weights: bool, isolated: bool, device: str
) -> TotalSegmentatorSegmenter | None:
    """The segmenter of `--segment`, `--structure`, `--phantom-weights` and `--isolated`; None for none.

    Raises:
        InputError: It does not know the structure, or weights are missing.
        MissingExtraError: TotalSegmentator is not installed.
    """
    from mpfnl.segmentation import TotalSegmentatorSegmenter

    if segment == "no":
        if phantom_weights:
            raise InputError("--phantom-weights: say how to segment with them: --segment fast or full")
        return None
    fast = segment == "fast"
    if phantom_weights:
        return TotalSegmentatorSegmenter.with_phantom_weights([structure], fast=fast, isolated=isolated)
    return TotalSegmentatorSegmenter([structure], fast=fast, device=device, isolated=isolated)
