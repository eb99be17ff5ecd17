"""Multiphase abdominal CT enhancement: three degraded phases in, one better portal venous scan out.

Everything named here loads when it is first used, so that `import mpfnl` is cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mpfnl.data.datamodule import MultiphaseDataModule
    from mpfnl.models.pfnl3d import PFNL3D
    from mpfnl.models.rcan3d import RCAN3D
    from mpfnl.phases import Phase

__version__ = "0.1.0"

__all__ = ["PFNL3D", "RCAN3D", "MultiphaseDataModule", "Phase", "__version__"]

_HOME = {
    "PFNL3D": "mpfnl.models.pfnl3d",
    "RCAN3D": "mpfnl.models.rcan3d",
    "MultiphaseDataModule": "mpfnl.data.datamodule",
    "Phase": "mpfnl.phases",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
