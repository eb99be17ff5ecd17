"""Straight ports of the published architectures: the oracle of the tests, the baseline of the benchmarks.

They are written for clarity, not for speed: a concatenation wherever the architecture is drawn with one, and
the whole N x N matrix of the non-local block in memory. The parameters have the names of the library's
networks, so that one state dict serves both.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


def space_to_depth(volume: Tensor, r: int) -> Tensor:
    """Collects the voxels of each r^3 cube as channels, one strided view at a time."""
    channels = []
    for c in range(volume.shape[1]):
        for i in range(r):
            for j in range(r):
                for k in range(r):
                    channels.append(volume[:, c, i::r, j::r, k::r])
    return torch.stack(channels, dim=1)


def depth_to_space(folded: Tensor, r: int) -> Tensor:
    """Writes the channels back to the voxels of each cube, one strided view at a time."""
    batch, channels, x, y, z = folded.shape
    volume = folded.new_zeros(batch, channels // r**3, x * r, y * r, z * r)
    source = 0
    for c in range(channels // r**3):
        for i in range(r):
            for j in range(r):
                for k in range(r):
                    volume[:, c, i::r, j::r, k::r] = folded[:, source]
                    source += 1
    return volume


class NaiveNonLocal(nn.Module):
    def __init__(self, channels: int, r: int = 2, mode: str = "gaussian") -> None:
        super().__init__()
        self.r, self.mode = r, mode
        folded = channels * r**3
        self.g = nn.Conv3d(folded, folded, 1)
        self.w = nn.Conv3d(folded, folded, 1)
        if mode != "gaussian":
            self.theta = nn.Conv3d(folded, folded, 1)
            self.phi = nn.Conv3d(folded, folded, 1)

    def forward(self, volume: Tensor) -> Tensor:
        folded = space_to_depth(volume, self.r)
        batch, channels = folded.shape[:2]
        theta = folded if self.mode == "gaussian" else self.theta(folded)
        phi = folded if self.mode == "gaussian" else self.phi(folded)
        theta = theta.reshape(batch, channels, -1).permute(0, 2, 1)
        phi = phi.reshape(batch, channels, -1)
        g = self.g(folded).reshape(batch, channels, -1).permute(0, 2, 1)
        scores = torch.matmul(theta, phi)
        weights = scores / scores.shape[-1] if self.mode == "dot_product" else torch.softmax(scores, dim=-1)
        y = torch.matmul(weights, g).permute(0, 2, 1).reshape(folded.shape)
        return volume + depth_to_space(self.w(y), self.r)


class NaiveFusionBlock(nn.Module):
    def __init__(self, features: int, phases: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(features, features, 3, padding=1)
        self.merge = nn.Conv3d(phases * features, features, 1)
        self.conv2 = nn.Conv3d(2 * features, features, 3, padding=1)
        self.act = nn.LeakyReLU(0.2)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        own = [self.act(self.conv1(m)) for m in maps]
        base = self.act(self.merge(torch.cat(own, dim=1)))
        joined = [self.act(self.conv2(torch.cat([base, m], dim=1))) for m in own]
        return [m + j for m, j in zip(maps, joined, strict=True)]


class NaivePFNL3D(nn.Module):
    """PFNL (Yi et al., ICCV 2019, figure 2) with three spatial axes, standardised as Chen et al. (2021)."""

    def __init__(
        self,
        phases: int = 3,
        target: int = 2,
        features: int = 64,
        blocks: int = 20,
        mode: str = "gaussian",
        r: int = 2,
    ) -> None:
        super().__init__()
        self.target = target
        self.nonlocal_block = NaiveNonLocal(phases, r, mode)
        self.first = nn.Conv3d(1, features, 5, padding=2)
        self.trunk = nn.ModuleList([NaiveFusionBlock(features, phases) for _ in range(blocks)])
        self.merge = nn.Conv3d(phases * features, features, 3, padding=1)
        self.reconstruct = nn.ModuleList([nn.Conv3d(features, 1, 3, padding=1)])
        self.act = nn.LeakyReLU(0.2)

    def forward(self, phases: Tensor) -> Tensor:
        mixed = self.nonlocal_block(phases)
        standard = (mixed - 0.5) / 0.5
        maps = [self.act(self.first(standard[:, p : p + 1])) for p in range(mixed.shape[1])]
        for block in self.trunk:
            maps = block(maps)
        merged = self.act(self.merge(torch.cat(maps, dim=1)))
        return phases[:, self.target : self.target + 1] + self.reconstruct[0](merged) * 0.5


class NaiveRCAB(nn.Module):
    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv3d(channels, channels, 3, padding=1)
        self.attention = nn.ModuleDict(
            {
                "squeeze": nn.Conv3d(channels, channels // reduction, 1),
                "excite": nn.Conv3d(channels // reduction, channels, 1),
            }
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(torch.relu(self.conv1(x)))
        pooled = nn.functional.adaptive_avg_pool3d(y, 1)
        gate = torch.sigmoid(self.attention["excite"](torch.relu(self.attention["squeeze"](pooled))))
        return x + gate * y


class NaiveGroup(nn.Module):
    def __init__(self, channels: int, blocks: int, reduction: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([NaiveRCAB(channels, reduction) for _ in range(blocks)])
        self.conv = nn.Conv3d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for block in self.blocks:
            y = block(y)
        return x + self.conv(y)


class NaiveRCAN3D(nn.Module):
    """RCAN (Zhang et al., ECCV 2018, figure 2) with three spatial axes and no upscaling."""

    def __init__(
        self, phases: int = 1, channels: int = 32, groups: int = 5, blocks: int = 3, reduction: int = 8
    ) -> None:
        super().__init__()
        self.first = nn.Conv3d(phases, channels, 3, padding=1)
        self.groups = nn.ModuleList([NaiveGroup(channels, blocks, reduction) for _ in range(groups)])
        self.body_end = nn.Conv3d(channels, channels, 3, padding=1)
        self.last = nn.Conv3d(channels, 1, 3, padding=1)

    def forward(self, phases: Tensor) -> Tensor:
        shallow = self.first((phases - 0.5) / 0.5)
        deep = shallow
        for group in self.groups:
            deep = group(deep)
        deep = shallow + self.body_end(deep)
        return self.last(deep) * 0.5 + 0.5


NAIVE: dict[str, Callable[..., nn.Module]] = {"PFNL3D": NaivePFNL3D, "RCAN3D": NaiveRCAN3D}
"""Straight ports by the names of the registered networks."""
