"""The public names, pinned: a change to what users import is made on purpose."""

from __future__ import annotations

import ast
import inspect
import pkgutil
import tomllib
from importlib import import_module
from itertools import pairwise
from pathlib import Path

import pytest

import mpfnl
from mpfnl.cli.main import COMMANDS, TRAINER_COMMANDS

PINNED: dict[str, list[str]] = tomllib.loads((Path(__file__).parent / "public_names.toml").read_text("utf-8"))
COMMAND_LINE = PINNED.pop("command line")


def public_names(module: str) -> set[str]:
    """What a package lists in `__all__`; what any other module defines and documents."""
    loaded = import_module(module)
    if loaded.__spec__ is not None and loaded.__spec__.submodule_search_locations is not None:
        return set(getattr(loaded, "__all__", ()))
    return {name for name in documented(inspect.getsource(loaded)) if not name.startswith("_")}


def documented(source: str) -> set[str]:
    """The classes and functions at the top level of a module, and the values with a string under them."""
    body = ast.parse(source).body
    names = {node.name for node in body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    for node, under in pairwise(body):
        if isinstance(under, ast.Expr) and isinstance(under.value, ast.Constant):
            targets = node.targets if isinstance(node, ast.Assign) else []
            targets = [node.target] if isinstance(node, ast.AnnAssign) else targets
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


def check(where: str, pinned: list[str], found: set[str]) -> None:
    new, gone = sorted(found - set(pinned)), sorted(set(pinned) - found)
    assert not new + gone, (
        f"{where}: new {new}, gone {gone}. If users are to see this, change public_names.toml and say it in"
        " CHANGELOG.md; else give the name an underscore, or the old name back"
    )


@pytest.mark.parametrize("module", list(PINNED))
def test_public_names_change_on_purpose(module: str) -> None:
    check(module, PINNED[module], public_names(module))


def test_commands_change_on_purpose() -> None:
    check("command line", COMMAND_LINE, {*COMMANDS, *TRAINER_COMMANDS})


def test_every_package_that_lists_names_is_pinned() -> None:
    packages = {module.name for module in pkgutil.walk_packages(mpfnl.__path__, "mpfnl.") if module.ispkg}
    assert {"mpfnl", *(name for name in packages if public_names(name))} <= set(PINNED)


@pytest.mark.parametrize("module", [name for name, pinned in PINNED.items() if pinned])
def test_every_listed_name_loads(module: str) -> None:
    loaded = import_module(module)
    missing = [name for name in PINNED[module] if name not in dir(loaded) or getattr(loaded, name) is None]
    assert not missing
