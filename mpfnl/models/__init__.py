"""The LightningModules."""

from mpfnl.models.enhancement import EnhancementModule
from mpfnl.models.muon import Muon
from mpfnl.models.pfnl3d import PFNL3D
from mpfnl.models.rcan3d import RCAN3D
from mpfnl.models.record import Score, TrainingRecord
from mpfnl.models.sources import shipped_weights

__all__ = ["PFNL3D", "RCAN3D", "EnhancementModule", "Muon", "Score", "TrainingRecord", "shipped_weights"]
