"""The report as one HTML file that loads nothing."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from mpfnl.evaluation.figures import FigureFile
from mpfnl.evaluation.folder import REPORT
from mpfnl.evaluation.report.answer import answer, count
from mpfnl.evaluation.report.contents import ReportContents, failure_table
from mpfnl.evaluation.tables.metric_table import MetricTable
from mpfnl.evaluation.tables.metrics import window_range
from mpfnl.evaluation.tables.printing import (
    COMPARISON_COLUMNS,
    cells,
    columns,
    comparison_cells,
    table_notes,
)
from mpfnl.files import write_text

TEMPLATE = "report.html.j2"

LISTED_WARNINGS = 10
"""Number of warnings of the phase-leak check above the fold."""

LONGEST_FACT = 160
"""Length in characters of the longest value among the facts; longer ones are in the record alone."""


def write_report(folder: Path, contents: ReportContents) -> Path:
    """Writes `report.html`: one file with its figures inside, which loads nothing.

    Args:
        folder: The evaluation folder.
        contents: Contents of the report.

    Returns:
        Path of the file.

    Raises:
        OutputError: The file system refuses.
    """
    path = folder / REPORT
    write_text(path, render_report(contents))
    return path


def render_report(contents: ReportContents) -> str:
    """The report as HTML. Every text is escaped; the content security policy forbids to load anything."""
    environment = Environment(
        loader=PackageLoader("mpfnl.evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    every = [*contents.image_tables, *contents.structure_tables, *contents.overlap_tables]
    return environment.get_template(TEMPLATE).render(
        c=contents,
        answer=answer(contents),
        image=_printed(contents.image_tables),
        structure=_printed(contents.structure_tables) if contents.structure_tables else None,
        overlap=_printed(contents.overlap_tables) if contents.overlap_tables else None,
        comparison_columns=COMPARISON_COLUMNS,
        comparisons=[(t.metric.title, [comparison_cells(t, c) for c in t.comparisons]) for t in every],
        tests=count(sum(len(t.comparisons) for t in every), "paired test"),
        window=window_range(contents.window),
        figures=[_figure(figure, contents.segmentation_notice) for figure in contents.figures],
        listed_warnings=LISTED_WARNINGS,
        failures=failure_table(contents.cases),
        facts=facts(contents.provenance),
        record=json.dumps(contents.provenance, indent=2),
    )


def _printed(tables: Sequence[MetricTable]) -> dict[str, Any]:
    """The cells of a table; no metric without any value is among them."""
    return {
        "columns": columns(tables),
        "groups": [
            (t.metric.title, [(name, cells(t, name)) for name in t.summaries]) for t in tables if t.has_values
        ],
        "notes": table_notes(tables),
    }


def _figure(figure: FigureFile, notice: str) -> dict[str, Any]:
    """A figure with its data; the notice is removed from the caption, to be set apart from it."""
    data = figure.path.read_bytes()
    width, height = (int.from_bytes(data[place : place + 4]) for place in (16, 20))  # PNG's first chunk
    noticed = bool(notice) and notice in figure.caption
    return {
        "title": figure.title,
        "caption": figure.caption.replace(notice, "").strip() if noticed else figure.caption,
        "notice": notice if noticed else "",
        "alt": figure.alt,
        "width": width,
        "height": height,
        "data": base64.b64encode(data).decode(),
    }


def facts(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Labels and texts of the main facts of a provenance record; missing ones are left out."""
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
    if len(text) <= LONGEST_FACT:
        return text
    name = value.get("name") if isinstance(value, Mapping) else None
    return f"{name}: see the record below" if name else "see the record below"


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
