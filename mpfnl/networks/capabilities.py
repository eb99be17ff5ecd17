"""Properties of a network that training and inference rely on. The standard library and torch only."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Capabilities:
    """Properties that a network states in its attribute `capabilities`; the defaults hold for all others.

    Args:
        scale: Refinement of the result's grid along each axis: 1 (the input's grid), 2 or 4.
        missing_phases: Whether the network computes without some phases: it then accepts fewer channels
            together with `present=`, the ascending indices of the phases that they hold. The target is
            never missing.
        coverage: Whether the network takes `covered=`, where each phase has voxels, `(batch, P, x, y, z)`.
        whole_tile: Whether each voxel of the result depends on the whole tile, as with attention or
            pooling over space. Inference then keeps to the patch size of the training.
        halo: Border of a tile in voxels that inference discards, because the network sees too little
            beyond it; None: estimated from the network's 3D convolutions. State it for networks that
            downsample, such as U-Nets.

    >>> Capabilities(scale=2)
    Capabilities(scale=2, missing_phases=False, coverage=False, whole_tile=False, halo=None)
    """

    scale: int = 1
    missing_phases: bool = False
    coverage: bool = False
    whole_tile: bool = False
    halo: int | None = None


def network_capabilities(network: nn.Module) -> Capabilities:
    """The capabilities that a network states, also through `torch.compile`; the defaults if it states none.

    >>> network_capabilities(nn.Conv3d(3, 1, 3)).scale
    1
    """
    stated = getattr(network, "capabilities", None)
    return stated if isinstance(stated, Capabilities) else Capabilities()
