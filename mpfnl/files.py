"""Files that appear whole or not at all. The standard library only."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from mpfnl.errors import OutputError


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """Opens a new file beside `path` for bytes and moves it to `path` at the end; removes it on any failure.

    Args:
        path: File to make or replace.

    Raises:
        OutputError: The file system refuses (no space, no permission).
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        with partial.open("xb") as file:
            yield file
        partial.replace(path)
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written ({error.strerror or error}); choose another output"
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def file_digest(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_text(path: Path, text: str) -> None:
    """Makes or replaces a file by this text, in UTF-8.

    Raises:
        OutputError: The file system refuses.
    """
    with atomic_file(path) as file:
        file.write(text.encode())
