"""PFNL3D: the 3D progressive-fusion non-local network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from mpfnl.networks.capabilities import Capabilities
from mpfnl.networks.layers import DepthToSpace, check_scale, run_blocks
from mpfnl.networks.nonlocal_block import NonLocalBlock3D, NonLocalMode, NonLocalModeName
from mpfnl.networks.registry import register_network
from mpfnl.ops.convolution import convolve_leaky_relu
from mpfnl.ops.groups import (
    add_to_groups,
    convolve_covered_groups_leaky_relu,
    convolve_groups_leaky_relu,
    select_groups,
)
from mpfnl.shapes import Coverage, CoverageMaps, Features, PhaseBatch, Reshaped, TargetBatch

SLOPE = 0.2  # of the leaky ReLU
RESIDUAL_GAIN = 0.1  # of the blocks' second convolutions in a new network


class ProgressiveFusionBlock(nn.Module):
    """One progressive fusion residual block (Yi et al., ICCV 2019, section 3.3, in 3D).

    Per phase a 3x3x3 convolution; all phases merged by 1x1x1; the merged map joined to each phase and
    a second 3x3x3; a residual per phase. The weights are shared by the phases.

    The second convolution over `concat(merged, phase)` is computed as
    `conv_a(merged) + conv_b(phase)`, which is the same sum with `conv_a` done once for all phases.

    Args:
        features: Channels of each phase.
        phases: Number of phases.
    """

    def __init__(self, features: int, phases: int) -> None:
        super().__init__()
        self.features = features
        self.phases = phases
        self.conv1 = nn.Conv3d(features, features, 3, padding=1)
        self.merge = nn.Conv3d(phases * features, features, 1)
        self.conv2 = nn.Conv3d(2 * features, features, 3, padding=1)

    def forward(
        self, features: Features, present: Sequence[int] | None = None, covered: CoverageMaps | None = None
    ) -> Features:
        """Applies the block.

        Args:
            features: Feature maps `(phases * batch, features, x, y, z)`, phase-major, without missing phases.
            present: Ascending indices of the phases that `features` holds; None: all.
            covered: 1 where a phase has the voxel, else 0: `(phases * batch, 1, x, y, z)`; None: everywhere.

        Returns:
            The same shape.
        """
        each = convolve_leaky_relu(self.conv1, features, SLOPE)
        merged = _merge(self.merge, each, self.phases, present, covered)
        weight_merged, weight_each = self.conv2.weight.split(self.features, dim=1)
        shared = functional.conv3d(merged, weight_merged, self.conv2.bias, padding=1)
        own = functional.conv3d(each, weight_each, padding=1)
        count = self.phases if present is None else len(present)
        residual = functional.leaky_relu(add_to_groups(own, shared, count), SLOPE, inplace=True)
        if torch.is_grad_enabled():  # both are kept for the backward pass
            return features + residual
        return residual.add_(features)


def _merge(
    convolution: nn.Conv3d,
    features: Features,
    phases: int,
    present: Sequence[int] | None,
    covered: CoverageMaps | None,
) -> Reshaped:
    bias = convolution.bias
    assert bias is not None
    weight = select_groups(convolution.weight, phases, present)
    count = phases if present is None else len(present)
    if covered is not None:
        return convolve_covered_groups_leaky_relu(features, covered, weight, bias, count, SLOPE)
    return convolve_groups_leaky_relu(features, weight, bias, count, SLOPE)


@register_network("PFNL3D")
class PFNL3DNet(nn.Module):
    """Fuses the phases of a study into one better phase (arXiv 2501.14013, section II.D).

    A non-local block over all phases, a 5x5x5 convolution shared by the phases, progressive fusion
    blocks, a 3x3x3 merge and an output convolution; the result is added to the target phase's input.
    After the non-local block intensities are standardised to [-1, 1], as in `RCAN3DNet`.
    About 7.2 M parameters with the defaults. The output convolution starts at zero, so a new network
    returns the target phase as it came.

    Any phase but the target may be missing. The fusion then leaves out its weights for that phase, and the
    merges over the phases are scaled up for the others (`select_groups`). A network trained with phase
    dropout uses whichever phases it receives.

    A phase may also cover only a part of the target's voxels. Its weights are then left out, and the others
    scaled up, voxel by voxel; where it covers nothing, the result is that without the phase.

    Args:
        phases: Number of phases P.
        target: Index of the phase to enhance.
        features: Channels of each phase in the trunk.
        blocks: Number of progressive fusion blocks.
        nonlocal_mode: Similarity of positions in `NonLocalBlock3D`; None omits the block.
        nonlocal_factor: Edge r of the non-local block's folded cube in voxels.
        scale: Refinement of the output grid along each axis: 1 (the input's grid), 2 or 4.
        activation_checkpointing: Whether training keeps only the input of each fusion block and computes the
            block again in the backward pass: about 0.4 of the memory, a third more time.

    Raises:
        ValueError: If the target is not one of the phases, or the scale is not 1, 2 or 4.

    >>> network = PFNL3DNet(phases=3, target=2, features=8, blocks=1)
    >>> phases = torch.rand(1, 3, 8, 8, 8)
    >>> bool((network(phases) == phases[:, 2:]).all())  # a new network returns the target phase
    True
    """

    def __init__(
        self,
        phases: int = 3,
        target: int = 2,
        features: int = 64,
        blocks: int = 20,
        nonlocal_mode: NonLocalModeName | None = NonLocalMode.GAUSSIAN,
        nonlocal_factor: int = 2,
        scale: int = 1,
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if not 0 <= target < phases:
            raise ValueError(f"target {target} is not one of the {phases} phases")
        check_scale(scale)
        if scale == 4 and features % 8:
            raise ValueError(f"scale 4 needs a number of features that 8 divides, not {features}")
        self.phases = phases
        self.target = target
        self.scale = scale
        self.capabilities = Capabilities(scale, missing_phases=True, coverage=True)
        self.activation_checkpointing = activation_checkpointing
        self.nonlocal_block = (
            nn.Identity()
            if nonlocal_mode is None
            else NonLocalBlock3D(phases, nonlocal_factor, nonlocal_mode)
        )
        self.first = nn.Conv3d(1, features, 5, padding=2)
        self.trunk = nn.Sequential(*(ProgressiveFusionBlock(features, phases) for _ in range(blocks)))
        self.merge = nn.Conv3d(phases * features, features, 3, padding=1)
        self.reconstruct = nn.Sequential(*_reconstruction(features, scale))
        self._initialise()

    def _initialise(self) -> None:
        # He et al. (ICCV 2015), with the blocks' residuals scaled down: it trains faster, at higher rates,
        # than the published 2D code's Xavier (docs/demo.md). The non-local block starts at zero by itself.
        for name, module in self.named_modules():
            if isinstance(module, nn.Conv3d) and not name.startswith("nonlocal_block"):
                nn.init.kaiming_normal_(module.weight, SLOPE)
                if name.endswith("conv2"):
                    module.weight.data.mul_(RESIDUAL_GAIN)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        last = self.reconstruct[-1 if self.scale == 1 else -2]
        if isinstance(last, nn.Conv3d):
            nn.init.zeros_(last.weight)

    def forward(
        self, phases: PhaseBatch, present: Sequence[int] | None = None, covered: Coverage | None = None
    ) -> TargetBatch:
        """Enhances a batch.

        Args:
            phases: Phases `(batch, P, x, y, z)` in [0, 1] in stacking order, without missing phases.
            present: Ascending indices of the phases that `phases` holds, the target's among them; None: all.
            covered: True where a phase has the voxel, `(batch, P, x, y, z)`; None: everywhere. The values of
                other voxels have no influence. The target covers all voxels.

        Returns:
            `(batch, 1, scale * x, scale * y, scale * z)`, not clipped.

        Raises:
            ValueError: If the number of phases differs from the network's, or from those present.
        """
        there = self._check_present(phases.shape[1], present)
        target = self.target if there is None else there.index(self.target)
        skip = phases[:, target : target + 1]
        masks = None
        if covered is not None:
            # The target continues a phase beyond its own voxels: convolutions meet no edge there.
            phases = torch.where(covered, phases, skip)
            masks = _phase_major(covered).to(phases.dtype)
        mixed = _phase_major(self._mix(phases, there, covered))
        features = convolve_leaky_relu(self.first, 2 * mixed - 1, SLOPE)
        features = run_blocks(self.trunk, features, there, masks, checkpointing=self.activation_checkpointing)
        residual = self.reconstruct(_merge(self.merge, features, self.phases, there, masks))
        return self._interpolate(skip) + 0.5 * residual

    def _check_present(self, given: int, present: Sequence[int] | None) -> tuple[int, ...] | None:
        """Indices of the phases that are there; None for all."""
        there = tuple(range(self.phases) if present is None else present)
        if given != len(there):
            raise ValueError(f"this network fuses {len(there)} phases, not {given}")
        if there == tuple(range(self.phases)):
            return None
        if list(there) != sorted(set(there) & set(range(self.phases))) or self.target not in there:
            raise ValueError(
                f"{list(there)}: give some of {self.phases} phases, ascending, with the target {self.target}"
            )
        return there

    def _mix(
        self, phases: PhaseBatch, present: tuple[int, ...] | None, covered: Coverage | None
    ) -> PhaseBatch:
        block = self.nonlocal_block
        return block(phases, present, covered) if isinstance(block, NonLocalBlock3D) else block(phases)

    def _interpolate(self, skip: Tensor) -> Tensor:
        if self.scale == 1:
            return skip
        return functional.interpolate(skip, scale_factor=self.scale, mode="trilinear", align_corners=False)


def _phase_major(volumes: Tensor) -> Tensor:
    """`(batch, P, x, y, z)` to `(P * batch, 1, x, y, z)`."""
    return volumes.transpose(0, 1).flatten(0, 1).unsqueeze(1)


def _reconstruction(features: int, scale: int) -> list[nn.Module]:
    if scale == 1:
        return [nn.Conv3d(features, 1, 3, padding=1)]
    if scale == 2:
        return [nn.Conv3d(features, 8, 3, padding=1), DepthToSpace(2)]
    shuffled = features // 8
    return [DepthToSpace(2), nn.Conv3d(shuffled, 8, 3, padding=1), DepthToSpace(2)]
