"""The public names, pinned: a change to what users import is made on purpose.

Public is what the package and its rooms list in `__all__`. Modules inside of the rooms are private by rule.
"""

from __future__ import annotations

import pkgutil
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

import mpfnl
from mpfnl.cli.main import COMMANDS, TRAINER_COMMANDS

PINNED: dict[str, list[str]] = tomllib.loads((Path(__file__).parent / "public_names.toml").read_text("utf-8"))
COMMAND_LINE = PINNED.pop("command line")
MOST_NAMES = 80
NO_FACE = ("mpfnl.cli", "mpfnl.experiments", "mpfnl.plots")
"""Rooms that list no names: a program and internal parts."""


def check(where: str, pinned: list[str], listed: set[str]) -> None:
    new, gone = sorted(listed - set(pinned)), sorted(set(pinned) - listed)
    assert not new + gone, (
        f"{where}: new {new}, gone {gone}. If users are to see this, change public_names.toml and say it in"
        " CHANGELOG.md; else leave the name out of __all__"
    )


@pytest.mark.parametrize("module", list(PINNED))
def test_public_names_change_on_purpose(module: str) -> None:
    check(module, PINNED[module], set(import_module(module).__all__))


def test_commands_change_on_purpose() -> None:
    check("command line", COMMAND_LINE, {*COMMANDS, *TRAINER_COMMANDS})


def test_every_room_with_a_face_is_pinned() -> None:
    rooms = {module.name for module in pkgutil.iter_modules(mpfnl.__path__, "mpfnl.") if module.ispkg}
    faces = {room for room in rooms if getattr(import_module(room), "__all__", ())}
    assert faces - set(NO_FACE) == {name for name in PINNED if name in rooms}


def test_the_face_stays_small() -> None:
    assert len({name for names in PINNED.values() for name in names}) <= MOST_NAMES


@pytest.mark.parametrize("module", list(PINNED))
def test_every_listed_name_loads(module: str) -> None:
    loaded = import_module(module)
    missing = [name for name in PINNED[module] if name not in dir(loaded) or getattr(loaded, name) is None]
    assert not missing


def test_rooms_are_attributes_of_the_package() -> None:
    rooms = [name.removeprefix("mpfnl.") for name in PINNED if name.count(".") == 1]
    assert set(rooms) <= set(dir(mpfnl))
    assert all(getattr(mpfnl, room) is import_module(f"mpfnl.{room}") for room in rooms)
    with pytest.raises(AttributeError, match="nowhere"):
        _ = mpfnl.nowhere
