"""One study through a model: files or volumes in HU in, the enhanced scan in HU out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mpfnl.errors import InputError
from mpfnl.inference.progress import track
from mpfnl.inference.restore import restore_hu
from mpfnl.inference.tiling import Tiling, tiled_forward
from mpfnl.phases import Phase, Window
from mpfnl.volumes import Volume, check_output, check_same_grid, phase_name, read_volume, write_volume

Source: TypeAlias = str | Path | Volume
"""A phase's scan: a NIfTI file, or a volume in memory."""


class Enhancer(Protocol):
    """What a model must say of itself to enhance a study."""

    @property
    def network(self) -> nn.Module:
        """Takes `(1, P, x, y, z)` in [0, 1], returns `(1, 1, x, y, z)`."""

    @property
    def phases(self) -> Sequence[Phase]:
        """The phases that the network takes, in stacking order."""

    @property
    def target(self) -> Phase:
        """The phase that it restores."""

    @property
    def window(self) -> Window:
        """The HU window of its input."""


@dataclass(frozen=True)
class EnhanceOptions:
    """How a study is enhanced.

    Args:
        tiling: Tile and overlap in voxels.
        precision: Of the convolutions; chosen by the device if None.
        progress: Show a progress bar.
    """

    tiling: Tiling = field(default_factory=Tiling)
    precision: torch.dtype | None = None
    progress: bool = False


def enhance_study(
    model: Enhancer,
    sources: Mapping[Phase, Source],
    output: str | Path | None = None,
    options: EnhanceOptions | None = None,
) -> Volume:
    """Enhances the target phase of one study.

    Args:
        model: A model of this package, or anything that has its attributes.
        sources: A scan for each phase that the model takes; others are not read.
        output: Where to write the result (`.nii` or `.nii.gz`); not written if None.
        options: How.

    Returns:
        The enhanced scan in HU: the target phase's grid and number type.

    Raises:
        InputError: If a phase is missing, a file cannot be used, the phases lie on different grids, or the
            output is one of the inputs.
    """
    options = options or EnhanceOptions()
    _check_model(model)
    _check_phases(model, sources)
    if output is not None:
        files = [source.path if isinstance(source, Volume) else source for source in sources.values()]
        check_output(output, files)
    volumes = {phase: _load(sources[phase], phase) for phase in model.phases}
    target = volumes[model.target]
    check_same_grid(target, [volumes[phase] for phase in model.phases if phase is not model.target])
    unit = enhance_arrays(model, [volumes[phase].data for phase in model.phases], options)
    enhanced = replace(target, data=restore_hu(target.data, unit, model.window))
    if output is not None:
        write_volume(output, enhanced.data, like=target)
    return enhanced


def enhance_arrays(
    model: Enhancer, phases: Sequence[NDArray[np.generic]], options: EnhanceOptions
) -> NDArray[np.float32]:
    """Runs the network over phases in HU.

    Args:
        model: As for `enhance_study`.
        phases: HU `(x, y, z)` of each phase of the model, in its order.
        options: How.

    Returns:
        `(x, y, z)` in [0, 1].
    """
    stacked = torch.stack([model.window.normalize(torch.as_tensor(hu).float()) for hu in phases])
    network = model.network
    was_training = network.training
    network.eval()
    try:
        progress = _progress if options.progress else None
        unit = tiled_forward(network, stacked, options.tiling, options.precision, progress)
    finally:
        network.train(was_training)
    if not torch.isfinite(unit).all():
        raise InputError(
            f"this {type(model).__name__} gives NaN: its weights are damaged or its training diverged"
        )
    return unit.numpy()


def _progress(corners: Iterable[tuple[int, ...]], total: int) -> Iterable[tuple[int, ...]]:
    return track(corners, total, "enhancing")


def _load(source: Source, phase: Phase) -> Volume:
    return source if isinstance(source, Volume) else read_volume(source, phase)


def _check_model(model: Enhancer) -> None:
    scale = getattr(model.network, "scale", 1)
    if scale != 1:
        raise InputError(
            f"this {type(model).__name__} has scale {scale}; whole volumes are enhanced on their own grid "
            "only (scale 1)"
        )


def _check_phases(model: Enhancer, sources: Mapping[Phase, Source]) -> None:
    missing = [phase for phase in model.phases if phase not in sources]
    if missing:
        named = " and ".join(f"the {phase_name(phase)}" for phase in missing)
        verb = "is" if len(missing) == 1 else "are"
        options = " ".join(f"--{phase.replace('_', '-')} FILE" for phase in missing)
        raise InputError(
            f"{named} {verb} missing: this {type(model).__name__} takes {len(model.phases)} phases; "
            f"give {options}"
        )
