"""The README's figures are those of the files that it names; its citation is that of CITATION.cff."""

from __future__ import annotations

import csv
import re
from statistics import mean

import pytest
import yaml
from documents import ROOT

import mpfnl

README = (ROOT / "README.md").read_text("utf-8")


def rows(name: str, **where: str) -> list[dict[str, str]]:
    """The rows of a kept result that have these values."""
    with (ROOT / "benchmarks" / "results" / name).open(newline="") as file:
        return [row for row in csv.DictReader(file) if where.items() <= row.items()]


def average(column: str, found: list[dict[str, str]]) -> float:
    return mean(float(row[column]) for row in found)


def printed_by_the_demonstration(metric: str) -> dict[str, str]:
    """The means of a metric by method, in the tables of docs/demo.md."""
    text = (ROOT / "docs" / "demo.md").read_text("utf-8")
    table = re.search(rf"^{re.escape(metric)}.*\n((?:  .*\n)+)", text, re.M)
    assert table
    return dict(re.findall(r"^  (\S+) +([\d.]+) ±", table[1], re.M))


def demonstration() -> str:
    psnr, dsc = (printed_by_the_demonstration(metric) for metric in ("PSNR (dB)", "DSC (%)"))
    told = [f"{found['degraded']} → {found['RCAN3D']}, {found['PFNL3D']}" for found in (psnr, dsc)]
    return f"PSNR {told[0]} dB; DSC of the pancreas {told[1]} %"


def networks() -> str:
    found = [rows("networks_cpu.csv", network=name, task="forward and backward") for name in NETWORKS]
    speeds = [average("ratio_naive_fp32_over_ours_bf16", ratios) for ratios in found]
    return f"{NETWORKS[0]} {speeds[0]:.1f} times, {NETWORKS[1]} {speeds[1]:.1f} times as fast"


def patches() -> str:
    found = rows("patch_throughput_cpu.csv", loader="DataModule", patch="32")
    faster, smaller = average("speed_over_queue", found), average("peak_over_queue", found)
    return f"{faster:.0f} times as many, in {smaller:.2f} of its memory"


def preparation() -> str:
    found = rows("preparation_phantoms.csv")
    assert len({row["study"] for row in found}) == 8
    return f"{average('dice_before', found):.2f} → {average('dice_after', found):.2f}"


def degradation() -> str:
    found = rows("degradation_calibration.csv", scan="ts_pv_dicom_scrubbed", group="held out")
    return f"PSNR {average('psnr_db', found):.2f} dB, SSIM {average('ssim', found):.3f}"


NETWORKS = ("PFNL3D", "RCAN3D")
FIGURES = {
    "make demo": demonstration,
    "python benchmarks/networks.py": networks,
    "python benchmarks/patch_throughput.py": patches,
    "python benchmarks/preparation.py FOLDER": preparation,
    "python benchmarks/degradation_calibration.py DATA": degradation,
}
"""The command of each row of the README's table, and what must stand in it."""


@pytest.mark.parametrize("command", FIGURES)
def test_measured_figures_are_those_that_are_kept(command: str) -> None:
    (line,) = [line for line in README.splitlines() if line.endswith(f"| `{command}` |")]
    assert FIGURES[command]() in line


def test_no_figure_is_left_unchecked() -> None:
    table = README.split("## Measured\n")[1].split("\n## ")[0]
    assert re.findall(r"\| `([^`]+)` \|$", table, re.M) == list(FIGURES)


def test_the_citation_is_one() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    (block,) = re.findall(r"```bibtex\n(.*?)```", README, re.S)
    entries = [dict(re.findall(r"(\w+) = \{(.*)\},?$", entry, re.M)) for entry in block.split("\n@")]
    for entry, cited in zip(entries, (citation["preferred-citation"], citation), strict=True):
        assert entry["title"].replace("{", "").replace("}", "") == cited["title"]
        names = [name for author in cited["authors"] for name in author.values()]
        assert all(name in entry["author"] for name in names)
    assert entries[0]["year"] == str(citation["preferred-citation"]["year"])
    assert entries[1]["version"] == citation["version"] == mpfnl.__version__
