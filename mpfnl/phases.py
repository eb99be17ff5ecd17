"""Contrast phases of an abdominal CT study. The standard library only."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Literal, TypeAlias


class Phase(StrEnum):
    """A contrast phase of an abdominal CT study.

    The order of the members is the order in which phases are stacked, everywhere.
    """

    NONCONTRAST = "noncontrast"
    ARTERIAL = "arterial"
    PORTAL_VENOUS = "portal_venous"
    DELAYED = "delayed"


PHASES: tuple[Phase, ...] = (Phase.NONCONTRAST, Phase.ARTERIAL, Phase.PORTAL_VENOUS)
"""The paper's three phases, which every study has. A study may have the delayed phase, too."""

PhaseName: TypeAlias = Phase | Literal["noncontrast", "arterial", "portal_venous", "delayed"]
"""A phase, or its name as it stands in configurations."""


def resolve_phases(phases: int | Sequence[Phase | str], target: Phase | str) -> tuple[Phase, ...]:
    """The phases that a model takes, in stacking order.

    Args:
        phases: The phases; or how many: 1 for the target alone, 3 for the paper's, 4 for all.
        target: The phase to enhance.

    Raises:
        ValueError: If a number is not 1, 3 or 4, a phase is named twice, or the target is missing.
    """
    target = Phase(target)
    counted: dict[int, tuple[Phase, ...]] = {1: (target,), len(PHASES): PHASES, len(Phase): tuple(Phase)}
    if isinstance(phases, str) or (isinstance(phases, int) and phases not in counted):
        raise ValueError(f"phases={phases!r}: give 1, 3, 4 or a list of phases")
    named = list(counted[phases]) if isinstance(phases, int) else [Phase(phase) for phase in phases]
    if len(set(named)) != len(named):
        raise ValueError(f"a phase is named twice: {', '.join(named)}")
    if target not in named:
        raise ValueError(f"the target {target} is not among the phases {', '.join(named)}")
    return tuple(phase for phase in Phase if phase in named)
