"""What the documents say exists: links, commands with their options, recipes, and Python that runs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from urllib.parse import unquote

import pytest

from mpfnl.cli.main import COMMANDS, TRAINER_COMMANDS

ROOT = Path(__file__).resolve().parents[1]
NAMED = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
DOCUMENTS = [*(ROOT / name for name in NAMED), *sorted(ROOT.glob("docs/*.md"))]
RECIPES = ROOT / "mpfnl" / "recipes"
LINK = re.compile(r"\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)|<(?:img|a)\s[^>]*(?:src|href)=\"([^\"]+)\"")


def without_code(text: str) -> str:
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))


def links(path: Path) -> list[str]:
    """Paths that a document links to or shows, without addresses and anchors in itself."""
    found = [first or second for first, second in LINK.findall(without_code(path.read_text("utf-8")))]
    return [link for link in found if not re.match(r"[a-z][a-z+.-]*:|#", link)]


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text("utf-8"), flags=re.M | re.S)


def commands(path: Path) -> list[list[str]]:
    """The words of every `mpfnl` line of the document's bash blocks."""
    lines = "".join(blocks(path, "bash")).replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))[:1] == ["mpfnl"]]


def python_blocks() -> list[tuple[str, str]]:
    return [
        (f"{path.relative_to(ROOT)}-{number}", block)
        for path in DOCUMENTS
        for number, block in enumerate(blocks(path, "python"))
    ]


PYTHON = python_blocks()
RUNNABLE = [(name, block) for name, block in PYTHON if ".csv" not in block and ".nii.gz" not in block]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    missing = [link for link in links(path) if not (path.parent / unquote(link.split("#")[0])).exists()]
    assert not missing, f"{path.name} names what does not exist: {', '.join(missing)}"


def test_links_commands_and_python_are_found_at_all() -> None:
    assert len(links(ROOT / "README.md")) >= 5
    assert {words[1] for words in commands(ROOT / "README.md")} >= {"enhance", "evaluate", "fit"}
    assert len(PYTHON) > len(RUNNABLE) >= 2


@pytest.mark.parametrize("words", commands(ROOT / "README.md"), ids=" ".join)
def test_commands_of_the_readme_exist(words: list[str]) -> None:
    _, name, *rest = words
    if name in TRAINER_COMMANDS:
        assert "--config" in rest
        assert (RECIPES / rest[rest.index("--config") + 1]).is_file()
        return
    assert name in COMMANDS
    options = {option for action in COMMANDS[name].parser()._actions for option in action.option_strings}
    unknown = [word for word in rest if word.startswith("-") and word.split("=")[0] not in options]
    assert not unknown, f"mpfnl {name} has no {', '.join(unknown)}"


@pytest.mark.parametrize("block", [block for _, block in PYTHON], ids=[name for name, _ in PYTHON])
def test_python_compiles(block: str) -> None:
    compile(block, "block", "exec")


@pytest.mark.parametrize("block", [block for _, block in RUNNABLE], ids=[name for name, _ in RUNNABLE])
def test_python_that_needs_no_files_runs(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "block", "exec"), {"__name__": "__main__"})
