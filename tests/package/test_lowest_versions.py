"""`constraints-lowest.txt` and `pyproject.toml` agree on what the lowest supported versions are."""

from __future__ import annotations

import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ("all", "dev", "docs")


def bounds() -> dict[str, Version]:
    """The lower bounds of the core and of the users' extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"].items()
    of_users = [text for extra, texts in extras if extra not in TOOLS for text in texts]
    found: dict[str, Version] = {}
    for requirement in map(Requirement, [*project["dependencies"], *of_users]):
        (lowest,) = (bound.version for bound in requirement.specifier if bound.operator == ">=")
        found[canonicalize_name(requirement.name)] = Version(lowest)
    return found


def pins() -> dict[str, Version]:
    lines = (ROOT / "constraints-lowest.txt").read_text("utf-8").splitlines()
    named = [line.split("==") for line in lines if not line.startswith("#")]
    return {canonicalize_name(name): Version(version) for name, version in named}


def test_every_lower_bound_is_tested() -> None:
    assert len(bounds()) > 15
    assert pins() == bounds()
