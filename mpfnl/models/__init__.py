"""The LightningModules."""

from mpfnl.models.enhancement import EnhancementModule
from mpfnl.models.pfnl3d import PFNL3D
from mpfnl.models.rcan3d import RCAN3D

__all__ = ["PFNL3D", "RCAN3D", "EnhancementModule"]
