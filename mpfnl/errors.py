"""Errors and warnings for users. Each message is one line with the fault and the remedy."""

from __future__ import annotations

__all__ = ["InputError", "InputWarning", "MissingExtraError", "MpfnlError"]


class MpfnlError(Exception):
    """Base of every error that mpfnl raises on purpose.

    >>> issubclass(InputError, MpfnlError) and issubclass(MissingExtraError, MpfnlError)
    True
    """


class InputError(MpfnlError, ValueError):
    """A file, a table or an option cannot be used. The subclasses tell the kind of the fault.

    The message is one line: it names the file, the phase where there is one, the fault and the
    remedy. The command line prints it and exits with status 2.

    An error of a data loader's worker process is rebuilt from the worker's traceback; only the last line of
    the traceback, the message, is kept.

    >>> try:
    ...     raise GridError("arterial.nii.gz (arterial phase): no orientation; convert it again")
    ... except InputError as error:
    ...     print(type(error).__name__, error)
    GridError arterial.nii.gz (arterial phase): no orientation; convert it again
    """

    def __init__(self, message: str) -> None:
        last = message.strip().splitlines()[-1] if message.strip() else message
        super().__init__(last.removeprefix(f"{__name__}.{type(self).__name__}: "))


class NotFoundError(InputError):
    """A file, folder, phase, study, column or weights folder does not exist."""


class DamagedError(InputError):
    """A file is cut off, corrupt or cannot be read."""


class FormatError(InputError):
    """A file or a cell holds something else than expected: another format, type, table or record."""


class GridError(InputError):
    """The geometry of a scan cannot be used, or two scans lie on different grids."""


class IntensityError(InputError):
    """Voxel values are not HU, not finite or not labels."""


class ConflictError(InputError):
    """Two inputs contradict each other, such as one patient in two splits or a model and its data."""


class OptionError(InputError):
    """The value of an option or argument cannot be used."""


class OutputError(InputError):
    """A result cannot be written."""


class MissingExtraError(MpfnlError, ImportError):
    """An optional dependency is not installed; the message names the extra to install.

    >>> print(MissingExtraError("antspyx", "register"))
    this needs antspyx: install it with  pip install 'mpfnl[register]'
    """

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"this needs {package}: install it with  pip install 'mpfnl[{extra}]'")


class SegmentationError(MpfnlError):
    """A scan could not be segmented; the message is one line with the reason. Other scans may go on."""


class IncompleteError(MpfnlError):
    """Some studies failed and the others are done; the command line exits with status 1."""


class InputWarning(UserWarning):
    """An input is used, but not as it stands; the message states the change.

    >>> import warnings
    >>> with warnings.catch_warnings(record=True) as noted:
    ...     warnings.simplefilter("always")
    ...     warnings.warn("scan.nii.gz: a tilted gantry; resampled to right angles", InputWarning)
    >>> noted[0].category.__name__
    'InputWarning'
    """
