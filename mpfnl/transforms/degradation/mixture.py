"""A stage that draws one of several degradations of different severity."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mpfnl.transforms.degradation.base import Degradation
from mpfnl.transforms.degradation.stage import Stage, check_probabilities
from mpfnl.transforms.seeds import Draws


@dataclass(frozen=True)
class Alternative:
    """One of the degradations that a mixture draws from.

    Args:
        probability: Probability with which it is drawn.
        stages: Stages in their order; none leaves the scan as it is.
    """

    probability: float
    stages: tuple[Stage, ...] = ()


@dataclass(frozen=True)
class MixtureStage(Stage):
    """One alternative, drawn anew for each scan: from an undegraded scan to a severe degradation.

    A network that is trained on the mixture learns to return a good scan as it is.

    Args:
        alternatives: Alternatives; their probabilities sum to 1.

    Raises:
        ValueError: A probability lies outside of [0, 1], or their sum is not 1.

    >>> from mpfnl.transforms.degradation.low_dose import LowDoseStage
    >>> half = Alternative(0.5, (LowDoseStage(dose_fraction=(0.5, 0.5)),))
    >>> mixture = MixtureStage((Alternative(0.5), half))
    >>> [len(mixture.sample(Draws.one(seed))) for seed in range(8)]
    [1, 1, 0, 0, 1, 1, 1, 1]
    """

    degradations = ()
    alternatives: tuple[Alternative, ...]

    def __post_init__(self) -> None:
        probabilities = [each.probability for each in self.alternatives]
        check_probabilities(*probabilities)
        if not np.isclose(sum(probabilities), 1.0):
            raise ValueError(f"the probabilities of a mixture sum to 1, not to {sum(probabilities):g}")

    @property
    def whole_slices(self) -> bool:
        """Whether an alternative needs whole cross-sections of the body."""
        return any(stage.whole_slices for each in self.alternatives for stage in each.stages)

    @property
    def margin(self) -> int:
        """Voxels around a patch that are degraded with it."""
        return max((stage.margin for each in self.alternatives for stage in each.stages), default=0)

    def sample(self, draws: Draws) -> list[Degradation]:
        """Draws an alternative, then the degradations of its stages."""
        bounds = np.cumsum([each.probability for each in self.alternatives])
        place = int(np.searchsorted(bounds[:-1], draws.protocol.random(), side="right"))
        return [drawn for stage in self.alternatives[place].stages for drawn in stage.sample(draws)]
