"""The worker process: answers, errors, death in mid-call, and nothing left behind."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mpfnl.errors import SegmentationError
from mpfnl.segmentation import process
from mpfnl.segmentation.process import Worker

ANSWERS = """
import json, os, signal, subprocess, sys, time
for line in sys.stdin:
    request = json.loads(line)
    if request["do"] == "child":
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        open(request["file"], "w").write(str(child.pid))
    if request["do"] == "print":
        print("\\nthe disk is full\\n", file=sys.stderr, flush=True)
    if request["do"] in ("kill", "child"):
        os.kill(os.getpid(), signal.SIGKILL)
    if request["do"] == "leave":
        sys.exit(3)
    if request["do"] == "hang":
        time.sleep(600)
    print(json.dumps({"error": request.get("error", "")}), flush=True)
"""


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Worker]:
    program = tmp_path / "program.py"
    program.write_text(ANSWERS)
    monkeypatch.setattr(process, "COMMAND", (sys.executable, str(program)))
    return lambda: Worker(os.environ, tmp_path / "log.txt")


def running(pid: int) -> bool:
    """Whether a process runs; one that is dead and not yet collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def ends(pid: int) -> bool:
    """Whether a process ends within ten seconds."""
    end = time.monotonic() + 10
    while running(pid) and time.monotonic() < end:
        time.sleep(0.05)
    return not running(pid)


def test_it_answers_many_requests_and_leaves(start: Callable[[], Worker]) -> None:
    worker = start()
    for _ in range(3):
        worker.ask({"do": "nothing"}, 30)
    assert worker.alive
    worker.stop()
    assert not worker.alive
    worker.stop()  # once more does no harm


def test_an_error_is_told_with_the_last_words_of_this_call_and_work_goes_on(
    start: Callable[[], Worker],
) -> None:
    worker = start()
    with pytest.raises(SegmentationError, match=r"OSError: no space.*the disk is full$"):
        worker.ask({"do": "print", "error": "OSError: no space"}, 30)
    with pytest.raises(SegmentationError) as caught:
        worker.ask({"do": "nothing", "error": "SystemExit"}, 30)
    assert "the disk is full" not in str(caught.value)
    worker.ask({"do": "nothing"}, 30)
    worker.stop()


@pytest.mark.parametrize(("what", "message"), [("kill", "killed"), ("leave", "status 3")])
def test_death_in_mid_call_is_one_clear_line(start: Callable[[], Worker], what: str, message: str) -> None:
    worker = start()
    with pytest.raises(SegmentationError, match=message) as caught:
        worker.ask({"do": what}, 30)
    assert "\n" not in str(caught.value)
    assert not worker.alive


def test_a_call_that_takes_too_long_is_stopped(start: Callable[[], Worker]) -> None:
    worker = start()
    begun = time.monotonic()
    with pytest.raises(SegmentationError, match="1 s "):
        worker.ask({"do": "hang"}, 1)
    assert time.monotonic() - begun < 20
    assert not worker.alive


def test_a_dead_worker_is_noticed_though_another_process_holds_its_pipe(
    start: Callable[[], Worker],
) -> None:
    worker = start()
    worker.ask({"do": "nothing"}, 30)
    holder = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(60)"], pass_fds=[worker._output.fileno()]
    )
    begun = time.monotonic()
    with pytest.raises(SegmentationError, match="killed"):
        worker.ask({"do": "kill"}, 30)
    assert time.monotonic() - begun < 15
    holder.kill()
    holder.wait()


def test_a_worker_ends_with_the_object_that_holds_it(start: Callable[[], Worker]) -> None:
    worker = start()
    worker.ask({"do": "nothing"}, 30)
    process = worker._process
    del worker
    gc.collect()
    assert process.poll() is not None


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at /proc")
def test_the_real_program_ends_in_mid_call_when_nobody_waits_any_more(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import subprocess, sys, time\n"
        "from mpfnl.segmentation import worker\n"
        "def wait(**_):\n"
        "    child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"    open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid))\n"
        "    time.sleep(600)\n"
        "worker._segment = wait\n"
        "worker.main()\n"
    )
    running_worker = subprocess.Popen(
        [sys.executable, str(program)], stdin=subprocess.PIPE, start_new_session=True
    )
    assert running_worker.stdin is not None
    running_worker.stdin.write(b"{}\n")
    running_worker.stdin.flush()
    end = time.monotonic() + 20
    while not ((tmp_path / "pid").exists() and (tmp_path / "pid").read_text()) and time.monotonic() < end:
        time.sleep(0.05)
    running_worker.stdin.close()
    assert running_worker.wait(20) != 0
    assert ends(int((tmp_path / "pid").read_text()))


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at /proc")
def test_what_a_dead_worker_started_is_ended_too(start: Callable[[], Worker], tmp_path: Path) -> None:
    worker = start()
    with pytest.raises(SegmentationError):
        worker.ask({"do": "child", "file": str(tmp_path / "pid")}, 30)
    assert ends(int((tmp_path / "pid").read_text()))
