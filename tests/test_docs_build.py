"""The site builds without a warning and holds every page and every public name."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
sphinx_inventory = pytest.importorskip("sphinx.util.inventory", reason="needs the extra docs")
pytest.importorskip("myst_nb", reason="needs the extra docs")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-W",
        "--keep-going",
        "-n",
        "-q",
        str(ROOT / "docs"),
        str(folder / "html"),
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert result.returncode == 0, result.stderr[-5000:]
    return folder / "html"


def entries(site: Path) -> dict[str, dict[str, object]]:
    """Role to the names that have an entry: what other sites can link to."""
    found = sphinx_inventory.InventoryFile.loads((site / "objects.inv").read_bytes(), uri="")
    return {role: dict(names) for role, names in found.data.items()}


def listed_names() -> list[str]:
    """The public names, by their rooms."""
    pinned = tomllib.loads((ROOT / "tests" / "package" / "public_names.toml").read_text("utf-8"))
    del pinned["command line"]
    return [f"{room}.{name}" for room, names in pinned.items() for name in names]


def test_every_document_is_a_page(site: Path) -> None:
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")}
    assert len(pages) > 20
    assert {name for name in pages if not (site / f"{name}.html").is_file()} == set()
    others = ["cli", "api", "changelog", "contributing", "operator"]
    assert all((site / "_generated" / f"{name}.html").is_file() for name in others)


def test_every_page_can_be_reached(site: Path) -> None:
    """Sphinx warns of pages in no list of contents; this holds for those that it was told to forgive, too."""
    front = (site / "index.html").read_text("utf-8")
    for path in (ROOT / "docs").glob("*.md"):
        assert path.stem == "index" or f'href="{path.stem}.html"' in front


def test_notebooks_are_tutorials(site: Path) -> None:
    front = (site / "index.html").read_text("utf-8")
    names = [path.stem for path in (ROOT / "examples").glob("*.ipynb")]
    assert names
    for name in names:
        assert f'href="_generated/notebooks/{name}.html"' in front
    assert (site / "_generated" / "notebooks" / "fine_tuning.html").read_text("utf-8").count("<img") >= 1


def test_every_public_name_has_an_entry(site: Path) -> None:
    found = {name for role, names in entries(site).items() if role.startswith("py:") for name in names}
    names = listed_names()
    assert len(names) > 80
    assert {"mpfnl.PFNL3D", "mpfnl.metrics.ssim", "mpfnl.evaluation.evaluate"} <= set(names)
    assert set(names) - found == set()


def test_every_option_has_an_entry(site: Path) -> None:
    from mpfnl.cli.main import COMMANDS

    found = set(entries(site)["std:cmdoption"])
    options = {
        f"mpfnl-{name}.{action.option_strings[-1]}"
        for name, command in COMMANDS.items()
        for action in command.parser()._actions
        if action.option_strings and action.dest != "help"
    }
    assert len(options) > 40
    assert options - found == set()


def test_shapes_keep_their_names(site: Path) -> None:
    page = (site / "_generated" / "api" / "networks.html").read_text("utf-8")
    text = re.sub(r"<[^>]+>", "", page)
    assert re.search(r"forward\(\s*phases: PhaseBatch", text)  # long signatures take several lines


def test_nothing_is_fetched_to_show_a_page(site: Path) -> None:
    """Pages work without a network: no script, style or picture comes from elsewhere."""
    fetched = re.compile(r"<(?:script|img|link)[^>]+(?:src|href)=\"(https?:[^\"]+)\"")
    assert {
        address for page in site.rglob("*.html") for address in fetched.findall(page.read_text("utf-8"))
    } == set()
