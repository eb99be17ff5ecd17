"""The noise that is the same everywhere, against a naive version of its definition and against statistics."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from scipy import stats

from mpfnl.transforms.degradation import random_field
from mpfnl.transforms.degradation.random_field import normal_field, normal_fields

MASK = 2**64 - 1


def split_mix(state: int) -> Iterator[int]:
    """SplitMix64 as it is published."""
    while True:
        state = (state + 0x9E3779B97F4A7C15) & MASK
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        yield z ^ (z >> 31)


def naive_field(size: int, seed: int, chunk: int = 1024) -> np.ndarray:
    """The definition, one value at a time."""
    hashes, values = split_mix(next(split_mix(seed))), []
    while len(values) < size:
        words = []
        for _ in range(chunk):
            word = next(hashes)
            words += [word & 0xFFFFFFFF, word >> 32]
        signed = [word - 2**32 if word >= 2**31 else word for word in words]
        # The share of the circle's radius is a float32 number: close to 1 that decides.
        shares = [float(np.abs(np.float32(word) + np.float32(0.5))) / 2**31 for word in signed[:chunk]]
        radii = [math.sqrt(-2 * math.log(share)) for share in shares]
        angles = [word * math.pi / 2**31 for word in signed[chunk:]]
        values += [radius * math.cos(angle) for radius, angle in zip(radii, angles, strict=True)]
        values += [radius * math.sin(angle) for radius, angle in zip(radii, angles, strict=True)]
    return np.array(values[:size])


def test_the_hash_is_split_mix_64() -> None:
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]  # of the seed 1234567
    generator = split_mix(1234567)
    assert [next(generator) for _ in published] == published


@pytest.mark.parametrize("seed", [0, 1, 2**40 + 3, 2**63 - 1])
@pytest.mark.parametrize("shape", [(1,), (13, 11, 7), (41, 40, 50)])
def test_the_field_is_its_definition(shape: tuple[int, ...], seed: int) -> None:
    field = normal_field(shape, seed)
    assert field.shape == shape
    assert field.dtype == torch.float32
    np.testing.assert_allclose(field.numpy().ravel(), naive_field(math.prod(shape), seed), atol=3e-6)


def test_all_at_once_is_one_after_the_other() -> None:
    seeds = [5, 0, 2**62, 5]
    together = torch.empty(4, 3, 2, 1024)
    random_field._fill_together([random_field._start(seed, 0) for seed in seeds], together)
    fields = normal_fields((17, 19, 11), seeds)
    assert torch.equal(fields[0], fields[3])
    for field, seed in zip(fields, seeds, strict=True):
        assert torch.equal(field, normal_field((17, 19, 11), seed))
    torch.testing.assert_close(together.view(4, -1)[:, : 17 * 19 * 11], fields.view(4, -1), rtol=0, atol=2e-6)


def test_an_empty_field_is_empty() -> None:
    assert normal_field((0, 4), 1).shape == (0, 4)


def test_a_seed_out_of_range_is_refused() -> None:
    for seed in (-1, 2**63):
        with pytest.raises(ValueError, match="seed"):
            normal_field((2,), seed)


def test_the_field_is_normal_and_white() -> None:
    # Forty independent tests of each kind; together they are tested once more, at 1 in 1000.
    size = 50_000
    normality, whiteness, neighbours = [], [], []
    previous = normal_field((size,), 1000).double().numpy()
    for seed in range(1001, 1041):
        field = normal_field((size,), seed).double().numpy()
        normality.append(stats.kstest(field, "norm").pvalue)
        whiteness += [field[lag:] @ field[:-lag] / math.sqrt(size - lag) for lag in (1, 2, 1024, 2048)]
        neighbours.append(field @ previous / math.sqrt(size))
        previous = field
    assert stats.kstest(normality, "uniform").pvalue > 1e-3
    assert stats.kstest(whiteness, "norm").pvalue > 1e-3
    assert stats.kstest(neighbours, "norm").pvalue > 1e-3


def test_the_tails_are_there() -> None:
    field = normal_field((4_000_000,), 77).double().numpy()
    for limit in (3.0, 4.0, 4.5):
        expected = 2 * stats.norm.sf(limit) * field.size
        assert abs((np.abs(field) > limit).sum() - expected) < 5 * math.sqrt(expected)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_gpu_gives_the_same_field() -> None:
    fields = normal_fields((40, 40, 41), [3, 2**50], "cuda")
    torch.testing.assert_close(fields.cpu(), normal_fields((40, 40, 41), [3, 2**50]), rtol=0, atol=5e-6)
