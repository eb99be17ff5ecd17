"""Phases that cover a part of the target's voxels: the fusion leaves them out voxel by voxel."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mpfnl.errors import OptionError
from mpfnl.models import RCAN3D
from mpfnl.networks import PFNL3DNet, RCAN3DNet
from mpfnl.networks.nonlocal_block import NonLocalBlock3D, NonLocalMode
from mpfnl.ops.groups import convolve_covered_groups_leaky_relu, convolve_groups_leaky_relu

MODES = [*NonLocalMode, None]


def network(mode: NonLocalMode | None, **arguments: int) -> PFNL3DNet:
    torch.manual_seed(0)
    made = PFNL3DNet(3, 2, features=4, blocks=2, nonlocal_mode=mode, **arguments).double()
    with torch.no_grad():  # W and the last convolution start at zero: nothing would be seen of the rest
        for parameter in made.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.1)
    return made


def phases() -> Tensor:
    return torch.rand(2, 3, 8, 7, 10, generator=torch.Generator().manual_seed(1)).double()


def covering(*, noncontrast: slice = slice(None), arterial: slice = slice(None)) -> Tensor:
    """Coverage with these slices along z."""
    covered = torch.zeros(2, 3, 8, 7, 10, dtype=torch.bool)
    covered[:, 0, :, :, noncontrast] = True
    covered[:, 1, :, :, arterial] = True
    covered[:, 2] = True
    return covered


@pytest.mark.parametrize("mode", MODES)
def test_full_coverage_changes_nothing(mode: NonLocalMode | None) -> None:
    net, batch = network(mode), phases()
    torch.testing.assert_close(net(batch, covered=covering()), net(batch))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("scale", [1, 2])
def test_a_phase_that_covers_nothing_is_a_missing_phase(mode: NonLocalMode | None, scale: int) -> None:
    net, batch = network(mode, scale=scale), phases()
    without = covering(arterial=slice(0))
    torch.testing.assert_close(net(batch, covered=without), net(batch[:, [0, 2]], present=[0, 2]))
    alone = covering(noncontrast=slice(0), arterial=slice(0))
    torch.testing.assert_close(net(batch, covered=alone), net(batch[:, [2]], present=[2]))
    both = covering(noncontrast=slice(0))[:, [0, 2]]
    torch.testing.assert_close(net(batch[:, [0, 2]], [0, 2], both), net(batch[:, [2]], present=[2]))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("filler", [0.0, 1.0, float("nan")])
def test_what_lies_in_uncovered_voxels_has_no_influence(mode: NonLocalMode | None, filler: float) -> None:
    net, batch, covered = network(mode), phases(), covering(arterial=slice(3, 8), noncontrast=slice(6))
    filled = torch.where(covered, batch, filler)
    torch.testing.assert_close(net(filled, covered=covered), net(batch, covered=covered))


def test_far_from_the_border_the_result_is_that_of_the_phases_there() -> None:
    torch.manual_seed(2)
    net = PFNL3DNet(3, 2, features=4, blocks=1, nonlocal_mode=None).double()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    batch = torch.rand(1, 3, 8, 8, 40).double()
    covered = torch.ones(1, 3, 8, 8, 40, dtype=torch.bool)
    covered[:, 1, :, :, 20:] = False
    result = net(batch, covered=covered)
    reach = 6  # 5x5x5, two 3x3x3 and two 3x3x3 convolutions
    torch.testing.assert_close(result[..., : 20 - reach], net(batch)[..., : 20 - reach])
    without = net(batch[:, [0, 2]], present=[0, 2])
    torch.testing.assert_close(result[..., 20 + reach :], without[..., 20 + reach :])


def test_the_sum_over_groups_keeps_its_size() -> None:
    generator = torch.Generator().manual_seed(3)
    features = torch.ones(3, 4, 6, 6, 6)  # three groups of one sample, all alike
    covered = (torch.rand(3, 1, 6, 6, 6, generator=generator) > 0.5).float()
    covered[2] = 1
    slab = torch.rand(5, 4, 1, 1, 1, generator=generator)
    weight, bias = slab.repeat(1, 3, 1, 1, 1), torch.rand(5, generator=generator)
    expected = convolve_groups_leaky_relu(features, weight, bias, 3, 0.2)
    torch.testing.assert_close(
        convolve_covered_groups_leaky_relu(features, covered, weight, bias, 3, 0.2), expected
    )


@pytest.mark.parametrize("mode", list(NonLocalMode))
def test_a_non_local_sum_is_the_mean_over_covered_positions(mode: NonLocalMode) -> None:
    torch.manual_seed(4)
    block = NonLocalBlock3D(2, mode=mode).double()
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    block.w.weight.data[:, 8:] = 0  # only the sums of the first channel are seen
    flat = torch.full((1, 2, 4, 4, 8), 0.5).double()  # every position is alike: so is every mean
    covered = torch.ones(1, 2, 4, 4, 8, dtype=torch.bool)
    covered[:, 0, :, :, 4:] = False
    result, whole = block(flat, covered=covered), block(flat)
    torch.testing.assert_close(result[..., :4], whole[..., :4])
    torch.testing.assert_close(result[:, :1, ..., 4:], flat[:, :1, ..., 4:])


def test_gradients_are_finite_and_reach_all_weights() -> None:
    net = network(NonLocalMode.GAUSSIAN)
    batch = torch.where(covering(arterial=slice(5)), phases(), float("nan"))
    net(batch, covered=covering(arterial=slice(5))).square().mean().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def rcan3d(phases: int = 3) -> RCAN3DNet:
    torch.manual_seed(5)
    return RCAN3DNet(phases, channels=4, groups=1, blocks=1, reduction=2, presence=True).double()


def test_rcan3d_with_masks_goes_without_a_phase_or_a_part_of_it() -> None:
    net, batch = rcan3d(), phases()
    torch.testing.assert_close(net(batch, covered=covering()), net(batch))
    without = covering(arterial=slice(0))
    torch.testing.assert_close(net(batch, covered=without), net(batch[:, [0, 2]], present=[0, 2]))
    half = covering(arterial=slice(4, 9))
    filled = torch.where(half, batch, float("nan"))
    torch.testing.assert_close(net(filled, covered=half), net(batch, covered=half))
    assert not torch.allclose(net(batch, covered=half), net(batch))


def test_rcan3d_without_masks_needs_all_its_phases() -> None:
    net = RCAN3DNet(3, channels=4, groups=1, blocks=1, reduction=2)
    with pytest.raises(ValueError, match="3 phases"):
        net(torch.rand(1, 2, 6, 6, 6), present=[0, 2])
    with pytest.raises(ValueError, match="target"):
        rcan3d()(phases()[:, :2], present=[0, 1])


def test_a_model_of_rcan3d_with_masks_trains_with_phase_dropout() -> None:
    model = RCAN3D(phases=3, presence=True, phase_dropout=0.5, channels=8, groups=1, blocks=1)
    assert model.optional_phases == model.phases[:2]
    assert model.config["presence"] is True
    with pytest.raises(OptionError, match="phase_dropout"):
        RCAN3D(phases=3, phase_dropout=0.5, channels=8, groups=1, blocks=1)
