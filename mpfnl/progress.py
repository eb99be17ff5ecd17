"""A progress bar on the terminal; nothing where there is none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import track as rich_track

Item = TypeVar("Item")


def track(items: Iterable[Item], total: int, what: str) -> Iterator[Item]:
    """Yields the items and draws a progress bar on standard error.

    Args:
        items: Items to go through.
        total: Number of items.
        what: Caption, a word or two.
    """
    yield from rich_track(items, what, total=total, console=Console(stderr=True), transient=True)
