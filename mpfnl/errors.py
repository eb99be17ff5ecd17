"""The errors that mpfnl raises on purpose. Each message is one line that says what to do."""

from __future__ import annotations


class MpfnlError(Exception):
    """Base of every error that mpfnl raises on purpose."""


class InputError(MpfnlError, ValueError):
    """Something that was given (a file, a table, an option) cannot be used.

    The message is one line: it names the file, the phase where there is one, what is wrong and
    what to do. The command line prints it and exits with status 2.

    Raised in a worker process of a data loader, an error is made anew from the worker's traceback, whose last
    line is the message; only that is kept.
    """

    def __init__(self, message: str) -> None:
        last = message.strip().splitlines()[-1] if message.strip() else message
        super().__init__(last.removeprefix(f"{__name__}.{type(self).__name__}: "))


class MissingExtraError(MpfnlError, ImportError):
    """An optional dependency is needed and not installed; the message says what to install."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"this needs {package}: install it with  pip install 'mpfnl[{extra}]'")


class SegmentationError(MpfnlError):
    """One scan could not be segmented; the message is one line that says why. Others may go on."""


class IncompleteError(MpfnlError):
    """Some parts of a large work failed, the others are done; the command line exits with status 1."""


class InputWarning(UserWarning):
    """Something that was given is used, but not as it stands; the message says what was done to it."""
