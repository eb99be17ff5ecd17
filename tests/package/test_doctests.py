"""Each public function and class has an example in its docstring, and the example runs."""

from __future__ import annotations

import doctest
import inspect
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

PINNED: dict[str, list[str]] = tomllib.loads((Path(__file__).parent / "public_names.toml").read_text("utf-8"))
PINNED.pop("command line")


def examples(module: str, name: str) -> list[doctest.DocTest]:
    """The examples of a public name; an empty list for a value that is neither function nor class."""
    thing = getattr(import_module(module), name)
    if not (inspect.isclass(thing) or inspect.isroutine(thing)):
        return []
    names = dict(vars(sys.modules[thing.__module__]))
    found = doctest.DocTestFinder(exclude_empty=False).find(thing, name, globs=names)
    own = [test for test in found if test.examples]
    assert own, f"{module}.{name}: give its docstring a short example (>>>)"
    return own


@pytest.mark.parametrize("module", [name for name, pinned in PINNED.items() if pinned])
def test_examples_run(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    for name in PINNED[module]:
        for test in examples(module, name):
            runner.run(test)
    results = runner.summarize(verbose=False)
    assert not results.failed
    assert not list(tmp_path.iterdir()), "an example leaves files behind"
