"""The notebooks: their code runs with a small budget, and what is committed can be read as it is."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

import mpfnl
from mpfnl.models.loading import load_model
from mpfnl.phantoms import write_cohort
from mpfnl.phantoms.config import SMALL
from mpfnl.phases import PHASES
from mpfnl.volumes import read_volume
from mpfnl.volumes.grid import check_same_grid

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))
LARGEST = 1_000_000  # bytes
ABSOLUTE = re.compile(r"(?<![\w.:/<-])/(?:[\w.-]+/)+[\w.-]+|\b[A-Z]:\\")
NOTICE = re.compile(r"\*\*[^*]*\b[Pp]hantoms?, not (?:a patient|patients)\b")
NAMED = re.compile(r"`((?:\w+/)*\w+\.(?:md|ipynb|py))`")


def cells(path: Path, kind: str) -> list[dict[str, Any]]:
    content = json.loads(path.read_text("utf-8"))
    return [cell for cell in content["cells"] if cell["cell_type"] == kind]


def text(found: Iterable[Mapping[str, Any]]) -> str:
    return "\n\n".join("".join(cell["source"]) for cell in found)


def is_parameters(cell: Mapping[str, Any]) -> bool:
    return "parameters" in cell["metadata"].get("tags", [])


def assigned(source: str) -> set[str]:
    """The names that a cell gives a value."""
    nodes = ast.walk(ast.parse(source))
    return {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}


def run(name: str, folder: Path, **given: object) -> str:
    """Runs a notebook's code cells in their order, with other parameters; returns what it printed."""
    code = cells(EXAMPLES / f"{name}.ipynb", "code")
    (parameters,) = filter(is_parameters, code)
    assert assigned(text([parameters])) == given.keys()
    parameters["source"] = [f"{key} = {value!r}\n" for key, value in given.items()]
    script = folder / f"{name}.py"
    script.write_text(text(code), "utf-8")
    result = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=False, cwd=folder
    )
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout


@cache
def outputs(path: Path) -> list[dict[str, Any]]:
    return [output for cell in cells(path, "code") for output in cell["outputs"]]


@pytest.fixture(scope="module")
def untuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small weights that have learned nothing: they return what they are given."""
    torch.manual_seed(0)
    return mpfnl.PFNL3D(features=8, blocks=1).save_pretrained(tmp_path_factory.mktemp("untuned") / "weights")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
class TestCommitted:
    def test_it_was_run_from_top_to_bottom(self, path: Path) -> None:
        code = cells(path, "code")
        assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
        assert [is_parameters(cell) for cell in code] == [True] + [False] * (len(code) - 1)

    def test_it_holds_pictures_and_no_noise(self, path: Path) -> None:
        assert path.stat().st_size < LARGEST
        assert any("image/png" in output.get("data", {}) for output in outputs(path))
        assert not [
            output
            for output in outputs(path)
            if output["output_type"] == "error" or output.get("name") == "stderr"
        ]

    def test_it_names_no_place_on_a_machine(self, path: Path) -> None:
        shown = [
            "".join(output.get("text", [])) + "".join(output.get("data", {}).get("text/plain", []))
            for output in outputs(path)
        ]
        written = [text(cells(path, kind)) for kind in ("code", "markdown")]
        assert not [place for part in (*shown, *written) for place in ABSOLUTE.findall(part)]

    def test_it_says_once_that_phantoms_are_no_patients(self, path: Path) -> None:
        assert len(NOTICE.findall(text(cells(path, "markdown")))) == 1

    def test_the_files_that_it_names_exist(self, path: Path) -> None:
        named = NAMED.findall(text(cells(path, "markdown")))
        assert not [name for name in named if not any((room / name).is_file() for room in (ROOT, EXAMPLES))]


def test_an_absolute_path_would_be_found() -> None:
    assert ABSOLUTE.findall("in /home/me/scans") == ["/home/me/scans"]
    assert not ABSOLUTE.findall("docs/dicom.md, https://arxiv.org/abs/2501.14013, and/or 1/2")


def test_the_readme_lists_every_example() -> None:
    listed = (EXAMPLES / "README.md").read_text("utf-8")
    files = [path.name for path in EXAMPLES.iterdir() if path.suffix in (".ipynb", ".py", ".sbatch")]
    assert len(files) > len(NOTEBOOKS) > 1
    assert not [name for name in files if f"]({name})" not in listed]


@pytest.mark.slow
def test_first_look(tmp_path: Path) -> None:
    printed = run(
        "first_look",
        tmp_path,
        WEIGHTS=None,
        DEGRADATION="severe",
        PATIENTS=1,
        STEPS=25,
        PATCH_SIZE=24,
        OUTPUT="look",
    )
    found = dict(re.findall(r"^(degraded|smoothed|enhanced) +(\d+\.\d\d) ", printed, re.M))
    assert float(found["enhanced"]) > float(found["degraded"]) + 1
    record = load_model(tmp_path / "look" / "weights").training_record
    assert record is not None
    assert (record.phantoms, record.steps, record.phase_dropout) == (True, 25, 0.1)
    assert read_volume(tmp_path / "look" / "enhanced.nii.gz").data.dtype == "int16"


OWN_STUDY = {"REGISTRATION": ("rigid",), "MAX_MEMORY_GB": 4.0, "OUTPUT": "own"}


@pytest.mark.slow
def test_your_own_study_with_its_stand_in(untuned: Path, tmp_path: Path) -> None:
    printed = run("your_own_study", tmp_path, FILES=None, WEIGHTS=str(untuned), **OWN_STUDY)
    assert printed.count("equal to what was written: True") == 2
    assert printed.count(": not here") == 0
    assert "phases used: non-contrast, portal venous; without: arterial" in printed
    source = read_volume(tmp_path / "own" / "scans" / "portal_venous")
    check_same_grid(source, [read_volume(tmp_path / "own" / "enhanced_dicom")])


@pytest.mark.slow
def test_your_own_study_with_files_of_ones_own(untuned: Path, tmp_path: Path) -> None:
    study = write_cohort(tmp_path / "mine", 1, 1, SMALL).parent / "phantom-1-0000"
    files = {str(phase): f"{study}/{phase}.nii.gz" for phase in PHASES}
    printed = run("your_own_study", tmp_path, FILES=files, WEIGHTS=str(untuned), **OWN_STUDY)
    assert printed.count("equal to what was written: True") == 1
    assert not (tmp_path / "own" / "scans").exists()
    written = read_volume(tmp_path / "own" / "enhanced_on_source.nii.gz")
    check_same_grid(read_volume(files["portal_venous"]), [written])


@pytest.mark.slow
def test_metrics(tmp_path: Path) -> None:
    printed = run("metrics", tmp_path, SEED=3, SIGMA=0.8, CASES=8, RESAMPLES=200)
    oracles = [float(error) for error in re.findall(r"difference (\S+)$", printed, re.M)]
    assert len(oracles) == 4  # both packages are there in tests
    assert max(oracles) < 1e-4
    (own, theirs) = re.findall(r"ragged, at 3 mm: (\S+), MONAI (\S+)", printed)[0]
    assert float(own) == pytest.approx(float(theirs), abs=1e-5)
    assert re.search(r"^aorta .*: leak$", printed, re.M)


@pytest.mark.slow
def test_nonlocal_operator(tmp_path: Path) -> None:
    printed = run(
        "nonlocal_operator",
        tmp_path,
        CHANNELS=8,
        MEASURED=(256, 2048),
        TIMED=512,
        REPEATS=1,
        CROP=(20, 18, 8),
    )
    errors = [float(error) for error in re.findall(r"error (?:of the gradients )?(\d\S+e-\d+)", printed)]
    assert len(errors) == 4
    assert max(errors) < 1e-4
    assert "a new block changes nothing: True" in printed
    assert "gradients reach it: True" in printed
    naive, operator = map(float, re.findall(r"^ *2048 +\d+ MB +(\d+) MB +(\S+) MB", printed, re.M)[0])
    assert operator < naive / 2


BUDGET = {"PATIENTS": 2, "HELD_OUT": 2, "STEPS": 60, "PATCH_SIZE": 16}


@pytest.mark.slow
def test_fine_tuning(untuned: Path, tmp_path: Path) -> None:
    printed = run(
        "fine_tuning", tmp_path, **BUDGET, WEIGHTS=str(untuned), DEGRADATION="severe", OUTPUT="tuned"
    )
    gains = [float(gain) for gain in re.findall(r"^ *phantom-7002-\d{4} .* ([+-]\d+\.\d\d)$", printed, re.M)]
    assert len(gains) == BUDGET["HELD_OUT"]
    assert min(gains) > 0.1
    assert load_model(tmp_path / "tuned" / "weights").patch_size == 16
