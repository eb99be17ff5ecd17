"""Documents that live elsewhere in the repository: notebooks, changes, and others."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath

from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[2]
TEXTS = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "mpfnl/ops/nonlocal_attention/README.md": "operator.md",
}
ORDER = ("first_look", "your_own_study", "fine_tuning", "metrics", "nonlocal_operator")
"""The notebooks as they are read; others follow."""

LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)(?P<path>[^)#\s]+)(?P<anchor>#[^)\s]*)?(?=\))")
LIST = "notebooks"


def notebooks() -> list[str]:
    """The names of the notebooks that are there, without the suffix."""
    found = sorted(path.stem for path in (ROOT / "examples").glob("*.ipynb"))
    return sorted(found, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))


def places() -> dict[str, str]:
    """Path in the repository to path in the site, without `docs/`."""
    shown = {f"examples/{name}.ipynb": f"_generated/notebooks/{name}.ipynb" for name in notebooks()}
    return shown | {path: f"_generated/{name}" for path, name in TEXTS.items()}


def pages() -> dict[str, str]:
    """The copies. Their links are mended when they are read."""
    return {
        place.removeprefix("_generated/"): (ROOT / path).read_text("utf-8")
        for path, place in places().items()
    }


def point_into_the_site(app: Sphinx, docname: str, source: list[str]) -> None:
    """Sphinx's event `source-read`: links between documents of the repository stay within the site."""
    if Path(app.env.doc2path(docname)).suffix != ".md":
        return
    origins = {place: path for path, place in places().items()}
    here = origins.get(f"{docname}.md", f"docs/{docname}.md")
    text = LINK.sub(lambda link: _mended(link, here, docname), source[0])
    source[0] = text.replace(f"% {LIST}\n", "".join(f"_generated/notebooks/{name}\n" for name in notebooks()))


def _mended(link: re.Match[str], here: str, docname: str) -> str:
    """A link as it must stand on the page, from one that holds where the document lives."""
    path = os.path.normpath(str(PurePosixPath(here).parent / link["path"]))
    site = places().get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else f"../{path}")
    return os.path.relpath(site, str(PurePosixPath(docname).parent)) + (link["anchor"] or "")
