"""The report: whole HTML that loads nothing, hides nothing, and claims no more than the numbers do."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from scipy import stats
from statsmodels.stats.multitest import multipletests

from mpfnl.evaluation.cases import Case
from mpfnl.evaluation.figures import FigureFile
from mpfnl.evaluation.leaks.swap import SwapRow
from mpfnl.evaluation.leaks.table import LeakSummary
from mpfnl.evaluation.report.answer import Conclusion, answer, conclusion_of, least_p
from mpfnl.evaluation.report.contents import (
    LeakSection,
    ReportContents,
    TextTable,
    leak_table,
    method_lines,
    swap_table,
)
from mpfnl.evaluation.report.page import facts, render_report, write_report
from mpfnl.evaluation.tables.metric_table import tabulate, tabulate_overlap
from mpfnl.evaluation.tables.metrics import p_text
from mpfnl.evaluation.tables.printing import cells
from mpfnl.metrics.statistics import Comparison, ConfidenceInterval, Summary
from mpfnl.phases import Phase
from mpfnl.window import ABDOMEN

NOTICE = "phantom weights: nothing about patients"
HOSTILE = "<script>alert('x')</script> & \"quoted\" {{ 7 * 7 }}"
VOID = {"meta", "link", "img", "br", "hr", "input"}
MODELS = ("RCAN3D", "PFNL3D")


@dataclass
class Page(HTMLParser):
    """What a page holds; fails where tags do not close in order."""

    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    open: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    text: str = ""

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"an attribute of {tag} stands there twice"
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> closes another tag"

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            return
        self.text += data
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def parse(html: str) -> Page:
    page = Page()
    page.feed(html)
    page.close()
    assert not page.open, f"never closed: {page.open}"
    return page


def made_up(studies: int = 12, gain: float = 0.05, seed: int = 0) -> list[Case]:
    """PFNL3D gains, RCAN3D is now above and now below the degraded scan."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(studies):
        base, even = rng.uniform(0.5, 0.7), 0.01 * (1 + number / 100) * (-1) ** number
        steps = {
            "reference": 2 * abs(gain),
            "degraded": 0.0,
            "RCAN3D": even,
            "PFNL3D": gain + rng.normal(0, 0.01),
        }
        for method, step in steps.items():
            image = (math.nan, math.nan) if method == "reference" else (24 + 50 * step + base, 0.5 + step)
            rows.append(Case(f"s{number}", f"p{number}", method, *image, base + step, (base + step) / 3))
    return rows


def contents_of(cases: list[Case]) -> ReportContents:
    return ReportContents(
        target=Phase.PORTAL_VENOUS,
        window=ABDOMEN,
        split="test",
        degradation="second-order-v1",
        cases=cases,
        image_tables=tabulate(cases),
        methods={name: f"{name}; input phases: all three." for name in MODELS},
        overlap_tables=tabulate_overlap(cases, 3.0),
        segmentation_notice=NOTICE,
        provenance={"settings": {"seed": 3}, "manifest": "cohort.csv"},
    )


@pytest.fixture
def full(tmp_path: Path) -> ReportContents:
    """Everything that a report can hold, with failures and names that must be escaped."""
    cases = made_up()
    cases[7] = replace(cases[7], dsc=math.nan, nsd=math.nan, failure=HOSTILE)
    cases[10] = replace(cases[10], dsc=0.0, nsd=0.0, failure="empty: no voxel of the pancreas was found")
    figures = []
    for name, caption in (("quality", "Every study."), ("contours", f"Contours & more. {NOTICE}")):
        figure = Figure(figsize=(3, 2))
        figure.subplots().plot([1, 2])
        figure.savefig(tmp_path / f"{name}.png")
        figures.append(
            FigureFile(tmp_path / f"{name}.png", f"Figure of {name}", caption, f'"{name}" by method')
        )
    drift = LeakSummary("PFNL3D", "aorta", 12, 0, 18.4, 3.1, {Phase.ARTERIAL: 0.31}, {}, 5)
    swap = SwapRow(Phase.ARTERIAL, Phase.PORTAL_VENOUS, "aorta", -14.25, 17.0)
    return replace(
        contents_of(cases),
        figures=figures,
        leaks=LeakSection(
            leak_table([drift]),
            [f"study s{number}: PFNL3D: aorta 22 HU brighter" for number in range(14)],
            swap_table({"PFNL3D": [swap]}),
            [HOSTILE],
        ),
        left_out={"since their preparation failed": ["x1", "x2"]},
        notice=HOSTILE,
        provenance={"settings": {"note": HOSTILE}, "models": {}, "versions": {"numpy": "2"}},
    )


def test_the_page_is_whole_and_loads_nothing(full: ReportContents, tmp_path: Path) -> None:
    path = write_report(tmp_path, full)
    html = path.read_text(encoding="utf-8")
    page = parse(html)
    assert html.startswith('<!doctype html>\n<html lang="en">')
    references = [
        attributes[name] or ""
        for _, attributes in page.tags
        for name in ("src", "href", "srcset", "data", "action", "poster", "background")
        if name in attributes
    ]
    assert len(references) == 1 + len(full.figures)
    assert all(reference.startswith("data:image/") for reference in references)
    assert not re.search(r"url\(|@import|@font-face", html)
    assert not {tag for tag, _ in page.tags} & {"script", "iframe", "object", "embed", "a", "form", "base"}
    policy = next(meta["content"] for meta in page.all("meta") if meta.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none';")


def test_everybody_can_read_it(full: ReportContents) -> None:
    page = parse(render_report(full))
    assert page.all("html") == [{"lang": "en"}]
    assert [image["alt"] for image in page.all("img")] == [figure.alt for figure in full.figures]
    assert all(image["width"] == "300" and image["height"] == "200" for image in page.all("img"))
    assert all(heading.get("scope") in ("col", "row", "rowgroup") for heading in page.all("th"))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    named = {attributes["aria-labelledby"] for _, attributes in page.tags if "aria-labelledby" in attributes}
    assert named <= set(ids)
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_what_others_wrote_is_text(full: ReportContents) -> None:
    html = render_report(full)
    told = parse(html).text
    assert (
        told.count("alert('x')") == told.count("{{ 7 * 7 }}") == 5
    )  # notice, remark, failure, provenance twice
    assert "<script" not in html


def test_the_tables_hold_every_cell(full: ReportContents) -> None:
    rows = parse(render_report(full)).rows
    for table in (*full.image_tables, *full.overlap_tables):
        assert [table.metric.title] in rows
        for method in table.summaries:
            assert [method, *cells(table, method)] in rows
        for comparison in table.comparisons:
            found = [
                row for row in rows if row[:3] == [comparison.method, comparison.against, str(comparison.n)]
            ]
            assert any(row[4:6] == [p_text(comparison.p), p_text(comparison.p_holm)] for row in found)


def test_nothing_that_failed_is_hidden(full: ReportContents) -> None:
    page = parse(render_report(full))
    assert ["s1", "PFNL3D", HOSTILE, "left out of Table II"] in page.rows
    assert ["s2", "RCAN3D", "empty: no voxel of the pancreas was found", "counts as 0"] in page.rows
    remarks = answer(full).remarks
    assert any("1 segmentation (PFNL3D 1)" in remark for remark in remarks)
    assert any("DSC counts as 0" in remark and "(RCAN3D 1)" in remark for remark in remarks)
    assert all(remark in page.text for remark in remarks)
    assert "x1, x2" in page.text
    assert all(f"study s{number}: PFNL3D" in page.text for number in range(14))
    assert "14 warnings" in page.text
    whole = answer(contents_of(made_up())).remarks
    assert not any("(RCAN3D" in remark or "(PFNL3D" in remark for remark in whole)


def test_the_segmenters_notice_stands_wherever_its_results_do(full: ReportContents) -> None:
    html = render_report(full)
    sections = re.split(r"<h[23][^>]*>", html)
    told = [section.partition("<")[0] for section in sections if NOTICE in section]
    assert told == [
        "Segmentation of the pancreas",
        "Table II: segmentation of the pancreas",
        "Statistical tests",
        "Figure of contours",
        "Provenance",
    ]
    assert NOTICE not in render_report(replace(full, segmentation_notice="", figures=[]))


def test_without_a_segmenter_nothing_is_said_of_segmentation() -> None:
    cases = [replace(case, dsc=math.nan, nsd=math.nan) for case in made_up() if case.method != "reference"]
    page = parse(render_report(replace(contents_of(cases), overlap_tables=[], segmentation_notice="")))
    assert not re.search("DSC|NSD|Table II:|pancreas", page.text)
    assert "segmentation" in page.text[page.text.index("Limitations") :]


def conclusions(cases: list[Case]) -> dict[str, Conclusion]:
    section = answer(contents_of(cases)).sections[0]
    return {finding.method: finding.conclusion for finding in section.findings}


def test_conclusions_follow_the_numbers() -> None:
    assert conclusions(made_up(gain=0.05)) == {"RCAN3D": Conclusion.OPEN, "PFNL3D": Conclusion.HIGHER}
    assert conclusions(made_up(gain=-0.05))["PFNL3D"] is Conclusion.LOWER
    assert set(conclusions(made_up(studies=6)).values()) == {Conclusion.TOO_FEW}  # 3 tests: p is .094 at best
    assert conclusions(made_up(studies=8))["PFNL3D"] is Conclusion.HIGHER
    assert set(conclusions(made_up(studies=1)).values()) == {Conclusion.TOO_FEW}


@settings(deadline=None, max_examples=100)
@given(st.floats(-1, 1), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_higher_needs_interval_and_test(mean: float, below: float, above: float, p: float) -> None:
    test = Comparison("PFNL3D", "degraded", 12, 0, mean, p, p, math.copysign(0.5, mean))
    interval = ConfidenceInterval(mean - below, mean + above)
    found = conclusion_of(Summary(12, 0, mean, 0.1, mean, interval), test, 3)
    claims = found in (Conclusion.HIGHER, Conclusion.LOWER)
    assert claims == ((interval.low > 0 or interval.high < 0) and p < 0.05)
    if claims:
        assert (found is Conclusion.HIGHER) == (mean > 0)


def test_the_smallest_p_is_the_one_of_scipy() -> None:
    for n in (4, 7, 11):
        p = stats.wilcoxon(np.arange(1.0, n + 1)).pvalue
        assert least_p(n, 3) == pytest.approx(multipletests([p, 1.0, 1.0], method="holm")[1][0])


def test_the_answer_says_the_numbers() -> None:
    contents = contents_of(made_up())
    told = answer(contents)
    dsc = contents.overlap_tables[0]
    gain, test = dsc.gains["PFNL3D"], dsc.against_baseline("PFNL3D")
    assert gain.mean is not None
    assert gain.interval is not None
    assert test is not None
    text = next(f.text for f in told.sections[0].findings if f.method == "PFNL3D").replace(
        "\N{NO-BREAK SPACE}", " "
    )
    assert f"{100 * gain.mean:+.2f} percentage points" in text
    assert f"95 % CI {100 * gain.interval.low:.2f} to {100 * gain.interval.high:.2f}" in text
    assert p_text(test.p_holm) in text
    assert "12 pairs" in text
    assert told.opening.startswith("12 studies (test split)")
    assert any("cohort of this size" in remark for remark in told.remarks)
    few = answer(contents_of(made_up(studies=3)))
    assert any("no corrected p can fall below .750" in remark for remark in few.remarks)


def test_one_study_with_one_method_makes_a_report() -> None:
    cases = [case for case in made_up(studies=1) if case.method != "PFNL3D"]
    cases = [replace(c, dsc=math.nan, nsd=math.nan, failure="a dead worker") for c in cases]
    page = parse(render_report(replace(contents_of(cases), methods={"RCAN3D": "a model."})))
    assert "1 study" in page.text
    assert ["s0", "reference, degraded, RCAN3D", "a dead worker"] in [row[:3] for row in page.rows]


def test_a_phase_leak_check_without_a_measurement_is_no_good_news() -> None:
    contents = contents_of(made_up())
    silent = "No warning: no organ drifted"
    assert silent not in render_report(replace(contents, leaks=LeakSection()))
    unmeasured = replace(contents, leaks=LeakSection(warnings=["no map"]))
    assert "no organ" in answer(unmeasured).remarks[-1]
    measured = LeakSection(TextTable(["method", "organ"], [["PFNL3D", "aorta"]]))
    assert silent in render_report(replace(contents, leaks=measured))


def test_rows_must_fit_their_headings() -> None:
    with pytest.raises(ValueError, match=r"1 .* 2"):
        TextTable(["a", "b"], [["1"]])


def test_models_and_folders_have_a_line() -> None:
    record = {
        "models": {
            "ours": {
                "model": "PFNL3D",
                "arguments": {"phases": ["noncontrast", "arterial", "portal_venous"]},
            },
            "alone": {"model": "RCAN3D", "arguments": {"phases": ["portal_venous"]}},
        },
        "folders": {"other": {}},
    }
    lines = method_lines(record)
    assert lines["ours"] == "PFNL3D; input phases: non-contrast, arterial and portal venous."
    assert lines["alone"] == "RCAN3D; input phases: portal venous."
    assert lines["other"]


def test_the_facts_are_those_of_the_record(tmp_path: Path) -> None:
    record = {
        "manifest": "cohort.csv",
        "settings": {"seed": 3, "degradation": {"name": "v1", "more": "x" * 500}, "precision": None},
        "segmentation": {"tolerance_mm": 3.0, "segmenter": {"fast": True}},
        "folders": {"other": {"s0": "abc"}},
    }
    told = dict(facts(record))
    assert told["seed"] == "3"
    assert told["degradation"] == "v1: see the record below"
    assert told["tolerance mm"] == "3.0"
    assert told["segmenter"] == "fast yes"
    assert told["precision"] == "none"
    assert told["folder other"] == "1 scans"
    page = parse(render_report(replace(contents_of(made_up()), provenance=record)))
    assert json.loads(page.text[page.text.index("{") : page.text.rindex("}") + 1]) == record


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
def test_a_browser_has_nothing_to_complain_of(full: ReportContents, tmp_path: Path) -> None:
    report = write_report(tmp_path, full)
    assert not console_messages(report, tmp_path)
    broken = tmp_path / "broken.html"
    html = report.read_text(encoding="utf-8")
    broken.write_text(html.replace("<main>", '<main><img alt="" src="https://example.invalid/x.png">'))
    assert any("Content Security Policy" in line for line in console_messages(broken, tmp_path))


def console_messages(page: Path, folder: Path) -> list[str]:
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"]
    profile = f"--user-data-dir={folder / 'profile'}"
    found = subprocess.run(
        ["chromium", *flags, profile, page.as_uri()], capture_output=True, text=True, check=True, timeout=60
    )
    assert "</html>" in found.stdout
    return [line for line in found.stderr.splitlines() if "CONSOLE" in line]
