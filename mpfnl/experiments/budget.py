"""What a training may spend, and where it runs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch

from mpfnl.inference.runner import preferred_precision

MOST_SEED = 2**32 - 1  # of PyTorch's and NumPy's generators
LEAST_PATCH = 11  # voxels: the window of SSIM, which scores validation patches


@dataclass(frozen=True)
class TrainingBudget:
    """What a training may spend: the same for all models that are compared. The defaults are the paper's.

    Args:
        epochs: How many.
        patches_per_study: Training patches a study and epoch; the paper does not say.
        batch_size: Patches a step.
        patch_size: Edge of a patch in voxels; the paper does not say.
        seed: Of the first weights, the patches and their degradation.

    Raises:
        ValueError: If a number is not positive, a patch too small to be scored, or the seed out of range.
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
                raise ValueError(f"{name} {value}: give {least} or more")
        if self.seed > MOST_SEED:
            raise ValueError(f"seed {self.seed}: give at most {MOST_SEED}")

    def steps_per_epoch(self, studies: int) -> int:
        """Training steps an epoch over so many studies; patches that do not fill a batch are left out."""
        return max(1, studies * self.patches_per_study // self.batch_size)


@dataclass(frozen=True)
class Machine:
    """Where a training runs.

    Args:
        device: One CPU or GPU.
        precision: Of the convolutions, bfloat16 or float32; chosen by the device if None.
        workers: Processes that make samples, which do not depend on it; by the cores if None.
    """

    device: torch.device
    precision: torch.dtype | None = None
    workers: int | None = None

    @property
    def computed_in(self) -> torch.dtype:
        """The precision of the convolutions."""
        return self.precision or preferred_precision(self.device)

    def describe(self) -> dict[str, Any]:
        """The device as JSON values."""
        cuda = self.device.type == "cuda"
        name = torch.cuda.get_device_name(self.device) if cuda else f"{torch.get_num_threads()} threads"
        return {"device": str(self.device), "device_name": name}
