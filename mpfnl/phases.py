"""Contrast phases of an abdominal CT study. The standard library only."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Literal, TypeAlias

__all__ = ["PHASES", "Phase"]


class Phase(StrEnum):
    """A contrast phase of an abdominal CT study.

    The order of the members is the order in which phases are stacked, everywhere. This enumeration is the
    only list of phases: a member added at its end becomes a column of the manifest, an option of the command
    line, a phase that models take and a row of the report.

    >>> Phase("portal_venous") is Phase.PORTAL_VENOUS
    True
    >>> Phase.PORTAL_VENOUS.label
    'portal venous'
    """

    NONCONTRAST = "noncontrast"
    ARTERIAL = "arterial"
    PORTAL_VENOUS = "portal_venous"
    DELAYED = "delayed"

    @property
    def label(self) -> str:
        """The phase in words, as in "portal venous"."""
        return self.value.replace("noncontrast", "non-contrast").replace("_", " ")


PHASES: tuple[Phase, ...] = (Phase.NONCONTRAST, Phase.ARTERIAL, Phase.PORTAL_VENOUS)
"""The three phases of the paper, which every study of a manifest has."""

if TYPE_CHECKING:
    PhaseName: TypeAlias = Phase | str
else:
    PhaseName = Phase | Literal[tuple(phase.value for phase in Phase)]  # the command line checks the names
"""A phase, or the name that configurations use for it."""


def resolve_phases(phases: int | Sequence[PhaseName], target: PhaseName) -> tuple[Phase, ...]:
    """The input phases of a model, in stacking order.

    Args:
        phases: Phases or their number: 1 means the target alone, n of 3 or more the first n members of
            `Phase` (3: the phases of the paper).
        target: Phase to enhance.

    Raises:
        ValueError: If the number stands for no phases, a phase is unknown or repeated, or the target is
            missing.

    >>> [str(phase) for phase in resolve_phases(["portal_venous", "arterial"], "portal_venous")]
    ['arterial', 'portal_venous']
    >>> len(resolve_phases(3, "portal_venous"))
    3
    """
    target = Phase(target)
    if isinstance(phases, int):
        named = _first(phases, target)
    elif isinstance(phases, str):
        raise ValueError(_refusal(phases))
    else:
        named = [Phase(phase) for phase in phases]
    if len(set(named)) != len(named):
        raise ValueError(f"a phase is named twice: {', '.join(named)}")
    if target not in named:
        raise ValueError(f"the target {target} is not among the phases {', '.join(named)}")
    return tuple(phase for phase in Phase if phase in named)


def _first(count: int, target: Phase) -> list[Phase]:
    if count == 1:
        return [target]
    if not len(PHASES) <= count <= len(Phase):
        raise ValueError(_refusal(count))
    return list(Phase)[:count]


def _refusal(phases: object) -> str:
    return f"phases={phases!r}: give 1, a number from {len(PHASES)} to {len(Phase)}, or a list of phases"
