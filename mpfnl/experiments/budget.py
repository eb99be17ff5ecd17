"""Training budget (epochs, patches, batch, seed), and device and precision of a training."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch

from mpfnl.errors import OptionError
from mpfnl.inference.runner import preferred_precision
from mpfnl.inference.tiling import Tiling

MOST_SEED = 2**32 - 1  # range of PyTorch's and NumPy's generators
LEAST_PATCH = 11  # voxels: the window of SSIM, which scores validation patches


@dataclass(frozen=True)
class TrainingBudget:
    """Training budget, the same for all models that are compared. The defaults are the paper's.

    Args:
        epochs: Number of epochs.
        patches_per_study: Training patches of each study in an epoch; the paper does not state them.
        batch_size: Patches of each training step.
        patch_size: Edge of a patch in voxels; the paper does not state it.
        seed: Seed of the initial weights, the patches and their degradation.

    Raises:
        OptionError: A number is not positive, a patch is too small to be scored, or the seed is out of range.
    """

    epochs: int = 1000
    patches_per_study: int = 16
    batch_size: int = 8
    patch_size: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        least_values = {"seed": 0, "patch_size": LEAST_PATCH}
        for name, value in asdict(self).items():
            least = least_values.get(name, 1)
            if value < least:
                raise OptionError(f"{name} {value}: give {least} or more")
        if self.seed > MOST_SEED:
            raise OptionError(f"seed {self.seed}: give at most {MOST_SEED}")

    def steps_per_epoch(self, studies: int) -> int:
        """Training steps of an epoch; patches that do not fill a batch are left out.

        Args:
            studies: Number of training studies.
        """
        return max(1, studies * self.patches_per_study // self.batch_size)


SMALL_BUDGET = TrainingBudget(epochs=8, patches_per_study=10, batch_size=2)
"""Budget of small networks: minutes on a CPU."""

SMALL_TILING = Tiling(SMALL_BUDGET.patch_size, 8)
"""Tiling of small networks: tiles of the size of their training patches."""


@dataclass(frozen=True)
class Machine:
    """Device and precision of a training.

    Args:
        device: CPU or GPU.
        precision: Number type of the convolutions, bfloat16 or float32; chosen for the device if None.
        workers: Processes that load samples; chosen by the number of cores if None. The samples do not depend
            on it.
    """

    device: torch.device
    precision: torch.dtype | None = None
    workers: int | None = None

    @property
    def computed_in(self) -> torch.dtype:
        """Number type of the convolutions."""
        return self.precision or preferred_precision(self.device)

    def describe(self) -> dict[str, Any]:
        """Name of the device, as JSON values."""
        cuda = self.device.type == "cuda"
        name = torch.cuda.get_device_name(self.device) if cuda else f"{torch.get_num_threads()} threads"
        return {"device": str(self.device), "device_name": name}
