"""A progress bar on the terminal; nothing where there is none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import track as rich_track

Item = TypeVar("Item")


def track(items: Iterable[Item], total: int, what: str) -> Iterator[Item]:
    """Yields the items and shows how far it is, on standard error.

    Args:
        items: What to go through.
        total: How many there are.
        what: What is being done to them, in a word or two.
    """
    yield from rich_track(items, what, total=total, console=Console(stderr=True), transient=True)
