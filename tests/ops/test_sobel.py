"""The Sobel operator and the loss against SciPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from mpfnl.losses import L1SobelLoss
from mpfnl.ops import sobel_gradient


def scipy_sobel(volume: np.ndarray) -> np.ndarray:
    components = [ndimage.sobel(volume, axis=axis)[1:-1, 1:-1, 1:-1] for axis in range(3)]
    return np.stack(components)


def test_three_components_equal_scipy() -> None:
    volume = torch.rand(1, 1, 7, 9, 5, dtype=torch.float64)
    np.testing.assert_allclose(sobel_gradient(volume)[0], scipy_sobel(volume[0, 0].numpy()), atol=1e-12)


def test_loss_is_l1_plus_weighted_l1_of_the_edges() -> None:
    a, b = (torch.rand(2, 1, 8, 6, 7) for _ in range(2))
    pairs = zip(a[:, 0].numpy(), b[:, 0].numpy(), strict=True)
    edges = [np.abs(scipy_sobel(x) - scipy_sobel(y)) for x, y in pairs]
    expected = (a - b).abs().mean().item() + 0.7 * np.mean(edges)
    assert L1SobelLoss()(a, b).item() == pytest.approx(expected, rel=1e-5)
    assert L1SobelLoss(edge_weight=0.0)(a, b).item() == pytest.approx((a - b).abs().mean().item())


def test_loss_of_a_perfect_prediction_is_zero_and_a_shift_of_grey_has_no_edges() -> None:
    a = torch.rand(1, 1, 6, 6, 6)
    assert L1SobelLoss()(a, a).item() == 0
    assert L1SobelLoss()(a + 0.25, a).item() == pytest.approx(0.25, rel=1e-4)


def test_loss_in_bf16_is_computed_in_float32() -> None:
    a = torch.rand(1, 1, 6, 6, 6).bfloat16()
    assert L1SobelLoss()(a, torch.zeros_like(a)).dtype == torch.float32


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="3 voxels"):
        sobel_gradient(torch.rand(1, 1, 2, 5, 5))
    with pytest.raises((ValueError, TypeError)):  # TypeError where shapes are checked at run time
        L1SobelLoss()(torch.rand(1, 1, 4, 4, 4), torch.rand(1, 1, 4, 4, 8))
