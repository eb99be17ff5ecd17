"""Networks with drawn weights, and networks whose attention is taken out."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class NoAttention(nn.Module):
    """In place of channel attention: only its skip."""

    def forward(self, features: Tensor, skip: Tensor) -> Tensor:
        return features + skip


def without_attention(network: nn.Module) -> nn.Module:
    """The network with its channel attention taken out."""
    for module in network.modules():
        if "attention" in dict(module.named_children()):
            module.attention = NoAttention()
    return network.eval()


def drawn(network: nn.Module) -> nn.Module:
    """The network with weights that change what goes in, those of the non-local block included."""
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        fan_in = parameter[0].numel() if parameter.ndim > 1 else 50**2
        nn.init.normal_(parameter, std=fan_in**-0.5, generator=generator)
    return network.eval()
