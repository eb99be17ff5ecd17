"""The reference of the API, one page for each subject: every public name, from its docstring.

Public is what a room lists in `__all__`. A name that several rooms list is described where it is listed
first; elsewhere it refers there.
"""

from __future__ import annotations

import ast
import inspect
import re
from dataclasses import dataclass
from enum import Enum
from importlib import import_module
from itertools import pairwise
from pathlib import Path

ROOMS: dict[str, tuple[str, list[str]]] = {
    "mpfnl": ("The face", ["mpfnl"]),
    "phases": (
        "Phases, window, errors and shapes",
        ["mpfnl.phases", "mpfnl.window", "mpfnl.errors", "mpfnl.shapes"],
    ),
    "models": ("Models", ["mpfnl.models"]),
    "data": ("Data", ["mpfnl.data", "mpfnl.datasets", "mpfnl.phantoms", "mpfnl.prepare"]),
    "transforms": ("Transforms and degradation", ["mpfnl.transforms"]),
    "metrics": ("Metrics and statistics", ["mpfnl.metrics"]),
    "networks": ("Networks and loss", ["mpfnl.networks", "mpfnl.losses"]),
    "ops": ("Operators", ["mpfnl.ops"]),
    "inference": ("Whole volumes", ["mpfnl.inference"]),
    "segmentation": ("Segmentation", ["mpfnl.segmentation"]),
    "volumes": ("Scans on disk", ["mpfnl.volumes"]),
    "evaluation": ("Evaluation", ["mpfnl.evaluation"]),
}
PACKAGE = Path(__file__).resolve().parents[2] / "mpfnl"
SHAPE = re.compile(r'^ +(?P<name>\w+) = Float\[Tensor, "(?P<shape>[^"]*)"\](?: +# (?P<text>.*))?$', re.M)


def _shapes() -> list[tuple[str, str, str]]:
    text = (PACKAGE / "shapes.py").read_text("utf-8")
    return [(found["name"], found["shape"], found["text"] or "") for found in SHAPE.finditer(text)]


TYPE_ALIASES = ["PhaseName", "Affine", "Voxels", *(name for name, _, _ in _shapes())]
"""Aliases that stay as they are written in signatures."""


@dataclass(frozen=True)
class Home:
    """Where a public name comes from.

    Args:
        module: The module that defines it.
        name: Its name there.
    """

    module: str
    name: str


def public_names(module: str) -> list[str]:
    """The public names of a room, as it lists them; none for the shapes."""
    listed: list[str] = getattr(import_module(module), "__all__", [])
    return listed


def pages() -> dict[str, str]:
    """Path in the generated folder to text."""
    described: dict[Home, str] = {}
    rooms = {f"api/{room}.rst": _page(title, modules, described) for room, (title, modules) in ROOMS.items()}
    rows = "\n".join(f"   api/{room}" for room in ROOMS)
    index = f"{_heading('Python API', '=')}\n{INDEX}\n.. toctree::\n   :maxdepth: 2\n\n{rows}\n"
    return {**rooms, "api.rst": index}


INDEX = """The public names of each room, from their docstrings. Other names may change without notice.
Arrays and tensors of scans are ``(x, y, z)``; batches are ``(batch, phase, x, y, z)``; scans at rest are in
HU, networks see [0, 1].
"""


def _page(title: str, modules: list[str], described: dict[Home, str]) -> str:
    parts = [_heading(title, "=")]
    for module in modules:
        parts += [_heading(f"{module}", "-"), _module(module, described)]
        parts += [_entry(module, name, described) for name in public_names(module) if name != "__version__"]
        if module == "mpfnl":
            parts.append(".. py:data:: __version__\n   :module: mpfnl\n   :type: str\n\n   The version.\n")
        if module == "mpfnl.shapes":
            parts += [_shape(*shape) for shape in _shapes()]
    return "\n".join(parts)


def _module(module: str, described: dict[Home, str]) -> str:
    """The module's docstring. A function of the same name (mpfnl.ops.nonlocal_attention) keeps the name."""
    taken = "   :no-index:\n" if module in described.values() else ""
    return f".. automodule:: {module}\n   :no-members:\n{taken}\n.. py:currentmodule:: {module}\n"


def _entry(module: str, name: str, described: dict[Home, str]) -> str:
    full, home = f"{module}.{name}", _home(module, name)
    value = getattr(import_module(module), name)
    kind = _kind(value)
    if home in described:
        listed = kind if kind in ("function", "data") else "class"
        options = f"   :module: {module}\n   :no-contents-entry:\n"
        return f".. py:{listed}:: {name}\n{options}\n   See `{described[home]}`.\n"
    described[home] = full
    if kind == "data":
        text = _text_under(home).replace("\n", "\n   ")
        return f".. py:data:: {name}\n   :module: {module}\n\n   {text}\n"
    lines = [f".. auto{kind}:: {full}"]
    if kind == "class":
        lines.append("   :members:")
        if any(base is not object and not base.__name__.startswith("_") for base in value.__bases__):
            lines.append("   :show-inheritance:")
        if issubclass(value, Enum):
            lines.append("   :undoc-members:")
    return "\n".join([*lines, ""])


def _kind(value: object) -> str:
    if inspect.isclass(value) and getattr(value, "__module__", "").startswith("mpfnl"):
        return "exception" if issubclass(value, BaseException) else "class"
    return "function" if inspect.isfunction(value) else "data"


def _shape(name: str, shape: str, text: str) -> str:
    told = f"Floating point, ``({shape})``: {text or 'a scalar'}."
    return f".. py:type:: {name}\n   :module: mpfnl.shapes\n\n   {told}\n"


def _home(module: str, name: str) -> Home:
    """The module that defines a name, followed through imports."""
    if name in _defined(module):
        return Home(module, name)
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return _home(node.module, alias.name)
    raise LookupError(f"{module} lists {name} and neither defines nor imports it")


def _defined(module: str) -> list[str]:
    """Names of the classes, functions and values that a module defines."""
    names = []
    for node in _tree(module).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.append(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            names += _targets(node)
    return names


def _targets(node: ast.Assign | ast.AnnAssign) -> list[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _text_under(home: Home) -> str:
    """The string under an assignment, which is its docstring; empty where there is none."""
    for node, after in pairwise(_tree(home.module).body):
        if not isinstance(node, ast.Assign | ast.AnnAssign) or home.name not in _targets(node):
            continue
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            return inspect.cleandoc(str(after.value.value))
    return ""


def _file(module: str) -> Path:
    path = PACKAGE.joinpath(*module.split(".")[1:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _tree(module: str) -> ast.Module:
    return ast.parse(_file(module).read_text("utf-8"))


def _heading(text: str, line: str) -> str:
    return f"{text}\n{line * len(text)}\n"
