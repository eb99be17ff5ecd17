"""No pickle is loaded anywhere in this package: read from its own source."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(
    path for folder in ("mpfnl", "benchmarks", "examples") for path in (ROOT / folder).rglob("*.py")
)
UNPICKLERS = {"pickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "pandas"}
LIGHTNING = {"fit", "validate", "test", "predict", "load_from_checkpoint"}

# What a process sends to the worker it started, over a pipe: no file of anybody's.
OWN_WORKER = {"mpfnl/prepare/execution.py": ["import of pickle"]}


def keywords(call: ast.Call) -> dict[str, object]:
    """Its named arguments; what is no constant is None."""
    return {
        word.arg: word.value.value if isinstance(word.value, ast.Constant) else None
        for word in call.keywords
        if word.arg is not None
    }


def call_found(call: ast.Call) -> str | None:
    if not isinstance(call.func, ast.Attribute):
        return None
    owner, name, words = ast.unparse(call.func.value), call.func.attr, keywords(call)
    if owner == "torch" and name == "load" and words.get("weights_only") is not True:
        return "torch.load without weights_only=True"
    if owner in ("np", "numpy") and name == "load" and words.get("allow_pickle", False) is not False:
        return "numpy.load with allow_pickle"
    if owner.startswith("torch.hub"):
        return "torch.hub"
    checkpoint = name == "load_from_checkpoint" or "ckpt_path" in words
    if name in LIGHTNING and checkpoint and words.get("weights_only") is not True:
        return f"{name} of a checkpoint without weights_only=True"
    return None


def found(source: str) -> list[str]:
    """What in a source loads pickles, or may."""
    problems = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = {alias.name.split(".")[0] for alias in node.names}
            problems += [f"import of {name}" for name in sorted(names & UNPICKLERS)]
        elif isinstance(node, ast.ImportFrom):
            module, names = (node.module or "").split(".")[0], {alias.name for alias in node.names}
            if module in UNPICKLERS and not names <= {"UnpicklingError", "PicklingError"}:
                problems.append(f"import of {module}")
            if node.module in ("torch", "numpy", "torch.serialization") and "load" in names:
                problems.append(f"import of {node.module}.load, which hides what is loaded")
        elif isinstance(node, ast.Call) and (problem := call_found(node)):
            problems.append(problem)
    return problems


def test_nothing_loads_a_pickle() -> None:
    named = {path.relative_to(ROOT).as_posix(): path for path in SOURCES}
    problems = {name: found(path.read_text(encoding="utf-8")) for name, path in named.items()}
    assert len(problems) > 100
    assert {name: lines for name, lines in problems.items() if lines} == OWN_WORKER


@pytest.mark.parametrize(
    "line",
    [
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=flag)",
        "np.load(path, allow_pickle=True)",
        "numpy.load(path, allow_pickle=flag)",
        "import pickle",
        "from pickle import loads",
        "import joblib as j",
        "from torch import load",
        "trainer.fit(model, ckpt_path=path)",
        "PFNL3D.load_from_checkpoint(path)",
        "torch.hub.load_state_dict_from_url(url)",
    ],
)
def test_each_way_to_load_one_would_be_found(line: str) -> None:
    assert len(found(line)) == 1


@pytest.mark.parametrize(
    "line",
    [
        "torch.load(path, weights_only=True)",
        "np.load(path)",
        "from pickle import UnpicklingError",
        "trainer.fit(model, data)",
        "trainer.fit(model, data, ckpt_path=path, weights_only=True)",
        "torch.save(x, path)",
    ],
)
def test_what_loads_none_is_not_found(line: str) -> None:
    assert found(line) == []
