"""The benchmark of the non-local operator: what it measures is checked, and what is wrong is not timed."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import attention_methods
import nonlocal_attention as benchmark
import pytest
import tiles
import torch
from attention_cases import Case, Inputs, Mode, Precision, Task, errors
from attention_methods import OK, Method, attempt, materialised, task_on, trial
from torch import Tensor

PROMISED = {"mode", "task", "positions", "channels", "precision", "method", "status", "error", "median_ms"}
PROMISED |= {"fastest_ms", "slowest_ms", "samples", "peak_mb_above_inputs", "floor_fraction", "clock_ghz"}
PROMISED |= {"gradient_error", "speed_over_materialised", "speed_over_fastest_sdpa"}
MADE_BY = {"commit", "torch", "triton", "driver", "device", "cpu", "threads"}

pytestmark = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux' /proc")


@pytest.fixture(autouse=True)
def _same_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def case(task: Task = Task.BOTH, mode: Mode = Mode.GAUSSIAN, n: int = 50) -> Case:
    return Case(n, mode, task, Precision.FLOAT32, channels=8)


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def run(path: Path, *arguments: str) -> tuple[int, list[dict[str, str]]]:
    small = ["--quick", "--skip-tests", "--threads", "1", "--csv", str(path)]
    return benchmark.main([*small, *arguments]), read(path)


def test_the_rows_have_what_was_promised(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, rows = run(tmp_path / "rows.csv", "--mode", "gaussian")
    assert status == 0
    assert all(set(row) == PROMISED | MADE_BY for row in rows)
    assert [row["method"] for row in rows if row["task"] == "forward"] == [
        *("materialised", "SDPA flash", "SDPA math", "ours, blockwise", "ours, dispatched")
    ]
    for row in rows:
        assert row["status"] == OK
        assert 0 < float(row["fastest_ms"]) <= float(row["median_ms"]) <= float(row["slowest_ms"])
        assert 0 < float(row["error"]) < 1e-5
        assert row["samples"] == "2"
        assert all(row[name] for name in MADE_BY)
    both = [row for row in rows if row["task"] == "forward and backward"]
    assert len(rows) == 2 * len(both)
    assert all(0 < float(row["gradient_error"]) < 1e-5 for row in both)
    printed = capsys.readouterr().out
    assert all(f"{row['median_ms']} ms" in printed for row in rows)


def test_rows_are_kept_if_asked_for(tmp_path: Path) -> None:
    arguments = ("--mode", "embedded", "--task", "forward", "--n")
    run(tmp_path / "rows.csv", *arguments, "40")
    _, rows = run(tmp_path / "rows.csv", *arguments, "41", "--append")
    assert {row["positions"] for row in rows} == {"40", "41"}
    _, rows = run(tmp_path / "rows.csv", *arguments, "42")
    assert {row["positions"] for row in rows} == {"42"}


def test_large_sizes_are_for_ours_alone(tmp_path: Path) -> None:
    _, rows = run(tmp_path / "rows.csv", "--large", "300", "--mode", "embedded")
    assert [(row["method"], row["samples"]) for row in rows] == 2 * [("ours, dispatched", "1")]
    assert all(float(row["median_ms"]) > 0 for row in rows)


def scaled(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return materialised(query * query.shape[2] ** -0.5, key, value)


def slightly_off(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return materialised(query, key, value) * 1.0001


def wrong_gradient(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    out = materialised(query, key, value)
    return out + out - out.detach()


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize(
    ("method", "task", "sound"),
    [
        (Method("right", materialised, ours=True), Task.BOTH, True),
        (Method("scaled", scaled), Task.FORWARD, False),
        (Method("off", slightly_off, ours=True), Task.FORWARD, False),
        (Method("off, another's", slightly_off), Task.FORWARD, True),
        (Method("wrong gradient", wrong_gradient), Task.FORWARD, True),
        (Method("wrong gradient", wrong_gradient), Task.BOTH, False),
        (Method("NaN", lambda q, k, v: v * torch.nan), Task.FORWARD, False),
    ],
)
def test_a_wrong_result_is_caught(method: Method, task: Task, sound: bool, mode: Mode) -> None:
    status = trial(case(task, mode), method).status
    assert status == OK if sound else status.startswith("wrong: ")


def refuses(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    raise RuntimeError("No such kernel\nfor this shape")


def runs_out(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    raise torch.OutOfMemoryError("a lot")


def test_wrong_and_refusing_methods_are_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    candidates = [
        Method("materialised", materialised),
        Method("SDPA refuses", refuses, sdpa=True),
        Method("SDPA runs out", runs_out, sdpa=True),
        Method("ours, wrong", scaled, ours=True),
    ]
    for module in (benchmark, attention_methods):
        monkeypatch.setattr(module, "methods", lambda device: candidates)
    monkeypatch.setattr(benchmark, "apart", lambda function, *arguments: function(*arguments))
    status, rows = run(tmp_path / "rows.csv", "--mode", "gaussian", "--task", "forward")
    assert status == 1
    told = {row["method"]: row["status"] for row in rows}
    assert told.pop("ours, wrong").startswith("wrong: error")
    assert told == {
        "materialised": OK,
        "SDPA refuses": "refused: No such kernel",
        "SDPA runs out": "out of memory",
    }
    assert [bool(row["median_ms"]) for row in rows] == [True, False, False, False]


def test_matrices_that_do_not_fit_are_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "available", lambda: 100_000)
    method = Method("materialised", materialised, quadratic=True)
    assert benchmark.reason_to_skip(method, case(Task.FORWARD, n=100)).startswith("skipped: ")
    assert not benchmark.reason_to_skip(method, case(Task.FORWARD, n=70))
    assert benchmark.reason_to_skip(method, case(Task.BOTH, n=70))
    assert not benchmark.reason_to_skip(Method("linear", materialised), case(n=10_000))


@pytest.mark.parametrize("mode", Mode)
def test_sampled_rows_are_exact_for_all_gradients(mode: Mode, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against autograd through the whole matrix, in float64; the reference in several parts."""
    monkeypatch.setattr("attention_cases.REFERENCE_ELEMENTS", 100 * 700)
    given = case(mode=mode, n=700).inputs()
    assert len(given.rows) == 256
    assert given.checked_grad.count_nonzero() == 256 * 8
    leaves = {id(leaf): leaf.detach().double().requires_grad_() for leaf in given.leaves}
    query, key, value = (leaves[id(tensor)] for tensor in (given.query, given.key, given.value))
    exact = Inputs(query, key, value, given.grad.double(), given.checked_grad.double(), given.rows)
    assert max(errors(task_on(Method("", materialised), exact)(), exact)) < 1e-12
    dense = errors(task_on(Method("", materialised), exact, dense=True)(), exact)
    assert dense[0] < 1e-12 < 0.1 < dense[1]  # other rows' gradients are in it: not the same


def test_what_fails_inside_of_a_warning_is_told_by_it() -> None:
    def warned() -> None:
        import warnings

        warnings.warn("head size must be a multiple of 8", stacklevel=1)
        raise RuntimeError("No available kernel. Aborting execution.")

    assert attempt(warned) == (None, "refused: head size must be a multiple of 8")


def test_the_floor_is_that_of_the_specification(monkeypatch: pytest.MonkeyPatch) -> None:
    h100 = SimpleNamespace(multi_processor_count=132)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: h100)
    whole = case(Task.FORWARD, n=262_144)
    assert benchmark.floor_seconds(whole, 1.75) == pytest.approx(18.6e-3, rel=0.01)
    assert benchmark.floor_seconds(case(n=1000), 1.75) == 2 * benchmark.floor_seconds(
        case(Task.FORWARD, n=1000), 1.75
    )


def test_tiles_that_do_not_run_or_are_wrong_are_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The real kernels, in Triton's interpreter where there is no GPU."""
    pytest.importorskip("triton")
    if torch.cuda.is_available():
        pytest.skip("for the interpreter")
    for name, values in {"ROWS": (32, 33), "COLUMNS": (32,), "WARPS": (4,), "STAGES": (1,)}.items():
        monkeypatch.setattr(tiles, name, values)
    monkeypatch.setattr("timing.LEAST_SAMPLE_S", {"cpu": 0.0})
    small = [Case(40, Mode.GAUSSIAN, task, Precision.TF32, channels=8) for task in Task]
    assert tiles.tune(small, repeats=1) == 0
    printed = capsys.readouterr().out
    assert "1 of 2 tiles of the forward kernel run and are right" in printed
    assert "1 of 2 tiles of the backward kernel run and are right" in printed
    assert printed.count("Tiles(rows=32, columns=32, warps=4, stages=1)") == 2
    monkeypatch.setattr(tiles, "TRITON", Method("wrong", scaled, ours=True))
    tiles.tune(small[:1], repeats=1)
    assert "0 of 2 tiles" in capsys.readouterr().out


def test_nothing_is_measured_while_tests_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "tests_pass", lambda paths: False)
    with pytest.raises(SystemExit, match="nothing is measured"):
        benchmark.main(["--quick"])
    for path in benchmark.TESTS:
        assert (Path(__file__).parents[2] / path).exists()
