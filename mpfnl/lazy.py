"""Names of a package that load when they are first used. The standard library only."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module


def lazy_names(package: str, homes: Mapping[str, str]) -> Callable[[str], object]:
    """A package's `__getattr__` that imports a name from its home and keeps it.

    Args:
        package: The package's `__name__`.
        homes: Name to the module that defines it.
    """

    def load(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value: object = getattr(import_module(homes[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    return load


def all_names(package: str, homes: Mapping[str, str]) -> Callable[[], list[str]]:
    """A package's `__dir__`: what is there and what would load.

    Args:
        package: The package's `__name__`.
        homes: As for `lazy_names`.
    """
    return lambda: sorted({*vars(sys.modules[package]), *homes})
