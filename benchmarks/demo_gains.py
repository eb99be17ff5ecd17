"""Checks the gains of the demonstration: python benchmarks/demo_gains.py DEMO.

Reads DEMO/evaluation/summary.json, a result of `mpfnl demo -o DEMO`. RCAN3D and PFNL3D must each gain at
least 2 dB of PSNR and 0.15 of SSIM over the degraded scan, in the mean over the held-out phantoms, with no
phantom failed; otherwise the exit status is 1. These are phantoms with simulated degradation: nothing here is
evidence about patients.
"""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

METHODS = ("RCAN3D", "PFNL3D")


@dataclass(frozen=True)
class Target:
    """The least mean gain in one metric."""

    column: str
    title: str
    least: float
    digits: int


TARGETS = (Target("psnr_db", "PSNR, dB", 2.0, 2), Target("ssim", "SSIM", 0.15, 3))


@dataclass(frozen=True)
class Gain:
    """One method's mean gain over the degraded scan in one metric."""

    method: str
    target: Target
    n: int
    n_failed: int
    mean: float | None
    interval: tuple[float, float] | None

    @property
    def holds(self) -> bool:
        complete = self.n > 0 and self.n_failed == 0
        return complete and self.mean is not None and self.mean >= self.target.least

    def line(self) -> str:
        digits = self.target.digits
        mean = "none" if self.mean is None else f"{self.mean:+.{digits}f}"
        between = "no interval"
        if self.interval is not None:
            low, high = self.interval
            between = f"95 % CI {low:+.{digits}f} to {high:+.{digits}f}"
        failed = f" ({self.n_failed} failed)" if self.n_failed else ""
        verdict = "holds" if self.holds else "DOES NOT HOLD"
        return (
            f"{self.method}  {self.target.title:8s}  n {self.n}{failed}  {mean} ({between})  "
            f"at least {self.target.least:+g}: {verdict}"
        )


def gains(summary: Mapping[str, Any]) -> Iterator[Gain]:
    """The gains that count, in the layout of `mpfnl.evaluation.tables.metric_table.write_summary`."""
    for target in TARGETS:
        for method in METHODS:
            found = summary[target.column]["gains"][method]
            ends = found["interval"]
            interval = None if ends is None else (ends["low"], ends["high"])
            yield Gain(method, target, found["n"], found["n_failed"], found["mean"], interval)


def main(arguments: list[str] | None = None) -> int:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("demo", type=Path, help="the demonstration's folder")
    path = parser.parse_args(arguments).demo / "evaluation" / "summary.json"
    try:
        found = list(gains(json.loads(path.read_text(encoding="utf-8"))))
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f"{path}: no summary of a demonstration ({error!r}); run  mpfnl demo  first", file=sys.stderr)
        return 1
    print("mean gains over the degraded scan on held-out phantoms (not patients)")
    for gain in found:
        print(gain.line())
    return 0 if all(gain.holds for gain in found) else 1


if __name__ == "__main__":
    sys.exit(main())
