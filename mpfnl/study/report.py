"""The report: one HTML file that holds everything it shows."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from mpfnl.files import write_text
from mpfnl.phases import ABDOMEN
from mpfnl.study.evaluate import Evaluation
from mpfnl.study.figures import Picture
from mpfnl.study.provenance import FAILED, FILE, LEFT_OUT
from mpfnl.study.tables import COLUMNS, MetricTable, cells, p_text

REPORT = "report.html"


def write_report(evaluation: Evaluation, pictures: Sequence[Picture], split: str, notice: str = "") -> Path:
    """Writes `report.html` into the evaluation folder.

    Args:
        evaluation: What to report.
        pictures: The figures; they are put into the file.
        split: The split that was evaluated.
        notice: Shown on top, for what a reader must know first.

    Returns:
        The file.
    """
    provenance = json.loads((evaluation.folder / FILE).read_text(encoding="utf-8"))
    target = provenance["settings"]["target"].replace("_", " ")
    environment = Environment(loader=PackageLoader("mpfnl.study"), autoescape=True, undefined=StrictUndefined)
    studies = len({case.study_id for case in evaluation.cases})
    text = environment.get_template("report.html.j2").render(
        title=f"Enhancement of the {target} phase: image quality",
        notice=notice,
        studies=studies,
        split=split,
        target=target,
        lower=f"{ABDOMEN.lower:g}",
        upper=f"{ABDOMEN.upper:g}",
        tables=[_printed(table) for table in evaluation.tables],
        columns=COLUMNS,
        smallest_p=p_text(2 / 2**studies) if studies < 11 else "",
        comparisons=[row for table in evaluation.tables for row in _comparisons(table)],
        pictures=[
            {"caption": p.caption, "data": base64.b64encode(p.path.read_bytes()).decode()} for p in pictures
        ],
        failed=_failed(evaluation),
        left_out=[name for name, reason in provenance[LEFT_OUT].items() if reason == FAILED],
        provenance=json.dumps(provenance, indent=2),
    )
    path = evaluation.folder / REPORT
    write_text(path, text)
    return path


def _printed(table: MetricTable) -> dict[str, object]:
    return {"title": table.metric.title, "rows": {name: cells(table, name) for name in table.summaries}}


def _comparisons(table: MetricTable) -> list[list[str]]:
    digits = table.metric.digits
    return [
        [
            table.metric.title,
            c.method,
            c.against,
            str(c.n),
            "–" if c.difference is None else f"{c.difference:+.{digits}f}",
            p_text(c.p),
            p_text(c.p_holm),
            "–" if c.effect is None else f"{c.effect:+.2f}",
        ]
        for c in table.comparisons
    ]


def _failed(evaluation: Evaluation) -> str:
    failed = sum(summary.n_failed for table in evaluation.tables for summary in table.summaries.values())
    return (
        f"{failed} values are missing; see cases.csv." if failed else "Nothing: every study has every value."
    )
