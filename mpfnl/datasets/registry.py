"""Registry of the public data sets; each adapter module of this package registers itself."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from mpfnl.errors import OptionError

if TYPE_CHECKING:
    from mpfnl.datasets.cohort import Cohort


class CohortReader(Protocol):
    """Function that finds the studies of a downloaded data set."""

    def __call__(self, root: Path, seed: int = 0, masks: Path | None = None) -> Cohort:
        """The cohort of a data set.

        Args:
            root: Folder of the data set.
            seed: Seed of the splits.
            masks: Folder with the user's segmentation masks; None if there are none.
        """


@dataclass(frozen=True)
class DatasetAdapter:
    """A data set that `mpfnl manifest` accepts.

    Args:
        name: Name on the command line.
        description: Full name of the data set.
        read: Function that finds its studies.
    """

    name: str
    description: str
    read: CohortReader


_ADAPTERS: dict[str, DatasetAdapter] = {}


def register_dataset(name: str, description: str) -> Callable[[CohortReader], CohortReader]:
    """Decorator that registers a data set under a name.

    Args:
        name: Name on the command line, as in `mpfnl manifest NAME`.
        description: Full name of the data set.

    >>> from mpfnl.datasets.cohort import assemble_cohort
    >>> @register_dataset("empty", "A data set without studies")
    ... def find_empty(root, seed=0, masks=None):
    ...     return assemble_cohort(root, seed, studies=[], excluded=[])
    >>> find_dataset("empty").description
    'A data set without studies'
    >>> _ = _ADAPTERS.pop("empty")
    """

    def register(read: CohortReader) -> CohortReader:
        _ADAPTERS[name] = DatasetAdapter(name, description, read)
        return read

    return register


def dataset_names() -> tuple[str, ...]:
    """Names of all registered data sets, in alphabetical order.

    >>> dataset_names()
    ('vindr', 'waw-tace')
    """
    _import_adapters()
    return tuple(sorted(_ADAPTERS))


def find_dataset(name: str) -> DatasetAdapter:
    """The adapter of a data set.

    Args:
        name: One of `dataset_names`.

    Raises:
        OptionError: No data set has this name.

    >>> find_dataset("waw-tace").description
    'WAW-TACE'
    """
    names = dataset_names()
    if name not in _ADAPTERS:
        raise OptionError(f"data set {name!r} is unknown; the data sets are {', '.join(names)}")
    return _ADAPTERS[name]


def _import_adapters() -> None:
    package = __name__.rpartition(".")[0]
    for module in pkgutil.iter_modules(import_module(package).__path__):
        import_module(f"{package}.{module.name}")
