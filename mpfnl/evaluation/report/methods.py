"""What was compared, one line each, from the record of the evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mpfnl.evaluation.given import GIVEN
from mpfnl.phases import PHASES, Phase

_NUMBERS = {2: "two", 3: "three", 4: "four"}


def method_lines(provenance: Mapping[str, Any]) -> dict[str, str]:
    """One line for each model and folder of a record that `provenance.json` holds.

    Args:
        provenance: With `models` (name to `model`, `arguments`) and `folders`.
    """
    lines = {name: _model_line(model) for name, model in provenance.get("models", {}).items()}
    folders = provenance.get("folders", {})
    return lines | dict.fromkeys(folders, "scans that were enhanced elsewhere, read from a folder.")


def _model_line(model: Mapping[str, Any]) -> str:
    kind, phases = model.get("model", "a model"), model.get("arguments", {}).get("phases")
    if not phases:
        return f"{kind}."
    given = model.get(GIVEN, phases)
    missing = [phase.replace("_", " ") for phase in phases if phase not in given]
    without = f", without the {' and the '.join(missing)} phase{'s' * (len(missing) > 1)}" if missing else ""
    return f"{kind}, which sees {_in_words(given)}{without}."


def _in_words(phases: Sequence[str]) -> str:
    names = [phase.replace("_", " ") for phase in phases]
    if len(names) == 1:
        return f"the {names[0]} phase alone"
    every = "all " if tuple(phases) in (PHASES, tuple(Phase)) else ""
    return f"{every}{_NUMBERS[len(names)]} phases: {', '.join(names[:-1])} and {names[-1]}"
