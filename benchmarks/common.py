"""What the benchmarks share: they report nothing while tests are red, and their rows say what made them."""

from __future__ import annotations

import csv
import io
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
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


def write_csv(path: Path, rows: Sequence[Mapping[str, object]], shared: Mapping[str, object]) -> None:
    """Writes the rows, at least one, each with the shared columns after its own."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=[*rows[0], *shared], lineterminator="\n")
    writer.writeheader()
    writer.writerows({**row, **shared} for row in rows)
    write_text(path, text.getvalue())


def _git(*words: str) -> str:
    """What git prints; nothing where there is no git or no clone."""
    try:
        result = subprocess.run(["git", *words], cwd=REPOSITORY, check=False, capture_output=True, text=True)
    except FileNotFoundError:
        return ""
    return result.stdout.strip()
