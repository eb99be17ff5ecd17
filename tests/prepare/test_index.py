"""The index page: what it asks for, in which order it shows, and that nothing in it is taken for markup."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from mpfnl.data.manifest import Quality
from mpfnl.phases import Phase
from mpfnl.prepare.alignment import Alignment
from mpfnl.prepare.quality import PhaseQuality, measure, study_verdict
from mpfnl.prepare.review import Entry, draw_sheet, write_index

SETTINGS = {"settings": {"grid_mm": 4.0}, "versions": {"antspyx": "0.6.3", "numpy": "2.2.6"}}


def alignment(seed: int = 0) -> Alignment:
    """A small body of noise, and another one over it."""
    rng = np.random.default_rng(seed)
    fixed = np.full((30, 24, 20), -1000, dtype=np.float32)
    fixed[3:-3, 3:-3] = rng.normal(40, 60, (24, 18, 20))
    everywhere = np.ones(fixed.shape, dtype=bool)
    still = np.zeros((3, *fixed.shape), dtype=np.float32)
    return Alignment(fixed, fixed[::-1].copy(), fixed, everywhere, everywhere, still, (4.0, 4.0, 4.0))


@pytest.fixture(scope="module")
def quality() -> PhaseQuality:
    return measure(alignment())


def entry(name: str, verdict: Quality, quality: PhaseQuality, reasons: tuple[str, ...] = ()) -> Entry:
    record = {
        "study_id": name,
        "quality": verdict.value,
        "reasons": list(reasons),
        "phases": {"noncontrast": quality.to_json(), "arterial": quality.to_json()},
        "left_out": {"arterial": "similarity 1.1", "delayed": "too small"} if "left out" in name else {},
    }
    return Entry.of(record)


class Page(HTMLParser):
    """The tags of a page, its text, and whether each tag is closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in {"meta", "link", "img"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture
def page(tmp_path: Path, quality: PhaseQuality) -> Page:
    entries = [
        entry("good 1", Quality.PASS, quality),
        entry("doubtful", Quality.WARN, quality, ("arterial: similarity 1.215, warn below 1.230",)),
        entry("good-2", Quality.PASS, quality),
        entry("<script>alert(1)</script>", Quality.FAIL, quality, ("arterial: <b>differs</b> & more",)),
    ]
    write_index(tmp_path, entries, {"broken": "the portal venous scan is truncated"}, SETTINGS)
    return Page((tmp_path / "index.html").read_text("utf-8"))


def test_page_asks_for_the_sheets_alone(page: Page) -> None:
    images = page.of("img")
    assert all(image["loading"] == "lazy" and image["alt"] for image in images)
    assert [image["src"] for image in images if "script" not in str(image["src"])] == [
        "studies/doubtful/sheet.png",
        "studies/good%201/sheet.png",
        "studies/good-2/sheet.png",
    ]
    assert not page.of("script")
    assert not page.of("iframe")
    assert [link["href"] for link in page.of("link")] == ["data:,"]
    targets = [str(a["href"]) for a in page.of("a")]
    assert all(target.startswith(("#", "studies/")) for target in targets)
    (style,) = [words for words in page.words if "font:" in words]
    assert "url(" not in style
    assert "@import" not in style


def test_anchors_and_order(page: Page) -> None:
    text = page.text
    order = ["truncated", "<script>alert(1)</script> fail", "doubtful warn", "good 1 pass", "good-2 pass"]
    places = [text.index(words) for words in order]
    assert places == sorted(places)
    ids = {heading["id"] for heading in page.of("h2") if "id" in heading}
    assert ids == {"not-prepared", "fail", "warn", "pass"}
    assert [("open" in details) for details in page.of("details")] == [True, True, False, False]


def test_counts_reasons_numbers_and_versions(page: Page, quality: PhaseQuality) -> None:
    text = page.text
    for words in (
        "5 studies",
        "not prepared 1",
        "fail 1",
        "warn 1",
        "pass 2",
        "0.6.3",
        "phantoms, not on patients",
    ):
        assert words in text
    assert "arterial: <b>differs</b> & more" in text  # as text, not as markup
    assert not page.of("b")
    assert f"{quality.similarity_before:.2f} → {quality.similarity_after:.2f}" in text
    assert "displacement_p95_mm above 45 never" in text


def test_page_tells_which_phases_are_used(tmp_path: Path, quality: PhaseQuality) -> None:
    write_index(tmp_path, [entry("left out", Quality.WARN, quality)], {}, SETTINGS)
    text = Page((tmp_path / "index.html").read_text("utf-8")).text
    for words in ("non-contrast yes", "arterial no", "delayed no –"):
        assert words in text


def test_page_of_nothing_and_of_what_cannot_be_measured(tmp_path: Path, quality: PhaseQuality) -> None:
    write_index(tmp_path, [], {}, {})
    empty = Page((tmp_path / "index.html").read_text("utf-8"))
    assert "0 studies" in empty.text
    assert not empty.of("img")
    unknown = replace(quality, similarity_after=float("nan"))
    write_index(tmp_path, [entry("s", Quality.FAIL, unknown)], {}, {})
    assert "→ –" in (tmp_path / "index.html").read_text("utf-8")


def test_the_same_cohort_gives_the_same_page(tmp_path: Path, quality: PhaseQuality) -> None:
    pages = []
    for _ in range(2):
        write_index(tmp_path, [entry("s", Quality.PASS, quality)], {"b": "why"}, SETTINGS)
        pages.append((tmp_path / "index.html").read_bytes())
    assert pages[0] == pages[1]
    assert str(tmp_path).encode() not in pages[0]


def test_sheet_of_a_study(quality: PhaseQuality) -> None:
    seen = {Phase.NONCONTRAST: alignment(), Phase.ARTERIAL: alignment()}
    qualities = dict.fromkeys(seen, quality)
    sheet = draw_sheet("study", seen, qualities)
    assert sheet.startswith(b"\x89PNG")
    assert sheet == draw_sheet("study", seen, qualities)
    failed = qualities | {Phase.ARTERIAL: replace(quality, verdict=Quality.FAIL)}
    assert study_verdict(failed) is Quality.WARN
    assert sheet != draw_sheet("study", seen, failed)
