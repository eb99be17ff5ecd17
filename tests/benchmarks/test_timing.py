"""How times and peaks are taken."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import torch
from memory import rise
from timing import apart, in_turn, sample


def test_runs_take_turns_and_short_ones_are_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("timing.LEAST_SAMPLE_S", {"cpu": 0.02})
    log: list[str] = []

    def short() -> None:
        log.append("a")
        time.sleep(0.008)

    def long() -> None:
        log.append("b")
        time.sleep(0.05)

    times = in_turn({"short": short, "long": long}, repeats=3)
    turns = "".join(log).replace("aaa", "A").replace("aa", "A")
    assert turns == "AbbAbAbAb"  # two warm-up runs of each; then three turns
    assert 0.008 <= times["short"].fastest <= times["short"].median <= times["short"].slowest
    assert times["long"].median >= 0.05
    assert times["short"].samples == 3


def test_a_long_run_that_was_done_before_was_the_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("timing.LEAST_SAMPLE_S", {"cpu": 0.0})
    log: list[str] = []
    runs = {name: lambda name=name: log.append(name) for name in "ab"}
    in_turn(runs, repeats=2, before={"a": 1.5, "b": 0.1})
    assert "".join(log) == "bb" + "ab" + "ab"


def test_a_sample_is_a_mean() -> None:
    calls = iter([0.0, 0.03, 0.0])
    assert 0.01 <= sample(lambda: time.sleep(next(calls)), "cpu", 3) < 0.025


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux' /proc")
def test_apart_is_another_process_whose_peak_is_its_own() -> None:
    assert apart(os.getpid) != apart(os.getpid) != os.getpid()
    held = torch.ones(50_000_000)
    assert 100e6 < apart(rise, torch.ones(1).repeat(1).expand(25_000_000).clone) < 150e6
    del held


def test_a_process_that_is_ended_is_a_lack_of_memory() -> None:
    with pytest.raises(MemoryError):
        apart(os._exit, 9)
