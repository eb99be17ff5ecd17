"""The house: imports run downward only, and importing stays cheap."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "mpfnl"

# From the ground up. A room may import from rooms on lower floors and from itself; rooms on one floor do not
# know each other, but for the command line, which is alone on top.
FLOORS: list[set[str]] = [
    {"errors", "lazy", "phases", "shapes", "window"},
    {"files", "progress", "samples"},
    {"ops"},
    {"volumes"},
    {"networks", "losses", "metrics", "transforms", "plots"},
    {"inference", "segmentation"},
    {"data", "models"},
    {"phantoms"},
    {"datasets", "prepare"},
    {"evaluation"},
    {"experiments"},
    {"cli"},
]
FLOOR = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}
LAZY_ROOT = "__init__"  # the public face: it names rooms, and nothing inside imports it


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_names(path: Path) -> set[str]:
    """Absolute names of everything imported anywhere in a module, also inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in names if name == "mpfnl" or name.startswith("mpfnl.")}


def test_every_room_has_a_floor() -> None:
    assert {room_of(path) for path in modules()} - {LAZY_ROOT} == set(FLOOR)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_downward(path: Path) -> None:
    room = room_of(path)
    if room == LAZY_ROOT:
        return
    for name in imported_names(path):
        parts = name.split(".")
        if name == "mpfnl.__version__":  # the version's one source
            continue
        assert len(parts) > 1, f"{path} imports the root package"
        other = parts[1]
        assert other in FLOOR, f"{path} imports {name}, which is not a room"
        assert other == room or FLOOR[other] < FLOOR[room], f"{path} ({room}) imports upward: {name}"


@pytest.mark.parametrize(
    ("statement", "forbidden"),
    [
        ("import mpfnl", {"torch", "lightning", "torchio", "nibabel", "numpy", "matplotlib"}),
        ("import mpfnl.cli", {"torch", "lightning", "torchio", "nibabel", "matplotlib"}),
        ("import mpfnl.networks, mpfnl.losses, mpfnl.ops", {"lightning", "torchio", "nibabel", "scipy"}),
        (
            "import mpfnl.transforms.degradation, mpfnl.phantoms.study",
            {"lightning", "torchio", "nibabel", "matplotlib"},
        ),
        ("import mpfnl.models", {"torchio", "nibabel"}),
    ],
)
def test_imports_stay_cheap(statement: str, forbidden: set[str]) -> None:
    script = f"import sys; {statement}; print(*{{name.split('.')[0] for name in sys.modules}})"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not forbidden & set(result.stdout.split())


def test_networks_and_losses_need_torch_only() -> None:
    """Every third-party package but torch is made impossible to import."""
    script = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        blocked = {"jaxtyping", "lightning", "torchmetrics", "torchio", "nibabel", "scipy", "rich", "monai"}
        if name.split(".")[0] in blocked:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Refuse())
import torch, mpfnl.networks, mpfnl.losses, mpfnl.ops
print(mpfnl.networks.PFNL3DNet(features=8, blocks=1)(torch.rand(1, 3, 4, 4, 4)).shape[1])
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert result.stdout.strip() == "1", result.stderr
