"""The record of an evaluation as a short list that can be read; the whole of it follows in the report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

LONGEST = 160  # characters; what is longer stands in the record only
SHORTENED = "see the record below"


def facts(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Labels and texts of the main facts of a record; what it does not have is left out."""
    return [(label, text) for label, text in _facts(record) if text]


def _facts(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "cohort", str(record.get("manifest", ""))
    for name, value in record.get("settings", {}).items():
        yield _label(name), _text(value)
    for name, model in record.get("models", {}).items():
        yield f"model {name}", f"{model.get('model', '')}, weights {model.get('weights_sha256', 'unknown')}"
    for name, scans in record.get("folders", {}).items():
        yield f"folder {name}", f"{len(scans)} scans"
    for name, value in (record.get("segmentation") or {}).items():
        yield _label(name), _text(value)
    for name, value in record.get("statistics", {}).items():
        yield _label(name), _text(value)
    yield "devices", _text(record.get("devices", []))
    yield "versions", _text(record.get("versions", {}))


def _label(name: str) -> str:
    return name.replace("_", " ")


def _text(value: object) -> str:
    text = _whole(value)
    if len(text) <= LONGEST:
        return text
    named = value.get("name") if isinstance(value, Mapping) else None
    return f"{named}: {SHORTENED}" if named else SHORTENED


def _whole(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{_label(str(name))} {_whole(inner)}" for name, inner in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(_whole, value))
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
