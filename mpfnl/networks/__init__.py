"""The networks as plain modules that need torch only."""

from mpfnl.networks.nonlocal_block import NonLocalBlock3D, NonLocalMode, NonLocalModeName
from mpfnl.networks.pfnl3d import PFNL3DNet
from mpfnl.networks.rcan3d import RCAN3DNet

__all__ = ["NonLocalBlock3D", "NonLocalMode", "NonLocalModeName", "PFNL3DNet", "RCAN3DNet"]
