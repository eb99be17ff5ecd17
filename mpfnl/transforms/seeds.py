"""Random generators of a sample: its draws depend on its seed, epoch, study and phase alone."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from mpfnl.errors import OptionError
from mpfnl.phases import Phase

_PROTOCOL = 1  # one number for each purpose, so that no two generators are the same
_FIRST_PHASE = 2


class Sharing(StrEnum):
    """Parameters that the degraded phases of a study have in common.

    >>> Sharing("acquisition") is Sharing.ACQUISITION
    True
    """

    NOTHING = "nothing"
    """Every phase draws for itself, as in the paper."""
    ACQUISITION = "acquisition"
    """One scanner and protocol for the study: blur, voxels, slices, dose and implants are drawn once; the
    noise itself and the patient's motion belong to each phase."""


@dataclass(frozen=True)
class Draws:
    """The random generators of one phase of a study.

    Args:
        protocol: Generator of parameters that the scanner, its protocol and the patient's implants decide.
        own: Generator of parameters of this acquisition alone: noise and motion.
    """

    protocol: np.random.Generator
    own: np.random.Generator

    @classmethod
    def one(cls, generator: np.random.Generator | int) -> Draws:
        """Everything from one generator or seed."""
        rng = np.random.default_rng(generator)
        return cls(rng, rng)


def sample_generator(seed: int, epoch: int, study_id: str, draw: int = 0) -> np.random.Generator:
    """The random generator of one sample: the same in any worker, order or subset of the cohort.

    Args:
        seed: The run's seed.
        epoch: The training epoch; 0 for data that do not change.
        study_id: The study's name.
        draw: The number of the sample within study and epoch.
    """
    return np.random.default_rng(_key(seed, epoch, study_id, draw))


def phase_draws(
    seed: int,
    epoch: int,
    study_id: str,
    phase: Phase | str,
    draw: int = 0,
    sharing: Sharing = Sharing.NOTHING,
) -> Draws:
    """The generators that degrade one phase: a phase's draw does not depend on which others there are.

    Args:
        seed: The run's seed.
        epoch: The training epoch; 0 for data that do not change.
        study_id: The study's name.
        phase: The phase.
        draw: The number of the sample within study and epoch.
        sharing: Parameters that the phases of a study have in common.
    """
    key = _key(seed, epoch, study_id, draw)
    own = np.random.default_rng([*key, _FIRST_PHASE + list(Phase).index(Phase(phase))])
    if Sharing(sharing) is Sharing.NOTHING:
        return Draws(own, own)
    return Draws(np.random.default_rng([*key, _PROTOCOL]), own)


def _key(seed: int, epoch: int, study_id: str, draw: int) -> list[int]:
    return [checked_run_seed(seed), epoch, _number(study_id), draw]


def checked_run_seed(seed: int) -> int:
    """The seed of a run.

    Raises:
        OptionError: The seed is negative.
    """
    if seed < 0:
        raise OptionError(f"the seed is {seed}; give 0 or more")
    return seed


def _number(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")


def noise_seed(draws: Draws) -> int:
    """A seed for noise, which belongs to each scan alone."""
    return int(draws.own.integers(2**31))
