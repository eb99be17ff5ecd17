"""Warnings of one line, each said once. The standard library only."""

from __future__ import annotations

import logging

LOGGER = logging.getLogger("mpfnl.inference")
_said: set[str] = set()


def warn_once(message: str) -> None:
    """Logs a warning; the same one not again in this process."""
    if message not in _said:
        _said.add(message)
        LOGGER.warning(message)


def forget_notices() -> None:
    """Every warning may be said again."""
    _said.clear()
