"""Records on disk are read, and the same seeds draw them again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mpfnl.transforms import Degradation, apply_parameters, find_preset, sample_parameters
from mpfnl.transforms.degradation import registered_degradations
from mpfnl.transforms.degradation.records import Record
from mpfnl.transforms.seeds import Sharing, phase_draws

STORED: list[dict[str, Any]] = json.loads(Path(__file__).with_name("stored_records.json").read_text())


@pytest.mark.parametrize("stored", STORED, ids=lambda stored: stored["preset"])
def test_a_stored_record_is_read_and_drawn_again(stored: dict[str, Any]) -> None:
    record = stored["record"]
    assert Record.from_json(record).to_json() == record
    draws = phase_draws(
        stored["seed"],
        stored["epoch"],
        stored["study"],
        stored["phase"],
        stored["draw"],
        Sharing(stored["sharing"]),
    )
    preset = find_preset(stored["preset"])
    assert preset.sample(draws).to_json() == record


@pytest.mark.parametrize("stored", STORED, ids=lambda stored: stored["preset"])
def test_a_stored_record_is_applied(stored: dict[str, Any]) -> None:
    hu = torch.full((20, 20, 8), -1000.0)
    hu[3:17, 3:17] = 50.0
    hu[8:12, 8:12, 3:5] = 150.0
    assert not torch.equal(apply_parameters(hu, (1.5, 1.5, 2.5), stored["record"]), hu)


def test_every_kind_of_the_package_is_stored() -> None:
    kinds = {operation["kind"] for stored in STORED for operation in stored["record"]["operations"]}
    package = {
        kind
        for kind, cls in registered_degradations().items()
        if cls.__module__.startswith("mpfnl.transforms.")
    }
    assert kinds == package


def test_an_object_and_its_record_are_the_same() -> None:
    record = find_preset("severe").sample(5)
    assert Record.from_json(json.loads(json.dumps(record.to_json()))) == record
    assert sample_parameters(find_preset("severe"), 5) == record.to_json()
    assert all(isinstance(each, Degradation) for each in record.degradations)
    hu = torch.randn(12, 12, 6, generator=torch.Generator().manual_seed(0)) * 50
    assert torch.equal(record.apply(hu, (1, 1, 2)), apply_parameters(hu, (1, 1, 2), record.to_json()))
