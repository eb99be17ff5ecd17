"""Models as an evaluation takes them; and models that are given fewer phases than they could take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from mpfnl.errors import InputError
from mpfnl.inference.enhancement import Enhancer
from mpfnl.inference.selection import select_phases
from mpfnl.models.enhancement import EnhancementModule
from mpfnl.networks.upscale import output_scale
from mpfnl.phases import Phase, PhaseName
from mpfnl.window import Window

GIVEN = "given"  # in a description: the phases that are given, of those that the model could take


class EvaluatedModel(Enhancer, Protocol):
    """What an evaluation must know of a model."""

    @property
    def device(self) -> torch.device:
        """Where it computes."""

    @property
    def description(self) -> dict[str, Any]:
        """What it is, as JSON values: `model`, `arguments`, and `given` where phases are withheld."""


class WithPhases:
    """A model that is given some of its phases only, as if a study had no others.

    Args:
        model: The model.
        given: The phases that it is given.

    Raises:
        InputError: If a phase is withheld that it cannot do without, or one is given that it does not take.
    """

    def __init__(self, model: EnhancementModule, given: Sequence[PhaseName]) -> None:
        named = [Phase(phase) for phase in given]
        foreign = [phase for phase in named if phase not in model.phases]
        if foreign:
            raise InputError(
                f"this {type(model).__name__} does not take the {foreign[0]} phase; it takes "
                f"{', '.join(model.phases)}"
            )
        used = select_phases(model, named)
        self._model = model
        self._network = model.network if used.present is None else _Present(model.network, used.present)
        self.phases = used.used
        self.target = model.target
        self.window: Window = model.window
        self.optional_phases: tuple[Phase, ...] = ()
        self.trained_without_phases = model.trained_without_phases
        self.patch_size = model.patch_size

    @property
    def network(self) -> nn.Module:
        """Takes the phases that are given."""
        return self._network

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self._model.device

    @property
    def description(self) -> dict[str, Any]:
        """The model's, and the phases that it is given."""
        return self._model.description | {GIVEN: [str(phase) for phase in self.phases]}


class _Present(nn.Module):
    def __init__(self, network: nn.Module, present: Sequence[int]) -> None:
        super().__init__()
        self.network = network
        self.present = tuple(present)
        self.scale = output_scale(network)

    def forward(self, phases: Tensor) -> Tensor:
        enhanced: Tensor = self.network(phases, self.present)
        return enhanced
