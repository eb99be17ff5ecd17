"""Multiphase abdominal CT enhancement: three degraded phases in, one better portal venous scan out.

Everything named here loads when it is first used, so that `import mpfnl` is cheap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpfnl.lazy import all_names, lazy_names

if TYPE_CHECKING:
    from mpfnl.data.datamodule import MultiphaseDataModule
    from mpfnl.models.pfnl3d import PFNL3D
    from mpfnl.models.rcan3d import RCAN3D
    from mpfnl.phases import Phase

__version__ = "0.1.0"

__all__ = ["PFNL3D", "RCAN3D", "MultiphaseDataModule", "Phase", "__version__"]

_HOMES = {
    "PFNL3D": "mpfnl.models.pfnl3d",
    "RCAN3D": "mpfnl.models.rcan3d",
    "MultiphaseDataModule": "mpfnl.data.datamodule",
    "Phase": "mpfnl.phases",
}
__getattr__ = lazy_names(__name__, _HOMES)
__dir__ = all_names(__name__, _HOMES)
