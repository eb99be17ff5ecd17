"""Networks as plain modules that need torch only, and their registry by name."""

from mpfnl.networks.nonlocal_block import NonLocalBlock3D
from mpfnl.networks.pfnl3d import PFNL3DNet
from mpfnl.networks.rcan3d import RCAN3DNet
from mpfnl.networks.registry import build_network, network_names, register_network

__all__ = [
    "NonLocalBlock3D",
    "PFNL3DNet",
    "RCAN3DNet",
    "build_network",
    "network_names",
    "register_network",
]
