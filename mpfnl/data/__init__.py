"""Training data: the manifest of a cohort, and the Lightning data module over it."""

from typing import TYPE_CHECKING

from mpfnl.lazy import all_names, lazy_names

if TYPE_CHECKING:
    from mpfnl.data.datamodule import MultiphaseDataModule
    from mpfnl.data.manifest import Manifest, Split, Study, read_manifest, write_manifest

__all__ = ["Manifest", "MultiphaseDataModule", "Split", "Study", "read_manifest", "write_manifest"]

_HOMES = {
    "Manifest": "mpfnl.data.manifest",
    "MultiphaseDataModule": "mpfnl.data.datamodule",
    "Split": "mpfnl.data.manifest",
    "Study": "mpfnl.data.manifest",
    "read_manifest": "mpfnl.data.manifest",
    "write_manifest": "mpfnl.data.manifest",
}

__getattr__ = lazy_names(__name__, _HOMES)
__dir__ = all_names(__name__, _HOMES)
