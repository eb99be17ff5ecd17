"""Selection of the phases of a study that a model takes, and warnings that appear once."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Protocol

from mpfnl.errors import NotFoundError
from mpfnl.phases import Phase

LOGGER = logging.getLogger("mpfnl.inference")


class PhaseModel(Protocol):
    """The phases of a model."""

    @property
    def name(self) -> str:
        """Name of the model in messages."""

    @property
    def phases(self) -> Sequence[Phase]:
        """Input phases of the network, in stacking order."""

    @property
    def optional_phases(self) -> tuple[Phase, ...]:
        """Phases that may be missing: the network then takes `present=`, the indices of the others."""

    @property
    def trained_without_phases(self) -> bool:
        """Whether phases were left out during training (phase dropout)."""


@dataclass(frozen=True)
class PhaseSelection:
    """The phases of one study that a model uses.

    Args:
        phases: Available phases that the model takes, in stacking order.
        missing: Phases that the model takes and the study lacks.
        present: Indices of `phases` in the model's stacking order; None if no phase is missing.
    """

    phases: tuple[Phase, ...]
    missing: tuple[Phase, ...]
    present: tuple[int, ...] | None

    @property
    def line(self) -> str:
        """The selection in one line."""
        without = f"; without: {_listed(self.missing)}" if self.missing else ""
        return f"phases used: {_listed(self.phases)}{without}"


def needed_phases(model: PhaseModel, available: Collection[Phase]) -> list[Phase]:
    """The phases that a model cannot do without, of those that are not available.

    Args:
        model: Model that is to be run.
        available: Phases of the study.
    """
    return [phase for phase in model.phases if phase not in available and phase not in model.optional_phases]


def select_phases(model: PhaseModel, available: Collection[Phase]) -> PhaseSelection:
    """Selects the phases that a model takes from those that are available.

    Logs one warning per process if a phase is missing and the model was not trained with missing phases.

    Args:
        model: Model that is to be run.
        available: Phases of the study.

    Raises:
        NotFoundError: If a phase is missing that the model needs.
    """
    missing = tuple(phase for phase in model.phases if phase not in available)
    if not missing:
        return PhaseSelection(tuple(model.phases), (), None)
    if needed := needed_phases(model, available):
        raise _lacking(model, needed)
    if not model.trained_without_phases:
        warn_once(
            f"this {model.name} was not trained with missing phases: without"
            f" {_listed(missing)} its result may be worse than the input"
        )
    present = tuple(index for index, phase in enumerate(model.phases) if phase in available)
    return PhaseSelection(tuple(model.phases[index] for index in present), missing, present)


@cache
def warn_once(message: str) -> None:
    """Logs a warning, each message once per process; `warn_once.cache_clear()` forgets them."""
    LOGGER.warning(message)


def _lacking(model: PhaseModel, needed: Sequence[Phase]) -> NotFoundError:
    names = " and ".join(f"the {phase.label} phase" for phase in needed)
    verb = "is" if len(needed) == 1 else "are"
    options = " ".join(f"--{phase.replace('_', '-')} FILE" for phase in needed)
    takes = f"this {model.name} takes {len(model.phases)} phases"
    return NotFoundError(f"{names} {verb} missing: {takes}; give {options}")


def _listed(phases: Sequence[Phase]) -> str:
    return ", ".join(phase.label for phase in phases)
