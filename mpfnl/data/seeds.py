"""Seeds from what a sample is, not from when or where it is made."""

from __future__ import annotations

import hashlib

import numpy as np


def sample_generator(seed: int, epoch: int, study_id: str, draw: int) -> np.random.Generator:
    """The random generator of one sample: the same in any worker, order or subset of the cohort.

    Args:
        seed: The run's seed.
        epoch: The training epoch; 0 for data that do not change.
        study_id: The study's name.
        draw: The number of the sample within study and epoch.
    """
    digest = hashlib.sha256(study_id.encode()).digest()
    study = int.from_bytes(digest[:8], "little")
    return np.random.default_rng([seed, epoch, study, draw])
