"""`--verbose` tells what a reader passed over, on the standard error; nothing else changes."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from mpfnl.cli import main
from mpfnl.cli.main import COMMANDS
from mpfnl.cli.parsing import Command


def look(*, phase: list[str]) -> None:
    """Look at something.

    Args:
        phase: Scan of each phase.
    """
    for level in (logging.INFO, logging.DEBUG):
        logging.getLogger("mpfnl.volumes").log(level, "%s: passed over at %d", phase[0], level)


@pytest.mark.parametrize("place", [0, 1, 3])
def test_passed_over(
    place: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setitem(COMMANDS, "look", Command(look, "mpfnl look --phase arterial=a"))
    words = ["look", "--phase", f"arterial={tmp_path}"]
    assert main(words) == 0
    assert capfd.readouterr().err == ""
    words.insert(place, "--verbose")
    assert main(words) == 0
    assert capfd.readouterr().err == f"mpfnl: arterial={tmp_path}: passed over at 20\n"
    assert not logging.getLogger("mpfnl.volumes").handlers


@pytest.mark.parametrize("name", list(COMMANDS))
def test_each_command_has_it(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([name, "--help"])
    assert "--verbose" in capsys.readouterr().out
