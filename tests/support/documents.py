"""The project's documents, taken apart: fenced blocks, command lines, inline code, links, headings."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

ROOT = Path(__file__).resolve().parents[2]
NAMED = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
LINK = re.compile(r"\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)|<(?:img|a)\s[^>]*(?:src|href)=\"([^\"]+)\"")
FENCED = re.compile(r"^( *)```([^\n`]*)\n(.*?)^\1```", re.M | re.S)


@dataclass(frozen=True)
class Block:
    """A fenced block of a document.

    Args:
        page: The document, from the repository's root.
        line: Line of its opening fence.
        language: Language after the fence; "" without one.
        text: Content of the block.
    """

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def commands(self) -> list[list[str]]:
        """The words of each of its lines, of a bash block; without comments."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [words for line in lines if (words := shlex.split(line, comments=True))]


def documents() -> list[Path]:
    """Every document of the repository that is written by hand: not what is built, and no model cards."""
    pages = [path for path in ROOT.glob("docs/**/*.md") if "/_" not in path.relative_to(ROOT).as_posix()]
    inside = [*ROOT.glob("mpfnl/ops/**/README.md"), *ROOT.glob("examples/*.md")]
    return [*(ROOT / name for name in NAMED), *sorted(pages), *sorted(inside)]


def blocks(path: Path) -> list[Block]:
    """The fenced blocks of a document, in order."""
    text, page = path.read_text("utf-8"), path.relative_to(ROOT).as_posix()
    return [
        Block(page, text.count("\n", 0, found.start()) + 1, found[2].strip(), dedent(found[3]))
        for found in FENCED.finditer(text)
    ]


def all_blocks(*languages: str) -> list[Block]:
    """The blocks in these languages of every document."""
    return [block for path in documents() for block in blocks(path) if block.language in languages]


def without_blocks(text: str) -> str:
    return FENCED.sub("", text)


def inline_code(path: Path) -> list[str]:
    """What stands between single backticks."""
    return re.findall(r"(?<!`)`([^`\n]+)`(?!`)", without_blocks(path.read_text("utf-8")))


def links(path: Path) -> list[str]:
    """Paths and anchors that a document links to or shows, without addresses on the web."""
    text = re.sub(r"`[^`\n]*`", "", without_blocks(path.read_text("utf-8")))
    found = [first or second for first, second in LINK.findall(text)]
    return [link for link in found if not re.match(r"[a-z][a-z+.-]*:", link)]


def anchors(path: Path) -> set[str]:
    """The names under which GitHub and MyST link to a document's headings."""
    headings = re.findall(r"^#+ +(.+?)\s*$", without_blocks(path.read_text("utf-8")), re.M)
    labels = re.findall(r"^\(([\w-]+)\)=$", path.read_text("utf-8"), re.M)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings} | set(labels)
