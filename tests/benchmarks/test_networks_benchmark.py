"""The benchmark of the networks: the rows that were promised, and nothing wrong is timed."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import network_methods
import networks as benchmark
import pytest
import torch
from network_methods import OK, TINY, VARIANTS, Job, Network, Task, expected_of, halved, prepare, trial
from torch import Tensor, nn

from mpfnl.networks import PFNL3DNet

PROMISED = {"network", "task", "input", "method", "status", "batch", "error", "samples", "peak_mb"}
PROMISED |= {f"{which}_ms_per_sample" for which in ("median", "fastest", "slowest")}
PROMISED |= {"speed_over_naive_fp32", "speed_over_naive_bf16"}
MADE_BY = {"commit", "torch", "triton", "driver", "device", "cpu", "threads"}

pytestmark = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux' /proc")

SIDES = (8, 8, 8)
FP32, BF16, *_ = VARIANTS["cpu"]
OURS = next(variant for variant in VARIANTS["cpu"] if variant.name == "ours bf16")


@pytest.fixture(autouse=True)
def _same_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def run(path: Path, *arguments: str) -> tuple[int, list[dict[str, str]]]:
    small = ["--quick", "--skip-tests", "--threads", "1", "--csv", str(path)]
    status = benchmark.main([*small, *arguments])
    with path.open(newline="") as file:
        return status, list(csv.DictReader(file))


def test_the_rows_have_what_was_promised(tmp_path: Path) -> None:
    status, rows = run(tmp_path / "rows.csv")
    assert status == 0
    assert all(set(row) == PROMISED | MADE_BY for row in rows)
    assert {(row["network"], row["task"]) for row in rows} == {
        (name, task) for name in ("PFNL3D", "RCAN3D") for task in Task
    }
    for row in rows:
        assert row["status"] == OK
        fastest, median, slowest = (
            float(row[f"{which}_ms_per_sample"]) for which in ("fastest", "median", "slowest")
        )
        assert 0 < fastest <= median <= slowest
        if row["method"] == "naive bf16":
            assert row["speed_over_naive_bf16"] == "1"
    steps = {row["method"]: row for row in rows if (row["network"], row["task"]) == ("RCAN3D", Task.STEP)}
    naive, ours = (float(steps[name]["median_ms_per_sample"]) for name in ("naive fp32", "ours bf16"))
    assert float(steps["ours bf16"]["speed_over_naive_fp32"]) == pytest.approx(naive / ours, rel=0.01)


class Broken(nn.Module):
    """The library's network, with something left out."""

    def __init__(self, features: int, blocks: int) -> None:
        super().__init__()
        self.whole = PFNL3DNet(features=features, blocks=blocks)

    def forward(self, phases: Tensor) -> Tensor:
        return self.whole(phases.flip(1)) * 0.9

    def load_state_dict(self, state, *arguments, **named):  # type: ignore[no-untyped-def]
        return self.whole.load_state_dict(state)

    def state_dict(self, *arguments, **named):  # type: ignore[no-untyped-def]
        return self.whole.state_dict()

    def get_parameter(self, target: str) -> nn.Parameter:
        return self.whole.get_parameter(target)


@pytest.mark.parametrize("task", Task)
def test_a_wrong_network_is_not_timed(task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "TINY", (replace(TINY[0], ours=Broken),))
    status, rows = run(tmp_path / "rows.csv", "--network", "PFNL3D", "--task", task)
    assert status == 1
    wrong = [row for row in rows if row["method"].startswith("ours")]
    assert wrong
    for row in wrong:
        assert row["status"].startswith("wrong: differs by")
        assert not row["median_ms_per_sample"]
        assert not row["speed_over_naive_bf16"]


def test_both_have_the_same_weights() -> None:
    for network in TINY:
        x = torch.rand(1, network.phases, *SIDES)
        with torch.no_grad():
            torch.testing.assert_close(network.make(True)(x), network.make(False)(x), rtol=1e-3, atol=1e-4)


def test_a_gradient_does_not_depend_on_the_batch() -> None:
    job = Job(TINY[1], Task.STEP, SIDES, "cpu")
    witnesses = []
    for batch in (1, 3):
        prepared = prepare(FP32, job, batch)
        prepared.run()
        witnesses.append(prepared.witness())
    torch.testing.assert_close(*witnesses, rtol=1e-3, atol=1e-6)


def test_the_largest_batch_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []

    def fits_two(variant, job, batch):  # type: ignore[no-untyped-def]
        tried.append(batch)
        if batch > 2:
            raise torch.OutOfMemoryError("too much")
        return prepare(variant, job, batch)

    monkeypatch.setattr(network_methods, "prepare", fits_two)
    job = Job(TINY[0], Task.STEP, SIDES, "cpu")
    found = trial(OURS, job, list(halved(8)), None)
    assert tried == [8, 4, 2]
    assert (found.status, found.batch) == (OK, 2)
    tried.clear()
    assert trial(OURS, job, [8, 4], None).status == "out of memory"
    times = {"naive bf16": 0.01, "ours bf16": 0.002}
    row = benchmark.row(job, "ours bf16", found, benchmark.Times(0.004, 0.004, 0.006, 3), times)
    assert (row["median_ms_per_sample"], row["slowest_ms_per_sample"]) == ("2", "3")
    assert row["speed_over_naive_bf16"] == "5"


def test_the_naive_ports_matrices_must_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_methods, "available", lambda: 100_000)
    job = Job(TINY[0], Task.FORWARD, (16, 16, 16), "cpu")  # 512 positions
    assert trial(BF16, job, [1], None).status.startswith("skipped: ")
    assert trial(OURS, job, [1], None).status == OK
    assert trial(BF16, Job(TINY[1], Task.FORWARD, SIDES, "cpu"), [1], None).status == OK


def test_a_reference_that_fails_stops_the_benchmark() -> None:
    def fails(**sizes: int) -> nn.Module:
        raise RuntimeError("no port")

    network = Network("PFNL3D", 3, PFNL3DNet, fails, TINY[0].sizes)
    with pytest.raises(RuntimeError, match="no reference for PFNL3D"):
        expected_of(Job(network, Task.FORWARD, SIDES, "cpu"))


def test_nothing_is_timed_while_tests_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "tests_pass", lambda paths: False)
    with pytest.raises(SystemExit, match="nothing is timed"):
        benchmark.main(["--quick"])
    for path in benchmark.TESTS:
        assert (Path(__file__).parents[2] / path).exists()
