"""The verb `mpfnl.enhance`: one study through a model or through weights by their name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

from mpfnl.models.enhancement import EnhancementModule
from mpfnl.models.loading import load_model
from mpfnl.phases import Phase

if TYPE_CHECKING:
    import torch

    from mpfnl.inference.tiling import Tiling
    from mpfnl.volumes import Volume


class EnhanceArguments(TypedDict, total=False):
    """Options of `enhance`, as `EnhancementModule.enhance` takes them."""

    tiling: Tiling | None
    precision: torch.dtype | None
    progress: bool
    self_ensemble: bool
    max_memory: int | None
    strength: float | None


def enhance(
    model: EnhancementModule | str | Path,
    scans: Mapping[Phase | str, str | Path | Volume],
    output: str | Path | None = None,
    **options: Unpack[EnhanceArguments],
) -> Volume:
    """Enhances the target phase of one study.

    HU and geometry are kept. Voxels that truly lie outside of the model's HU window (bone, gas, metal, bright
    vessels) keep the input's HU.

    Args:
        model: Model, or its weights: a weights folder, a Lightning checkpoint, the name of shipped weights or
            `owner/name` on the Hugging Face Hub.
        scans: File, DICOM folder or `Volume` in HU for each phase, on one grid. Phases that the model does
            not take are ignored.
        output: File for the result (`.nii` or `.nii.gz`); not written if None.
        options: Tiling, precision, progress bar, self-ensemble, memory limit and strength, as for
            `EnhancementModule.enhance`.

    Returns:
        Enhanced scan in HU, on the target phase's grid or, for a model with a `scale`, on the finer one.

    Raises:
        InputError: If a phase is missing, a file or the weights cannot be used, or memory does not suffice.
        ValueError: If a phase is unknown.

    >>> import numpy as np
    >>> from mpfnl import PFNL3D
    >>> from mpfnl.volumes import Volume
    >>> model = PFNL3D(features=4, blocks=1)  # not trained: it returns the portal venous scan
    >>> scan = Volume.from_array(np.full((24, 24, 8), 60, np.int16), np.diag([0.8, 0.8, 5.0, 1.0]))
    >>> enhanced = enhance(model, {phase: scan for phase in model.phases})
    >>> enhanced.shape, enhanced.data.dtype, int(enhanced.data.mean())
    ((24, 24, 8), dtype('int16'), 60)
    """
    loaded = model if isinstance(model, EnhancementModule) else load_model(model)
    return loaded.enhance(scans, output, **options)
