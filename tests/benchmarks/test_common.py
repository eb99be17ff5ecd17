"""What the benchmarks share."""

from __future__ import annotations

import csv
import shutil
import subprocess
from pathlib import Path

import common
import pytest


@pytest.mark.parametrize("passes", [True, False])
def test_red_tests_are_seen(tmp_path: Path, passes: bool) -> None:
    (tmp_path / "test_it.py").write_text(f"def test_it():\n    assert {passes}\n")
    assert common.tests_pass([tmp_path / "test_it.py"]) is passes


def test_no_tests_are_no_pass(tmp_path: Path) -> None:
    assert not common.tests_pass([tmp_path / "test_none.py"])


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_commit_says_whether_code_differs_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(common, "REPOSITORY", tmp_path)
    assert common.commit() == "unknown"
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org"]
    (tmp_path / "code.py").write_text("a = 1\n")
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "a"]):
        subprocess.run([*git, *words], cwd=tmp_path, check=True)
    clean = common.commit()
    assert len(clean) == 40
    (tmp_path / "results.csv").write_text("a\n")
    assert common.commit() == clean
    (tmp_path / "room").mkdir()
    (tmp_path / "room" / "new.py").touch()
    assert common.commit() == f"{clean}-dirty"
    (tmp_path / "room" / "new.py").unlink()
    (tmp_path / "code.py").write_text("a = 2\n")
    assert common.commit() == f"{clean}-dirty"


def test_every_row_says_what_made_it(tmp_path: Path) -> None:
    made_by = common.provenance()
    assert list(made_by) == ["commit", "torch", "cpu", "threads"]
    assert all(made_by.values())
    common.write_csv(tmp_path / "rows.csv", [{"a": 1}, {"a": "x,y"}], made_by)
    with (tmp_path / "rows.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows == [{"a": a} | {name: str(value) for name, value in made_by.items()} for a in ("1", "x,y")]


def test_a_gpus_row_has_the_same_columns_as_a_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    on_cpu = common.device_provenance("cpu")
    assert on_cpu["device"] == on_cpu["cpu"]
    assert on_cpu["driver"] == "none"
    monkeypatch.setattr(common.torch.cuda, "get_device_name", lambda: "some GPU")
    monkeypatch.setattr(
        common, "_output", lambda command: "580.1\n580.1\n" if "nvidia-smi" in command else ""
    )
    on_cuda = common.device_provenance("cuda")
    assert list(on_cuda) == list(on_cpu)
    assert (on_cuda["device"], on_cuda["driver"]) == ("some GPU", "580.1")
    monkeypatch.setattr(common, "_output", lambda command: "")
    assert common.cuda_driver() == "unknown"


def test_rows_are_added(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    for a, keep in ((1, True), (2, True), (3, False), (4, True)):
        common.add_rows(path, [{"a": a}], {"b": "x"}, keep=keep)
        if a == 2:
            assert path.read_text() == "a,b\n1,x\n2,x\n"
    assert path.read_text() == "a,b\n3,x\n4,x\n"
