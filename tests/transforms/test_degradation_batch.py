"""A batch is degraded as its volumes are alone, also where tensors take the path of a GPU."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mpfnl.errors import FormatError
from mpfnl.transforms.degradation import (
    SECOND_ORDER_V1,
    apply_batch,
    apply_parameters,
    convolution,
    find_preset,
    resampling,
    sample_parameters,
)
from mpfnl.transforms.degradation.blur import Blur
from mpfnl.transforms.degradation.convolution import Border, convolve, gaussian_kernel
from mpfnl.transforms.degradation.noise import GaussianNoise
from mpfnl.transforms.degradation.resampling import Resampling
from mpfnl.transforms.degradation.resize import Resize, there_and_back

SPACINGS = [(0.8, 0.8, 2.5), (0.7, 0.9, 1.0), (1.5, 1.5, 5.0), (0.6, 0.6, 0.6)]


def volumes(count: int = 4, shape: tuple[int, int, int] = (20, 17, 14)) -> torch.Tensor:
    return torch.randn((count, *shape), generator=torch.Generator().manual_seed(1)) * 120


@settings(deadline=None, max_examples=15)
@given(
    seed=st.integers(0, 2**40),
    names=st.lists(st.sampled_from(["paper", "thick-slices", "motion"]), min_size=4, max_size=4),
)
def test_a_batch_is_its_volumes_bit_by_bit(seed: int, names: list[str]) -> None:
    hu = volumes()
    before = hu.clone()
    records = [sample_parameters(find_preset(name), seed + place) for place, name in enumerate(names)]
    degraded = apply_batch(hu, SPACINGS, records)
    for place, record in enumerate(records):
        assert torch.equal(degraded[place], apply_parameters(hu[place], SPACINGS[place], record))
    assert torch.equal(hu, before)


def test_nothing_recorded_is_a_copy() -> None:
    hu = volumes()
    degraded = apply_batch(hu, SPACINGS, [{"operations": []}] * 4)
    assert torch.equal(degraded, hu)
    assert degraded.data_ptr() != hu.data_ptr()


def test_the_batched_convolution_is_the_one_of_each_volume() -> None:
    # The path of other devices, run on the CPU.
    hu = volumes()
    kernels = [gaussian_kernel(sigma) for sigma in (0.0, 0.4, 1.7, 6.0)]
    for axis in range(3):
        for border in Border:
            expected = convolve(hu, axis, kernels, border)
            lines = hu.movedim(axis + 1, 1).reshape(4, 1, hu.shape[axis + 1], -1)
            found = torch.empty_like(lines)
            convolution._convolve_together(lines, convolution._stacked(kernels, lines), border, found)
            expected = expected.movedim(axis + 1, 1).reshape(lines.shape)
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("down", list(Resampling))
@pytest.mark.parametrize("up", [Resampling.LINEAR, Resampling.CUBIC])
def test_the_batched_resampling_is_the_one_of_each_volume(down: Resampling, up: Resampling) -> None:
    hu = volumes()
    length = hu.shape[1]
    chains = [
        (),
        there_and_back(length, 1.7, down, up),
        there_and_back(length, 4.0, Resampling.AREA, Resampling.LINEAR),
        there_and_back(length, 2.5, down, up),
    ]
    expected = resampling.apply_taps(hu, 0, chains)
    lines = hu.reshape(4, 1, length, -1)
    found = resampling._apply_together(chains, lines).reshape(hu.shape)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    assert torch.equal(expected[0], hu[0])


def test_operations_of_one_kind_run_together(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    original = Blur.apply_each.__func__  # type: ignore[attr-defined]

    def counted(cls: type[Blur], operations: list[Blur], *rest: object) -> torch.Tensor:
        calls.append(len(operations))
        result: torch.Tensor = original(cls, operations, *rest)
        return result

    monkeypatch.setattr(Blur, "apply_each", classmethod(counted))
    blur, noise = Blur((1.0, 2.0, 3.0)).to_json(), GaussianNoise(5.0, 0.3, 1).to_json()
    resize = Resize((2.0, 2.0, 2.0), Resampling.AREA, Resampling.LINEAR).to_json()
    lists = [[blur], [noise, blur], [blur, resize], [resize, noise]]
    apply_batch(volumes(), SPACINGS, [{"operations": operations} for operations in lists])
    assert sum(calls) == 3
    assert max(calls) == 2


def test_what_does_not_fit_is_refused() -> None:
    record = sample_parameters(SECOND_ORDER_V1, 0)
    with pytest.raises(ValueError, match="batch"):
        apply_batch(torch.zeros(4, 4, 4), [SPACINGS[0]], [record])
    with pytest.raises(ValueError, match="2 volumes"):
        apply_batch(torch.zeros(2, 4, 4, 4), SPACINGS[:1], [record] * 2)
    with pytest.raises(ValueError, match="spacing"):
        apply_batch(torch.zeros(1, 4, 4, 4), [(1.0, 0.0, 1.0)], [record])
    with pytest.raises(FormatError, match="operations"):
        apply_batch(torch.zeros(1, 4, 4, 4), SPACINGS[:1], [{}])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", ["paper", "low-dose", "thick-slices", "motion", "metal"])
def test_the_gpu_gives_the_same_batch(name: str) -> None:
    hu = volumes()
    records = [sample_parameters(find_preset(name), seed) for seed in range(4)]
    found = apply_batch(hu.cuda(), SPACINGS, records)
    assert found.is_cuda
    # Within the window [-175, 275] HU, 1e-4 of its width.
    torch.testing.assert_close(found.cpu(), apply_batch(hu, SPACINGS, records), rtol=1e-5, atol=0.01)
