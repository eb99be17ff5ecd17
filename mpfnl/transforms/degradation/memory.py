"""Memory for whole volumes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def empty(shape: Sequence[int], device: torch.device | str) -> Tensor:
    """An uninitialised float32 tensor; on the CPU in memory that NumPy allocates.

    What PyTorch allocates is aligned, and glibc before 2.38 seldom uses such memory again: a volume's pages
    would be fresh each time, and a fresh page takes longer than all that is computed on it.
    """
    if torch.device(device).type == "cpu":
        return torch.from_numpy(np.empty(tuple(shape), np.float32))
    return torch.empty(tuple(shape), device=device)
