"""Networks by name: the one list that loading, the command line, tests and benchmarks share. Torch only."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from importlib.metadata import entry_points
from inspect import Parameter, Signature, signature
from typing import Any, TypeAlias, TypeVar

from torch import nn

from mpfnl.errors import ConflictError, NotFoundError, OptionError
from mpfnl.phases import Phase, PhaseName, resolve_phases

NetworkBuilder: TypeAlias = Callable[..., nn.Module]
"""A class or function that returns a network; see `register_network`."""

Builder = TypeVar("Builder", bound=NetworkBuilder)

PLUGINS = "mpfnl.networks"
"""Entry-point group in which an installed package names the modules of its networks."""

TRAINING_ONLY = "activation_checkpointing"
"""Option of a builder that changes the memory of the training, not the network."""

_BUILDERS: dict[str, NetworkBuilder] = {}


def register_network(name: str) -> Callable[[Builder], Builder]:
    """Registers a network under a name, as a decorator of its class or of a function that builds it.

    The builder's arguments are the network's options and become part of the saved weights, so their values
    must be JSON. Two names have a meaning: `phases` receives the number of input phases, `target` the index
    of the target phase among them. The network maps `(batch, phases, x, y, z)` in [0, 1] to
    `(batch, 1, x, y, z)` for any size of at least 8 voxels, and states what else it can do in an attribute
    `capabilities` (`mpfnl.networks.capabilities`).

    Args:
        name: Name in configurations and weights folders, such as `unet-of-mine`.

    Raises:
        ConflictError: If another network has the name.

    >>> @register_network("average-of-phases")
    ... class Average(nn.Module):
    ...     def forward(self, phases):
    ...         return phases.mean(dim=1, keepdim=True)
    >>> "average-of-phases" in network_names()
    True
    """

    def register(builder: Builder) -> Builder:
        known = _BUILDERS.get(name)
        if known is not None and _origin(known) != _origin(builder):
            raise ConflictError(f"network {name}: registered by {_origin(known)}; choose another name")
        _BUILDERS[name] = builder
        return builder

    return register


def network_names() -> tuple[str, ...]:
    """The names of the registered networks, those of installed plug-ins among them, in alphabetical order.

    >>> [name for name in network_names() if name.endswith("3D")]
    ['PFNL3D', 'RCAN3D']
    """
    return tuple(sorted({*_BUILDERS, *(entry.name for entry in entry_points(group=PLUGINS))}))


def build_network(
    name: str, phases: int | Sequence[PhaseName] = 3, target: PhaseName = "portal_venous", **options: Any
) -> nn.Module:
    """Builds a network by its name.

    Args:
        name: Name of a registered network, or of a plug-in's.
        phases: Input phases, or their number (1: the target; 3: the paper's).
        target: Phase that the network restores.
        **options: Options of the network.

    Raises:
        NotFoundError: If no network has the name.
        OptionError: If the network has no such option, or lacks one.
        ValueError: If the phases or an option's value cannot be used.

    >>> network = build_network("RCAN3D", phases=1, channels=8, groups=1, blocks=1)
    >>> type(network).__name__, network.phases
    ('RCAN3DNet', 1)
    """
    builder = _builder(name)
    stacked = resolve_phases(phases, target)
    places = {"phases": len(stacked), "target": stacked.index(Phase(target))}
    accepted = signature(builder)
    arguments = {key: value for key, value in places.items() if key in accepted.parameters} | options
    try:
        accepted.bind(**arguments)
    except TypeError as error:
        known = ", ".join(_defaults(accepted)) or "none"
        raise OptionError(f"network {name}: {error}; its options are: {known}") from None
    return builder(**arguments)


def network_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a network as JSON values, its defaults filled in.

    Args:
        name: Name of a registered network.
        options: Options that differ from the defaults.

    Raises:
        NotFoundError: If no network has the name.
        OptionError: If JSON cannot hold a value.

    >>> network_options("RCAN3D", {"blocks": 1})
    {'channels': 32, 'groups': 5, 'blocks': 1, 'reduction': 8, 'scale': 1, 'presence': False}
    """
    defaults = {
        key: value for key, value in _defaults(signature(_builder(name))).items() if key != TRAINING_ONLY
    }
    known = {key: value for key, value in defaults.items() if value is not Parameter.empty} | dict(options)
    return {key: _json_value(name, key, value) for key, value in known.items()}


def _builder(name: str) -> NetworkBuilder:
    if name not in _BUILDERS:
        for entry in entry_points(group=PLUGINS, name=name):
            entry.load()  # the module registers its networks
    if name not in _BUILDERS:
        raise NotFoundError(
            f"network {name}: not registered (registered: {', '.join(network_names())}); import the module "
            f"that has @register_network({name!r})"
        )
    return _BUILDERS[name]


def _defaults(accepted: Signature) -> dict[str, Any]:
    """Options to their defaults; `Parameter.empty` where there is none."""
    return {
        key: parameter.default
        for key, parameter in accepted.parameters.items()
        if key not in ("phases", "target") and parameter.kind is not Parameter.VAR_KEYWORD
    }


def _json_value(network: str, option: str, value: object) -> object:
    """A member of an enumeration by its value, a sequence as a list."""
    plain = value.value if isinstance(value, Enum) else list(value) if isinstance(value, tuple) else value
    try:
        json.dumps(plain, allow_nan=False)
    except (TypeError, ValueError):
        raise OptionError(
            f"network {network}: option {option} is a {type(value).__name__}, which JSON cannot hold; give a "
            "number, a text, a list or a table"
        ) from None
    return plain


def _origin(builder: NetworkBuilder) -> str:
    return f"{builder.__module__}.{builder.__qualname__}"
