"""Plots time and memory against N: python benchmarks/plot_nonlocal_attention.py CSV [-o FILE.png].

CSV is the output of benchmarks/nonlocal_attention.py. Both axes are logarithmic; a row without a time, such
as a refusal, is no point. The last row of a repeated case counts.
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

Row = Mapping[str, str]
COLOURS = ("#999999", "#c9a227", "#d95f02", "#7570b3", "#1b9e77", "#66a61e")
MARKERS = ("s", "x", "D", "^", "v", "+")
OURS = "#c1121f"
LATTICES = {
    4096: "32³",
    13824: "48³",
    32768: "64³",
    110592: "96³",
    262144: "128³",
}  # voxels of the patch with so many positions


def read(path: Path, mode: str, task: str, precision: str) -> list[Row]:
    """The rows of one mode, task and precision that have a time."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    wanted = {"mode": mode, "task": task, "precision": precision, "status": "ok"}
    return [row for row in rows if all(row[name] == value for name, value in wanted.items())]


def lines(rows: Sequence[Row], column: str, scale: float) -> dict[str, list[tuple[int, float]]]:
    """Points by method, in order of N."""
    points: dict[str, dict[int, float]] = defaultdict(dict)
    for row in rows:
        if row[column]:
            points[row["method"]][int(row["positions"])] = float(row[column]) * scale
    return {method: sorted(found.items()) for method, found in points.items()}


def tick_label(n: int, sizes: Sequence[int]) -> str:
    """N and the edge of its patch; nothing for one that would touch the label of a patch."""
    if n in LATTICES:
        return f"{n:,}\n({LATTICES[n]})"
    crowded = any(other in LATTICES and 1 / 1.8 < other / n < 1.8 for other in sizes)
    return "" if crowded else f"{n:,}"


def draw(axes: Axes, found: Mapping[str, Sequence[tuple[int, float]]], label: str) -> None:
    others = [method for method in found if not method.startswith("ours")]
    for method, points in found.items():
        ours = method not in others
        dispatched = method.endswith("dispatched")
        axes.plot(
            *zip(*points, strict=True),
            label=method,
            color=OURS if ours else COLOURS[others.index(method) % len(COLOURS)],
            linestyle="-" if dispatched or not ours else ":",
            linewidth=2.4 if dispatched else 1.6,
            marker="o" if ours else MARKERS[others.index(method) % len(MARKERS)],
            markersize=5 if ours else 6,
            markerfacecolor=None if ours else "none",  # lines on top of each other both show
            zorder=3 if ours else 2,
        )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    sizes = sorted({n for points in found.values() for n, _ in points})
    names = [tick_label(n, sizes) for n in sizes]
    axes.set_xticks(sizes, names, fontsize=9, rotation=0)
    axes.minorticks_off()
    axes.set_xlabel("positions N (edge of the folded patch)")
    axes.set_ylabel(label)
    axes.grid(True, color="#dddddd", linewidth=0.6)


def figure_of(rows: Sequence[Row], title: str) -> Figure:
    devices = " / ".join(sorted({row["device"] for row in rows}))
    figure = Figure(figsize=(9, 5.2), layout="constrained")
    panels = figure.subplots(1, 2)
    draw(panels[0], lines(rows, "median_ms", 1e-3), "time, s")
    draw(panels[1], lines(rows, "peak_mb_above_inputs", 1.0), "peak memory above the inputs, MB")
    for panel in panels:
        panel.set_title(f"{rows[0]['precision']}, {devices}", fontsize=10)
    figure.suptitle(title, fontsize=11)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    return figure


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("csv", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("nonlocal_attention.png"))
    parser.add_argument("--mode", default="gaussian")
    parser.add_argument("--task", default="forward and backward")
    parser.add_argument("--precision", default="float32")
    options = parser.parse_args(arguments)
    rows = read(options.csv, options.mode, options.task, options.precision)
    if not rows:
        parser.error(f"{options.csv} has no times of {options.mode}, {options.task}, {options.precision}")
    title = f"Non-local operator, mode {options.mode}, {options.task}, C = {rows[0]['channels']}"
    figure_of(rows, title).savefig(options.output, dpi=110, metadata={"Software": None})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
