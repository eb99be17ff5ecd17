"""The page: everything into one HTML file that asks nothing of a network."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from mpfnl.evaluation.report.answer import answer, count
from mpfnl.evaluation.report.contents import Picture, ReportContents
from mpfnl.evaluation.report.facts import facts
from mpfnl.evaluation.report.failures import failure_table
from mpfnl.evaluation.tables import (
    COMPARISON_COLUMNS,
    MetricTable,
    cells,
    columns,
    comparison_cells,
    table_notes,
)
from mpfnl.files import write_text

REPORT = "report.html"
TEMPLATE = "report.html.j2"
SHOWN_WARNINGS = 10  # of the phase-leak check; the rest unfolds


def write_report(folder: Path, contents: ReportContents) -> Path:
    """Writes `report.html`: one file with its figures inside, which loads nothing.

    Args:
        folder: The evaluation folder.
        contents: What it says.

    Returns:
        The file.

    Raises:
        InputError: The file system refuses.
    """
    path = folder / REPORT
    write_text(path, render_report(contents))
    return path


def render_report(contents: ReportContents) -> str:
    """The report as HTML. Every text is escaped; a browser is told to load nothing (content security)."""
    environment = Environment(
        loader=PackageLoader("mpfnl.evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    every = [*contents.image_tables, *contents.overlap_tables]
    return environment.get_template(TEMPLATE).render(
        c=contents,
        answer=answer(contents),
        image=_printed(contents.image_tables),
        overlap=_printed(contents.overlap_tables) if contents.overlap_tables else None,
        comparison_columns=COMPARISON_COLUMNS,
        comparisons=[(t.metric.title, [comparison_cells(t, c) for c in t.comparisons]) for t in every],
        tests=count(sum(len(t.comparisons) for t in every), "paired test"),
        pictures=[_picture(picture, contents.segmentation_notice) for picture in contents.pictures],
        shown_warnings=SHOWN_WARNINGS,
        failures=failure_table(contents.cases),
        facts=facts(contents.provenance),
        record=json.dumps(contents.provenance, indent=2),
    )


def _printed(tables: Sequence[MetricTable]) -> dict[str, Any]:
    return {
        "columns": columns(tables),
        "groups": [(t.metric.title, [(name, cells(t, name)) for name in t.summaries]) for t in tables],
        "notes": table_notes(tables),
    }


def _picture(picture: Picture, notice: str) -> dict[str, Any]:
    """A picture with its data; the notice is taken out of the caption, to stand apart from it."""
    data = picture.path.read_bytes()
    width, height = (int.from_bytes(data[place : place + 4]) for place in (16, 20))  # PNG's first chunk
    noticed = bool(notice) and notice in picture.caption
    return {
        "title": picture.title,
        "caption": picture.caption.replace(notice, "").strip() if noticed else picture.caption,
        "notice": notice if noticed else "",
        "alt": picture.alt,
        "width": width,
        "height": height,
        "data": base64.b64encode(data).decode(),
    }
