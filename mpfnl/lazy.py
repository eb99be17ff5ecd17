"""Names and submodules of a package that load on first use. The standard library only."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping
from importlib import import_module


def lazy_names(
    package: str, homes: Mapping[str, str], modules: Collection[str] = ()
) -> Callable[[str], object]:
    """A package's `__getattr__` that imports a name or a submodule on first use and keeps it.

    Args:
        package: `__name__` of the package.
        homes: Home of each name: a module, or `module:name` where the module calls it otherwise.
        modules: Submodules that load as attributes.
    """

    def load(name: str) -> object:
        if name in homes:
            module, _, inner = homes[name].partition(":")
            value: object = getattr(import_module(module), inner or name)
        elif name in modules:
            value = import_module(f"{package}.{name}")
        else:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        setattr(sys.modules[package], name, value)
        return value

    return load


def all_names(
    package: str, homes: Mapping[str, str], modules: Collection[str] = ()
) -> Callable[[], list[str]]:
    """A package's `__dir__`: the names that are loaded and those that load on first use.

    Args:
        package: `__name__` of the package.
        homes: Home of each name, as for `lazy_names`.
        modules: Submodules, as for `lazy_names`.
    """
    return lambda: sorted({*vars(sys.modules[package]), *homes, *modules})
