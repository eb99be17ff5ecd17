"""The methods that an evaluation compares: models, models restricted to some phases, folders of scans."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from mpfnl.errors import ConflictError, OptionError
from mpfnl.evaluation.folder import BASELINE, REFERENCE
from mpfnl.inference.enhancement import Enhancer
from mpfnl.inference.selection import select_phases
from mpfnl.models.enhancement import EnhancementModule
from mpfnl.networks.capabilities import network_capabilities
from mpfnl.phases import Phase, PhaseName
from mpfnl.window import Window

INPUT_PHASES = "given"
"""Key of a model's description in `provenance.json`: the phases it is restricted to."""

LONGEST_NAME = 100
"""Longest name of a method in characters; it names files."""


class EvaluatedModel(Enhancer, Protocol):
    """A model as an evaluation needs it."""

    @property
    def device(self) -> torch.device:
        """Device of the computation."""

    @property
    def description(self) -> dict[str, Any]:
        """Architecture as JSON values: `model`, `arguments`, and `given` where phases are withheld."""


class PhaseSubset:
    """A model restricted to some of its phases, as if a study had no others.

    Args:
        model: The model.
        phases: Phases that the model receives.

    Raises:
        InputError: The model requires a phase that is withheld, or does not take one of the phases.
    """

    def __init__(self, model: EnhancementModule, phases: Sequence[PhaseName]) -> None:
        named = [Phase(phase) for phase in phases]
        foreign = [phase for phase in named if phase not in model.phases]
        if foreign:
            raise OptionError(
                f"this {model.name} does not take the {foreign[0]} phase; it takes {', '.join(model.phases)}"
            )
        used = select_phases(model, named)
        self._model = model
        self.name = model.name
        self._network = model.network if used.present is None else _SubsetNetwork(model.network, used.present)
        self.phases = used.phases
        self.target = model.target
        self.window: Window = model.window
        self.optional_phases: tuple[Phase, ...] = ()
        self.trained_without_phases = model.trained_without_phases
        self.patch_size = model.patch_size
        self.reference_noise = model.reference_noise

    @property
    def network(self) -> nn.Module:
        """Network of the phases that the model receives."""
        return self._network

    @property
    def device(self) -> torch.device:
        """Device of the computation."""
        return self._model.device

    @property
    def description(self) -> dict[str, Any]:
        """The model's description, and the phases that it receives."""
        return self._model.description | {INPUT_PHASES: [str(phase) for phase in self.phases]}


class _SubsetNetwork(nn.Module):
    def __init__(self, network: nn.Module, present: Sequence[int]) -> None:
        super().__init__()
        self.network = network
        self.present = tuple(present)
        self.capabilities = replace(network_capabilities(network), missing_phases=False)

    def forward(self, phases: Tensor, covered: Tensor | None = None) -> Tensor:
        arguments = {} if covered is None else {"covered": covered}
        enhanced: Tensor = self.network(phases, self.present, **arguments)
        return enhanced


@dataclass(frozen=True)
class Methods:
    """Methods that are compared with the reference, besides the degraded scan.

    Args:
        models: Models by name; each enhances the degraded phases. All restore one phase under one window.
        folders: Folders by name, with scans that other software enhanced: one STUDY.nii.gz for each study, in
            HU on the reference's grid.

    Raises:
        OptionError: A name cannot name a file or occurs twice, or a model has a finer output grid.
        ConflictError: Two models differ in target phase or window.
    """

    models: Mapping[str, EvaluatedModel]
    folders: Mapping[str, Path]

    def __post_init__(self) -> None:
        names = [*self.models, *self.folders]
        for name in names:
            _check_name(name)
            if names.count(name) > 1:
                raise OptionError(f"both a model and a folder are named {name!r}; give them two names")
        for name, model in self.models.items():
            if (scale := network_capabilities(model.network).scale) > 1:
                raise OptionError(
                    f"{name} has scale {scale}: methods are compared on the grid of their input scans; score"
                    " this model with mpfnl test"
                )
        targets = {name: model.target.label for name, model in self.models.items()}
        _check_agreement("restore different phases", targets)
        windows = {name: _level_and_width(model.window) for name, model in self.models.items()}
        _check_agreement("have different HU windows", windows)

    @property
    def names(self) -> list[str]:
        """All methods with image quality, in the order of the tables."""
        return [BASELINE, *self.models, *self.folders]

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The phases that any of the models takes, in stacking order."""
        taken = {phase for model in self.models.values() for phase in model.phases}
        return tuple(phase for phase in Phase if phase in taken)

    def target(self, default: Phase) -> Phase:
        """The phase that the models restore; the default without models."""
        return next((model.target for model in self.models.values()), default)

    def window(self, default: Window) -> Window:
        """The HU window of the models; the default without models."""
        return next((model.window for model in self.models.values()), default)


def _check_name(name: str) -> None:
    if len(name) > LONGEST_NAME:
        raise OptionError(f"a method's name has {len(name)} characters; use at most {LONGEST_NAME}")
    if not re.fullmatch(r"[\w.+-]+", name) or name.startswith((BASELINE, ".")) or name == REFERENCE:
        raise OptionError(
            f"a method cannot be named {name!r}, since it names a file: use letters, digits, '+', '-', '.'"
            f" and '_'; {REFERENCE!r} and names that begin with {BASELINE!r} are reserved"
        )


def _check_agreement(difference: str, values: Mapping[str, str]) -> None:
    """Checks that all models have the same value."""
    (first, expected), *others = values.items() or [("", "")]
    for name, value in others:
        if value != expected:
            raise ConflictError(
                f"the models {difference} ({first}: {expected}; {name}: {value}); evaluate them separately"
            )


def _level_and_width(window: Window) -> str:
    return f"level {window.level:g}, width {window.width:g} HU"
