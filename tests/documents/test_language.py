"""The language of the package and its pages: argument texts begin with a noun, pages have no long lines."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from documents import ROOT, documents

LONGEST = 120
WITHOUT_A_NOUN = re.compile(r"^\s+\w+: (?:Of|By|With|From what|Whose|Which)\b.*", re.M)
"""An argument text without its noun, such as `dose_fraction: Of the dose that the scan was made with`."""


def texts_without_a_noun(text: str) -> list[str]:
    return [found.strip() for found in WITHOUT_A_NOUN.findall(text)]


def long_lines(text: str) -> list[int]:
    """Numbers of the lines that are too long; tables and unbreakable words of code are excepted."""
    numbers, code = [], False
    for number, line in enumerate(text.splitlines(), start=1):
        code ^= line.lstrip().startswith("```")
        indivisible = code and len(line.split()) <= 2
        if len(line) > LONGEST and not line.lstrip().startswith("|") and not indivisible:
            numbers.append(number)
    return numbers


def test_argument_texts_begin_with_a_noun() -> None:
    found = {
        path.relative_to(ROOT).as_posix(): texts
        for path in sorted((ROOT / "mpfnl").rglob("*.py"))
        if (texts := texts_without_a_noun(path.read_text("utf-8")))
    }
    assert not found


@pytest.mark.parametrize("path", documents(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_lines_of_pages_are_not_too_long(path: Path) -> None:
    numbers = long_lines(path.read_text("utf-8"))
    assert not numbers, f"{path.name}: over {LONGEST} characters in the lines {numbers}"


def test_both_faults_are_detected() -> None:
    docstring = "    Args:\n        seed: Of the draw.\n        mode: Offset.\n        path: Which file.\n"
    assert texts_without_a_noun(docstring) == ["seed: Of the draw.", "path: Which file."]
    words = "word " * 30
    page = f"{words}\n\n| {words} |\n\n```\n{words}\n{'x' * 150}\n```\n{'x' * 150}\n"
    assert long_lines(page) == [1, 6, 9]
