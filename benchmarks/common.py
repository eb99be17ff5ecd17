"""Shared functions of the benchmarks: the tests that precede a report, and the provenance of a row."""

from __future__ import annotations

import csv
import io
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import torch

from mpfnl.files import write_text

REPOSITORY = Path(__file__).resolve().parents[1]
CODE = ("*.py", "*.toml", "*.yaml")  # what decides a result; a CSV or a page beside it does not
BF16_FLAGS = ("amx_bf16", "avx512_bf16", "bf16")  # x86, x86, ARM


def tests_pass(paths: Sequence[str | Path]) -> bool:
    """Whether these test files, or folders of them, pass; paths from the repository's root."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", *(str(REPOSITORY / path) for path in paths)]
    return subprocess.run(command, cwd=REPOSITORY, check=False, stdout=subprocess.DEVNULL).returncode == 0


def commit() -> str:
    """The commit, with "-dirty" where code differs from it; "unknown" outside of a clone."""
    head = _git("rev-parse", "HEAD")
    if not head:
        return "unknown"
    return f"{head}-dirty" if _git("status", "--porcelain", "--", *CODE) else head


def cpu_name() -> str:
    """The processor's name, and the bfloat16 instructions that it has."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    fields = {name.strip(): value.strip() for name, value in fields.items()}
    flags = fields.get("flags", fields.get("Features", "")).split()
    found = [flag for flag in BF16_FLAGS if flag in flags]
    name = fields.get("model name") or platform.processor() or platform.machine()
    return f"{name} ({', '.join(found) or 'no bf16 instructions'})"


def provenance() -> dict[str, object]:
    """Columns of every row: the commit, PyTorch's version, the processor and its threads."""
    return {
        "commit": commit(),
        "torch": torch.__version__,
        "cpu": cpu_name(),
        "threads": torch.get_num_threads(),
    }


def device_provenance(device: str) -> dict[str, object]:
    """`provenance`, and what a GPU's result depends on: its name, its driver and Triton's version.

    Args:
        device: "cpu" or "cuda".
    """
    cuda = device == "cuda"
    return provenance() | {
        "device": torch.cuda.get_device_name() if cuda else cpu_name(),
        "driver": cuda_driver() if cuda else "none",
        "triton": version("triton") if find_spec("triton") else "none",
    }


def cuda_driver() -> str:
    """The version of NVIDIA's driver; "unknown" where nvidia-smi is missing."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    return (_output(command).splitlines() or ["unknown"])[0].strip()


def write_csv(path: Path, rows: Sequence[Mapping[str, object]], shared: Mapping[str, object]) -> None:
    """Writes the rows, at least one, each with the shared columns after its own."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=[*rows[0], *shared], lineterminator="\n")
    writer.writeheader()
    writer.writerows({**row, **shared} for row in rows)
    write_text(path, text.getvalue())


def add_rows(
    path: Path, rows: Sequence[Mapping[str, object]], shared: Mapping[str, object], *, keep: bool
) -> None:
    """`write_csv`, after the rows that the file already has if they are to be kept."""
    before: list[dict[str, str]] = []
    if keep and path.exists():
        with path.open(encoding="utf-8", newline="") as file:
            before = list(csv.DictReader(file))
    write_csv(path, [*before, *({**row, **shared} for row in rows)], {})


def _git(*words: str) -> str:
    """What git prints; nothing where there is no git or no clone."""
    return _output(["git", *words])


def _output(command: Sequence[str]) -> str:
    """What a command prints; nothing where there is no such command."""
    try:
        result = subprocess.run(command, cwd=REPOSITORY, check=False, capture_output=True, text=True)
    except FileNotFoundError:
        return ""
    return result.stdout.strip()
