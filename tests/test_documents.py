"""What the documents name exists: links, paths, modules, commands. tests/documents runs what they show."""

from __future__ import annotations

import pkgutil
import re
from pathlib import Path
from urllib.parse import unquote

import pytest
from documents import ROOT, all_blocks, anchors, blocks, documents, inline_code, links

from mpfnl.cli.main import COMMANDS, TRAINER_COMMANDS

FOLDERS = ("docs", "benchmarks", "examples", "tests", "mpfnl", ".ci")
PATH = re.compile(rf"(?:{'|'.join(map(re.escape, FOLDERS))})/[\w./*-]*")
DOTTED = re.compile(r"mpfnl(?:\.\w+)+")
LIGHTNINGS = ("--trainer.", "--data.", "--model.", "--ckpt_path", "--config")
OPTIONS = {
    option
    for command in COMMANDS.values()
    for action in command.parser()._actions
    for option in action.option_strings
}
SCRIPTS = "".join(
    path.read_text("utf-8") for path in [*ROOT.glob("benchmarks/*.py"), *ROOT.glob("examples/*.py")]
)
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")
PAGES = [pytest.param(path, id=path.relative_to(ROOT).as_posix()) for path in documents()]


def named_paths(path: Path) -> list[str]:
    """Words of inline code and of commands that look like a path in the repository."""
    page = path.relative_to(ROOT).as_posix()
    lines = [words for block in all_blocks("bash") if block.page == page for words in block.commands]
    scripts = [word for words in lines for word in words if word.endswith((".py", ".sh", ".sbatch"))]
    words = [word.strip("(),;:") for code in inline_code(path) for word in code.split()]
    return [word for word in [*words, *scripts] if PATH.fullmatch(word)]


def dotted_names(path: Path) -> list[str]:
    return [name for code in inline_code(path) for name in re.findall(rf"^{DOTTED.pattern}(?=$|\()", code)]


def strange_words(code: str) -> list[str]:
    """Commands of mpfnl, options and targets of make in inline code that are none."""
    first, *rest = [word.strip("(),;:") for word in code.split()]
    if first == "mpfnl" and rest and rest[0].isascii() and rest[0].islower():
        if rest[0] in COMMANDS:
            known = {
                option for action in COMMANDS[rest[0]].parser()._actions for option in action.option_strings
            }
            return [word for word in rest if word.startswith("-") and word.split("=")[0] not in known]
        return [] if rest[0] in (*TRAINER_COMMANDS, "--help", "--version") else rest[:1]
    if first == "make" and rest:
        return [word for word in rest if word.islower() and f"\n{word}:" not in MAKEFILE]
    option = first.split("=")[0]
    known_option = option in OPTIONS or option.startswith(LIGHTNINGS) or f'"{option}"' in SCRIPTS
    return [option] if option.startswith("--") and not known_option else []


def is_there(name: str) -> bool:
    return any(ROOT.glob(name)) if "*" in name else (ROOT / name).exists()


def resolves(name: str) -> bool:
    try:
        pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        return False
    return True


def leads_somewhere(page: Path, link: str) -> bool:
    name, _, anchor = unquote(link).partition("#")
    target = page.parent / name if name else page
    return target.exists() and (not anchor or target.suffix != ".md" or anchor in anchors(target))


@pytest.mark.parametrize("path", PAGES)
def test_links_lead_somewhere(path: Path) -> None:
    missing = [link for link in links(path) if not leads_somewhere(path, link)]
    assert not missing, f"{path.name} links to what does not exist: {', '.join(missing)}"


@pytest.mark.parametrize("path", PAGES)
def test_paths_exist(path: Path) -> None:
    missing = [name for name in named_paths(path) if not is_there(name)]
    assert not missing, f"{path.name} names what does not exist: {', '.join(missing)}"


@pytest.mark.parametrize("path", PAGES)
def test_modules_and_their_names_exist(path: Path) -> None:
    missing = [name for name in dotted_names(path) if not resolves(name)]
    assert not missing, f"{path.name} names what does not exist: {', '.join(missing)}"


@pytest.mark.parametrize("path", [page for page in PAGES if page.id != "CHANGELOG.md"])
def test_commands_and_options_exist(path: Path) -> None:
    commands = [
        " ".join(words) for block in blocks(path) if block.language == "bash" for words in block.commands
    ]
    named = [*inline_code(path), *(line for line in commands if line.startswith("make "))]
    strange = [word for code in named if code.strip() for word in strange_words(code)]
    assert not strange, f"{path.name} names what does not exist: {', '.join(strange)}"


def test_there_is_something_to_check() -> None:
    assert len(links(ROOT / "README.md")) >= 5
    assert sum(len(named_paths(path)) for path in documents()) >= 20
    assert sum(len(dotted_names(path)) for path in documents()) >= 5


def test_what_is_not_there_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A heading, here\n\n[a](#a-heading-here) [b](#elsewhere) [c](none.md) [d](https://e.org)\n"
    )
    assert [leads_somewhere(page, link) for link in links(page)] == [True, False, False]
    assert not is_there("docs/none.md")
    assert not is_there("docs/none*.md")
    assert not resolves("mpfnl.none")
    assert strange_words("mpfnl polish") == ["polish"]
    assert strange_words("mpfnl enhance --weights w --shine=2") == ["--shine=2"]
    assert strange_words("--shine") == ["--shine"]
    assert strange_words("make demo tea") == ["tea"]
    assert (
        not strange_words("--max-memory")
        + strange_words("mpfnl fit --config x.yaml")
        + strange_words("make demo")
    )
