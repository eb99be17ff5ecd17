"""Text files that are written whole or not at all."""

from __future__ import annotations

from pathlib import Path

from mpfnl.volumes import atomic_file


def write_text(path: Path, text: str) -> None:
    """Replaces a file by this text, in UTF-8."""
    with atomic_file(path) as file:
        file.write(text.encode())
