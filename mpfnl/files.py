"""Files that appear whole or not at all. The standard library only."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
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


def write_together(folder: Path, files: Mapping[str, bytes]) -> None:
    """Writes files into a folder: all of them, or none and everything is as it was.

    A new folder appears whole. In an existing folder the files are written beside those that they replace and
    then moved over them, in their order; its other files are left alone.

    Args:
        folder: Folder, made if it does not exist.
        files: Contents by name.

    Raises:
        OutputError: The file system refuses (no space, no permission, a file of that name).
    """
    try:
        if not folder.exists():
            folder.parent.mkdir(parents=True, exist_ok=True)
            if _made(folder, files):
                return
        _replace(folder, files)
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot be written ({error.strerror or error}); choose another folder"
        ) from error


def _made(folder: Path, files: Mapping[str, bytes]) -> bool:
    """Makes a new folder; false if another process made it first."""
    partial = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.partial")
    partial.mkdir()
    try:
        for name, content in files.items():
            (partial / name).write_bytes(content)
        try:
            partial.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
            return False  # another process was faster
        return True
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _replace(folder: Path, files: Mapping[str, bytes]) -> None:
    mark = secrets.token_hex(4)
    new = {name: folder / f".{name}.{mark}.partial" for name in files}
    old = {name: folder / f".{name}.{mark}.before" for name in files if (folder / name).exists()}
    moved: list[str] = []
    try:
        for name, content in files.items():
            new[name].write_bytes(content)
        for name, path in old.items():
            _copy(folder / name, path)
        for name, path in new.items():
            path.replace(folder / name)
            moved.append(name)
    except BaseException:
        for name in moved:
            _undo(folder / name, old.get(name))
        raise
    finally:
        for path in (*new.values(), *old.values()):
            path.unlink(missing_ok=True)


def _copy(source: Path, copy: Path) -> None:
    """A second name for a file; a copy where the file system has no such thing."""
    try:
        os.link(source, copy)
    except OSError:
        shutil.copy2(source, copy)


def _undo(path: Path, before: Path | None) -> None:
    with contextlib.suppress(OSError):  # the first error is reported
        if before is None:
            path.unlink()
        else:
            before.replace(path)
