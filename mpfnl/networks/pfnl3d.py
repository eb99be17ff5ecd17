"""PFNL3D: the 3D progressive-fusion non-local network."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from mpfnl.networks.nonlocal_block import NonLocalBlock3D, NonLocalMode, NonLocalModeName
from mpfnl.networks.upscale import DepthToSpace, check_scale
from mpfnl.phases import Features, PhaseBatch, Reshaped, TargetBatch

SLOPE = 0.2  # of the leaky ReLU


def _activate(features: Features) -> Features:
    # In place: a convolution does not keep its output for the backward pass.
    return functional.leaky_relu(features, SLOPE, inplace=True)


def merge_phases(features: Features, convolution: nn.Conv3d, phases: int) -> Reshaped:
    """A convolution over the concatenated phases, without the concatenation.

    The weights are cut into one slab a phase and the products are summed.

    Args:
        features: `(phases * batch, C, x, y, z)`, phase-major.
        convolution: From `phases * C` channels.
        phases: Number of phases.

    Returns:
        `(batch, out_channels, x, y, z)`.
    """
    weights = convolution.weight.chunk(phases, dim=1)
    padding = convolution.weight.shape[-1] // 2
    each = features.chunk(phases, dim=0)
    merged = functional.conv3d(each[0], weights[0], convolution.bias, padding=padding)
    for phase, weight in zip(each[1:], weights[1:], strict=True):
        merged = merged + functional.conv3d(phase, weight, padding=padding)
    return merged


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

    def forward(self, features: Features) -> Features:
        """Applies the block.

        Args:
            features: `(phases * batch, features, x, y, z)`, phase-major.

        Returns:
            The same shape.
        """
        each = _activate(self.conv1(features))
        merged = _activate(merge_phases(each, self.merge, self.phases))
        weight_merged, weight_each = self.conv2.weight.split(self.features, dim=1)
        shared = functional.conv3d(merged, weight_merged, self.conv2.bias, padding=1)
        own = functional.conv3d(each, weight_each, padding=1)
        joined = own.unflatten(0, (self.phases, -1)) + shared
        return features + _activate(joined.flatten(0, 1))


class PFNL3DNet(nn.Module):
    """Fuses the phases of a study into one better phase (arXiv 2501.14013, section II.D).

    A non-local block over all phases, a 5x5x5 convolution shared by the phases, progressive fusion
    blocks, a 3x3x3 merge and an output convolution; the result is added to the target phase's input.
    About 7.2 M parameters with the defaults. The output convolution starts at zero, so a new network
    returns the target phase as it came.

    Args:
        phases: Number of phases P.
        target: Index of the phase to enhance.
        features: Channels of each phase in the trunk.
        blocks: Number of progressive fusion blocks.
        nonlocal_mode: See `NonLocalBlock3D`; None leaves the block out.
        nonlocal_factor: Edge of the block's folded cube, r.
        scale: 1 (same grid), 2 or 4 (a grid so many times finer along each axis).

    Raises:
        ValueError: If the target is not one of the phases, or the scale is not 1, 2 or 4.
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
        # Xavier, as the published 2D code; leaving the non-local block as it is, which starts at zero.
        for name, module in self.named_modules():
            if isinstance(module, nn.Conv3d) and not name.startswith("nonlocal_block"):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        last = self.reconstruct[-1 if self.scale == 1 else -2]
        if isinstance(last, nn.Conv3d):
            nn.init.zeros_(last.weight)

    def forward(self, phases: PhaseBatch) -> TargetBatch:
        """Enhances a batch.

        Args:
            phases: `(batch, P, x, y, z)` in [0, 1], in stacking order.

        Returns:
            `(batch, 1, scale * x, scale * y, scale * z)`, not clipped.

        Raises:
            ValueError: If the number of phases differs from the network's.
        """
        if phases.shape[1] != self.phases:
            raise ValueError(f"this network fuses {self.phases} phases, not {phases.shape[1]}")
        mixed = self.nonlocal_block(phases)
        single = mixed.transpose(0, 1).flatten(0, 1).unsqueeze(1)  # phase-major: (P * batch, 1, x, y, z)
        trunk = self.trunk(_activate(self.first(single)))
        residual = self.reconstruct(_activate(merge_phases(trunk, self.merge, self.phases)))
        skip = phases[:, self.target : self.target + 1]
        return self._interpolate(skip) + residual

    def _interpolate(self, skip: Tensor) -> Tensor:
        if self.scale == 1:
            return skip
        return functional.interpolate(skip, scale_factor=self.scale, mode="trilinear", align_corners=False)


def _reconstruction(features: int, scale: int) -> list[nn.Module]:
    if scale == 1:
        return [nn.Conv3d(features, 1, 3, padding=1)]
    if scale == 2:
        return [nn.Conv3d(features, 8, 3, padding=1), DepthToSpace(2)]
    shuffled = features // 8
    return [DepthToSpace(2), nn.Conv3d(shuffled, 8, 3, padding=1), DepthToSpace(2)]
