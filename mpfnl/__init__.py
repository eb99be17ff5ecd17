"""Multiphase abdominal CT enhancement: degraded phases in, one better portal venous scan out.

The verbs `read`, `load`, `enhance` and `evaluate` do the main jobs; the submodules `mpfnl.metrics`,
`mpfnl.transforms`, `mpfnl.ops`, `mpfnl.networks`, `mpfnl.losses` and others serve on their own. Everything
loads on first use, so that `import mpfnl` is quick.

>>> import mpfnl
>>> mpfnl.Phase.ARTERIAL.label
'arterial'
>>> mpfnl.Window(level=60, width=150).lower
-15.0
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpfnl.lazy import all_names, lazy_names

if TYPE_CHECKING:
    from mpfnl import (
        data as data,
    )
    from mpfnl import (
        datasets as datasets,
    )
    from mpfnl import (
        evaluation as evaluation,
    )
    from mpfnl import (
        inference as inference,
    )
    from mpfnl import (
        losses as losses,
    )
    from mpfnl import (
        metrics as metrics,
    )
    from mpfnl import (
        models as models,
    )
    from mpfnl import (
        networks as networks,
    )
    from mpfnl import (
        ops as ops,
    )
    from mpfnl import (
        phantoms as phantoms,
    )
    from mpfnl import (
        prepare as prepare,
    )
    from mpfnl import (
        segmentation as segmentation,
    )
    from mpfnl import (
        transforms as transforms,
    )
    from mpfnl import (
        volumes as volumes,
    )
    from mpfnl.data.datamodule import MultiphaseDataModule
    from mpfnl.evaluation.pipeline import evaluate
    from mpfnl.models.enhance import enhance
    from mpfnl.models.enhancement import EnhancementModule
    from mpfnl.models.loading import load_model as load
    from mpfnl.models.pfnl3d import PFNL3D
    from mpfnl.models.rcan3d import RCAN3D
    from mpfnl.phases import Phase
    from mpfnl.volumes import read_volume as read
    from mpfnl.window import Window

__version__ = "0.1.0"

__all__ = [
    "PFNL3D",
    "RCAN3D",
    "EnhancementModule",
    "MultiphaseDataModule",
    "Phase",
    "Window",
    "__version__",
    "enhance",
    "evaluate",
    "load",
    "read",
]

_HOMES = {
    "EnhancementModule": "mpfnl.models.enhancement",
    "MultiphaseDataModule": "mpfnl.data.datamodule",
    "PFNL3D": "mpfnl.models.pfnl3d",
    "Phase": "mpfnl.phases",
    "RCAN3D": "mpfnl.models.rcan3d",
    "Window": "mpfnl.window",
    "enhance": "mpfnl.models.enhance",
    "evaluate": "mpfnl.evaluation",
    "load": "mpfnl.models.loading:load_model",
    "read": "mpfnl.volumes:read_volume",
}
_MODULES = (
    *("data", "datasets", "evaluation", "inference", "losses", "metrics", "models", "networks", "ops"),
    *("phantoms", "prepare", "segmentation", "transforms", "volumes"),
)
__getattr__ = lazy_names(__name__, _HOMES, _MODULES)
__dir__ = all_names(__name__, _HOMES, _MODULES)
