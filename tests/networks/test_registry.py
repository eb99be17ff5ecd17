"""Networks by name: what can be registered, built, and found in installed packages."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest
import torch
from torch import Tensor, nn

from mpfnl.errors import ConflictError, NotFoundError, OptionError
from mpfnl.networks import PFNL3DNet, build_network, network_names, register_network, registry
from mpfnl.networks.capabilities import Capabilities, network_capabilities
from mpfnl.networks.nonlocal_block import NonLocalMode

TINY = {"PFNL3D": {"features": 8, "blocks": 1}, "RCAN3D": {"channels": 8, "groups": 1, "blocks": 1}}


class Mean(nn.Module):
    """The mean over the phases, on the grid of the input."""

    def forward(self, phases: Tensor) -> Tensor:
        return phases.mean(1, keepdim=True)


@pytest.fixture(autouse=True)
def _registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_BUILDERS", dict(registry._BUILDERS))


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize(("phases", "target", "count"), [(3, "arterial", 3), (1, "noncontrast", 1)])
def test_networks_of_the_package_are_built_by_name(name: str, phases: int, target: str, count: int) -> None:
    network = build_network(name, phases, target, **TINY[name])  # type: ignore[arg-type]
    assert network(torch.rand(1, count, 8, 8, 8)).shape == (1, 1, 8, 8, 8)
    assert set(TINY) <= set(network_names())


def test_the_target_is_the_index_among_the_stacked_phases() -> None:
    network = build_network("PFNL3D", ["portal_venous", "noncontrast"], "portal_venous", **TINY["PFNL3D"])
    assert isinstance(network, PFNL3DNet)
    assert (network.phases, network.target) == (2, 1)


def test_a_builder_receives_what_it_names() -> None:
    @register_network("function")
    def build(phases: int, gain: float = 2.0) -> nn.Module:
        mean = Mean()
        mean.gain = gain * phases  # type: ignore[assignment]
        return mean

    register_network("class")(Mean)
    assert build_network("function", 1, gain=3.0).gain == 3.0
    assert isinstance(build_network("class"), Mean)


def test_what_cannot_be_built_is_refused_in_one_line() -> None:
    with pytest.raises(NotFoundError, match=r"no-such-net.*PFNL3D, RCAN3D"):
        build_network("no-such-net")
    with pytest.raises(OptionError, match=r"RCAN3D.*feature.*channels"):
        build_network("RCAN3D", feature=8)
    with pytest.raises(ValueError, match="arterial"):
        build_network("RCAN3D", ["portal_venous"], "arterial")


def test_a_name_belongs_to_one_network() -> None:
    register_network("mean")(Mean)
    register_network("mean")(Mean)  # a module that is run again
    with pytest.raises(ConflictError, match="mean"):
        register_network("mean")(PFNL3DNet)


def test_options_are_json() -> None:
    options = registry.network_options("PFNL3D", {"nonlocal_mode": NonLocalMode.DOT_PRODUCT})
    assert options["nonlocal_mode"] == "dot_product"
    assert type(options["nonlocal_mode"]) is str
    assert "activation_checkpointing" not in options
    with pytest.raises(OptionError, match="norm"):
        registry.network_options("PFNL3D", {"norm": nn.ReLU})


def test_an_installed_package_names_its_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    class Plugin(EntryPoint):
        def load(self) -> object:
            return register_network("plugged")(Mean)

    plugin = Plugin("plugged", "package.networks", registry.PLUGINS)
    monkeypatch.setattr(
        registry, "entry_points", lambda group, name="plugged": [plugin] if name == "plugged" else []
    )
    assert "plugged" in network_names()
    assert isinstance(build_network("plugged"), Mean)
    with pytest.raises(NotFoundError):
        build_network("other")


def test_capabilities_are_stated_or_the_defaults() -> None:
    network = build_network("PFNL3D", scale=2, **TINY["PFNL3D"])
    assert network_capabilities(network) == Capabilities(scale=2, missing_phases=True, coverage=True)
    assert network_capabilities(torch.compile(network, backend="eager")) == network.capabilities  # type: ignore[arg-type]
    assert network_capabilities(nn.Conv3d(3, 1, 1)) == Capabilities()
    stray = Mean()
    stray.capabilities = "many"  # type: ignore[assignment]
    assert network_capabilities(stray) == Capabilities()
