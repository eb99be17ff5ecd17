"""The LightningModules and their weights."""

from mpfnl.models.enhancement import EnhancementModule
from mpfnl.models.freezing import FreezeParts
from mpfnl.models.montage import MontageCallback
from mpfnl.models.muon import Muon
from mpfnl.models.pfnl3d import PFNL3D
from mpfnl.models.provenance import TrainingRecord
from mpfnl.models.rcan3d import RCAN3D
from mpfnl.models.sources import shipped_weights

__all__ = [
    "PFNL3D",
    "RCAN3D",
    "EnhancementModule",
    "FreezeParts",
    "MontageCallback",
    "Muon",
    "TrainingRecord",
    "shipped_weights",
]
