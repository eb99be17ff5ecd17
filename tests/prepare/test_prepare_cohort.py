"""Whole cohorts through the command line: interruptions, failures, clusters, repeated runs."""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from preparation import checksums
from raw_studies import AFFINE, SHAPE, body, raw_cohort, write_scan

from mpfnl.cli import main
from mpfnl.data.manifest import Manifest, Quality, Study, read_manifest, write_manifest
from mpfnl.phases import PHASES, Phase

OPTIONS = ["--steps", "rigid", "--grid-mm", "5", "--crop", "none", "--deterministic"]


COMMAND = "import sys; from mpfnl.cli import main; sys.exit(main())"


def words(raw: Manifest, output: Path, *more: str) -> list[str]:
    return ["prepare", str(raw.path), "-o", str(output), *OPTIONS, *more]


def started(raw: Manifest, output: Path, temporary: Path, *more: str) -> subprocess.Popen[bytes]:
    """The command in a process of its own, with a folder for temporary files of its own."""
    temporary.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, *words(raw, output, *more)],
        env={**os.environ, "TMPDIR": str(temporary)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


@pytest.fixture(scope="module")
def undisturbed(raw: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("prepared") / "cohort"
    assert main(words(raw, output)) == 0
    return output


def table(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def test_a_prepared_cohort(raw: Manifest, undisturbed: Path) -> None:
    cohort = read_manifest(undisturbed / "cohort.csv")
    assert [study.study_id for study in cohort] == [study.study_id for study in raw]
    for before, after in zip(raw, cohort, strict=True):
        assert (after.patient_id, after.split) == (before.patient_id, before.split)
        assert after.masks.keys() == before.masks.keys()
        assert after.quality is not None
        assert all(after.file(phase).suffix == ".nii" for phase in PHASES)
    assert not (undisturbed / ".work").exists()
    assert (undisturbed / "index.html").is_file()
    assert table(undisturbed / "failures.csv") == [["study_id", "reason"]]


def test_no_output_tells_where_the_inputs_lie(raw: Manifest, undisturbed: Path) -> None:
    for path in undisturbed.rglob("*"):
        if path.is_file():
            assert str(raw.path.parent).encode() not in path.read_bytes(), path


@pytest.mark.slow
def test_killed_at_five_moments_it_ends_as_if_undisturbed(
    raw: Manifest, undisturbed: Path, tmp_path: Path
) -> None:
    output, temporary = tmp_path / "cohort", tmp_path / "tmp"
    rng = random.Random(time.time_ns())
    for _ in range(5):
        process = started(raw, output, temporary, "--jobs", "2")
        try:
            process.wait(rng.uniform(1.0, 7.0))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        process.communicate()
    process = started(raw, output, temporary, "--jobs", "2")
    assert process.communicate()[1] is not None
    assert process.returncode == 0
    assert checksums(output) == checksums(undisturbed)
    assert not list(temporary.iterdir())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a process die with its parent")
def test_a_killed_run_leaves_no_process_behind(raw: Manifest, tmp_path: Path) -> None:
    process = started(raw, tmp_path / "cohort", tmp_path / "tmp")
    workers: list[int] = []
    limit = time.monotonic() + 120
    while not workers and time.monotonic() < limit:
        time.sleep(0.05)
        workers = worker_processes(process.pid)
    time.sleep(random.Random(time.time_ns()).uniform(0.0, 2.0))  # young, or well at work
    workers = worker_processes(process.pid) or workers
    process.kill()
    process.communicate()
    assert workers
    limit = time.monotonic() + 30  # a young one looks for its parent once it has loaded
    while any(alive(worker) for worker in workers):
        assert time.monotonic() < limit, "a worker outlives the run"
        time.sleep(0.05)


def worker_processes(pid: int) -> list[int]:
    """The children of a process that prepare a study."""
    found = []
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            for child in children.read_text().split():
                if b"mpfnl.prepare.execution" in Path(f"/proc/{child}/cmdline").read_bytes():
                    found.append(int(child))
        except OSError:  # it has just ended
            continue
    return found


def alive(pid: int) -> bool:
    try:
        return "zombie" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_a_second_run_does_nothing_and_a_changed_scan_is_done_again(tmp_path: Path) -> None:
    raw = raw_cohort(tmp_path / "raw", 2)
    output = tmp_path / "cohort"
    assert main(words(raw, output)) == 0
    times = {path: path.stat().st_mtime_ns for path in output.glob("studies/*/*")}
    assert main(words(raw, output)) == 0
    assert {path: path.stat().st_mtime_ns for path in output.glob("studies/*/*")} == times

    changed = raw.studies[1]
    write_scan(changed.file(Phase.ARTERIAL), body(77, Phase.ARTERIAL))
    assert main(words(raw, output)) == 0
    again = {path.parent.name for path, at in times.items() if path.stat().st_mtime_ns != at}
    assert again == {changed.study_id}

    moved = raw.path.parent.rename(tmp_path / "elsewhere")  # the same content under another name
    times = {path: path.stat().st_mtime_ns for path in output.glob("studies/*/*")}
    assert main(words(read_manifest(moved / "raw.csv"), output)) == 0
    assert {path: path.stat().st_mtime_ns for path in output.glob("studies/*/*")} == times


@pytest.mark.slow
def test_a_cluster_gives_the_same_files(raw: Manifest, undisturbed: Path, tmp_path: Path) -> None:
    cluster = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", CLUSTER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert cluster.stdout is not None
        address = cluster.stdout.readline().strip()
        assert address.startswith("tcp://127.0.0.1:")
        output = tmp_path / "cohort"
        process = started(raw, output, tmp_path / "tmp", "--scheduler", address)
        _, told = process.communicate()
        assert process.returncode == 0, told.decode()
    finally:
        cluster.kill()
        cluster.communicate()
    assert checksums(output) == checksums(undisturbed)


CLUSTER = """
import sys, time
from distributed import LocalCluster
if __name__ == "__main__":
    cluster = LocalCluster(2, threads_per_worker=1, dashboard_address=None, local_directory=sys.argv[1])
    print(cluster.scheduler_address, flush=True)
    time.sleep(300)
"""


def cut_off(study: Study) -> Path:
    study.file(Phase.ARTERIAL).write_bytes(study.file(Phase.ARTERIAL).read_bytes()[:-500])
    return study.file(Phase.ARTERIAL)


def not_a_number(study: Study) -> Path:
    hu = body(1, Phase.NONCONTRAST).astype(np.float32)
    hu[5, 5, 5] = np.nan
    return write_scan_unchecked(study.file(Phase.NONCONTRAST), hu)


def write_scan_unchecked(path: Path, hu: np.ndarray) -> Path:
    import nibabel as nib

    nib.save(nib.Nifti1Image(hu, AFFINE), path)
    return path


def an_mr_scan(study: Study) -> Path:
    return write_scan(study.file(Phase.PORTAL_VENOUS), body(2, Phase.PORTAL_VENOUS).clip(0, None))


def one_slice(study: Study) -> Path:
    return write_scan_unchecked(study.file(Phase.ARTERIAL), body(3, Phase.ARTERIAL)[:, :, :1])


def broken_dicom(study: Study) -> Path:
    study.file(Phase.ARTERIAL).unlink()
    study.file(Phase.ARTERIAL).mkdir()
    (study.file(Phase.ARTERIAL) / "1.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"nonsense")
    return study.file(Phase.ARTERIAL)


def far_away(study: Study) -> Path:
    affine = AFFINE.copy()
    affine[0, 3] += 900
    return write_scan(study.file(Phase.ARTERIAL), body(5, Phase.ARTERIAL), affine)


def missing(study: Study) -> Path:
    study.file(Phase.NONCONTRAST).unlink()
    return study.file(Phase.NONCONTRAST)


BAD: list[tuple[Callable[[Study], Path], Phase]] = [
    (cut_off, Phase.ARTERIAL),
    (not_a_number, Phase.NONCONTRAST),
    (an_mr_scan, Phase.PORTAL_VENOUS),
    (one_slice, Phase.ARTERIAL),
    (broken_dicom, Phase.ARTERIAL),
    (missing, Phase.NONCONTRAST),
]
"""Faults of a study, and the phase that its failure must name."""


def test_every_bad_study_is_named_and_the_others_are_prepared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = raw_cohort(tmp_path / "Jane Doe 1961", len(BAD) + 1)
    broken = {study.study_id: spoil(study) for study, (spoil, _) in zip(raw, BAD, strict=False)}
    far_away(raw.studies[-1])
    output = tmp_path / "cohort"
    assert main(words(raw, output, "--jobs", "2", "--steps", "none")) == 1
    printed = capsys.readouterr()
    failures = dict(table(output / "failures.csv"))
    assert set(failures) == {"study_id", *broken}
    for (study_id, path), (_, phase) in zip(broken.items(), BAD, strict=True):
        line = next(line for line in printed.out.splitlines() if f"{study_id}: " in line)
        name = f"({phase.label} phase)"
        assert f"{path} {name}" in line
        assert name in failures[study_id]
        assert "Jane Doe" not in failures[study_id]
    assert f"{len(BAD)} of {len(BAD) + 1} " in printed.err
    (last,) = read_manifest(output / "cohort.csv")
    assert last.study_id == raw.studies[-1].study_id
    assert last.phases == tuple(phase for phase in PHASES if phase is not Phase.ARTERIAL)
    assert set(last.masks) == {"pancreas"}  # not the arterial labels
    assert last.quality is Quality.WARN
    assert f"left out: {last.study_id}: arterial phase" in printed.out
    assert all(study_id in (output / "index.html").read_text() for study_id in broken)


def test_a_repaired_study_is_prepared_later(tmp_path: Path) -> None:
    raw = raw_cohort(tmp_path / "raw", 2)
    study = raw.studies[0]
    kept = study.file(Phase.ARTERIAL).read_bytes()
    cut_off(study)
    output = tmp_path / "cohort"
    assert main(words(raw, output, "--steps", "none")) == 1
    study.file(Phase.ARTERIAL).write_bytes(kept)
    assert main(words(raw, output, "--steps", "none")) == 0
    assert len(read_manifest(output / "cohort.csv")) == 2
    assert table(output / "failures.csv") == [["study_id", "reason"]]


def test_a_process_that_dies_is_one_studys_failure(
    raw: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The interpreter of the workers is replaced by one that kills itself for the first study."""
    stand_in = tmp_path / "python"
    first = raw.studies[0].study_id
    stand_in.write_text(
        f'#!/bin/sh\ncase "$*" in *{first}.*) kill -9 $$ ;; *) exec {sys.executable} "$@" ;; esac\n'
    )
    stand_in.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(stand_in))
    output = tmp_path / "cohort"
    assert main(words(raw, output, "--steps", "none")) == 1
    out = capsys.readouterr().out
    (line,) = [line for line in out.splitlines() if f"{first}: " in line]
    assert "SIGKILL" in line
    assert len(read_manifest(output / "cohort.csv")) == len(raw) - 1


def refusal(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def test_a_folder_with_something_else_or_other_settings_is_left_alone(
    raw: Manifest, undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.txt").write_text("do not lose")
    assert str(tmp_path) in refusal(capsys, words(raw, tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    before = checksums(undisturbed)
    line = refusal(capsys, words(raw, undisturbed, "--grid-mm", "6"))
    assert str(undisturbed) in line
    assert "grid_mm" in line
    assert checksums(undisturbed) == before


@pytest.mark.skipif(sys.platform == "win32", reason="no file locks")
def test_two_runs_do_not_meet_in_one_folder(
    raw: Manifest, undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import fcntl

    output = tmp_path / "cohort"
    shutil.copytree(undisturbed, output)
    handle = os.open(output, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        assert str(output) in refusal(capsys, words(raw, output))
    finally:
        os.close(handle)
    assert main(words(raw, output)) == 0


@pytest.mark.parametrize(
    "more",
    [
        ["--threads", "2"],
        ["--jobs", "0"],
        ["--grid-mm", "0"],
        ["--margin-mm", "-1"],
        ["--steps", "affine", "rigid"],
        ["--steps", "elastic"],
        ["--scheduler", "tcp://127.0.0.1:9"],
    ],
    ids=" ".join,
)
def test_options_that_cannot_be(
    raw: Manifest,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    more: list[str],
) -> None:
    monkeypatch.setattr("mpfnl.prepare.execution.CONNECT_S", 1)
    line = refusal(capsys, words(raw, tmp_path / "cohort", *more))
    assert " ".join(more) in line


def test_a_missing_extra_is_named(
    raw: Manifest, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mpfnl.prepare.cohort.find_spec", lambda name: None)
    assert "mpfnl[register]" in refusal(capsys, words(raw, tmp_path / "cohort"))
    assert not (tmp_path / "cohort").exists()


def test_the_record_says_what_was_done(undisturbed: Path) -> None:
    record = json.loads(next(undisturbed.glob("studies/*/record.json")).read_text())
    assert record["shape"] == list(SHAPE)
    assert set(record["phases"]) == {"noncontrast", "arterial"}
    assert record["versions"]["antspyx"]
    settings = json.loads((undisturbed / "prepare.json").read_text())["settings"]
    assert [step["name"] for step in settings["steps"]] == ["rigid"]


def test_studies_left_over_are_kept(raw: Manifest, undisturbed: Path, tmp_path: Path) -> None:
    output = tmp_path / "cohort"
    shutil.copytree(undisturbed, output)
    fewer = write_manifest(raw.path.parent / "fewer.csv", raw.studies[:1])
    assert main(words(fewer, output)) == 0
    assert len(read_manifest(output / "cohort.csv")) == 1
    assert len(list((output / "studies").iterdir())) == len(raw)
