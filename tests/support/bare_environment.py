"""A virtual environment with the wheel and what it declares to need, and nothing else that is installed here.

Made of links to this environment's packages: nothing is downloaded, and it takes seconds.
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import Distribution, PathDistribution, distribution
from pathlib import Path
from zipfile import Path as ZipPath

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

NOT_PACKAGES = {"..", "__pycache__"}


def described(wheel: Path) -> Distribution:
    """The metadata of a wheel."""
    (info,) = (entry for entry in ZipPath(wheel).iterdir() if entry.name.endswith(".dist-info"))
    return PathDistribution(info)


def needed(root: Distribution) -> dict[str, Distribution]:
    """What a distribution needs without its extras, by name, and what that needs in turn."""
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = [(root, frozenset({""}))]
    while waiting:
        dependent, extras = waiting.pop()
        for requirement in map(Requirement, dependent.requires or ()):
            if not applies(requirement, extras):
                continue
            name, wanted = canonicalize_name(requirement.name), frozenset({"", *requirement.extras})
            if (name, wanted) not in seen:
                seen.add((name, wanted))
                found[name] = distribution(name)
                waiting.append((found[name], wanted))
    return found


def applies(requirement: Requirement, extras: Iterable[str]) -> bool:
    """Whether it is to be met here, with these extras of the package that has it."""
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in extras)


def link(packages: Iterable[Distribution], folder: Path) -> None:
    """Links what the packages installed next to each other into another folder."""
    for package in packages:
        for top in {file.parts[0] for file in package.files or ()} - NOT_PACKAGES:
            place = folder / top
            if not place.is_symlink():  # a namespace that packages share
                place.symlink_to(Path(str(package.locate_file(top))))


@dataclass(frozen=True)
class BareEnvironment:
    """The environment.

    Args:
        folder: Of the virtual environment.
    """

    folder: Path

    @classmethod
    def create(cls, folder: Path, wheel: Path) -> BareEnvironment:
        """Makes it and installs the wheel."""
        venv.create(folder, symlinks=True)
        made = cls(folder)
        link(needed(described(wheel)).values(), made.site_packages)
        options = ["--quiet", "--no-deps", "--no-index", "--disable-pip-version-check"]
        pip = [sys.executable, "-m", "pip", "--python", str(folder), "install"]
        subprocess.run([*pip, *options, str(wheel)], check=True)
        return made

    @property
    def site_packages(self) -> Path:
        """Where its packages are."""
        (found,) = self.folder.glob("lib/python*/site-packages")
        return found

    def run(self, program: str, *words: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
        """Runs one of its programs in a folder; in one thread, on the CPU."""
        variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        return subprocess.run(
            [str(self.folder / "bin" / program), *map(str, words)],
            cwd=folder,
            env=variables | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
            capture_output=True,
            text=True,
            check=False,
        )
