"""The strength of an enhancement: from the input to the network's result."""

from __future__ import annotations

import numpy as np
import pytest

from mpfnl import PFNL3D
from mpfnl.errors import OptionError
from mpfnl.volumes import Volume


@pytest.fixture(scope="module")
def model() -> PFNL3D:
    import torch

    torch.manual_seed(0)
    model = PFNL3D(features=4, blocks=1, phases=1)
    for parameter in model.network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model


def enhanced(model: PFNL3D, strength: float, dtype: str = "float32") -> np.ndarray:
    hu = np.random.default_rng(0).normal(60, 20, (20, 20, 14)).astype(dtype)
    return model.enhance({"portal_venous": Volume.from_array(hu, np.eye(4))}, strength=strength).data


def test_none_is_the_input(model: PFNL3D) -> None:
    hu = np.random.default_rng(0).normal(60, 20, (20, 20, 14)).astype("int16")
    np.testing.assert_array_equal(enhanced(model, 0.0, "int16"), hu)


def test_half_is_the_mean_of_both(model: PFNL3D) -> None:
    whole, none, half = (enhanced(model, strength) for strength in (1.0, 0.0, 0.5))
    assert np.abs(whole - none).max() > 5
    np.testing.assert_allclose(half, (whole + none) / 2, atol=1e-3)


@pytest.mark.parametrize("strength", [-0.1, 1.5])
def test_it_lies_between_0_and_1(model: PFNL3D, strength: float) -> None:
    with pytest.raises(OptionError, match="strength"):
        enhanced(model, strength)
