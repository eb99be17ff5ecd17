"""The presets: what the documents and the package say of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from mpfnl.transforms.degradation import Preset, newest_presets, registered_presets

PAGE = Path(__file__).parents[2] / "docs" / "degradation.md"


def of_the_package(preset: Preset) -> bool:
    """Whether all stages are the package's; other tests register presets of their own."""
    return all(type(stage).__module__.startswith("mpfnl.transforms.") for stage in preset.stages)


def test_the_page_lists_the_registered_presets() -> None:
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    expected = [
        f"| `{short}` | `{preset.name}` | {preset.summary} |"
        for short, preset in newest_presets().items()
        if of_the_package(preset)
    ]
    assert [row for row in rows if row in expected] == expected


@pytest.mark.parametrize("name", ["paper", "mild", "severe", "low-dose", "thick-slices", "motion", "metal"])
def test_a_short_name_stands_for_a_recorded_one(name: str) -> None:
    preset = newest_presets()[name]
    assert registered_presets()[preset.name] is preset
    assert preset.name.endswith(f"-v{preset.version}")
    assert preset.summary


def test_needs_follow_from_the_stages() -> None:
    whole = {
        name for name, preset in newest_presets().items() if of_the_package(preset) and preset.whole_slices
    }
    assert whole == {"low-dose", "metal"}
    margins = {name: preset.margin for name, preset in newest_presets().items() if of_the_package(preset)}
    assert margins == {
        "paper": 4,
        "mild": 4,
        "severe": 4,
        "mixed": 4,
        "low-dose": 0,
        "thick-slices": 8,
        "motion": 8,
        "metal": 0,
    }
