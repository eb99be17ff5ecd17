"""What the sdist and the wheel hold and say of themselves."""

from __future__ import annotations

import subprocess
import tarfile
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from zipfile import ZipFile

import pytest
import yaml
from bare_environment import described

import mpfnl

ROOT = Path(__file__).resolve().parents[2]
READ_WHEN_INSTALLED = [
    "mpfnl/py.typed",
    "mpfnl/prepare/templates/*.j2",
    "mpfnl/ops/nonlocal_attention/kernels/*.py",
    "mpfnl/recipes/pfnl3d.yaml",
    "mpfnl/recipes/rcan3d.yaml",
    "mpfnl/segmentation/phantom_weights.safetensors",
    "mpfnl/evaluation/templates/*.css",
    "mpfnl/evaluation/templates/*.j2",
]

pytestmark = pytest.mark.slow


def listed(*options: str) -> set[str]:
    """The files that git lists, of those that are there."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git clone")
    words = ["git", "ls-files", "-z", *options]
    printed = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return {name for name in printed.split("\0") if (ROOT / name).is_file()}


def held_by_wheel(wheel: Path) -> set[str]:
    with ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if not name.split("/")[0].endswith(".dist-info")}


def held_by_sdist(sdist: Path) -> set[str]:
    with tarfile.open(sdist) as archive:
        return {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}


def test_the_wheel_holds_the_package_as_git_tracks_it(wheel: Path) -> None:
    """A file that is not committed is in no release by accident."""
    assert held_by_wheel(wheel) == listed("mpfnl")


def test_the_sdist_holds_what_its_tests_need(sdist: Path) -> None:
    held, not_ignored = held_by_sdist(sdist), listed("--cached", "--others", "--exclude-standard")
    assert listed() <= held <= not_ignored | {"PKG-INFO"}


@pytest.mark.parametrize("pattern", READ_WHEN_INSTALLED)
def test_what_the_package_reads_is_in_the_wheel(wheel: Path, pattern: str) -> None:
    assert any(fnmatch(name, pattern) for name in held_by_wheel(wheel))


def test_shipped_weights_are_in_the_wheel(wheel: Path) -> None:
    shipped = ROOT / "mpfnl" / "models" / "shipped"
    files = {str(path.relative_to(ROOT)) for path in shipped.rglob("*") if path.is_file()}
    if not files:
        pytest.skip("no weights ship yet")
    assert files <= held_by_wheel(wheel)


def test_the_metadata(wheel: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    about = described(wheel)
    assert about.metadata["Name"] == "mpfnl"
    assert about.metadata["License-Expression"] == "Apache-2.0"
    assert about.metadata.get_all("License-File") == ["LICENSE"]
    assert about.metadata["Requires-Python"] == ">=3.11"
    assert set(about.metadata.get_all("Provides-Extra") or ()) == set(project["optional-dependencies"])
    assert [(point.group, point.name, point.value) for point in about.entry_points] == [
        ("console_scripts", "mpfnl", "mpfnl.cli:main")
    ]


def test_the_version_has_one_source(wheel: Path, sdist: Path) -> None:
    assert described(wheel).version == mpfnl.__version__
    assert sdist.name == f"mpfnl-{mpfnl.__version__}.tar.gz"
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))["version"] == mpfnl.__version__
