"""Box plots by method with the paired values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from mpfnl.plots.page import line_height, wrap

DPI = 150
SLOT, AXIS, PLOT = 1.05, 0.75, 2.7  # inches: widths of a method and of the value axis, height of a plot
BESIDE = 4  # largest number of methods for plots side by side
LABEL_SIZE, SMALL = 9.0, 8.0  # points

COLOURS = ("#404040", "#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Colours in order of use: a dark grey and those of Okabe and Ito, which are distinct for colour-blind
readers; without their yellow, which is faint on white."""


@dataclass(frozen=True)
class BoxPlot:
    """One metric.

    Args:
        title: Title of the value axis, with the unit.
        values: Values of each method, one per study in the same order; NaN for a missing value.
    """

    title: str
    values: Mapping[str, Sequence[float]]


def box_plots(plots: Sequence[BoxPlot], colours: Mapping[str, str], foot: str = "") -> Figure:
    """Box plots of metrics by method.

    Boxes show the quartiles and the median, whiskers the last value within 1.5 times the box, the diamond to
    the right the mean. Each value is a point; a line joins the values of one study, with a gap at missing
    values. The label of a method gives the number of its values and of missing values.

    Args:
        plots: Metrics.
        colours: Colour of each method.
        foot: Small print at the bottom.

    Raises:
        ValueError: If the methods of one plot differ in their number of studies.
    """
    methods = max(len(plot.values) for plot in plots)
    beside = methods <= BESIDE
    rows, columns = (1, len(plots)) if beside else (len(plots), 1)
    width = columns * (AXIS + max(methods, 3) * SLOT)
    labels = [{name: _label(name, values) for name, values in plot.values.items()} for plot in plots]
    lines = max(text.count("\n") + 1 for found in labels for text in found.values())
    feet = wrap(foot, width - 0.2, SMALL)
    below = len(feet) * line_height(SMALL) + (0.16 if feet else 0)
    height = rows * (PLOT + lines * line_height(LABEL_SIZE)) + below
    figure = Figure(figsize=(width, height), dpi=DPI)
    figure.set_layout_engine(ConstrainedLayoutEngine(rect=(0, below / height, 1, 1 - below / height)))
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for number, (axes, plot, texts) in enumerate(zip(grid, plots, labels, strict=True)):
        _draw(axes, plot, colours)
        _name(axes, texts)
        if len(plots) > 1:
            axes.set_title(f"({chr(ord('a') + number)})", loc="left", fontsize=LABEL_SIZE, weight="bold")
    figure.align_ylabels()
    for number, line in enumerate(feet):
        place = (below - 0.1 - number * line_height(SMALL)) / height
        figure.text(0.1 / width, place, line, fontsize=SMALL, va="top", parse_math=False)
    return figure


def _label(name: str, values: Sequence[float]) -> str:
    present = sum(map(math.isfinite, values))
    missing = len(values) - present
    lines = [*wrap(name, SLOT - 0.08, LABEL_SIZE), f"n = {present}"]
    return "\n".join([*lines, f"{missing} missing"] if missing else lines)


def _draw(axes: Axes, plot: BoxPlot, colours: Mapping[str, str]) -> None:
    if len({len(values) for values in plot.values.values()}) > 1:
        raise ValueError(f"{plot.title}: the methods differ in their number of studies")
    table = np.array(list(plot.values.values()), dtype=np.float64)
    places = np.arange(1, len(table) + 1)
    axes.plot(places, table, color="0.72", linewidth=0.6, zorder=1)
    for place, method, row in zip(places, plot.values, table, strict=True):
        colour, present = colours[method], row[np.isfinite(row)]
        if len(present):
            _draw_box(axes, float(place), present, colour)
        axes.scatter(
            np.full(len(present), place),
            present,
            s=13,
            facecolor="white",
            edgecolor=colour,
            linewidth=0.9,
            zorder=3,
        )
    axes.set_xlim(0.5, len(table) + 0.5)
    axes.set_ylabel(plot.title, fontsize=LABEL_SIZE)
    axes.tick_params(axis="y", labelsize=SMALL)
    axes.grid(axis="y", color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_box(axes: Axes, place: float, values: np.ndarray, colour: str) -> None:
    axes.boxplot(
        [values],
        positions=[place],
        widths=0.5,
        showfliers=False,
        patch_artist=True,
        boxprops={"facecolor": (colour, 0.25), "edgecolor": colour, "linewidth": 1.2},
        medianprops={"color": colour, "linewidth": 2.2},
        whiskerprops={"color": colour, "linewidth": 1.2},
        capprops={"color": colour, "linewidth": 1.2},
        zorder=2,
    )
    axes.plot(place + 0.34, values.mean(), "D", color=colour, markersize=4, zorder=3)


def _name(axes: Axes, texts: Mapping[str, str]) -> None:
    axes.set_xticks(range(1, len(texts) + 1), list(texts.values()), fontsize=LABEL_SIZE)
    for label in axes.get_xticklabels():
        label.set_parse_math(False)
