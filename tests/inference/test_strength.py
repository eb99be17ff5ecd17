"""The strength of an enhancement: from the input to the network's result."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpfnl import PFNL3D
from mpfnl.errors import OptionError
from mpfnl.inference.enhancement import open_study
from mpfnl.inference.strength import noise_strength
from mpfnl.models.provenance import TrainingRecord
from mpfnl.phases import Phase
from mpfnl.samples import ReferenceNoise
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


def test_a_scan_as_good_as_the_references_stays(model: PFNL3D) -> None:
    """The reference noise travels with the weights; `strength` of one's own comes first."""
    hu = np.random.default_rng(0).normal(60, 20, (20, 20, 14)).astype("int16")
    scans = {"portal_venous": Volume.from_array(hu, np.diag([3.0, 3.0, 3.0, 1.0]))}
    whole = model.enhance(scans).data
    for reference, share in ((ReferenceNoise(30.0, 0.5), 0.0), (ReferenceNoise(10.0, 0.5), 1.0)):
        model.training_record = TrainingRecord(reference_noise=reference)
        wanted = whole if share else hu
        np.testing.assert_array_equal(model.enhance(scans).data, wanted)
        np.testing.assert_array_equal(model.enhance(scans, strength=1.0).data, whole)
    model.training_record = None


def test_the_output_names_a_strength_below_1(model: PFNL3D) -> None:
    hu = np.random.default_rng(0).normal(60, 20, (20, 20, 14)).astype("int16")
    sources = {Phase.PORTAL_VENOUS: Volume.from_array(hu, np.diag([3.0, 3.0, 3.0, 1.0]))}
    model.training_record = TrainingRecord(reference_noise=ReferenceNoise(17.0, 0.5))
    with open_study(model, sources) as study:
        assert 0 < study.restorer.strength < 1
        assert any(f"strength {study.restorer.strength:.2f}" in line for line in study.lines)
    model.training_record = None


def test_the_record_holds_the_noise() -> None:
    record = TrainingRecord(reference_noise=ReferenceNoise(16.0, 0.3))
    assert TrainingRecord.from_json(record.to_json()) == record
    with pytest.raises(ValueError, match="number"):
        TrainingRecord.from_json({"reference_noise": {"hu": "16"}})


@given(st.floats(0.1, 100), st.floats(0.3, 5.0), st.floats(5.0, 40.0), st.floats(0.0, 0.6))
def test_strength_rises_with_noise(noise: float, edge: float, hu: float, exponent: float) -> None:
    reference, spacing = ReferenceNoise(hu, exponent), (edge, edge, edge)
    strength = noise_strength(noise, spacing, reference)
    assert 0 <= strength <= noise_strength(1.1 * noise, spacing, reference) <= 1
    expected = reference.at(edge**3)
    assert noise_strength(expected, spacing, reference) == 0
    assert noise_strength(1.4 * expected, spacing, reference) == 1
