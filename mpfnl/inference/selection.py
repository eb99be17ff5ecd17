"""Selection of the phases of a study that a model uses."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from mpfnl.errors import InputError
from mpfnl.phases import Phase


class PhaseTaker(Protocol):
    """What a model says of the phases that it takes."""

    @property
    def phases(self) -> Sequence[Phase]:
        """The phases that the network takes, in stacking order."""

    @property
    def optional_phases(self) -> tuple[Phase, ...]:
        """Those that it can do without: its network then takes `present=`, the indices of the others."""

    @property
    def trained_without_phases(self) -> bool:
        """Whether phases were left out in its training."""


@dataclass(frozen=True)
class PhaseSelection:
    """The phases that are used.

    Args:
        used: In stacking order.
        left_out: Phases that the model takes and that are missing.
        present: Indices of the used ones in the model's stacking order; None: all.
    """

    used: tuple[Phase, ...]
    left_out: tuple[Phase, ...]
    present: tuple[int, ...] | None

    @property
    def line(self) -> str:
        """Which phases are used, in a line."""
        without = f"; without: {_listed(self.left_out)}" if self.left_out else ""
        return f"phases used: {_listed(self.used)}{without}"


def select_phases(model: PhaseTaker, given: Collection[Phase]) -> PhaseSelection:
    """The phases of a model that are there.

    Warns in one line, once, if the model was not trained with phases left out.

    Args:
        model: The model.
        given: The phases that there are scans of.

    Raises:
        InputError: A phase is missing that the model cannot do without.
    """
    missing = tuple(phase for phase in model.phases if phase not in given)
    if not missing:
        return PhaseSelection(tuple(model.phases), (), None)
    needed = [phase for phase in missing if phase not in model.optional_phases]
    if needed:
        raise _lacking(model, needed)
    if not model.trained_without_phases:
        warn_once(
            f"this {type(model).__name__} was not trained with phases left out: without"
            f" {_listed(missing)} its result may be worse than the input"
        )
    present = tuple(place for place, phase in enumerate(model.phases) if phase in given)
    return PhaseSelection(tuple(model.phases[place] for place in present), missing, present)


def _lacking(model: PhaseTaker, needed: Sequence[Phase]) -> InputError:
    named = " and ".join(f"the {phase.label} phase" for phase in needed)
    verb = "is" if len(needed) == 1 else "are"
    options = " ".join(f"--{phase.replace('_', '-')} FILE" for phase in needed)
    takes = f"this {type(model).__name__} takes {len(model.phases)} phases"
    return InputError(f"{named} {verb} missing: {takes}; give {options}")


def _listed(phases: Sequence[Phase]) -> str:
    return ", ".join(phase.replace("_", " ") for phase in phases)


LOGGER = logging.getLogger("mpfnl.inference")
_said: set[str] = set()


def warn_once(message: str) -> None:
    """Logs a warning; the same one not again in this process."""
    if message not in _said:
        _said.add(message)
        LOGGER.warning(message)


def forget_notices() -> None:
    """Every warning may be said again."""
    _said.clear()
